#include "kernel/kernel_list.h"

/* A few thousand rows at most: one thread, in order. */
void ISA_NAME(loss_square_forward)(double *error, double *weight, const real *p, const float *y, const float *w,
                                   int64_t count)
{
    double error_sum = 0, weight_sum = 0;
#pragma omp simd reduction(+ : error_sum, weight_sum)
    for (int64_t i = 0; i < count; i++) {
        double d = (double)p[i] - y[i];
        error_sum += w[i] * d * d;
        weight_sum += w[i];
    }
    *error = error_sum;
    *weight = weight_sum;
}

void ISA_NAME(loss_square_backward)(real *dp, double scale, const real *p, const float *y, const float *w,
                                    int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) dp[i] = (real)(2 * scale * w[i] * ((double)p[i] - y[i]));
}
