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
