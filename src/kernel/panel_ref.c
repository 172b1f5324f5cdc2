#include "kernel/kernel_list.h"
#include "kernel/panel.h"

/* Widest panel of any instruction set. */
enum { WIDEST = 48 };

size_t panel_bytes(int64_t n, int64_t k) { return (size_t)((n + WIDEST - 1) / WIDEST * WIDEST * k) * sizeof(float); }

/* Plain versions: packed B is [k,n], packed A is [m,k]. */
void panel_pack_ref(float *packed, const float *b, int64_t n, int64_t k, bool transposed)
{
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < n; j++) packed[i * n + j] = transposed ? b[j * k + i] : b[i * n + j];
}

void panel_pack_left_ref(float *packed, const void *a, enum dtype type, int64_t stride, int64_t k_given, int64_t m,
                         int64_t k)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t r = 0; r < k; r++)
            packed[i * k + r] = r < k_given ? (float)dtype_load(a, r * stride + i, type) : 0.0f;
}

void panel_product_ref(float *c, const float *a, const float *packed, const struct panel_shape *s)
{
    for (int64_t i = 0; i < s->m; i++)
        for (int64_t j = 0; j < s->n; j++) {
            double sum = s->accumulate ? (double)c[i * s->n + j] : 0;
            for (int64_t r = 0; r < s->k; r++) sum += (double)a[i * s->k + r] * (double)packed[r * s->n + j];
            c[i * s->n + j] = (float)sum;
        }
}
