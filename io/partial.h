/* An output under construction: NAME.partial, laid out once and filled in by numbered chunks, its
 * ledger beside it, and the rename to NAME when every chunk is done. Several ranks and several jobs may fill it at
 * the same time; a killed job leaves it to be gone on with.
 *
 *     TRY(partial_find_final(comm, "e.h5ad", key, "this embedding", fresh, read_key, &complete));
 *     TRY(partial_open(comm, "e.h5ad", chunks, key, lay_out, context, &p));
 *     TRY(partial_verify(comm, &p, matches, context));           what an earlier run called done
 *     TRY(partial_queue(comm, &p, &queue));
 *     while (queue_next(queue, &chunk)) { … write …; TRY(partial_mark(&p, chunk, hash)); }
 *     TRY(partial_commit(comm, &p)); */
#ifndef CYTOMILL_IO_PARTIAL_H
#define CYTOMILL_IO_PARTIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "io/ledger.h"
#include "mpi/comm.h"
#include "mpi/queue.h"

/* Zero-initialise; partial_close at the end. */
struct partial {
    char *path, *work, *ledger_path; /* NAME, NAME.partial, NAME.partial.ledger */
    int64_t chunks;
    struct ledger *ledger;
    int fd;          /* of NAME.partial, for reading and writing */
    double synced_s; /* when it last reached the disk */
};

/* Create the file at `temporary` in its final size, with all that does not come in chunks. Local. */
typedef enum status (*partial_lay_out)(const char *temporary, void *context);
/* Do the bytes of a chunk have the hash in the ledger? Local. */
typedef enum status (*partial_matches)(void *context, int64_t chunk, uint64_t hash, bool *matches);

/* The key that a finished file holds, which the caller frees. Local. */
typedef enum status (*partial_read_key)(const char *path, char **key);

/* Is NAME there already, finished, with this key? `what` says in the error what it should be: "this model's embedding
 * of this input". Collective, agreed. ST_OUTPUT: NAME is something else; with `fresh`, NAME or NAME.partial is there. */
MUST_CHECK enum status partial_find_final(struct comm *comm, const char *path, const char key[SHA256_HEX],
                                          const char *what, bool fresh, partial_read_key read_key, bool *complete);

/* Lay out or go on. `key` names all that the content depends on. Collective, agreed. ST_OUTPUT:
 * unfinished work of another key lies there; not writable; no space. */
MUST_CHECK enum status partial_open(struct comm *comm, const char *path, int64_t chunks, const char key[SHA256_HEX],
                                    partial_lay_out lay_out, void *context, struct partial *out);
/* The finished file NAME, to read from it as from one under construction: fd and work are those of NAME, there is no
 * ledger. Local. ST_INPUT: it cannot be opened. */
MUST_CHECK enum status partial_open_final(const char *path, struct partial *out);
void partial_close(struct partial *partial);

/* Read back the chunks done before and take back the marks of those that do not match. Ranks share
 * the work. Collective, agreed. */
MUST_CHECK enum status partial_verify(struct comm *comm, struct partial *partial, partial_matches matches,
                                      void *context);

/* A queue of the chunks that are not done, this job's share of its Slurm array first. Says how many
 * are done already. Collective, agreed. */
MUST_CHECK enum status partial_queue(struct comm *comm, struct partial *partial, struct queue **out);
/* Has another job done it meanwhile? Local. */
MUST_CHECK enum status partial_look(struct partial *partial, int64_t chunk, bool *done);
/* Chunks done so far by all ranks and jobs. Local. */
MUST_CHECK enum status partial_progress(struct partial *partial, int64_t *done);
/* Its bytes are written: mark the chunk done. All reaches the disk every five seconds at most. Local. */
MUST_CHECK enum status partial_mark(struct partial *partial, int64_t chunk, uint64_t hash);

/* After the queue is closed: everything to disk on every rank, then opened anew, so that each rank
 * sees what the others wrote on a network file system too. ST_REQUEUE if chunks are left (the queue was stopped).
 * Collective, agreed. */
MUST_CHECK enum status partial_settle(struct comm *comm, struct partial *partial);

/* Every chunk must be done: flush, rename to NAME, remove the ledger. Collective, agreed. */
MUST_CHECK enum status partial_commit(struct comm *comm, struct partial *partial);
/* Remove the file and its ledger: it was scratch. Collective, agreed. */
MUST_CHECK enum status partial_discard(struct comm *comm, struct partial *partial);

#endif
