#include "kernel/kernel_list.h"

void gate_product_forward_ref(void *y, const void *u, const void *v, const struct gate_shape *s)
{
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t i = 0; i < s->width; i++) {
            int64_t at = r * s->stride + i;
            dtype_store(y, r * s->width + i, dtype_load(u, at, s->type) * dtype_load(v, at, s->type), s->type);
        }
}

void gate_product_backward_ref(void *du, void *dv, const void *dy, const void *u, const void *v,
                               const struct gate_shape *s)
{
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t i = 0; i < s->width; i++) {
            int64_t at = r * s->stride + i;
            double d = dtype_load(dy, r * s->width + i, s->type);
            double left = dtype_load(u, at, s->type), right = dtype_load(v, at, s->type);
            dtype_store(du, at, d * right, s->type);
            dtype_store(dv, at, d * left, s->type);
        }
}

void leaky_forward_ref(void *y, const void *x, double slope, int64_t count, enum dtype type)
{
    for (int64_t i = 0; i < count; i++) {
        double value = dtype_load(x, i, type);
        dtype_store(y, i, value > 0 ? value : slope * value, type);
    }
}

void leaky_backward_ref(void *dx, const void *dy, const void *x, double slope, int64_t count, enum dtype type)
{
    for (int64_t i = 0; i < count; i++)
        dtype_store(dx, i, dtype_load(dy, i, type) * (dtype_load(x, i, type) > 0 ? 1 : slope), type);
}
