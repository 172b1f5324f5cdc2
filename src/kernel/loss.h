/* Masked squared error as (numerator, denominator), so that micro-batches and ranks add up to the
 * loss of one big batch. Sums in double, in row order. */
#ifndef CYTOMILL_KERNEL_LOSS_H
#define CYTOMILL_KERNEL_LOSS_H

#include "kernel/dtype.h"

/* *error = sum w (p - y)^2 and *weight = sum w over [n]. Local. */
void loss_square_forward(double *error, double *weight, const real *p, const float *y, const float *w, int64_t count);
/* dp[n] = 2 scale w (p - y). Local. */
void loss_square_backward(real *dp, double scale, const real *p, const float *y, const float *w, int64_t count);

#endif
