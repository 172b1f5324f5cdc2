#include <omp.h>
#include <stdbool.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"

/* Rows lie anywhere, so no hardware prefetcher finds the next one: each loop over a row asks for it in
 * pieces of CHUNK channels. */
enum { CHUNK = 64 };

/* h = gene (+ e or other), while row `next` of the table and the row after h are asked for. */
INLINE void token_row(void *restrict h, const real *restrict gene, const void *restrict e, const real *restrict other,
                      const real *next, int64_t width, enum dtype type)
{
    for (int64_t first = 0; first < width; first += CHUNK) {
        int64_t end = first + CHUNK < width ? first + CHUNK : width;
        lane_fetch(next, first, CHUNK, DTYPE_REAL);
        lane_fetch(h, first + width, CHUNK, type);
        if (e) {
#pragma omp simd
            for (int64_t i = first; i < end; i++) lane_store(h, i, gene[i] + lane_load(e, i, type), type);
        } else if (other) {
#pragma omp simd
            for (int64_t i = first; i < end; i++) lane_store(h, i, gene[i] + other[i], type);
        } else {
#pragma omp simd
            for (int64_t i = first; i < end; i++) lane_store(h, i, gene[i], type);
        }
    }
}

INLINE void token_rows(void *h, const real *gene, const void *e, const real *mask, const real *cls,
                       const struct embed_shape *s, enum dtype type)
{
    int64_t width = s->width;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < s->rows; r++) {
        void *row = dtype_at(h, r * width, type);
        int64_t g = s->feature[r], level = s->level[r];
        const real *next = gene + (r + 1 < s->rows ? s->feature[r + 1] : 0) * width;
        if (g == 0) token_row(row, cls, NULL, NULL, next, width, type);
        else if (level < 0) token_row(row, gene + g * width, NULL, mask, next, width, type);
        else token_row(row, gene + g * width, dtype_at(e, level * width, type), NULL, next, width, type);
    }
}

void ISA_NAME(embed_forward)(void *h, const real *gene, const void *e, const real *mask, const real *cls,
                             const struct embed_shape *shape)
{
    if (shape->type == DTYPE_BF16) token_rows(h, gene, e, mask, cls, shape, DTYPE_BF16);
    else token_rows(h, gene, e, mask, cls, shape, DTYPE_F32);
}

/* sum[width] = or += row, while the rows at `next` and `table` are asked for. */
INLINE void row_add(float *restrict sum, const void *restrict row, bool add, const void *next, const real *table,
                    int64_t width, enum dtype type)
{
    for (int64_t first = 0; first < width; first += CHUNK) {
        int64_t end = first + CHUNK < width ? first + CHUNK : width;
        lane_fetch(next, first, CHUNK, type);
        if (table) lane_fetch(table, first, CHUNK, DTYPE_REAL);
#pragma omp simd
        for (int64_t i = first; i < end; i++) sum[i] = (add ? sum[i] : 0.0f) + lane_load(row, i, type);
    }
}

/* sum[width] = or += the rows of one group, in order. */
INLINE void group_sum(float *restrict sum, const void *dy, const struct row_groups *groups, int64_t k, bool add,
                      const real *table, int64_t width, enum dtype type)
{
    int64_t last = groups->start[groups->count] - 1;
    for (int64_t n = groups->start[k]; n < groups->start[k + 1]; n++) {
        const void *row = dtype_at(dy, groups->order[n] * width, type);
        const void *next = dtype_at(dy, groups->order[n < last ? n + 1 : last] * width, type);
        bool first = n == groups->start[k];
        row_add(sum, row, add || !first, next, first ? table : NULL, width, type);
    }
}

INLINE void groups_add(real *dtable, const void *dy, const struct row_groups *groups, int64_t width, enum dtype type)
{
#pragma omp parallel
    {
        float sum[LANE_MAX_WIDTH];
#pragma omp for schedule(dynamic, 16)
        for (int64_t k = 0; k < groups->count; k++) {
            real *restrict row = dtable + groups->key[k] * width;
            const real *next = k + 1 < groups->count ? dtable + groups->key[k + 1] * width : NULL;
            bool single = groups->start[k + 1] - groups->start[k] == 1;
            group_sum(single ? row : sum, dy, groups, k, single, next, width, type);
            if (single) continue;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) row[i] += sum[i];
        }
    }
}

void ISA_NAME(table_add)(real *dtable, const void *dy, const struct row_groups *groups, int64_t width, enum dtype type)
{
    if (type == DTYPE_BF16) groups_add(dtable, dy, groups, width, DTYPE_BF16);
    else groups_add(dtable, dy, groups, width, DTYPE_F32);
}

