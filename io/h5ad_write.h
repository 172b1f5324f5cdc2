/* Write an AnnData file (.h5ad, anndata >= 0.8) from any number of ranks, with the same bytes for all.
 *
 * The file is first *laid out*: every group, attribute and dataset is created together by one rank,
 * contiguous, unfiltered, allocated, without times; var, categories, uns are filled in. From then on
 * the file opens in anndata, and nobody calls HDF5 again: the places of the datasets are known, and
 * any rank writes any rows with plain pwrite, without talking to the others.
 *
 *     struct h5ad_layout layout = {.obs = {.rows = n, …}, .var = {…}, .x = H5AD_CSR, .entries = nnz};
 *     TRY(h5ad_create(comm, "out.h5ad.partial", &layout, &file));          collective
 *     int data = h5ad_find(file, "X/data");
 *     TRY(h5ad_write(file, data, first, count, values));                   local, any rank, any rows
 *     TRY(h5ad_write_column(file, 2, first, &column));                     obs column number 2
 *     TRY(h5ad_commit(comm, &file, "out.h5ad"));                           collective: fsync, rename
 *
 * Rows nobody wrote are zeros. A killed run leaves the .partial file, which opens and can be gone on
 * with: h5ad_reopen. What is done is the caller's to remember (io/ledger.h). */
#ifndef CYTOMILL_IO_H5AD_WRITE_H
#define CYTOMILL_IO_H5AD_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "cell/feature.h"
#include "mpi/comm.h"

/* A column of obs or var that is to be written. On disk: int64, float64, h5py boolean, categorical
 * (int32 codes), fixed-length UTF-8. Borrowed pointers. */
struct h5ad_field {
    const char *name;
    enum column_type type;
    int32_t text_bytes;          /* COLUMN_TEXT: longest value in bytes, >= 1; longer ones are ST_INTERNAL */
    bool nullable;               /* COLUMN_INT, COLUMN_BOOL: may be missing (nullable-integer/-boolean) */
    const char *const *category; /* [category_count] COLUMN_CATEGORY: distinct, in order of codes */
    int32_t category_count;
};

/* obs or var. */
struct h5ad_frame {
    int64_t rows;
    int32_t index_bytes;             /* longest name of a row in bytes, >= 1 */
    const struct h5ad_field *fields; /* [field_count] */
    int field_count;
    const char *const *index;    /* [rows] names written at once, or NULL: h5ad_write_names later */
    const struct column *values; /* [field_count] written at once, or NULL: h5ad_write_column later (obs) */
};

enum h5ad_x { H5AD_NO_X, H5AD_CSR, H5AD_DENSE };

/* A float32 array of obs.rows x columns under obsm. */
struct h5ad_matrix {
    const char *name; /* "X_cellfm" */
    int64_t columns;
};

/* An entry of uns: text, or a number if text is NULL. "model/hash" makes a dict `model`. */
struct h5ad_note {
    const char *name, *text;
    double number;
};

struct h5ad_layout {
    struct h5ad_frame obs, var;     /* var must come with index and values */
    enum h5ad_x x;                  /* float32; CSR: X/data float32, X/indices int32, X/indptr see h5ad_starts_bytes */
    int64_t entries;                /* stored values of a CSR X */
    const struct h5ad_matrix *obsm; /* [obsm_count] */
    int obsm_count;
    const struct h5ad_note *uns; /* [uns_count] */
    int uns_count;
};

struct h5ad_file;

/* Bytes of an item of X/indptr: 4 where that holds all entries, because scipy before 1.11 refuses to slice a matrix
 * whose indptr is wider than its indices; else 8. Local. */
static inline int h5ad_starts_bytes(int64_t entries) { return entries <= INT32_MAX ? 4 : 8; }

/* Lay a file out and open it for writing on this rank alone. What was at `path` is lost. Local.
 * ST_OUTPUT: cannot be created, no space. */
MUST_CHECK enum status h5ad_create_local(const char *path, const struct h5ad_layout *layout, struct h5ad_file **out);
/* Go on with such a file, on this rank alone; ST_INPUT as h5ad_reopen. Local. */
MUST_CHECK enum status h5ad_reopen_local(const char *path, const struct h5ad_layout *layout, struct h5ad_file **out);
/* The same with every rank writing: rank 0 lays out, all open. Collective, agreed. */
MUST_CHECK enum status h5ad_create(struct comm *comm, const char *path, const struct h5ad_layout *layout,
                                   struct h5ad_file **out);
/* Go on with a file that h5ad_create laid out. ST_INPUT if its datasets are not those of `layout`
 * (then create it anew). Collective, agreed. */
MUST_CHECK enum status h5ad_reopen(struct comm *comm, const char *path, const struct h5ad_layout *layout,
                                   struct h5ad_file **out);

/* Number of a dataset by its path in the file ("X", "X/data", "obsm/X_cellfm", "obs/_index"), -1 if there is none. Local. */
int h5ad_find(const struct h5ad_file *file, const char *dataset);
/* Where a dataset's bytes lie in the file, and the bytes of one of its rows. Local. */
int64_t h5ad_offset(const struct h5ad_file *file, int dataset);
int64_t h5ad_row_bytes(const struct h5ad_file *file, int dataset);

/* Rows [first, first+count) of a dataset, as its type on disk lies in memory; a row of a matrix is all
 * its columns. Local; any rank, any order, no two ranks the same rows. ST_OUTPUT: disk full, I/O error. */
MUST_CHECK enum status h5ad_write(struct h5ad_file *file, int dataset, int64_t first, int64_t count, const void *rows);
/* Rows [first, first + values->count) of obs column number `field` of the layout. Codes must be those of the layout.
 * ST_OUTPUT as h5ad_write; ST_INTERNAL: a value that the field cannot hold. Local. */
MUST_CHECK enum status h5ad_write_column(struct h5ad_file *file, int field, int64_t first, const struct column *values);
/* Names of obs rows [first, first+count). Errors as h5ad_write_column. Local. */
MUST_CHECK enum status h5ad_write_names(struct h5ad_file *file, int64_t first, int64_t count, const char *const *names);
/* Read rows back (after a restart, or to check). ST_INPUT. Local. */
MUST_CHECK enum status h5ad_read(struct h5ad_file *file, int dataset, int64_t first, int64_t count, void *rows);

/* Flush to disk, close on all ranks, rename to `final` if that is not NULL. Sets *file to NULL, also on
 * failure; then the file stays under its own name. Collective, agreed. */
MUST_CHECK enum status h5ad_commit(struct comm *comm, struct h5ad_file **file, const char *final);
/* Close without a promise. NULL is fine. Local. */
void h5ad_close(struct h5ad_file **file);

/* Copy a finished HDF5 file to `to` with its larger datasets in chunks, shuffled and deflated (level 1-9).
 * Local: one rank per file. ST_OUTPUT: nothing lies at `to`. */
MUST_CHECK enum status h5ad_deflate(const char *path, const char *to, int level);
/* The same, renamed into the place of the file itself. ST_OUTPUT: the file is as it was. */
MUST_CHECK enum status h5ad_compress(const char *path, int level);
/* Are its larger datasets compressed already? Local. ST_INPUT: not an HDF5 file. */
MUST_CHECK enum status h5ad_is_compressed(const char *path, bool *compressed);

#endif
