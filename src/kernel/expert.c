#include <stdbool.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"

/* ---- the router's gate, a row at a time ---- */

INLINE void softmax_row(float *p, const float *x, int count)
{
    float largest = x[0], sum = 0;
    for (int e = 1; e < count; e++) largest = x[e] > largest ? x[e] : largest;
#pragma omp simd
    for (int e = 0; e < count; e++) p[e] = lane_exp(x[e] - largest);
    for (int e = 0; e < count; e++) sum += p[e];
    for (int e = 0; e < count; e++) p[e] /= sum;
}

/* The first of the largest scores, K times; a NaN is never larger, so what is chosen is always an expert. */
INLINE void choose_row(int32_t *choice, const float *p, const float *bias, const struct route_shape *s)
{
    float score[EXPERT_MAX];
    bool taken[EXPERT_MAX];
    for (int e = 0; e < s->experts; e++) score[e] = p[e] + (bias ? bias[e] : 0), taken[e] = false;
    for (int k = 0; k < s->chosen; k++) {
        int best = -1;
        for (int e = 0; e < s->experts; e++)
            if (!taken[e] && (best < 0 || score[e] > score[best])) best = e;
        taken[best] = true;
        choice[k] = best;
    }
}

void ISA_NAME(route_forward)(real *weight, int32_t *choice, real *probability, const real *logits, const real *bias,
                             const struct route_shape *s)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < s->rows; r++) {
        const float *x = logits + r * s->experts;
        float *p = probability + r * s->experts, *w = weight + r * s->chosen;
        int32_t *c = choice + r * s->chosen;
        softmax_row(p, x, s->experts);
        choose_row(c, p, bias, s);
        bool among_chosen = s->rule == ROUTE_TOPK_SOFTMAX;
        for (int k = 0; k < s->chosen; k++) w[k] = among_chosen ? x[c[k]] : p[c[k]];
        if (among_chosen) softmax_row(w, w, s->chosen);
    }
}

INLINE float dot_row(const float *a, const float *b, int count)
{
    float sum = 0;
    for (int e = 0; e < count; e++) sum += a[e] * b[e];
    return sum;
}

void ISA_NAME(route_backward)(real *dlogits, const real *dweight, const real *balance, const int32_t *choice,
                              const real *weight, const real *probability, const struct route_shape *s)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < s->rows; r++) {
        float dp[EXPERT_MAX];
        const float *p = probability + r * s->experts, *w = weight + r * s->chosen, *dw = dweight + r * s->chosen;
        const int32_t *c = choice + r * s->chosen;
        float *dx = dlogits + r * s->experts;
        bool among_chosen = s->rule == ROUTE_TOPK_SOFTMAX;
        for (int e = 0; e < s->experts; e++) dp[e] = balance ? balance[e] : 0;
        for (int k = 0; k < s->chosen && !among_chosen; k++) dp[c[k]] += dw[k];
        float dot = dot_row(p, dp, s->experts), dot_chosen = dot_row(w, dw, s->chosen);
        for (int e = 0; e < s->experts; e++) dx[e] = p[e] * (dp[e] - dot);
        for (int k = 0; k < s->chosen && among_chosen; k++) dx[c[k]] += w[k] * (dw[k] - dot_chosen);
    }
}

/* ---- rows that come back from their experts ---- */

enum { CHUNK = 256 }; /* columns summed at a time */

INLINE void combine_chunk(void *y, const void *e, const void *base, const float *weight, const int64_t *place,
                          int64_t row, int64_t first, int64_t count, const struct expert_shape *s, enum dtype type)
{
    float sum[CHUNK];
    for (int64_t i = 0; i < count; i++) sum[i] = base ? lane_load(base, row * s->width + first + i, type) : 0;
    for (int k = 0; k < s->chosen; k++) {
        float w = weight ? weight[row * s->chosen + k] : 1;
        int64_t at = place[row * s->chosen + k] * s->width + first;
#pragma omp simd
        for (int64_t i = 0; i < count; i++) sum[i] += w * lane_load(e, at + i, type);
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++) lane_store(y, row * s->width + first + i, sum[i], type);
}

INLINE void combine_rows(void *y, const void *e, const void *base, const float *weight, const int64_t *place,
                         const struct expert_shape *s, enum dtype type)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t first = 0; first < s->width; first += CHUNK)
            combine_chunk(y, e, base, weight, place, r, first, s->width - first < CHUNK ? s->width - first : CHUNK, s,
                          type);
}

void ISA_NAME(expert_combine)(void *y, const void *e, const void *base, const real *weight, const int64_t *place,
                              const struct expert_shape *s)
{
    if (s->type == DTYPE_BF16) combine_rows(y, e, base, weight, place, s, DTYPE_BF16);
    else combine_rows(y, e, base, weight, place, s, DTYPE_F32);
}

/* de = w dy; returns dy . e. */
INLINE float slot_backward(void *restrict de, const void *restrict dy, const void *restrict e, float w, int64_t width,
                           enum dtype type)
{
    float sums[LANE_SUMS] = {0};
    for (int64_t first = 0; first < width; first += LANE_SUMS) {
        int64_t count = width - first < LANE_SUMS ? width - first : LANE_SUMS;
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float d = lane_load(dy, first + i, type);
            sums[i] += d * lane_load(e, first + i, type);
            lane_store(de, first + i, w * d, type);
        }
    }
    return lane_sum(sums, LANE_SUMS);
}

INLINE void combine_rows_backward(void *de, float *dweight, const void *dy, const void *e, const float *weight,
                                  const int64_t *place, const struct expert_shape *s, enum dtype type)
{
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < s->rows * s->chosen; n++) {
        int64_t at = place[n] * s->width;
        dweight[n] = slot_backward(dtype_at(de, at, type), dtype_at(dy, n / s->chosen * s->width, type),
                                   dtype_at(e, at, type), weight[n], s->width, type);
    }
}

void ISA_NAME(expert_combine_backward)(void *de, real *dweight, const void *dy, const void *e, const real *weight,
                                       const int64_t *place, const struct expert_shape *s)
{
    if (s->type == DTYPE_BF16) combine_rows_backward(de, dweight, dy, e, weight, place, s, DTYPE_BF16);
    else combine_rows_backward(de, dweight, dy, e, weight, place, s, DTYPE_F32);
}
