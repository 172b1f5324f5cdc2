/* Maps of embedding files, with the cell types their counts suggest. */
#ifndef CYTOMILL_JOBS_ANALYZE_MAP_H
#define CYTOMILL_JOBS_ANALYZE_MAP_H

#include "jobs/analyze.h"
#include "metric/celltype.h"
#include "mpi/cell_map.h"

/* Say how many cells will be shown. Local in effect. */
void analyze_print_map_cost(const struct job *job, const struct embedding_table *table);
/* Collective, agreed. */
MUST_CHECK enum status analyze_make_map(struct job *job, const struct embedding_table *table, struct cell_map *out);

/* Types of the cells of a map, called from the counts (metric/celltype.h): type[map->n], -1 = unassigned,
 * on all ranks; the caller frees. `table` are the markers. Collective, agreed. */
MUST_CHECK enum status analyze_call_types(struct job *job, const struct cell_map *map, struct cell_input *input,
                                          const struct marker_table *table, int32_t **type);
/* The marker table of analyze.markers, or the one that ships with the project. Local. */
MUST_CHECK enum status analyze_read_markers(const struct job *job, struct marker_table *out);

#endif
