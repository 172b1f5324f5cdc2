/* Thin wrappers over HDF5 that report: every failure becomes a status whose text ends with HDF5's own
 * innermost message, and HDF5 itself prints nothing. Only io/ includes this header.
 *
 * Files are opened with the strong close degree (a leaked id cannot keep a file open) and without
 * file locks (NFS and Lustre often lack them). New objects carry no times, so that equal content is
 * equal bytes. Strings are fixed-length UTF-8: MPI-IO cannot write variable-length ones.
 *
 *     hid_t file = H5_NONE;
 *     TRY(h5_open(path, &file));
 *     TRY(h5_attr_read_int(file, "rows", &rows));
 *   done:
 *     h5_drop(&file);
 *
 * All functions here are local. Errors are ST_INPUT when reading and
 * ST_OUTPUT when writing; messages name the object inside the file, and callers put the file's name
 * in front (status_prefix). One thread at a time: the library is not thread-safe. */
#ifndef CYTOMILL_IO_H5_H
#define CYTOMILL_IO_H5_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define H5_NONE ((hid_t)-1)
/* Largest transfer in one call: independent MPI-IO transfers over 2 GiB fail. */
#define H5_SLICE_BYTES ((int64_t)1 << 30)

/* Record a failure as fail() does and append HDF5's innermost message, if it left one. */
enum status h5_fail_at(enum status st, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define h5_fail(st, ...) h5_fail_at((st), __FILE__, __LINE__, __VA_ARGS__)

/* Open a file read-only through the serial driver. ST_INPUT: missing, unreadable, not HDF5, truncated. */
MUST_CHECK enum status h5_open(const char *path, hid_t *file);
/* Open a file for changes through the serial driver. ST_OUTPUT. */
MUST_CHECK enum status h5_open_rw(const char *path, hid_t *file);
/* Open `bytes` of a file that lies in memory (copied), read-only. `name` is for messages. */
MUST_CHECK enum status h5_open_image(const void *image, size_t bytes, const char *name, hid_t *file);
/* Create a file. It is made in memory and reaches the disk in h5_close (what was there is lost), because
 * HDF5 1.10 crashes when it closes a file that a full disk did not take; h5_drop instead forgets it. Datasets
 * from h5_dataset_create take no memory until they are written, so a file of any size can be laid out. */
MUST_CHECK enum status h5_create(const char *path, hid_t *file);
/* The same with `block_bytes` (4096, 8192, …) left free in front, HDF5's user block; 0 for none. */
MUST_CHECK enum status h5_create_after(const char *path, int64_t block_bytes, hid_t *file);
/* The same straight on disk, for files too large for memory: make sure of the space before. */
MUST_CHECK enum status h5_create_on_disk(const char *path, hid_t *file);
/* Close a file; one from h5_create is written to its path now. ST_OUTPUT: disk full, cannot be created. No-op on H5_NONE. */
MUST_CHECK enum status h5_close(hid_t *file);
/* Release any id (file, group, dataset, type, space, list, attribute); no-op on H5_NONE. For done: exits. */
void h5_drop(hid_t *id);

/* Is there an object at this path below `parent` ("obs/cell_type")? Soft and external links count as absent when they dangle. */
bool h5_exists(hid_t parent, const char *path);
bool h5_attr_exists(hid_t object, const char *name);

/* Groups. */
MUST_CHECK enum status h5_group_create(hid_t parent, const char *name, hid_t *group);
MUST_CHECK enum status h5_group_open(hid_t parent, const char *path, hid_t *group);

/* Types we make; release with h5_drop. */
hid_t h5_text_type(size_t bytes); /* fixed-length UTF-8, NUL-padded; at least 1 byte */
hid_t h5_bool_type(void);         /* h5py's boolean: int8 enum {FALSE=0, TRUE=1} */

/* Attributes. Writing replaces nothing: the attribute must be new. Text is fixed-length UTF-8. */
MUST_CHECK enum status h5_attr_write_text(hid_t object, const char *name, const char *text);
MUST_CHECK enum status h5_attr_write_texts(hid_t object, const char *name, const char *const *texts, int64_t count);
MUST_CHECK enum status h5_attr_write_int(hid_t object, const char *name, int64_t value);
MUST_CHECK enum status h5_attr_write_ints(hid_t object, const char *name, const int64_t *values, int count);
MUST_CHECK enum status h5_attr_write_real(hid_t object, const char *name, double value);
/* Overwrite the real attribute that is there. */
MUST_CHECK enum status h5_attr_rewrite_real(hid_t object, const char *name, double value);
MUST_CHECK enum status h5_attr_write_bool(hid_t object, const char *name, bool value);
/* Reading takes any string or integer type, fixed or variable length; *text is freed by the caller. */
MUST_CHECK enum status h5_attr_read_text(hid_t object, const char *name, char **text);
MUST_CHECK enum status h5_attr_read_int(hid_t object, const char *name, int64_t *value);
MUST_CHECK enum status h5_attr_read_real(hid_t object, const char *name, double *value);

/* Shape of a dataset: *rank (at most 8) and dims[8]. */
MUST_CHECK enum status h5_shape(hid_t parent, const char *path, int *rank, int64_t dims[8]);

/* Create an unfiltered, contiguous dataset, allocated at once and never filled; data comes later. A
 * dataset without elements is fine. Release *dataset with h5_drop. */
MUST_CHECK enum status h5_dataset_create(hid_t parent, const char *name, hid_t type, int rank, const int64_t *dims,
                                         hid_t *dataset);
/* Byte offset of a contiguous dataset's elements in the file; -1 if it is chunked or has none. */
int64_t h5_dataset_offset(hid_t dataset);

/* Whole datasets, small enough for memory. `memory_type` is the type of `data` (H5T_NATIVE_…). */
MUST_CHECK enum status h5_write(hid_t parent, const char *name, hid_t memory_type, int rank, const int64_t *dims,
                                const void *data);
MUST_CHECK enum status h5_write_texts(hid_t parent, const char *name, const char *const *texts, int64_t count);
MUST_CHECK enum status h5_write_text(hid_t parent, const char *name, const char *text); /* scalar */
/* Read a whole dataset that must have `count` elements in all, converted to `memory_type`. */
MUST_CHECK enum status h5_read(hid_t parent, const char *path, hid_t memory_type, int64_t count, void *data);
/* Read rows [first, first+count) of a dataset of any rank, converted, in slices of at most 1 GiB. */
MUST_CHECK enum status h5_read_rows(hid_t dataset, hid_t memory_type, int64_t first, int64_t count, void *data);
MUST_CHECK enum status h5_write_rows(hid_t dataset, hid_t memory_type, int64_t first, int64_t count, const void *data);
/* Rows [first, first+count) of a 1-D string dataset, fixed or variable length. texts[count] is the
 * caller's array; each string is allocated (text_copy), cut at the first NUL. */
MUST_CHECK enum status h5_read_texts(hid_t parent, const char *path, int64_t first, int64_t count, char **texts);
/* The same for a scalar string. */
MUST_CHECK enum status h5_read_text(hid_t parent, const char *path, char **text);

#endif
