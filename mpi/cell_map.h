/* A map of cells: up to `most` of them, their nearest neighbours, a UMAP layout and Leiden communities.
 *
 * Neighbours are found by all ranks; the layout, which is sequential, is made by rank 0 and given to all.
 * The same bytes for any number of ranks. */
#ifndef CYTOMILL_MPI_CELL_MAP_H
#define CYTOMILL_MPI_CELL_MAP_H

#include <stdint.h>

#include "mpi/neighbours.h"

struct cell_map {
    int64_t n;
    int64_t *row;     /* [n] which rows are shown, ascending */
    double *xy;       /* [n, 2] */
    int32_t *cluster; /* [n] 0 = the largest */
    int32_t clusters;
};

struct cell_map_options {
    int64_t most; /* with more usable rows, this many are drawn by the seed */
    int k;
    double resolution; /* of the communities */
    uint64_t seed;
};

/* `all` rows are spread over ranks in `rows`; usable[all] is the same on every rank, as is *out. ST_INPUT: fewer than 3 usable rows.
 * Rank 0 holds the shown rows. Collective, agreed. */
MUST_CHECK enum status cell_map_make(struct comm *comm, const struct spread_rows *rows, int64_t all,
                                     const uint8_t *usable, const struct cell_map_options *options,
                                     struct cell_map *out);
void cell_map_free(struct cell_map *map);

#endif
