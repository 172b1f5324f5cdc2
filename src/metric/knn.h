/* Exact nearest neighbours in Euclidean distance.
 *
 * A search keeps, for each query, the k nearest reference rows seen so far, and is fed references in
 * blocks of any size and order: the result is the same, because equal distances are ordered by the
 * reference's global number and a distance depends on its two rows alone. (mpi/neighbours.h feeds it
 * the blocks of all ranks.)
 *
 *     TRY(knn_create(queries, 15, &s));
 *     knn_add(s, x, queries, 0, reference, rows, first_row, width);
 *     knn_finish(s);     s->row[q * k + j], s->distance[q * k + j], nearest first
 *     knn_destroy(&s); */
#ifndef CYTOMILL_METRIC_KNN_H
#define CYTOMILL_METRIC_KNN_H

#include <stdint.h>

#include "base/status.h"

struct knn {
    int64_t queries;
    int k;
    int64_t *row;    /* [queries, k] global numbers of the references, -1 where there are fewer than k */
    float *distance; /* [queries, k] squared until knn_finish */
    int *found;      /* [queries] */
};

MUST_CHECK enum status knn_create(int64_t queries, int k, struct knn **out);
void knn_destroy(struct knn **knn);

/* Offer reference[rows, width], which are global rows first, first+1, …, to all queries. The query with
 * global number `self_first` + q is not its own neighbour; pass self_first < 0 when the queries are not
 * among the references. 2 * queries * rows * width flops, threaded over queries. Local. */
void knn_add(struct knn *knn, const float *query, int64_t self_first, const float *reference, int64_t rows,
             int64_t first, int width);
/* Squared distances become distances. Local. */
void knn_finish(struct knn *knn);

/* Majority label of the k neighbours; of labels with equal votes the one whose nearest member is
 * nearest. codes: label of each reference by global row. -1 if a query has no neighbour. Local. */
int32_t knn_vote(const struct knn *knn, int64_t query, const int32_t *codes);

#endif
