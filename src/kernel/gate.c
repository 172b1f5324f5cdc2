#include "kernel/kernel_list.h"
#include "kernel/lane.h"

INLINE void product_rows(void *restrict y, const void *restrict u, const void *restrict v, const struct gate_shape *s,
                         enum dtype type)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < s->rows; r++) {
#pragma omp simd
        for (int64_t i = 0; i < s->width; i++)
            lane_store(y, r * s->width + i,
                       lane_load(u, r * s->stride + i, type) * lane_load(v, r * s->stride + i, type), type);
    }
}

void ISA_NAME(gate_product_forward)(void *y, const void *u, const void *v, const struct gate_shape *shape)
{
    if (shape->type == DTYPE_BF16) product_rows(y, u, v, shape, DTYPE_BF16);
    else product_rows(y, u, v, shape, DTYPE_F32);
}

INLINE void product_rows_backward(void *du, void *dv, const void *restrict dy, const void *u, const void *v,
                                  const struct gate_shape *s, enum dtype type)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < s->rows; r++) {
#pragma omp simd
        for (int64_t i = 0; i < s->width; i++) {
            int64_t at = r * s->stride + i;
            float d = lane_load(dy, r * s->width + i, type), left = lane_load(u, at, type),
                  right = lane_load(v, at, type);
            lane_store(du, at, d * right, type);
            lane_store(dv, at, d * left, type);
        }
    }
}

void ISA_NAME(gate_product_backward)(void *du, void *dv, const void *dy, const void *u, const void *v,
                                     const struct gate_shape *shape)
{
    if (shape->type == DTYPE_BF16) product_rows_backward(du, dv, dy, u, v, shape, DTYPE_BF16);
    else product_rows_backward(du, dv, dy, u, v, shape, DTYPE_F32);
}
