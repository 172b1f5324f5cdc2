/* DeepNorm's residual normalisation (Wang et al., arXiv:2203.00555), one fused pass:
 *     h = lambda x + Drop(a),   y = gamma (h - mean h) / sqrt(var h + eps) + beta      per row
 * Means over the width in fp32; with `a` NULL it is a plain LayerNorm of lambda x.
 *
 * Sizes: rows R, width D. The backward pass computes h again from x and a, so only two numbers a
 * row are kept. */
#ifndef CYTOMILL_KERNEL_NORM_H
#define CYTOMILL_KERNEL_NORM_H

#include "kernel/dropout.h"
#include "kernel/dtype.h"
#include "kernel/partial.h"

struct norm_shape {
    int64_t rows, width;
    enum dtype type;
    double lambda, eps;  /* (2L)^(1/4), 1e-7 in CellFM */
    struct dropout drop; /* on `a` */
};

/* y[R,D], stat[R,2] = (mean, 1/sd) of h. x[R,D], a[R,D] or NULL, gamma[D], beta[D].
 * y may be x or a. Local. */
void norm_residual_forward(void *y, real *stat, const void *x, const void *a, const real *gamma, const real *beta,
                           const struct norm_shape *shape);
/* dx[R,D] and da[R,D] are written (da NULL if a is), dgamma[D] and dbeta[D] added to. dy may be dx or da.
 * scratch: norm_scratch_reals() reals. Sums over rows in an order that threads do not change. Local. */
void norm_residual_backward(void *dx, void *da, real *dgamma, real *dbeta, const void *dy, const real *stat,
                            const void *x, const void *a, const real *gamma, const struct norm_shape *shape,
                            real *scratch);
static inline int64_t norm_scratch_reals(int64_t rows, int64_t width) { return 2 * partial_reals(rows, width); }

#endif
