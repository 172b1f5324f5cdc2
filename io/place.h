/* Bytes at places of a file, by plain POSIX calls: any rank writes any bytes without talking to the
 * others, which HDF5 and MPI-IO do not offer for large or uneven parts.
 *
 * Lay a file out with h5_create and h5_dataset_create, note h5_dataset_offset of each dataset, close it,
 * and let every rank open it (O_RDWR) and write its part. Local functions. */
#ifndef CYTOMILL_IO_PLACE_H
#define CYTOMILL_IO_PLACE_H

#include <stdint.h>

#include "base/status.h"

/* Write or read `bytes` at `offset`, whole or not at all from the caller's view; `path` is for messages.
 * ST_OUTPUT: disk full, I/O error. ST_INPUT: the file ends before, I/O error. */
MUST_CHECK enum status place_write(int fd, const char *path, int64_t offset, const void *data, int64_t bytes);
MUST_CHECK enum status place_read(int fd, const char *path, int64_t offset, void *data, int64_t bytes);
/* Write through two descriptors of one file: `direct`, opened with O_DIRECT or -1, takes whole pages past the page cache,
 * which costs next to no processor time; `fd` the rest. `data` lies within a page of memory as `offset` does within
 * PLACE_PAGE. For threads beside the main one: the error comes back as its number (0: none). */
enum { PLACE_PAGE = 4096 };
MUST_CHECK int place_put(int fd, int direct, int64_t offset, const void *data, int64_t bytes);
/* A new file of `bytes` zeros, its blocks reserved; what was there is lost. ST_OUTPUT. */
MUST_CHECK enum status place_create(const char *path, int64_t bytes);
/* Reserve the blocks of a file of `bytes` now, so that a full disk is found here and not after hours. Where
 * the file system cannot, nothing happens. ST_OUTPUT: no room; place_try_reserve: its error number, for other threads. */
MUST_CHECK enum status place_reserve(int fd, const char *path, int64_t bytes);
MUST_CHECK int place_try_reserve(int fd, int64_t bytes);
/* May this process write a file of `bytes` (ulimit -f)? To be asked before HDF5 lays out a large file: it
 * does not survive a failed write of its own. ST_OUTPUT. */
MUST_CHECK enum status place_check_limit(const char *path, int64_t bytes);

#endif
