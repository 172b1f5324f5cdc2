/* Read ranges of a one-dimensional numeric HDF5 dataset, whatever its integer or float type and
 * filters: the data, indices and indptr of sparse matrices. Chunks are decoded by io/h5_filter.h; the
 * last one is kept, so neighbouring ranges decode nothing twice. Memory: two chunks. All local. */
#ifndef CYTOMILL_IO_H5_ARRAY_H
#define CYTOMILL_IO_H5_ARRAY_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct h5_array;

/* Open `parent`/`path`. ST_INPUT: absent, not one-dimensional, not numeric, a filter is missing, chunks
 * over 1 GiB. */
MUST_CHECK enum status h5_array_open(hid_t parent, const char *path, struct h5_array **out);
void h5_array_close(struct h5_array **array);
/* Give the chunk buffers back until the next read: for files that wait for their turn. */
void h5_array_rest(struct h5_array *array);
int64_t h5_array_count(const struct h5_array *array);
/* Stored as float or double (indices and indptr must not be). */
bool h5_array_is_real(const struct h5_array *array);

/* Elements [first, first+count). ST_INPUT: beyond the end, or a chunk that does not decode. As float: whole
 * numbers that a float cannot hold (above 2^24) are ST_INPUT, fractions are rounded, what is too large becomes
 * infinite. As indices: values outside 0 … limit-1 are ST_INPUT, with the place and what stands there. */
MUST_CHECK enum status h5_array_read_float(struct h5_array *array, int64_t first, int64_t count, float *out);
MUST_CHECK enum status h5_array_read_int64(struct h5_array *array, int64_t first, int64_t count, int64_t *out);
MUST_CHECK enum status h5_array_read_index(struct h5_array *array, int64_t first, int64_t count, int64_t limit,
                                           int32_t *out);

#endif