INLINE void groups_store(void *de, const void *dy, const struct row_groups *groups, int64_t width, enum dtype type)
{
#pragma omp parallel
    {
        float sum[LANE_MAX_WIDTH];
#pragma omp for schedule(dynamic, 4)
        for (int64_t k = 0; k < groups->count; k++) {
            group_sum(sum, dy, groups, k, false, NULL, width, type);
#pragma omp simd
            for (int64_t i = 0; i < width; i++) lane_store(de, groups->key[k] * width + i, sum[i], type);
        }
    }
}

/* The first row from r on that is cls or hidden; `rows` if none is. */
static int64_t special_row(const struct embed_shape *s, int64_t r)
{
    while (r < s->rows && s->feature[r] != 0 && s->level[r] >= 0) r++;
    return r;
}

/* dmask and dcls are summed over all rows in order, so each thread has its own columns. */
INLINE void special_rows_add(real *dmask, real *dcls, const void *dh, const struct embed_shape *s, enum dtype type)
{
    int64_t run = (s->width / omp_get_max_threads() + 63) / 64 * 64;
    if (run < 64) run = 64;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < s->width; first += run) {
        int64_t columns = s->width - first < run ? s->width - first : run;
        for (int64_t next, r = special_row(s, 0); r < s->rows; r = next) {
            next = special_row(s, r + 1);
            row_add((s->feature[r] == 0 ? dcls : dmask) + first, dtype_at(dh, r * s->width + first, type), true,
                    dtype_at(dh, next * s->width + first, type), NULL, columns, type);
        }
    }
}

INLINE void tokens_backward(real *dgene, void *de, real *dmask, real *dcls, const void *dh,
                            const struct row_groups *by_feature, const struct row_groups *by_level,
                            const struct embed_shape *s, enum dtype type)
{
    groups_add(dgene, dh, by_feature, s->width, type);
    groups_store(de, dh, by_level, s->width, type);
    special_rows_add(dmask, dcls, dh, s, type);
}

void ISA_NAME(embed_backward)(real *dgene, void *de, real *dmask, real *dcls, const void *dh,
                              const struct row_groups *by_feature, const struct row_groups *by_level,
                              const struct embed_shape *shape)
{
    if (shape->type == DTYPE_BF16) tokens_backward(dgene, de, dmask, dcls, dh, by_feature, by_level, shape, DTYPE_BF16);
    else tokens_backward(dgene, de, dmask, dcls, dh, by_feature, by_level, shape, DTYPE_F32);
}

void ISA_NAME(table_gather)(void *y, const real *table, const int32_t *id, int64_t rows, int64_t width, enum dtype type)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const real *row = table + id[r] * width;
        const real *next = table + id[r + 1 < rows ? r + 1 : r] * width;
        if (type == DTYPE_BF16) token_row(dtype_at(y, r * width, type), row, NULL, NULL, next, width, DTYPE_BF16);
        else memcpy(dtype_at(y, r * width, type), row, (size_t)width * sizeof *row);
    }
}

void ISA_NAME(rows_gather)(void *y, const void *x, const int64_t *index, int64_t rows, int64_t width, enum dtype type)
{
    size_t row_bytes = (size_t)width * dtype_bytes(type);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        memcpy(dtype_at(y, r * width, type), dtype_at(x, index[r] * width, type), row_bytes);
}

void ISA_NAME(rows_scatter)(void *x, const void *y, const int64_t *index, int64_t rows, int64_t total, int64_t width,
                            enum dtype type)
{
    size_t row_bytes = (size_t)width * dtype_bytes(type);
    /* after row r of y come the unread rows up to the next one */
#pragma omp parallel for schedule(static)
    for (int64_t r = -1; r < rows; r++) {
        int64_t here = r < 0 ? -1 : index[r], next = r + 1 < rows ? index[r + 1] : total;
        if (r >= 0) memcpy(dtype_at(x, here * width, type), dtype_at(y, r * width, type), row_bytes);
        memset(dtype_at(x, (here + 1) * width, type), 0, (size_t)(next - here - 1) * row_bytes);
    }
}

INLINE void rows_add_typed(void *restrict x, const void *restrict y, const int64_t *index, int64_t rows, int64_t width,
                           enum dtype type)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            int64_t at = index[r] * width + i;
            lane_store(x, at, lane_load(x, at, type) + lane_load(y, r * width + i, type), type);
        }
    }
}

void ISA_NAME(rows_add)(void *x, const void *y, const int64_t *index, int64_t rows, int64_t width, enum dtype type)
{
    if (type == DTYPE_BF16) rows_add_typed(x, y, index, rows, width, DTYPE_BF16);
    else rows_add_typed(x, y, index, rows, width, DTYPE_F32);
}
