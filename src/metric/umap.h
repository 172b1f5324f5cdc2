/* Two-dimensional maps of a neighbour graph (UMAP: McInnes, Healy, Melville, arXiv:1802.03426) and its
 * communities (Leiden: Traag, Waltman, van Eck, Sci Rep 9:5233, 2019), both by igraph.
 *
 * Both run on one thread from a fixed seed: the same graph gives the same bytes. A map is a picture:
 * distances between far groups and sizes of groups in it mean little. */
#ifndef CYTOMILL_METRIC_UMAP_H
#define CYTOMILL_METRIC_UMAP_H

#include <stdint.h>

#include "base/status.h"

/* k nearest neighbours of n points, self left out: row[n, k], distance[n, k]. Borrowed. */
struct neighbour_graph {
    int64_t n;
    int k;
    const int64_t *row;
    const float *distance;
};

/* Layout of the graph into xy[n, 2]. `start`[n, 2] are first positions (the two leading principal
 * components); they are scaled to a spread of 10. Local. ST_MEMORY, ST_NUMERIC from igraph. */
MUST_CHECK enum status umap_layout(const struct neighbour_graph *graph, const double *start, uint64_t seed, double *xy);

/* Leiden communities of the symmetric graph by modularity at `resolution`: cluster[n] numbered from 0
 * by decreasing size, ties by first member; *clusters their number. Local. */
MUST_CHECK enum status umap_communities(const struct neighbour_graph *graph, double resolution, uint64_t seed,
                                        int32_t *cluster, int32_t *clusters);

#endif
