/* Reading pieces of shards: by place where a shard is not compressed, through HDF5 where it is. Inner part of io/atlas.h. */
#ifndef CYTOMILL_IO_ATLAS_SHARD_H
#define CYTOMILL_IO_ATLAS_SHARD_H

#include "io/atlas_index.h"
#include "io/shard_files.h"

struct deflated_shard; /* an open compressed shard */
enum { DEFLATED_OPEN = 32 };

struct atlas {
    struct atlas_index index;
    char *path;
    struct shard_files files; /* modality * shard_count + shard */
    struct deflated_shard *deflated[DEFLATED_OPEN];
    int deflated_next;
    int data, indices, indptr; /* pieces */
    int64_t *starts;           /* scratch */
    int64_t starts_capacity;
};

/* Rows [first, first+count) of a piece of a shard, as on disk, to `out`. ST_INPUT names the shard. Local. */
MUST_CHECK enum status shard_read(struct atlas *atlas, int modality, int64_t shard, int piece, int64_t first,
                                  int64_t count, void *out);
/* Put the shard's name in front of a message; returns `st`. Local. */
enum status shard_fail(const struct atlas *atlas, int modality, int64_t shard, enum status st);
/* Close the compressed shards that are open. Local. */
void shard_close_deflated(struct atlas *atlas);

#endif
