#include <math.h>
#include <omp.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"
#include "kernel/small_product.h"

/* Rows of a cell are worked on TILE at a time, in fp32 copies that stay in cache; a thread takes a few
 * neighbouring heads, whose channels share cache lines and pages. */
enum { TILE = 32, MAX_CHANNELS = 128 };

typedef float tile[TILE * MAX_CHANNELS]; /* [rows, channels of the heads at work] */

/* A run of heads of one cell. */
struct work {
    const struct retention_shape *s;
    int64_t first, end; /* rows of the cell */
    int64_t column;     /* first channel */
    int64_t channels;   /* heads at work times C */
    int64_t state;      /* offset of the first head's sums */
    float value_scale;
};

/* Heads that one task takes: few enough that every thread has some, and that a tile fits. */
static int heads_per_task(const struct retention_shape *s)
{
    int64_t fit = MAX_CHANNELS / s->head_width, share = (int64_t)s->cells * s->heads / (4 * omp_get_max_threads());
    int64_t heads = fit < share ? fit : share;
    return heads < 1 ? 1 : (int)heads;
}

static int64_t task_count(const struct retention_shape *s, int heads)
{
    return (int64_t)s->cells * ((s->heads + heads - 1) / heads);
}

static struct work task_at(const struct retention_shape *s, int heads, int64_t task)
{
    int64_t per_cell = (s->heads + heads - 1) / heads, cell = task / per_cell, head = task % per_cell * heads;
    int64_t c = s->head_width, mine = s->heads - head < heads ? s->heads - head : heads;
    return (struct work){.s = s,
                         .first = s->offsets[cell],
                         .end = s->offsets[cell + 1],
                         .column = head * c,
                         .channels = mine * c,
                         .state = (cell * s->heads + head) * c * c,
                         .value_scale = s->value_scale ? s->value_scale[cell] : 1.0f};
}

static int64_t tile_rows(const struct work *w, int64_t row) { return w->end - row < TILE ? w->end - row : TILE; }

/* ---- tiles from and to memory ---- */

/* Ask for the same row of the next tile: rows lie pages apart, which no hardware prefetcher follows. */
INLINE void fetch_ahead(const void *x, int64_t stride, int64_t column, int64_t channels, int64_t row, enum dtype type)
{
    const char *next = dtype_at(x, (row + TILE) * stride + column, type);
    for (int64_t i = 0; i < channels * (int64_t)dtype_bytes(type); i += 64) __builtin_prefetch(next + i);
}

INLINE void load_tile(float *restrict out, const void *restrict x, int64_t stride, int64_t column, int64_t channels,
                      int64_t row, int64_t rows, enum dtype type)
{
    for (int64_t r = 0; r < rows; r++) {
        fetch_ahead(x, stride, column, channels, row + r, type);
#pragma omp simd
        for (int64_t i = 0; i < channels; i++)
            out[r * channels + i] = lane_load(x, (row + r) * stride + column + i, type);
    }
}

INLINE void store_tile(void *restrict x, const float *restrict t, int64_t stride, int64_t column, int64_t channels,
                       int64_t row, int64_t rows, enum dtype type)
{
    for (int64_t r = 0; r < rows; r++) {
#pragma omp simd
        for (int64_t i = 0; i < channels; i++)
            lane_store(x, (row + r) * stride + column + i, t[r * channels + i], type);
    }
}

/* ReLU(x) * factor; rows that the mask hides are 0. */
INLINE void load_features(float *restrict out, const void *restrict x, const struct work *w, const uint8_t *mask,
                          int64_t row, int64_t rows, enum dtype type)
{
    int64_t channels = w->channels;
    for (int64_t r = 0; r < rows; r++) {
        fetch_ahead(x, w->s->stride, w->column, channels, row + r, type);
        float factor = !mask || mask[row + r] ? (float)w->s->feature_scale : 0.0f;
#pragma omp simd
        for (int64_t i = 0; i < channels; i++) {
            float value = lane_load(x, (row + r) * w->s->stride + w->column + i, type);
            out[r * channels + i] = value > 0 ? value * factor : 0.0f;
        }
    }
}

/* Gradient of load_features: 0 where the feature was not open. */
INLINE void close_features(float *restrict d, const float *restrict feature, float factor, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) d[i] = feature[i] > 0 ? d[i] * factor : 0.0f;
}

INLINE void scale_tile(float *restrict t, float factor, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) t[i] *= factor;
}

/* ---- state = sum of K^T V ---- */

