/* Read an embedding back: any .h5ad with the vectors in obsm (or in X), each rank its share of rows.
 *
 *     TRY(embedding_table_open(comm, "embeddings.h5ad", "", &t));      collective
 *     t->values[i * t->width + j]                                      row t->first + i
 *     TRY(embedding_table_column(t, "cell_type", &column));            local, all rows
 *     embedding_table_close(&t); */
#ifndef CYTOMILL_IO_EMBEDDING_READ_H
#define CYTOMILL_IO_EMBEDDING_READ_H

#include <stdbool.h>
#include <stdint.h>

#include "cell/feature.h"
#include "mpi/comm.h"

struct embedding_table {
    char *path;
    char *name;   /* "X_cellfm", or "X" */
    int64_t rows; /* cells of the file */
    int width;
    int64_t first, count; /* this rank's rows */
    float *values;        /* [count, width] fp32; rows that are not usable hold NaN or 0 */
    uint8_t *usable;      /* [rows] on all ranks: 0 where obs says embedded=False */
    int64_t usable_count;
    struct embedding_file *file; /* private */
};

/* Open and read, after the probe process has walked the file. `which` names the obsm entry ("X_cellfm");
 * "" takes the only one that is no picture (X_umap, X_tsne), or X when there is none. ST_INPUT: not an
 * .h5ad, no such entry (those there are listed), not numbers, NaN or infinity in a row that is not marked
 * embedded=False, no usable row. ST_CONFIG: several entries and none named. Collective, agreed. */
MUST_CHECK enum status embedding_table_open(struct comm *comm, const char *path, const char *which,
                                            struct embedding_table **out);
void embedding_table_close(struct embedding_table **table);

/* All rows of an obs column, which the caller frees with column_free. ST_INPUT: absent, with the nearest
 * name and the list. Local. */
MUST_CHECK enum status embedding_table_column(struct embedding_table *table, const char *name, struct column *out);
bool embedding_table_has(const struct embedding_table *table, const char *name);
/* Names of rows [first, first+count). Local. */
MUST_CHECK enum status embedding_table_names(struct embedding_table *table, int64_t first, int64_t count,
                                             struct column *out);
/* Which rows an expression over obs selects: keep[rows]; "" selects all. ST_CONFIG. Local. */
MUST_CHECK enum status embedding_table_select(struct embedding_table *table, const char *expression, uint8_t *keep);
/* A text entry of uns ("model/hash"), "" if there is none; the caller frees. Local. */
char *embedding_table_note(struct embedding_table *table, const char *name);

#endif
