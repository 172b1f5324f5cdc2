#include <math.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"
#include "kernel/philox.h"

/* Blocks side by side, a word in the lower half of each lane; what the upper halves hold does not matter. */
enum { WORDS = LANE_BYTES / 8, CHAINS = 2 };
static const uint64_t block_number[8] = {0, 1, 2, 3, 4, 5, 6, 7};

/* What a row's `a` is multiplied by. */
struct mask {
    lane_words key[DROPOUT_ROUNDS][2], counter[3];
    uint32_t first;
    int32_t threshold;
    float kept;
    bool on;
};

/* Buffers of one row. */
struct row {
    struct mask mask;
    _Alignas(64) float h[LANE_MAX_WIDTH], term[LANE_MAX_WIDTH];
    _Alignas(64) uint16_t draws[LANE_MAX_WIDTH + DROPOUT_RUN];
};

INLINE void mask_open(struct mask *m, const struct norm_shape *s, int64_t row, bool on)
{
    m->on = on;
    m->threshold = 0, m->kept = 0;
    if (!on) return;
    struct dropout_stream stream = dropout_stream_at(&s->drop, row, s->width);
    for (uint32_t r = 0; r < DROPOUT_ROUNDS; r++)
        for (int i = 0; i < 2; i++) m->key[r][i] = (lane_words){0} + (stream.key[i] + r * dropout_weyl[i]);
    for (int k = 0; k < 3; k++) m->counter[k] = (lane_words){0} + stream.counter[k];
    m->first = stream.first;
    m->threshold = (int32_t)dropout_threshold(s->drop.p);
    m->kept = 65536.0f / (float)m->threshold;
}

/* Draws of CHAINS * WORDS blocks from `first` on: from words 0 and 1, and from words 2 and 3. */
INLINE void draw_blocks(uint16_t *low, uint16_t *high, const struct mask *m, uint32_t first)
{
    lane_words c[4][CHAINS];
    for (int i = 0; i < CHAINS; i++) {
        c[0][i] = *(const lane_words *)block_number + (first + (uint32_t)(i * WORDS));
        for (int k = 1; k < 4; k++) c[k][i] = m->counter[k - 1];
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < DROPOUT_ROUNDS; r++)
        for (int i = 0; i < CHAINS; i++) {
            lane_words a = lane_product(c[0][i], 0xD2511F53u), b = lane_product(c[2][i], 0xCD9E8D57u);
            lane_words x = c[1][i] ^ m->key[r][0], y = c[3][i] ^ m->key[r][1];
            if (r + 1 < DROPOUT_ROUNDS) {
                c[0][i] = b >> 32 ^ x, c[1][i] = b;
                c[2][i] = a >> 32 ^ y, c[3][i] = a;
            } else {
                ((lane_words *)low)[i] = b ^ x << 32;
                ((lane_words *)high)[i] = a ^ y << 32;
            }
        }
}

/* The draws of a run of channels, whose first block is number `block` of the row. */
INLINE void draw_run(uint16_t draws[DROPOUT_RUN], const struct mask *m, uint32_t block)
{
    for (int l = 0; l < DROPOUT_RUN_BLOCKS; l += CHAINS * WORDS)
        draw_blocks(draws + 4 * l, draws + DROPOUT_RUN / 2 + 4 * l, m, m->first + block + (uint32_t)l);
}

