/* Cell types from a short list of marker genes.
 *
 * The score of a type in a cell is the mean of ln(1 + 10^4 x / T) over the type's markers (genes the data
 * lacks are left out), divided by its mean over the highest-scoring cells (the top 0.4 %, at least ten)
 * or by 1 where that mean is lower, so that a type nobody is of does not fill up with noise. A cell is of
 * the type with the highest score if that is at least CELLTYPE_LEAST and leads the next by at least
 * CELLTYPE_LEAD; else it is unassigned. This names clear cells; it is no substitute for an expert.
 *
 * The table is TSV with the header `type gene citation`, lines with # are remarks. */
#ifndef CYTOMILL_METRIC_CELLTYPE_H
#define CYTOMILL_METRIC_CELLTYPE_H

#include <stdint.h>

#include "cell/cells.h"
#include "cell/feature.h"

#define CELLTYPE_LEAST 0.2
#define CELLTYPE_LEAD  0.05

struct marker {
    int type;
    char *gene; /* owned by the table */
};

struct marker_table {
    int type_count;
    char **type; /* [type_count] in order of first appearance */
    int64_t count;
    struct marker *rows; /* [count] */
};

/* ST_INPUT names the line. Local. */
MUST_CHECK enum status marker_table_read(const char *path, struct marker_table *out);
void marker_table_free(struct marker_table *table);

/* Markers as features of one modality: by approved symbol, else by original name or Ensembl id. */
struct marker_map {
    int type_count;
    uint64_t *types; /* [features] bit t: a marker of type t (at most 64 types) */
    int *found;      /* [type_count] markers that the features have */
    int64_t features;
};

/* ST_INPUT if no type has a marker among the features. Local. */
MUST_CHECK enum status marker_map_create(const struct marker_table *table, const struct feature_table *features,
                                         struct marker_map *out);
void marker_map_free(struct marker_map *map);

/* score[cells->count, types]: mean log expression of each type's markers, not yet scaled. Local. */
void celltype_score(const struct marker_map *map, const struct cells *cells, float *score);
/* Scale score[n, types] in place (all cells of the data together) and call: type[n], -1 = unassigned. Local. */
MUST_CHECK enum status celltype_call(int types, int64_t n, float *score, int32_t *type);

#endif