INLINE void state_task(real *state, const void *k, const void *v, const struct work *w, enum dtype type)
{
    int64_t c = w->s->head_width, channels = w->channels;
    _Alignas(64) tile keys, values;
    for (int64_t row = w->first; row < w->end; row += TILE) {
        int64_t rows = tile_rows(w, row);
        load_features(keys, k, w, w->s->key_mask, row, rows, type);
        load_tile(values, v, w->s->stride, w->column, channels, row, rows, type);
        scale_tile(values, w->value_scale, rows * channels);
        for (int64_t h = 0; h < channels; h += c) {
            struct small_left left = {keys + h, 1, channels};
            small_product(state + w->state + h * c, c, left, values + h, channels, c, c, rows, 1);
        }
    }
}

void ISA_NAME(retention_state_forward)(real *state, const void *k, const void *v, const struct retention_shape *shape)
{
    int heads = heads_per_task(shape);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < task_count(shape, heads); t++) {
        struct work w = task_at(shape, heads, t);
        if (shape->type == DTYPE_BF16) state_task(state, k, v, &w, DTYPE_BF16);
        else state_task(state, k, v, &w, DTYPE_F32);
    }
}

/* ---- y = norm(Q T) SiLU(u) ---- */

/* o[rows, channels] = Q T; normal = o / rms and inverse[rows, heads] = 1 / rms. */
INLINE void read_tile(float *o, float *inverse, const float *queries, const real *state, const struct work *w,
                      int64_t rows)
{
    int64_t c = w->s->head_width, channels = w->channels, heads = channels / c;
    for (int64_t h = 0; h < heads; h++) {
        struct small_left left = {queries + h * c, channels, 1};
        small_product(o + h * c, channels, left, state + w->state + h * c * c, c, rows, c, c, 0);
    }
    for (int64_t i = 0; i < rows * heads; i++) {
        float square = 0;
        float *restrict head = o + i * c;
#pragma omp simd reduction(+ : square)
        for (int64_t j = 0; j < c; j++) square += head[j] * head[j];
        inverse[i] = 1.0f / fmaxf(1e-12f, sqrtf(square / (float)c));
#pragma omp simd
        for (int64_t j = 0; j < c; j++) head[j] *= inverse[i];
    }
}

INLINE void read_task(void *y, const void *q, const void *u, const real *state, const struct work *w, enum dtype type)
{
    int64_t channels = w->channels, width = w->s->heads * w->s->head_width;
    _Alignas(64) tile queries, o, gates;
    float inverse[TILE * MAX_CHANNELS];
    for (int64_t row = w->first; row < w->end; row += TILE) {
        int64_t rows = tile_rows(w, row);
        load_features(queries, q, w, NULL, row, rows, type);
        load_tile(gates, u, w->s->stride, w->column, channels, row, rows, type);
        read_tile(o, inverse, queries, state, w, rows);
#pragma omp simd
        for (int64_t i = 0; i < rows * channels; i++) o[i] *= gates[i] * lane_sigmoid(gates[i]);
        store_tile(y, o, width, w->column, channels, row, rows, type);
    }
}

void ISA_NAME(retention_read_forward)(void *y, const void *q, const void *u, const real *state,
                                      const struct retention_shape *shape)
{
    int heads = heads_per_task(shape);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < task_count(shape, heads); t++) {
        struct work w = task_at(shape, heads, t);
        if (shape->type == DTYPE_BF16) read_task(y, q, u, state, &w, DTYPE_BF16);
        else read_task(y, q, u, state, &w, DTYPE_F32);
    }
}

/* ---- gradients of the read ---- */

/* From normal[], the gates and d = dy: d becomes the gradient of the normal, gates that of u. */
INLINE void gate_tile_backward(float *restrict d, float *restrict gates, const float *restrict normal, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float gate = gates[i], s = lane_sigmoid(gate), dy = d[i];
        gates[i] = dy * normal[i] * s * (1.0f + gate * (1.0f - s));
        d[i] = dy * gate * s;
    }
}

/* Gradient of o from that of the normal, in place, head by head. */
INLINE void rms_tile_backward(float *restrict d, const float *restrict normal, const float *inverse, int64_t heads,
                              int64_t c)
{
    for (int64_t i = 0; i < heads; i++) {
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < c; j++) dot += d[i * c + j] * normal[i * c + j];
        dot = inverse[i] < 1e12f ? dot / (float)c : 0.0f; /* at its floor the norm is a constant factor */
#pragma omp simd
        for (int64_t j = 0; j < c; j++) d[i * c + j] = inverse[i] * (d[i * c + j] - normal[i * c + j] * dot);
    }
}

