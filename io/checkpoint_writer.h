/* A checkpoint file on its way, shared by writing it at once (checkpoint_write.c) and beside the training
 * (checkpoint_save.c): laid out by rank 0, then each rank puts its blocks where they belong, then it is made final.
 * HDF5's own parallel driver is not used: on a full disk its collective metadata writes hang. */
#ifndef CYTOMILL_IO_CHECKPOINT_WRITER_H
#define CYTOMILL_IO_CHECKPOINT_WRITER_H

#include "io/checkpoint_file.h"
#include "mpi/file.h"

/* What goes into the file beside the tensors; the same on every rank. All borrowed. */
struct checkpoint_contents {
    const struct config *config;
    const struct vocab *vocab;
    const char *model_name;
    const struct train_state *state;
};

struct checkpoint_writer {
    const struct param_table *params; /* borrowed */
    struct checkpoint_map map;
    char *path, *partial; /* the final and the temporary name */
    int fd;               /* of `partial`, on every rank; -1 when closed */
    int64_t *place;       /* [parts * tensors] byte offsets of the datasets */
    int64_t checksum_place, file_bytes;
    uint64_t *sum; /* [block_count] checksums of this rank's blocks */
    bool *own;     /* [block_count] this rank writes it */
    int64_t keep;  /* newest checkpoints that stay */
};

/* Lay out PATH.partial and open it for blocks. On failure nothing is left of it. Collective, agreed. ST_OUTPUT. */
MUST_CHECK enum status checkpoint_writer_open(struct comm *world, struct checkpoint_writer *writer, const char *path,
                                              const struct param_table *params,
                                              const struct checkpoint_contents *contents);
/* Every rank's blocks are on disk: rename, and remove what is too old. `written`: how that went, agreed; if it failed,
 * what is there is removed. Frees the writer. Collective, agreed. ST_OUTPUT. */
MUST_CHECK enum status checkpoint_writer_commit(struct comm *world, struct checkpoint_writer *writer,
                                                enum status written);
void checkpoint_writer_free(struct checkpoint_writer *writer);

/* Values of an own block in memory; its first byte in the file. Local. */
const real *checkpoint_writer_values(const struct checkpoint_writer *writer, const struct checkpoint_block *block);
int64_t checkpoint_writer_place(const struct checkpoint_writer *writer, const struct checkpoint_block *block);
/* The next run [*first, *last) of this rank's blocks from *last on; false if there is none. Local. */
bool checkpoint_writer_next(const struct checkpoint_writer *writer, int64_t *first, int64_t *last);

/* Do ranks write one file by plain calls at places of their own, without MPI-IO? run.io posix, or auto when one host
 * holds all ranks. With auto on several hosts they may, if the hosts see the file alike (io/coherence.h). Local. */
bool checkpoint_uses_posix(const struct comm *comm, const struct config *config);
bool checkpoint_may_use_posix(const struct config *config);

#endif
