/* Flat vectors: optimiser step, norms, sums, conversion. */
#ifndef CYTOMILL_KERNEL_VECTOR_H
#define CYTOMILL_KERNEL_VECTOR_H

#include <stdbool.h>

#include "kernel/dtype.h"

/* Adam as MindSpore has it (bias correction in the step size, eps outside the root):
 *     m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2,
 *     w -= rate sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + eps)
 * g is gradient * scale, clipped to [-clip, clip] if clip > 0, plus decay * w unless `decoupled`, in
 * which case w -= rate decay w beside the step (AdamW). */
struct adam {
    double rate, beta1, beta2, eps, decay;
    bool decoupled;
    int64_t t;    /* this step's number, from 1 */
    double scale; /* on the gradient: norm clipping and 1/ranks */
    double clip;  /* by value, after scale; 0 = off */
};
/* w, m, v [n] updated from gradient g[n]. Local. */
void adam_step(real *w, real *m, real *v, const real *g, int64_t count, const struct adam *adam);

/* Sum of squares of x[n] in double, in an order that threads do not change. Local. */
void vector_square_sum(double *out, const real *x, int64_t count);
/* y[n] += x[n]. Local. */
void vector_add(void *y, const void *x, int64_t count, enum dtype type);
/* y[n] = x[n] in another type (round to nearest even). Local. */
void vector_convert(void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t count);
/* x[n] rounded to bf16 in place, kept as float. Local. */
void vector_round_bf16(real *x, int64_t count);
/* y[c, r] = x[r, c], r < rows, c < columns, rows of x and y `x_stride` and `y_stride` elements apart. Local. */
void vector_transpose(void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t rows, int64_t columns,
                      int64_t x_stride, int64_t y_stride);

#endif
