#include <math.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"
#include "kernel/philox.h"

/* Buffers of one row. */
struct row {
    float h[LANE_MAX_WIDTH], mask[LANE_MAX_WIDTH + 64], term[LANE_MAX_WIDTH];
};

/* Blocks of random words drawn together: rounds outside, blocks inside, so that the inner loop is
 * straight and vectorises. */
enum { DRAWN = 64 };

INLINE void draw_words(uint32_t c[4][DRAWN], const struct dropout_stream *s, uint32_t first)
{
    for (uint32_t l = 0; l < DRAWN; l++) {
        c[0][l] = s->first + first + l;
        for (int k = 1; k < 4; k++) c[k][l] = s->counter[k - 1];
    }
    for (uint32_t r = 0; r < DROPOUT_ROUNDS; r++) {
        uint32_t k0 = s->key[0] + r * dropout_weyl[0], k1 = s->key[1] + r * dropout_weyl[1];
#pragma omp simd
        for (int l = 0; l < DRAWN; l++) dropout_round(&c[0][l], &c[1][l], &c[2][l], &c[3][l], k0, k1);
    }
}

/* mask[width]: 0 or 1/(1-p) per channel; the buffer has room for whole blocks. */
INLINE void draw_mask(float *restrict mask, const struct norm_shape *s, int64_t row)
{
    struct dropout_stream stream = dropout_stream_at(&s->drop, row, s->width);
    uint32_t threshold = dropout_threshold(s->drop.p), c[4][DRAWN];
    float kept = 65536.0f / (float)threshold;
    int64_t blocks = dropout_blocks(s->width);
    for (int64_t j = 0; j < blocks; j += DRAWN) {
        int64_t count = blocks - j < DRAWN ? blocks - j : DRAWN;
        draw_words(c, &stream, (uint32_t)j);
        for (int k = 0; k < 4; k++) {
            float *restrict low = mask + 2 * k * blocks + j, *restrict high = low + blocks;
#pragma omp simd
            for (int64_t l = 0; l < count; l++) {
                low[l] = (c[k][l] & 0xffffu) < threshold ? kept : 0.0f;
                high[l] = c[k][l] >> 16 < threshold ? kept : 0.0f;
            }
        }
    }
}

/* h[width] = lambda x + mask a. */
INLINE void residual(struct row *b, const void *restrict x, const void *restrict a, const struct norm_shape *s,
                     int64_t row, bool drop, enum dtype type)
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

/* Sum of (h - mean)^2. */
INLINE float square_sum(const float *restrict h, float mean, int64_t width)
{
    float sums[LANE_SUMS] = {0};
    int64_t i = 0;
    for (; i + LANE_SUMS <= width; i += LANE_SUMS) {
#pragma omp simd
        for (int l = 0; l < LANE_SUMS; l++) sums[l] += (h[i + l] - mean) * (h[i + l] - mean);
    }
    for (; i < width; i++) sums[i % LANE_SUMS] += (h[i] - mean) * (h[i] - mean);
    return lane_sum(sums, LANE_SUMS);
}

INLINE void row_forward(void *restrict y, real *restrict stat, const void *restrict x, const void *restrict a,
                        const real *restrict gamma, const real *restrict beta, const struct norm_shape *s, int64_t row,
                        struct row *b, bool drop, enum dtype type)
{
    int64_t width = s->width;
    float *restrict h = b->h;
    residual(b, x, a, s, row, drop, type);
    float mean = lane_sum(h, width) / (float)width;
    float inverse_sd = 1.0f / sqrtf(square_sum(h, mean, width) / (float)width + (float)s->eps);
    stat[2 * row] = mean;
    stat[2 * row + 1] = inverse_sd;
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        lane_store(y, row * width + i, (h[i] - mean) * inverse_sd * gamma[i] + beta[i], type);
}

void ISA_NAME(norm_residual_forward)(void *y, real *stat, const void *x, const void *a, const real *gamma,
                                     const real *beta, const struct norm_shape *shape)
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

/* Sums of a row of the backward pass, lane by lane. */
struct row_sums {
    float g[LANE_SUMS], gn[LANE_SUMS];
};

/* From h and dy of channels i to i + lanes: h becomes the normalised h, term = g = dy gamma, and the
 * row's shares of dgamma and dbeta are added. */
INLINE void gradient_lanes(struct row *b, struct row_sums *sums, float *restrict dgamma, float *restrict dbeta,
                           const void *restrict dy, const real *restrict gamma, float mean, float inverse_sd, int64_t i,
                           int64_t lanes, enum dtype type)
{
    float *restrict h = b->h + i, *restrict g = b->term + i;
#pragma omp simd
    for (int64_t l = 0; l < lanes; l++) {
        float d = lane_load(dy, i + l, type), normal = (h[l] - mean) * inverse_sd;
        h[l] = normal;
        g[l] = d * gamma[i + l];
        dgamma[i + l] += d * normal;
        dbeta[i + l] += d;
        sums->g[l] += g[l];
        sums->gn[l] += g[l] * normal;
    }
}

/* dx and da of a row; its shares of dgamma and dbeta are added to. */
INLINE void row_backward(void *dx, void *da, float *dgamma, float *dbeta, const void *dy, const real *stat,
                         const void *x, const void *a, const real *gamma, const struct norm_shape *s, int64_t row,
                         struct row *b, bool drop, enum dtype type)
{
    int64_t width = s->width, at = row * width, i = 0;
    float mean = stat[2 * row], inverse_sd = stat[2 * row + 1], lambda = (float)s->lambda;
    float *restrict h = b->h, *restrict g = b->term, *restrict mask = b->mask;
    struct row_sums sums = {{0}, {0}};
    const void *dy_row = dtype_at(dy, at, type);
    residual(b, x, a, s, row, drop, type);
    for (; i + LANE_SUMS <= width; i += LANE_SUMS)
        gradient_lanes(b, &sums, dgamma, dbeta, dy_row, gamma, mean, inverse_sd, i, LANE_SUMS, type);
    gradient_lanes(b, &sums, dgamma, dbeta, dy_row, gamma, mean, inverse_sd, i, width - i, type);
    float g_mean = lane_sum(sums.g, LANE_SUMS) / (float)width, gn_mean = lane_sum(sums.gn, LANE_SUMS) / (float)width;
#pragma omp simd
    for (i = 0; i < width; i++) {
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