/* h[lanes] = lambda x + mask a, from channel i of the row that starts at element `at`. */
INLINE void residual_lanes(struct row *b, const void *x, const void *a, const struct norm_shape *s, int64_t at,
                           int64_t i, int64_t lanes, enum dtype type)
{
    const struct mask *mask = &b->mask;
    float lambda = (float)s->lambda, *restrict h = b->h + i;
    if (mask->on && lanes > 0 && i % DROPOUT_RUN == 0) draw_run(b->draws + i, mask, (uint32_t)(i / 8));
    const uint16_t *restrict draws = b->draws + i;
    at += i;
    if (!a) {
#pragma omp simd
        for (int64_t l = 0; l < lanes; l++) h[l] = lambda * lane_load(x, at + l, type);
    } else if (mask->on) {
#pragma omp simd
        for (int64_t l = 0; l < lanes; l++)
            h[l] = lambda * lane_load(x, at + l, type) +
                   (draws[l] < mask->threshold ? mask->kept : 0.0f) * lane_load(a, at + l, type);
    } else {
#pragma omp simd
        for (int64_t l = 0; l < lanes; l++) h[l] = lambda * lane_load(x, at + l, type) + lane_load(a, at + l, type);
    }
}

/* h of a row, and its mean; the memory that y will take is asked for meanwhile. */
INLINE float residual(struct row *b, const void *y, const void *x, const void *a, const struct norm_shape *s,
                      int64_t row, bool drop, enum dtype type)
{
    mask_open(&b->mask, s, row, drop);
    float sums[LANE_SUMS] = {0}, *restrict h = b->h;
    int64_t width = s->width, at = row * width, i = 0;
    for (; i + LANE_SUMS <= width; i += LANE_SUMS) {
        lane_fetch(y, at + i, LANE_SUMS, type);
        residual_lanes(b, x, a, s, at, i, LANE_SUMS, type);
#pragma omp simd
        for (int l = 0; l < LANE_SUMS; l++) sums[l] += h[i + l];
    }
    residual_lanes(b, x, a, s, at, i, width - i, type);
    for (int64_t l = 0; i + l < width; l++) sums[l] += h[i + l];
    return lane_sum(sums, LANE_SUMS) / (float)width;
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

INLINE void row_forward(void *y, real *restrict stat, const void *x, const void *a, const real *restrict gamma,
                        const real *restrict beta, const struct norm_shape *s, int64_t row, struct row *b, bool drop,
                        enum dtype type)
{
    int64_t width = s->width, at = row * width;
    const float *restrict h = b->h;
    float mean = residual(b, y, x, a, s, row, drop, type);
    float squares = square_sum(h, mean, width);
    float inverse_sd = 1.0f / sqrtf(squares / (float)width + (float)s->eps);
    stat[2 * row] = mean;
    stat[2 * row + 1] = inverse_sd;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) lane_store(y, at + i, (h[i] - mean) * inverse_sd * gamma[i] + beta[i], type);
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
    mask_open(&b->mask, s, row, drop);
    struct row_sums sums = {{0}, {0}};
    const void *dy_row = dtype_at(dy, at, type);
    for (; i + LANE_SUMS <= width; i += LANE_SUMS) {
        lane_fetch(dx, at + i, LANE_SUMS, type);
        if (da) lane_fetch(da, at + i, LANE_SUMS, type);
        residual_lanes(b, x, a, s, at, i, LANE_SUMS, type);
        gradient_lanes(b, &sums, dgamma, dbeta, dy_row, gamma, mean, inverse_sd, i, LANE_SUMS, type);
    }
    residual_lanes(b, x, a, s, at, i, width - i, type);
    gradient_lanes(b, &sums, dgamma, dbeta, dy_row, gamma, mean, inverse_sd, i, width - i, type);
    float g_mean = lane_sum(sums.g, LANE_SUMS) / (float)width, gn_mean = lane_sum(sums.gn, LANE_SUMS) / (float)width;
    const float *restrict h = b->h, *restrict g = b->term;
    const uint16_t *restrict draws = b->draws;
    int32_t threshold = b->mask.threshold;
    float kept = b->mask.kept;
#pragma omp simd
    for (i = 0; i < width; i++) {
        float dh = inverse_sd * (g[i] - g_mean - h[i] * gn_mean);
        lane_store(dx, at + i, lambda * dh, type);
        if (da) lane_store(da, at + i, drop ? (draws[i] < threshold ? kept : 0.0f) * dh : dh, type);
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
