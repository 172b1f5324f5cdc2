#include <math.h>

#include "kernel/kernel_list.h"

/* What `a` is multiplied by at channel i of a row: dropout, or 1. */
static double keep(const struct norm_shape *s, int64_t row, int64_t i)
{
    if (!dropout_is_on(&s->drop)) return 1;
    return dropout_factor_ref(&s->drop, row, i, s->width);
}

static double residual(const void *x, const void *a, const struct norm_shape *s, int64_t row, int64_t i)
{
    int64_t at = row * s->width + i;
    double h = s->lambda * dtype_load(x, at, s->type);
    return a ? h + keep(s, row, i) * dtype_load(a, at, s->type) : h;
}

static void row_forward(void *y, real *stat, const void *x, const void *a, const real *gamma, const real *beta,
                        const struct norm_shape *s, int64_t row)
{
    int64_t width = s->width;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < width; i++) mean += residual(x, a, s, row, i) / (double)width;
    for (int64_t i = 0; i < width; i++) {
        double d = residual(x, a, s, row, i) - mean;
        variance += d * d / (double)width;
    }
    double inverse_sd = 1 / sqrt(variance + s->eps);
    stat[2 * row] = (real)mean;
    stat[2 * row + 1] = (real)inverse_sd;
    for (int64_t i = 0; i < width; i++) {
        double normal = (residual(x, a, s, row, i) - mean) * inverse_sd;
        dtype_store(y, row * width + i, gamma[i] * normal + beta[i], s->type);
    }
}

void norm_residual_forward_ref(void *y, real *stat, const void *x, const void *a, const real *gamma, const real *beta,
                               const struct norm_shape *shape)
{
    for (int64_t row = 0; row < shape->rows; row++) row_forward(y, stat, x, a, gamma, beta, shape, row);
}

static void row_backward(void *dx, void *da, real *dgamma, real *dbeta, const void *dy, const real *stat, const void *x,
                         const void *a, const real *gamma, const struct norm_shape *s, int64_t row)
{
    int64_t width = s->width;
    double mean = stat[2 * row], inverse_sd = stat[2 * row + 1], g_mean = 0, gn_mean = 0;
    for (int64_t i = 0; i < width; i++) {
        double normal = (residual(x, a, s, row, i) - mean) * inverse_sd, d = dtype_load(dy, row * width + i, s->type);
        dgamma[i] += (real)(d * normal);
        dbeta[i] += (real)d;
        g_mean += d * gamma[i] / (double)width;
        gn_mean += d * gamma[i] * normal / (double)width;
    }
    for (int64_t i = 0; i < width; i++) {
        double normal = (residual(x, a, s, row, i) - mean) * inverse_sd, d = dtype_load(dy, row * width + i, s->type);
        double dh = inverse_sd * (d * gamma[i] - g_mean - normal * gn_mean);
        dtype_store(dx, row * width + i, s->lambda * dh, s->type);
        if (a) dtype_store(da, row * width + i, keep(s, row, i) * dh, s->type);
    }
}

void norm_residual_backward_ref(void *dx, void *da, real *dgamma, real *dbeta, const void *dy, const real *stat,
                                const void *x, const void *a, const real *gamma, const struct norm_shape *shape,
                                real *scratch)
{
    for (int64_t row = 0; row < shape->rows; row++)
        row_backward(dx, da, dgamma, dbeta, dy, stat, x, a, gamma, shape, row);
}
