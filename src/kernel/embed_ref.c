#include <string.h>

#include "kernel/kernel_list.h"

void embed_forward_ref(void *h, const real *gene, const void *e, const real *mask, const real *cls,
                       const struct embed_shape *s)
{
    for (int64_t r = 0; r < s->rows; r++) {
        int64_t g = s->feature[r], level = s->level[r];
        for (int64_t i = 0; i < s->width; i++) {
            double value = g == 0 ? cls[i] : gene[g * s->width + i];
            if (g != 0) value += level >= 0 ? dtype_load(e, level * s->width + i, s->type) : mask[i];
            dtype_store(h, r * s->width + i, value, s->type);
        }
    }
}

void embed_backward_ref(real *dgene, void *de, real *dmask, real *dcls, const void *dh,
                        const struct row_groups *by_feature, const struct row_groups *by_level,
                        const struct embed_shape *s)
{
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t i = 0; i < s->width; i++) {
            real d = (real)dtype_load(dh, r * s->width + i, s->type);
            if (s->feature[r] == 0) dcls[i] += d;
            else if (s->level[r] < 0) dmask[i] += d;
        }
    table_add_ref(dgene, dh, by_feature, s->width, s->type);
    for (int64_t k = 0; k < by_level->count; k++)
        for (int64_t i = 0; i < s->width; i++) {
            double sum = 0;
            for (int64_t n = by_level->start[k]; n < by_level->start[k + 1]; n++)
                sum += dtype_load(dh, by_level->order[n] * s->width + i, s->type);
            dtype_store(de, by_level->key[k] * s->width + i, sum, s->type);
        }
}

void table_gather_ref(void *y, const real *table, const int32_t *id, int64_t rows, int64_t width, enum dtype type)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) dtype_store(y, r * width + i, table[id[r] * width + i], type);
}

void table_add_ref(real *dtable, const void *dy, const struct row_groups *groups, int64_t width, enum dtype type)
{
    for (int64_t k = 0; k < groups->count; k++)
        for (int64_t i = 0; i < width; i++) {
            double sum = 0;
            for (int64_t n = groups->start[k]; n < groups->start[k + 1]; n++)
                sum += dtype_load(dy, groups->order[n] * width + i, type);
            dtable[groups->key[k] * width + i] += (real)sum;
        }
}

void rows_gather_ref(void *y, const void *x, const int64_t *index, int64_t rows, int64_t width, enum dtype type)
{
    size_t row_bytes = (size_t)width * dtype_bytes(type);
    for (int64_t r = 0; r < rows; r++)
        memcpy(dtype_at(y, r * width, type), dtype_at(x, index[r] * width, type), row_bytes);
}

void rows_scatter_ref(void *x, const void *y, const int64_t *index, int64_t rows, int64_t total, int64_t width,
                      enum dtype type)
{
    size_t row_bytes = (size_t)width * dtype_bytes(type);
    memset(x, 0, (size_t)total * row_bytes);
    for (int64_t r = 0; r < rows; r++)
        memcpy(dtype_at(x, index[r] * width, type), dtype_at(y, r * width, type), row_bytes);
}

void rows_add_ref(void *x, const void *y, const int64_t *index, int64_t rows, int64_t width, enum dtype type)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            int64_t at = index[r] * width + i;
            dtype_store(x, at, dtype_load(x, at, type) + dtype_load(y, r * width + i, type), type);
        }
}
