/* CellFM's value encoder on distinct values. Published form, per token of value x >= 0, width b = 256:
 *     t1 = LeakyReLU(w1 x),  t2 = W3 t1 + a t1,  e = Table softmax(t2)
 * As x >= 0 and there is no bias, t1 = x w' with w' = LeakyReLU(w1), so t2 = x u with one vector
 *     u = (W3 + a I) w'
 * per model: exact in real arithmetic. A cell has 20 to 90 distinct counts, so the N rows here are
 * levels, not tokens; e = P Table^T is a product (product.h) of P = softmax(x u). */
#ifndef CYTOMILL_KERNEL_VALUE_H
#define CYTOMILL_KERNEL_VALUE_H

#include "kernel/dtype.h"
#include "kernel/partial.h"

/* u[b] from w1[b], W3[b,b] and a[1]. Local. */
void value_vector_forward(real *u, const real *w1, const real *w3, const real *a, double slope, int64_t b);
/* dw1[b], dw3[b,b], da[1] are added to. scratch: b reals. Local. */
void value_vector_backward(real *dw1, real *dw3, real *da, const real *du, const real *w1, const real *w3,
                           const real *a, double slope, int64_t b, real *scratch);

/* p[N,b] = softmax over b of x[n] u. Local. */
void value_softmax_forward(void *p, const float *x, const real *u, int64_t levels, int64_t b, enum dtype type);
/* du[b] += sum_n x_n p_n (dp_n - p_n . dp_n). scratch: value_scratch_reals(). Fixed order. Local. */
void value_softmax_backward(real *du, const void *dp, const void *p, const float *x, int64_t levels, int64_t b,
                            enum dtype type, real *scratch);
static inline int64_t value_scratch_reals(int64_t levels, int64_t b) { return partial_reals(levels, b); }

/* The published form on tokens, for tests and benchmarks: e[S,D] from x[S], Table[D,b]. Local. */
void value_encoder_plain(real *e, const float *x, const real *w1, const real *w3, const real *a, const real *table,
                         double slope, int64_t tokens, int64_t b, int64_t width);

#endif