/* turned[h, j, i] = state[h, i, j]. */
INLINE void turn_states(float *restrict turned, const real *restrict state, int64_t heads, int64_t c)
{
    for (int64_t h = 0; h < heads * c * c; h += c * c)
        for (int64_t i = 0; i < c; i++)
            for (int64_t j = 0; j < c; j++) turned[h + j * c + i] = state[h + i * c + j];
}

/* The largest states of one task: MAX_CHANNELS / C heads of C x C. */
typedef float states[MAX_CHANNELS * RETENTION_MAX_HEAD_WIDTH];

INLINE void read_task_backward(void *dq, void *du, real *dstate, const void *dy, const void *q, const void *u,
                               const real *state, const struct work *w, enum dtype type)
{
    int64_t c = w->s->head_width, channels = w->channels, heads = channels / c, width = w->s->heads * c;
    _Alignas(64) tile queries, normal, gates, d, dqueries;
    _Alignas(64) states turned;
    float inverse[TILE * MAX_CHANNELS];
    turn_states(turned, state + w->state, heads, c);
    memset(dstate + w->state, 0, (size_t)(heads * c * c) * sizeof *dstate);
    for (int64_t row = w->first; row < w->end; row += TILE) {
        int64_t rows = tile_rows(w, row);
        load_features(queries, q, w, NULL, row, rows, type);
        load_tile(gates, u, w->s->stride, w->column, channels, row, rows, type);
        load_tile(d, dy, width, w->column, channels, row, rows, type);
        read_tile(normal, inverse, queries, state, w, rows);
        gate_tile_backward(d, gates, normal, rows * channels);
        store_tile(du, gates, w->s->stride, w->column, channels, row, rows, type);
        rms_tile_backward(d, normal, inverse, rows * heads, c);
        for (int64_t h = 0; h < channels; h += c) {
            struct small_left by_row = {d + h, channels, 1}, by_column = {queries + h, 1, channels};
            small_product(dqueries + h, channels, by_row, turned + h * c, c, rows, c, c, 0);
            small_product(dstate + w->state + h * c, c, by_column, d + h, channels, c, c, rows, 1);
        }
        close_features(dqueries, queries, (float)w->s->feature_scale, rows * channels);
        store_tile(dq, dqueries, w->s->stride, w->column, channels, row, rows, type);
    }
}

void ISA_NAME(retention_read_backward)(void *dq, void *du, real *dstate, const void *dy, const void *q, const void *u,
                                       const real *state, const struct retention_shape *shape)
{
    int heads = heads_per_task(shape);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < task_count(shape, heads); t++) {
        struct work w = task_at(shape, heads, t);
        if (shape->type == DTYPE_BF16) read_task_backward(dq, du, dstate, dy, q, u, state, &w, DTYPE_BF16);
        else read_task_backward(dq, du, dstate, dy, q, u, state, &w, DTYPE_F32);
    }
}

/* ---- gradients of the state ---- */

INLINE void state_task_backward(void *dk, void *dv, const real *dstate, const void *k, const void *v,
                                const struct work *w, enum dtype type)
{
    int64_t c = w->s->head_width, channels = w->channels;
    _Alignas(64) tile keys, values, dkeys, dvalues;
    _Alignas(64) states turned;
    turn_states(turned, dstate + w->state, channels / c, c);
    for (int64_t row = w->first; row < w->end; row += TILE) {
        int64_t rows = tile_rows(w, row);
        load_features(keys, k, w, w->s->key_mask, row, rows, type);
        load_tile(values, v, w->s->stride, w->column, channels, row, rows, type);
        for (int64_t h = 0; h < channels; h += c) {
            struct small_left from_v = {values + h, channels, 1}, from_k = {keys + h, channels, 1};
            small_product(dkeys + h, channels, from_v, turned + h * c, c, rows, c, c, 0);
            small_product(dvalues + h, channels, from_k, dstate + w->state + h * c, c, rows, c, c, 0);
        }
        close_features(dkeys, keys, (float)w->s->feature_scale * w->value_scale, rows * channels);
        scale_tile(dvalues, w->value_scale, rows * channels);
        store_tile(dk, dkeys, w->s->stride, w->column, channels, row, rows, type);
        store_tile(dv, dvalues, w->s->stride, w->column, channels, row, rows, type);
    }
}

void ISA_NAME(retention_state_backward)(void *dk, void *dv, const real *dstate, const void *k, const void *v,
                                        const struct retention_shape *shape)
{
    int heads = heads_per_task(shape);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < task_count(shape, heads); t++) {
        struct work w = task_at(shape, heads, t);
        if (shape->type == DTYPE_BF16) state_task_backward(dk, dv, dstate, k, v, &w, DTYPE_BF16);
        else state_task_backward(dk, dv, dstate, k, v, &w, DTYPE_F32);
    }
}
