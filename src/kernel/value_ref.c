#include <math.h>
#include <stdlib.h>

#include "kernel/kernel_list.h"

static double leaky(double x, double slope) { return x > 0 ? x : slope * x; }

void value_vector_forward(real *u, const real *w1, const real *w3, const real *a, double slope, int64_t b)
{
    for (int64_t i = 0; i < b; i++) {
        double sum = a[0] * leaky(w1[i], slope);
        for (int64_t j = 0; j < b; j++) sum += w3[i * b + j] * leaky(w1[j], slope);
        u[i] = (real)sum;
    }
}

void value_vector_backward(real *dw1, real *dw3, real *da, const real *du, const real *w1, const real *w3,
                           const real *a, double slope, int64_t b, real *scratch)
{
    real *dw = scratch; /* gradient of w' */
    double da_sum = 0;
    for (int64_t j = 0; j < b; j++) {
        dw[j] = a[0] * du[j];
        da_sum += du[j] * leaky(w1[j], slope);
    }
    for (int64_t i = 0; i < b; i++)
        for (int64_t j = 0; j < b; j++) {
            dw3[i * b + j] += (real)(du[i] * leaky(w1[j], slope));
            dw[j] += w3[i * b + j] * du[i];
        }
    for (int64_t j = 0; j < b; j++) dw1[j] += (real)(dw[j] * (w1[j] > 0 ? 1 : slope));
    da[0] += (real)da_sum;
}

void value_softmax_forward_ref(void *p, const float *x, const real *u, int64_t levels, int64_t b, enum dtype type)
{
    for (int64_t n = 0; n < levels; n++) {
        double largest = -INFINITY, sum = 0;
        for (int64_t j = 0; j < b; j++) largest = fmax(largest, (double)x[n] * u[j]);
        for (int64_t j = 0; j < b; j++) sum += exp((double)x[n] * u[j] - largest);
        for (int64_t j = 0; j < b; j++) dtype_store(p, n * b + j, exp((double)x[n] * u[j] - largest) / sum, type);
    }
}

void value_softmax_backward_ref(real *du, const void *dp, const void *p, const float *x, int64_t levels, int64_t b,
                                enum dtype type, real *scratch)
{
    for (int64_t n = 0; n < levels; n++) {
        double dot = 0;
        for (int64_t j = 0; j < b; j++) dot += dtype_load(p, n * b + j, type) * dtype_load(dp, n * b + j, type);
        for (int64_t j = 0; j < b; j++)
            du[j] += (real)(x[n] * dtype_load(p, n * b + j, type) * (dtype_load(dp, n * b + j, type) - dot));
    }
}

static void plain_token(real *e, double x, const real *w1, const real *w3, const real *a, const real *table,
                        double slope, int64_t b, int64_t width, double *t1, double *t2)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < b; j++) t1[j] = leaky(w1[j] * x, slope);
    for (int64_t i = 0; i < b; i++) {
        t2[i] = a[0] * t1[i];
        for (int64_t j = 0; j < b; j++) t2[i] += w3[i * b + j] * t1[j];
        largest = fmax(largest, t2[i]);
    }
    for (int64_t i = 0; i < b; i++) sum += t2[i] = exp(t2[i] - largest);
    for (int64_t d = 0; d < width; d++) {
        double value = 0;
        for (int64_t i = 0; i < b; i++) value += table[d * b + i] * t2[i] / sum;
        e[d] = (real)value;
    }
}

void value_encoder_plain(real *e, const float *x, const real *w1, const real *w3, const real *a, const real *table,
                         double slope, int64_t tokens, int64_t b, int64_t width)
{
    double *t = malloc(2 * (size_t)b * sizeof *t);
    if (!t) abort();
    for (int64_t s = 0; s < tokens; s++) plain_token(e + s * width, x[s], w1, w3, a, table, slope, b, width, t, t + b);
    free(t);
}
