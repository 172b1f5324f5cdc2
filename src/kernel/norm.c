#include <math.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"
#include "kernel/philox.h"

/* Buffers of one row. */
struct row {
    float h[LANE_MAX_WIDTH], mask[LANE_MAX_WIDTH], term[LANE_MAX_WIDTH];
};

/* mask[width]: 0 or 1/(1-p) per channel. */
INLINE void draw_mask(float *restrict mask, const struct norm_shape *s, int64_t row)
{
    struct dropout_stream stream = dropout_stream_at(&s->drop, row, s->width);
    uint32_t threshold = dropout_threshold(s->drop.p);
    float kept = 65536.0f / (float)threshold;
    int64_t blocks = dropout_blocks(s->width);
#pragma omp simd
    for (int64_t j = 0; j < blocks; j++) {
        uint32_t words[4];
        dropout_words(&stream, (uint32_t)j, words);
        for (int k = 0; k < 4; k++) {
            mask[2 * k * blocks + j] = (words[k] & 0xffffu) < threshold ? kept : 0.0f;
            mask[(2 * k + 1) * blocks + j] = words[k] >> 16 < threshold ? kept : 0.0f;
        }
    }
}

/* h[width] = lambda x + mask a. */
INLINE void residual(struct row *b, const void *restrict x, const void *restrict a, const struct norm_shape *s, int64_t row,
                     bool drop, enum dtype type)
{
    int64_t width = s->width, at = row * width;
    float lambda = (float)s->lambda;
    float *restrict h = b->h, *restrict mask = b->mask;
    if (drop) draw_mask(mask, s, row);
    if (!a) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++) h[i] = lambda * lane_load(x, at + i, type);
    } else if (drop) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++)
            h[i] = lambda * lane_load(x, at + i, type) + mask[i] * lane_load(a, at + i, type);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < width; i++) h[i] = lambda * lane_load(x, at + i, type) + lane_load(a, at + i, type);
    }
}

INLINE void row_forward(void *restrict y, real *restrict stat, const void *restrict x, const void *restrict a,
                        const real *restrict gamma, const real *restrict beta, const struct norm_shape *s, int64_t row,
                        struct row *b, bool drop, enum dtype type)
{
    int64_t width = s->width;
    float *restrict h = b->h, *restrict term = b->term;
    residual(b, x, a, s, row, drop, type);
    float mean = lane_sum(h, width) / (float)width;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) term[i] = (h[i] - mean) * (h[i] - mean);
    float inverse_sd = 1.0f / sqrtf(lane_sum(term, width) / (float)width + (float)s->eps);
    stat[2 * row] = mean;
    stat[2 * row + 1] = inverse_sd;
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        lane_store(y, row * width + i, (h[i] - mean) * inverse_sd * gamma[i] + beta[i], type);
}

void ISA_NAME(norm_residual_forward)(void *y, real *stat, const void *x, const void *a, const real *gamma, const real *beta,
                                     const struct norm_shape *shape)
{
    bool drop = a && dropout_is_on(&shape->drop);
#pragma omp parallel
    {
        struct row b;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < shape->rows; row++) {
            if (shape->type == DTYPE_BF16) row_forward(y, stat, x, a, gamma, beta, shape, row, &b, drop, DTYPE_BF16);
            else row_forward(y, stat, x, a, gamma, beta, shape, row, &b, drop, DTYPE_F32);
        }
    }
}

/* dx and da of a row; its shares of dgamma and dbeta are added to. */
INLINE void row_backward(void *restrict dx, void *restrict da, float *restrict dgamma, float *restrict dbeta,
                         const void *dy, const real *stat, const void *restrict x, const void *restrict a,
                         const real *restrict gamma, const struct norm_shape *s, int64_t row, struct row *b, bool drop,
                         enum dtype type)
{
    int64_t width = s->width, at = row * width;
    float mean = stat[2 * row], inverse_sd = stat[2 * row + 1], lambda = (float)s->lambda;
    float *restrict h = b->h, *restrict g = b->term, *restrict mask = b->mask;
    residual(b, x, a, s, row, drop, type);
    float g_sums[LANE_SUMS] = {0}, gn_sums[LANE_SUMS] = {0};
    for (int64_t i = 0; i < width; i += LANE_SUMS) {
        int64_t lanes = width - i < LANE_SUMS ? width - i : LANE_SUMS;
#pragma omp simd
        for (int64_t l = 0; l < lanes; l++) {
            float d = lane_load(dy, at + i + l, type), normal = (h[i + l] - mean) * inverse_sd;
            h[i + l] = normal;
            g[i + l] = d * gamma[i + l];
            dgamma[i + l] += d * normal;
            dbeta[i + l] += d;
            g_sums[l] += g[i + l];
            gn_sums[l] += g[i + l] * normal;
        }
    }
    float g_mean = lane_sum(g_sums, LANE_SUMS) / (float)width, gn_mean = lane_sum(gn_sums, LANE_SUMS) / (float)width;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float dh = inverse_sd * (g[i] - g_mean - h[i] * gn_mean);
        lane_store(dx, at + i, lambda * dh, type);
        if (da) lane_store(da, at + i, drop ? mask[i] * dh : dh, type);
    }
}

void ISA_NAME(norm_residual_backward)(void *dx, void *da, real *dgamma, real *dbeta, const void *dy, const real *stat,
                                      const void *x, const void *a, const real *gamma, const struct norm_shape *shape,
                                      real *scratch)
{
    bool drop = a && dropout_is_on(&shape->drop);
    int64_t width = shape->width, blocks = partial_blocks(shape->rows);
#pragma omp parallel
    {
        struct row b;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            float *part = scratch + block * 2 * width;
            memset(part, 0, 2 * (size_t)width * sizeof *part);
            for (int64_t row = block * PARTIAL_ROWS; row < partial_end(block, shape->rows); row++) {
                if (shape->type == DTYPE_BF16)
                    row_backward(dx, da, part, part + width, dy, stat, x, a, gamma, shape, row, &b, drop, DTYPE_BF16);
                else row_backward(dx, da, part, part + width, dy, stat, x, a, gamma, shape, row, &b, drop, DTYPE_F32);
            }
        }
    }
    partial_add(dgamma, scratch, 2 * width, blocks, width);
    partial_add(dbeta, scratch + width, 2 * width, blocks, width);
}
