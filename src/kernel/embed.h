/* Rows by index: token embedding, its gradient, and the choice of rows that somebody reads.
 *     h = feature 0: cls;   else gene[feature] + (level >= 0 ? e[level] : mask)
 * Sizes: S rows, width D, G rows of the gene table, N levels. Gradients are summed per distinct
 * index in row order by one thread each, so no atomics and the same bits for any thread count. */
#ifndef CYTOMILL_KERNEL_EMBED_H
#define CYTOMILL_KERNEL_EMBED_H

#include "base/arena.h"
#include "kernel/dtype.h"

/* Rows grouped by a key: group i holds rows order[start[i] .. start[i+1]) in rising order, all with
 * key[i]; keys rise. Rows with a key outside [0, limit) belong to no group. */
struct row_groups {
    int64_t count;  /* groups */
    int64_t *start; /* [count+1] */
    int32_t *key;   /* [count] */
    int64_t *order; /* [rows] */
    int64_t *tally; /* [limit+1] scratch */
    int64_t row_capacity, limit;
};
/* Take room for `rows` rows and keys below `limit` from the arena (measure mode allowed). Local. */
void row_groups_take(struct row_groups *groups, struct arena *arena, int64_t rows, int64_t limit);
/* Group key[rows] (counting sort); key 0 is left out if `skip_zero`. Allocates nothing. Local. */
void row_groups_build(struct row_groups *groups, const int32_t *key, int64_t rows, int skip_zero);

struct embed_shape {
    int64_t rows, width;
    enum dtype type;
    const int32_t *feature; /* [S] row of the gene table; 0 = cls */
    const int32_t *level;   /* [S] row of e, or -1: hidden */
};

/* h[S,D] from gene[G,D], e[N,D], mask[D], cls[D]. Local. */
void embed_forward(void *h, const real *gene, const void *e, const real *mask, const real *cls,
                   const struct embed_shape *shape);
/* dgene[G,D] (touched rows), dmask[D], dcls[D] are added to; de[N,D] is written for the levels that
 * occur in `by_level`. by_feature groups shape->feature without 0, by_level groups shape->level. Local. */
void embed_backward(real *dgene, void *de, real *dmask, real *dcls, const void *dh, const struct row_groups *by_feature,
                    const struct row_groups *by_level, const struct embed_shape *shape);

/* y[n,D] = table[id], converted to `type`. Local. */
void table_gather(void *y, const real *table, const int32_t *id, int64_t rows, int64_t width, enum dtype type);
/* dtable[key] += sum of dy rows of each group. Local. */
void table_add(real *dtable, const void *dy, const struct row_groups *groups, int64_t width, enum dtype type);

/* y[n,D] = x[index]. Local. */
void rows_gather(void *y, const void *x, const int64_t *index, int64_t rows, int64_t width, enum dtype type);
/* x[index] = y and every other of the `total` rows 0: the gradient of rows_gather. index rises. Local. */
void rows_scatter(void *x, const void *y, const int64_t *index, int64_t rows, int64_t total, int64_t width,
                  enum dtype type);
/* x[index] += y, each index once. Local. */
void rows_add(void *x, const void *y, const int64_t *index, int64_t rows, int64_t width, enum dtype type);

#endif
