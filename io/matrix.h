/* A matrix of cells x columns in some file, read by ranges of rows. Readers of each storage fill in
 * the three functions (matrix_csr.c, matrix_dense.c, spool.c); nobody else calls them directly. */
#ifndef CYTOMILL_IO_MATRIX_H
#define CYTOMILL_IO_MATRIX_H

#include <hdf5.h>
#include <stdint.h>

#include "cell/cells.h"

struct matrix {
    int64_t rows, columns, entries; /* entries = stored, zeros included; rows*columns if dense */
    /* starts[count+1]: stored entries before rows first … first+count. ST_INPUT: they run backwards. */
    enum status (*starts)(struct matrix *, int64_t first, int64_t count, int64_t *starts);
    /* Rows as they lie there: start, feature (= column, in any order) and value (zeros included). */
    enum status (*read)(struct matrix *, int64_t first, int64_t count, struct cells *out);
    void (*rest)(struct matrix *); /* give buffers back until the next read */
    void (*destroy)(struct matrix *);
};

/* CSR arrays named data, indices, indptr in `group`, one row per cell. ST_INPUT: one is missing, lengths
 * that do not fit. Local. */
MUST_CHECK enum status matrix_open_csr(hid_t group, int64_t rows, int64_t columns, struct matrix **out);
/* A two-dimensional dataset of numbers. Local. */
MUST_CHECK enum status matrix_open_dense(hid_t parent, const char *path, struct matrix **out);
void matrix_close(struct matrix **matrix);

/* Rows with columns ascending; a column that stands twice in a row is ST_INPUT. ids = row. Local. */
MUST_CHECK enum status matrix_read(struct matrix *matrix, int64_t first, int64_t count, struct cells *out);

/* The most rows from `first` on, below `end`, that hold at most `entries` stored entries; at least one
 * (if first < end). Local. */
MUST_CHECK enum status matrix_block(struct matrix *matrix, int64_t first, int64_t end, int64_t entries, int64_t *count);
/* The first row that starts at or after stored entry `entry` (rows if none). Local; O(log rows) reads. */
MUST_CHECK enum status matrix_row_at(struct matrix *matrix, int64_t entry, int64_t *row);

#endif
