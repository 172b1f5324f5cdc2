/* File descriptors of many files, a bounded number of them open at a time. Inner part of the atlas. All local. */
#ifndef CYTOMILL_IO_SHARD_FILES_H
#define CYTOMILL_IO_SHARD_FILES_H

#include <stdint.h>

#include "base/status.h"

struct shard_files {
    int64_t count;
    int *fd;       /* [count], -1 = not open */
    int64_t *open; /* [limit] ring of open files, oldest at `oldest` */
    int64_t open_count, oldest, limit;
    int flags; /* of open(2) */
};

/* For `count` files, opened with `flags`. Takes as many descriptors as the system allows, less a reserve. ST_MEMORY. */
MUST_CHECK enum status shard_files_create(struct shard_files *files, int64_t count, int flags);
/* Descriptor of file `id`, or -1 if it is not open: then shard_files_open. */
int shard_files_get(const struct shard_files *files, int64_t id);
/* Open file `id` at `path`, closing the oldest if there are too many. ST_INPUT (read-only) or ST_OUTPUT. */
MUST_CHECK enum status shard_files_open(struct shard_files *files, int64_t id, const char *path, int *fd);
/* Close all and free. */
void shard_files_destroy(struct shard_files *files);

#endif
