#include <math.h>

#include "kernel/kernel_list.h"

static double limited(double x, double limit) { return fmin(fmax(x, -limit), limit); }

void adam_step_ref(real *w, real *m, real *v, const real *g, int64_t count, const struct adam *adam)
{
    double t = (double)adam->t;
    double rate = adam->rate * sqrt(1 - pow(adam->beta2, t)) / (1 - pow(adam->beta1, t));
    for (int64_t i = 0; i < count; i++) {
        double d = g[i] * adam->scale, weight = w[i];
        if (adam->clip > 0) d = limited(d, adam->clip);
        if (!adam->decoupled) d += adam->decay * weight;
        m[i] = (real)(adam->beta1 * m[i] + (1 - adam->beta1) * d);
        v[i] = (real)(adam->beta2 * v[i] + (1 - adam->beta2) * d * d);
        if (adam->decoupled) weight -= adam->rate * adam->decay * weight;
        w[i] = (real)(weight - rate * m[i] / (sqrt(v[i]) + adam->eps));
    }
}

void vector_square_sum_ref(double *out, const real *x, int64_t count)
{
    *out = 0;
    for (int64_t i = 0; i < count; i++) *out += (double)x[i] * x[i];
}

void vector_add_ref(void *y, const void *x, int64_t count, enum dtype type)
{
    for (int64_t i = 0; i < count; i++) dtype_store(y, i, dtype_load(y, i, type) + dtype_load(x, i, type), type);
}

void vector_convert_ref(void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t count)
{
    for (int64_t i = 0; i < count; i++) dtype_store(y, i, dtype_load(x, i, x_type), y_type);
}

void vector_round_bf16_ref(real *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) x[i] = (real)bf16_to_float(bf16_from_float((float)x[i]));
}

void vector_transpose_ref(void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t rows, int64_t columns,
                          int64_t x_stride, int64_t y_stride)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            dtype_store(y, c * y_stride + r, dtype_load(x, r * x_stride + c, x_type), y_type);
}
