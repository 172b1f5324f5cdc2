#include "kernel/product.h"

void product_forward_ref(void *y, const void *x, const real *w, int64_t rows, int64_t in, int64_t out, enum dtype type)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            double sum = 0;
            for (int64_t i = 0; i < in; i++) sum += dtype_load(x, r * in + i, type) * w[o * in + i];
            dtype_store(y, r * out + o, sum, type);
        }
}

void product_backward_data_ref(void *dx, const void *dy, const real *w, int64_t rows, int64_t in, int64_t out,
                               enum dtype type, bool accumulate)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < in; i++) {
            double sum = accumulate ? dtype_load(dx, r * in + i, type) : 0;
            for (int64_t o = 0; o < out; o++) sum += dtype_load(dy, r * out + o, type) * w[o * in + i];
            dtype_store(dx, r * in + i, sum, type);
        }
}

void product_backward_weight_ref(real *dw, const void *dy, const void *x, int64_t rows, int64_t in, int64_t out,
                                 enum dtype type)
{
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t r = 0; r < rows; r++)
                sum += dtype_load(dy, r * out + o, type) * dtype_load(x, r * in + i, type);
            dw[o * in + i] += (real)sum;
        }
}
