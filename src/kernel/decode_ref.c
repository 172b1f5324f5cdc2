#include <math.h>

#include "kernel/kernel_list.h"

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

void decode_gene_forward_ref(real *p, const void *a, const real *w2, double slope, int64_t rows, int64_t width,
                             enum dtype type)
{
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t i = 0; i < width; i++) {
            double x = dtype_load(a, r * width + i, type);
            sum += w2[i] * (x > 0 ? x : slope * x);
        }
        p[r] = (real)sum;
    }
}

void decode_gene_backward_ref(void *da, real *dw2, const real *dp, const void *a, const real *w2, double slope,
                              int64_t rows, int64_t width, enum dtype type, real *scratch)
{
    for (int64_t i = 0; i < width; i++) {
        double sum = 0;
        for (int64_t r = 0; r < rows; r++) {
            double x = dtype_load(a, r * width + i, type), factor = x > 0 ? 1 : slope;
            sum += dp[r] * factor * x;
            dtype_store(da, r * width + i, dp[r] * w2[i] * factor, type);
        }
        dw2[i] += (real)sum;
    }
}

void decode_cell_forward_ref(real *p, const void *m, const void *z, const int64_t *offsets, int cells, int64_t width,
                             enum dtype type)
{
    for (int cell = 0; cell < cells; cell++)
        for (int64_t r = offsets[cell]; r < offsets[cell + 1]; r++) {
            double sum = 0;
            for (int64_t i = 0; i < width; i++)
                sum += sigmoid(dtype_load(m, r * width + i, type)) * dtype_load(z, cell * width + i, type);
            p[r] = (real)sum;
        }
}

void decode_cell_backward_ref(void *dm, void *dz, const real *dp, const void *m, const void *z, const int64_t *offsets,
                              int cells, int64_t width, enum dtype type)
{
    for (int cell = 0; cell < cells; cell++)
        for (int64_t i = 0; i < width; i++) {
            double sum = 0, z_i = dtype_load(z, cell * width + i, type);
            for (int64_t r = offsets[cell]; r < offsets[cell + 1]; r++) {
                double s = sigmoid(dtype_load(m, r * width + i, type));
                sum += dp[r] * s;
                dtype_store(dm, r * width + i, dp[r] * z_i * s * (1 - s), type);
            }
            dtype_store(dz, cell * width + i, sum, type);
        }
}
