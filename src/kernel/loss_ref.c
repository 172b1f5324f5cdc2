#include "kernel/kernel_list.h"

void loss_square_forward_ref(double *error, double *weight, const real *p, const float *y, const float *w,
                             int64_t count)
{
    *error = *weight = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)p[i] - y[i];
        *error += w[i] * d * d;
        *weight += w[i];
    }
}

void loss_square_backward_ref(real *dp, double scale, const real *p, const float *y, const float *w, int64_t count)
{
    for (int64_t i = 0; i < count; i++) dp[i] = (real)(2 * scale * w[i] * ((double)p[i] - y[i]));
}
