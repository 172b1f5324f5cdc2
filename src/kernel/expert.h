/* Mixture of experts (Shazeer et al., arXiv:1701.06538), what lies around the experts' products: a router gives each
 * row K of E experts and a weight for each, rows travel to their experts and the results come back as
 *     y[r] = sum over k of weight[r,k] result[r,k]
 * A row's place with the k-th expert of its choice is a slot, number r K + k. Nothing is dropped: experts take as many
 * rows as are sent to them. Every sum has a fixed order, so no result depends on threads or on who holds an expert. */
#ifndef CYTOMILL_KERNEL_EXPERT_H
#define CYTOMILL_KERNEL_EXPERT_H

#include "kernel/dtype.h"

enum { EXPERT_MAX = 512 }; /* the range of model.experts (base/config_keys.h) keeps to it */

enum route_rule {
    ROUTE_SOFTMAX_TOPK, /* weights: the chosen entries of the softmax over all experts; they do not sum to 1 */
    ROUTE_TOPK_SOFTMAX, /* weights: the softmax over the chosen logits */
};

struct route_shape {
    int64_t rows;
    int experts, chosen; /* E, K */
    enum route_rule rule;
};

/* From logits[R,E]: probability[R,E] = softmax; choice[R,K] = the experts of largest probability + bias, largest first,
 * the lower of equals first; weight[R,K] as the rule says. bias[E] (NULL: 0) moves the choice, never the weights. Of
 * NaN logits some valid choice is made. Local. */
void route_forward(real *weight, int32_t *choice, real *probability, const real *logits, const real *bias,
                   const struct route_shape *shape);
/* dlogits[R,E] (written) from dweight[R,K] and from `balance`[E] (NULL: none), which is added to the gradient of every
 * row's probabilities. The choice has no gradient. Local. */
void route_backward(real *dlogits, const real *dweight, const real *balance, const int32_t *choice, const real *weight,
                    const real *probability, const struct route_shape *shape);

/* Slots in the order of their experts, within an expert in rising order: places. */
struct expert_order {
    int64_t *first; /* [E+1] expert e has places first[e] to first[e+1] */
    int64_t *row;   /* [R K] the row at a place */
    int64_t *place; /* [R K] the place of a slot */
};
/* Fill the order of choice[R,K] (counting sort). Local. */
void expert_sort(const struct expert_order *order, const int32_t *choice, int64_t rows, int chosen, int experts);

/* Which groups of cells an expert works for. */
struct expert_count {
    int64_t *slots;       /* [E, groups] added to */
    int groups, cells;    /* groups; B cells, which own all rows: */
    const int64_t *first; /* [B+1] cell b has rows first[b] to first[b+1] */
    const int32_t *group; /* [B] 0 to groups - 1 */
};
/* Add the slots of choice[R,K] by expert and by the group of the row's cell. Local. */
void expert_count(const struct expert_count *count, const int32_t *choice, int chosen);

struct expert_shape {
    int64_t rows, width; /* R, D */
    int chosen;          /* K */
    enum dtype type;
};

/* y[R,D] = base[R,D] (NULL: 0) + sum over k of weight[r,k] e[place[r,k]], k rising, added in `real` and rounded once.
 * weight NULL: 1, which makes it the gradient of gathering rows by place. base may be y. Local. */
void expert_combine(void *y, const void *e, const void *base, const real *weight, const int64_t *place,
                    const struct expert_shape *shape);
/* de[place[r,k]] = weight[r,k] dy[r] and dweight[r,k] = dy[r] . e[place[r,k]]. Local. */
void expert_combine_backward(void *de, real *dweight, const void *dy, const void *e, const real *weight,
                             const int64_t *place, const struct expert_shape *shape);

#endif
