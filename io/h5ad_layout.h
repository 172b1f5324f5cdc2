/* The datasets of an AnnData file as a table of pieces: what they are called, their type and shape, and,
 * once the file is laid out, where their bytes lie. Inner part of io/h5ad_write.h. */
#ifndef CYTOMILL_IO_H5AD_LAYOUT_H
#define CYTOMILL_IO_H5AD_LAYOUT_H

#include "io/h5ad_write.h"

enum item_type { ITEM_F32, ITEM_I32, ITEM_I64, ITEM_F64, ITEM_BOOL, ITEM_TEXT };

/* A dataset of rows whose data are written by place. */
struct piece {
    char *path; /* "obs/cell_type/codes" */
    enum item_type type;
    int64_t rows, columns; /* columns 0: one-dimensional */
    int64_t row_bytes;
    int64_t offset; /* in the file; -1 without elements */
    bool plain;     /* part of a sparse matrix: carries no encoding of its own */
};

struct piece_table {
    struct piece *pieces; /* [count] */
    int count, capacity;
};

/* Where a column's values lie. */
struct column_pieces {
    int values, mask; /* pieces; mask -1 unless nullable */
};

/* All pieces of a layout, in file order, with offsets unknown: obs/_index, then obs columns, var, X, obsm.
 * obs[field] and var[field] (caller's arrays of field_count) say which pieces belong to which column. Local. */
MUST_CHECK enum status pieces_of_layout(const struct h5ad_layout *layout, struct piece_table *out,
                                        struct column_pieces *obs, struct column_pieces *var);
void piece_table_free(struct piece_table *table);
int piece_find(const struct piece_table *table, const char *path);

/* Create the file with all groups, attributes, datasets, categories and uns, and fill in the offsets. ST_OUTPUT. Local. */
MUST_CHECK enum status pieces_create(const char *path, const struct h5ad_layout *layout, struct piece_table *table);
/* Find the offsets in a file that pieces_create made. ST_INPUT if the file does not match. Local. */
MUST_CHECK enum status pieces_locate(const char *path, struct piece_table *table);

/* Bytes of values in their form on disk: from a column, rows [first, first+count), to out[count * row_bytes].
 * ST_INTERNAL: a text longer than the field, a code out of range, a missing value that the field cannot hold. Local. */
MUST_CHECK enum status field_pack(const struct h5ad_field *field, const struct column *values, int64_t first,
                                  int64_t count, char *out, uint8_t *missing);
/* Bytes of a packed value of a field. Local. */
int64_t field_bytes(const struct h5ad_field *field);

#endif
