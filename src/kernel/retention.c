#include <math.h>
#include <omp.h>
#include <stdbool.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"
#include "kernel/small_product.h"

/* Rows of a cell are worked on TILE at a time and head by head, in fp32 copies that stay in the first-level
 * cache. A task is a run of neighbouring heads: they follow each other within a tile, because their
 * channels share pages, and while one head is at work the next one's channels are fetched. */
enum { TILE = 32, MAX_CHANNELS = 512 };

typedef float tile[TILE * RETENTION_MAX_HEAD_WIDTH]; /* [rows, C] */

/* A run of heads of one cell. */
struct work {
    const struct retention_shape *s;
    int64_t first, end;  /* rows of the cell */
    int64_t head, heads; /* first head, heads of the run */
    int64_t state;       /* offset of the first head's sums */
    float value_scale;
};

/* Heads that one task takes: few enough that every thread has some. */
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
    int64_t c = s->head_width;
    return (struct work){.s = s,
                         .first = s->offsets[cell],
                         .end = s->offsets[cell + 1],
                         .head = head,
                         .heads = s->heads - head < heads ? s->heads - head : heads,
                         .state = (cell * s->heads + head) * c * c,
                         .value_scale = s->value_scale ? s->value_scale[cell] : 1.0f};
}

/* One head's channels of a tile of rows, and where those of the next step lie. */
struct step {
    int64_t head; /* of the run */
    int64_t row, rows, column;
    int64_t next_row, next_column;
};

static struct step step_at(const struct work *w, int64_t row, int64_t head, int64_t c)
{
    bool last = head + 1 == w->heads;
    return (struct step){.head = head,
                         .row = row,
                         .rows = w->end - row < TILE ? w->end - row : TILE,
                         .column = (w->head + head) * c,
                         .next_row = last ? row + TILE : row,
                         .next_column = (w->head + (last ? 0 : head + 1)) * c};
}

/* ---- tiles from and to memory ---- */

INLINE void load_tile(float *restrict out, const void *restrict x, int64_t stride, const struct step *t, int64_t c,
                      enum dtype type)
{
    for (int64_t r = 0; r < t->rows; r++) {
        const void *row = dtype_at(x, (t->row + r) * stride + t->column, type);
#pragma omp simd
        for (int64_t i = 0; i < c; i++) out[r * c + i] = lane_load(row, i, type);
    }
}

/* ReLU(x) * factor; rows that the mask hides are 0. */
INLINE void load_features(float *restrict out, const void *restrict x, int64_t stride, const uint8_t *mask,
                          float factor, const struct step *t, int64_t c, enum dtype type)
{
    for (int64_t r = 0; r < t->rows; r++) {
        const void *row = dtype_at(x, (t->row + r) * stride + t->column, type);
        float open = !mask || mask[t->row + r] ? factor : 0.0f;
#pragma omp simd
        for (int64_t i = 0; i < c; i++) {
            float value = lane_load(row, i, type);
            out[r * c + i] = open * (value > 0 ? value : 0.0f);
        }
    }
}

/* Have `ahead` ask for the rows of the next step, too; x is an operand or a result. */
INLINE void ahead_add(struct small_ahead *ahead, const void *x, int64_t stride, const struct step *t, int64_t c,
                      enum dtype type)
{
    ahead->next[ahead->streams] = dtype_at(x, t->next_row * stride + t->next_column, type);
    ahead->stride_bytes[ahead->streams++] = stride * (int64_t)dtype_bytes(type);
    ahead->lines = (int)((c * (int64_t)dtype_bytes(type) + 63) / 64);
    ahead->rows = TILE;
}

INLINE void store_tile(void *restrict x, const float *restrict values, float factor, int64_t stride,
                       const struct step *t, int64_t c, enum dtype type)
{
    for (int64_t r = 0; r < t->rows; r++) {
        void *row = dtype_at(x, (t->row + r) * stride + t->column, type);
#pragma omp simd
        for (int64_t i = 0; i < c; i++) lane_store(row, i, factor * values[r * c + i], type);
    }
}

/* The gradient of features: 0 where the feature was not open. */
INLINE void store_closed(void *restrict x, const float *restrict d, const float *restrict feature, float factor,
                         int64_t stride, const struct step *t, int64_t c, enum dtype type)
{
    for (int64_t r = 0; r < t->rows; r++) {
        void *row = dtype_at(x, (t->row + r) * stride + t->column, type);
#pragma omp simd
        for (int64_t i = 0; i < c; i++) lane_store(row, i, feature[r * c + i] > 0 ? factor * d[r * c + i] : 0.0f, type);
    }
}

/* Run `call` with the head width and the type as constants: CellFM's width, 32, has code of its own. */
#define WITH_CONSTANTS(shape, call, ...) \
    do { \
        bool narrow = (shape)->head_width == 32; \
        if ((shape)->type == DTYPE_BF16 && narrow) call(__VA_ARGS__, 32, DTYPE_BF16); \
        else if ((shape)->type == DTYPE_BF16) call(__VA_ARGS__, (shape)->head_width, DTYPE_BF16); \
        else if (narrow) call(__VA_ARGS__, 32, DTYPE_F32); \
        else call(__VA_ARGS__, (shape)->head_width, DTYPE_F32); \
    } while (0)

/* ---- state = sum of K^T V ---- */

INLINE void state_step(real *state, const void *k, const void *v, const struct work *w, struct step t, int64_t c,
                       enum dtype type)
{
    _Alignas(64) tile keys, values;
    float factor = (float)w->s->feature_scale * w->value_scale;
    load_features(keys, k, w->s->stride, w->s->key_mask, factor, &t, c, type);
    load_tile(values, v, w->s->stride, &t, c, type);
    struct small_left left = {keys, 1, c};
    struct small_ahead ahead = {.streams = 0};
    ahead_add(&ahead, k, w->s->stride, &t, c, type);
    ahead_add(&ahead, v, w->s->stride, &t, c, type);
    small_product(state + w->state + t.head * c * c, c, left, values, c, c, c, t.rows, 1, &ahead, 3);
}

INLINE void state_task(real *state, const void *k, const void *v, const struct work *w, int64_t c, enum dtype type)
{
    for (int64_t row = w->first; row < w->end; row += TILE)
        for (int64_t h = 0; h < w->heads; h++) state_step(state, k, v, w, step_at(w, row, h, c), c, type);
}

void ISA_NAME(retention_state_forward)(real *state, const void *k, const void *v, const struct retention_shape *shape)
{
    int heads = heads_per_task(shape);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < task_count(shape, heads); t++) {
        struct work w = task_at(shape, heads, t);
        WITH_CONSTANTS(shape, state_task, state, k, v, &w);
    }
}

/* ---- y = norm(Q T) SiLU(u) ---- */

/* o[rows, C] = Q T; then normal = o / rms, and inverse[rows] = 1 / rms. */
INLINE void read_tile(float *restrict o, float *restrict inverse, const float *queries, const real *state, int64_t rows,
                      int64_t c, struct small_ahead *ahead, int ask)
{
    struct small_left left = {queries, c, 1};
    small_product(o, c, left, state, c, rows, c, c, 0, ahead, ask);
    for (int64_t r = 0; r < rows; r++) {
        float square = 0;
#pragma omp simd reduction(+ : square)
        for (int64_t j = 0; j < c; j++) square += o[r * c + j] * o[r * c + j];
        inverse[r] = square;
    }
#pragma omp simd
    for (int64_t r = 0; r < rows; r++) {
        float rms = sqrtf(inverse[r] / (float)c);
        inverse[r] = 1.0f / (rms > 1e-12f ? rms : 1e-12f);
    }
    for (int64_t r = 0; r < rows; r++) {
#pragma omp simd
        for (int64_t j = 0; j < c; j++) o[r * c + j] *= inverse[r];
    }
}

/* o *= SiLU(gates). */
INLINE void gate_tile(float *restrict o, const float *restrict gates, int64_t count)
{
    int64_t i = 0;
    for (; i + LANE_RUN <= count; i += LANE_RUN) {
        float s[LANE_RUN];
        lane_sigmoid_run(s, gates, i, DTYPE_F32);
        LANE_STEP o[i + l] *= gates[i + l] * s[l];
    }
    for (; i < count; i++) o[i] *= gates[i] * lane_sigmoid(gates[i]);
}

INLINE void read_step(void *y, const void *q, const void *u, const real *state, const struct work *w, struct step t,
                      int64_t c, enum dtype type)
{
    int64_t width = w->s->heads * c;
    _Alignas(64) tile queries, o, gates;
    float inverse[TILE];
    load_features(queries, q, w->s->stride, NULL, (float)w->s->feature_scale, &t, c, type);
    load_tile(gates, u, w->s->stride, &t, c, type);
    struct small_ahead ahead = {.streams = 0};
    ahead_add(&ahead, q, w->s->stride, &t, c, type);
    ahead_add(&ahead, u, w->s->stride, &t, c, type);
    ahead_add(&ahead, y, width, &t, c, type);
    read_tile(o, inverse, queries, state + w->state + t.head * c * c, t.rows, c, &ahead, 3);
    gate_tile(o, gates, t.rows * c);
    store_tile(y, o, 1.0f, width, &t, c, type);
}

INLINE void read_task(void *y, const void *q, const void *u, const real *state, const struct work *w, int64_t c,
                      enum dtype type)
{
    for (int64_t row = w->first; row < w->end; row += TILE)
        for (int64_t h = 0; h < w->heads; h++) read_step(y, q, u, state, w, step_at(w, row, h, c), c, type);
}

void ISA_NAME(retention_read_forward)(void *y, const void *q, const void *u, const real *state,
                                      const struct retention_shape *shape)
{
    int heads = heads_per_task(shape);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < task_count(shape, heads); t++) {
        struct work w = task_at(shape, heads, t);
        WITH_CONSTANTS(shape, read_task, y, q, u, state, &w);
    }
}

/* ---- gradients of the read ---- */

/* From normal, a gate's sigmoid s and dy = *d: *d becomes the gradient of the normal, *gate that of u. */
INLINE void gate_backward(float *d, float *gate, float normal, float s)
{
    float dy = *d, g = *gate;
    *gate = dy * normal * s * (1.0f + g * (1.0f - s));
    *d = dy * g * s;
}

INLINE void gate_tile_backward(float *restrict d, float *restrict gates, const float *restrict normal, int64_t count)
{
    int64_t i = 0;
    for (; i + LANE_RUN <= count; i += LANE_RUN) {
        float s[LANE_RUN];
        lane_sigmoid_run(s, gates, i, DTYPE_F32);
        LANE_STEP gate_backward(&d[i + l], &gates[i + l], normal[i + l], s[l]);
    }
    for (; i < count; i++) gate_backward(&d[i], &gates[i], normal[i], lane_sigmoid(gates[i]));
}

/* Gradient of o from that of the normal, in place, row by row. */
INLINE void rms_tile_backward(float *restrict d, const float *restrict normal, const float *inverse, int64_t rows,
                              int64_t c)
{
    for (int64_t r = 0; r < rows; r++) {
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < c; j++) dot += d[r * c + j] * normal[r * c + j];
        dot = inverse[r] < 1e12f ? dot / (float)c : 0.0f; /* at its floor the norm is a constant factor */
#pragma omp simd
        for (int64_t j = 0; j < c; j++) d[r * c + j] = inverse[r] * (d[r * c + j] - normal[r * c + j] * dot);
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

/* What a step of the read's backward pass reads and writes. */
struct read_gradient {
    void *dq, *du;
    real *dstate;
    const void *dy, *q, *u;
    const real *state;
};

INLINE void read_step_backward(const struct read_gradient *g, const float *turned, const struct work *w, struct step t,
                               int64_t c, enum dtype type)
{
    int64_t width = w->s->heads * c, stride = w->s->stride, at = t.head * c * c;
    _Alignas(64) tile queries, normal, gates, d;
    float inverse[TILE], *dqueries = gates;
    load_features(queries, g->q, stride, NULL, (float)w->s->feature_scale, &t, c, type);
    load_tile(gates, g->u, stride, &t, c, type);
    load_tile(d, g->dy, width, &t, c, type);
    struct small_ahead ahead = {.streams = 0};
    ahead_add(&ahead, g->q, stride, &t, c, type);
    ahead_add(&ahead, g->u, stride, &t, c, type);
    ahead_add(&ahead, g->dy, width, &t, c, type);
    ahead_add(&ahead, g->dq, stride, &t, c, type);
    ahead_add(&ahead, g->du, stride, &t, c, type);
    read_tile(normal, inverse, queries, g->state + w->state + at, t.rows, c, &ahead, 1);
    gate_tile_backward(d, gates, normal, t.rows * c);
    store_tile(g->du, gates, 1.0f, stride, &t, c, type);
    rms_tile_backward(d, normal, inverse, t.rows, c);
    struct small_left by_row = {d, c, 1}, by_column = {queries, 1, c};
    small_product(g->dstate + w->state + at, c, by_column, d, c, c, c, t.rows, 1, &ahead, 1);
    small_product(dqueries, c, by_row, turned + at, c, t.rows, c, c, 0, &ahead, 1);
    store_closed(g->dq, dqueries, queries, (float)w->s->feature_scale, stride, &t, c, type);
}

INLINE void read_task_backward(const struct read_gradient *g, const struct work *w, int64_t c, enum dtype type)
{
    _Alignas(64) states turned;
    turn_states(turned, g->state + w->state, w->heads, c);
    memset(g->dstate + w->state, 0, (size_t)(w->heads * c * c) * sizeof *g->dstate);
    for (int64_t row = w->first; row < w->end; row += TILE)
        for (int64_t h = 0; h < w->heads; h++) read_step_backward(g, turned, w, step_at(w, row, h, c), c, type);
}

void ISA_NAME(retention_read_backward)(void *dq, void *du, real *dstate, const void *dy, const void *q, const void *u,
                                       const real *state, const struct retention_shape *shape)
{
    int heads = heads_per_task(shape);
    struct read_gradient g = {dq, du, dstate, dy, q, u, state};
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < task_count(shape, heads); t++) {
        struct work w = task_at(shape, heads, t);
        WITH_CONSTANTS(shape, read_task_backward, &g, &w);
    }
}

/* ---- gradients of the state ---- */

/* With keys k' = ReLU(k) f s: dv = k' dT, and dk = f s v dT^T where k' is open. */
INLINE void state_step_backward(void *dk, void *dv, const real *dstate, const float *turned, const void *k,
                                const void *v, const struct work *w, struct step t, int64_t c, enum dtype type)
{
    int64_t stride = w->s->stride, at = t.head * c * c;
    _Alignas(64) tile keys, values, gradient;
    float factor = (float)w->s->feature_scale * w->value_scale;
    load_features(keys, k, stride, w->s->key_mask, factor, &t, c, type);
    load_tile(values, v, stride, &t, c, type);
    struct small_ahead ahead = {.streams = 0};
    ahead_add(&ahead, k, stride, &t, c, type);
    ahead_add(&ahead, v, stride, &t, c, type);
    ahead_add(&ahead, dk, stride, &t, c, type);
    ahead_add(&ahead, dv, stride, &t, c, type);
    struct small_left from_v = {values, c, 1}, from_k = {keys, c, 1};
    small_product(gradient, c, from_k, dstate + w->state + at, c, t.rows, c, c, 0, &ahead, 2);
    store_tile(dv, gradient, 1.0f, stride, &t, c, type);
    small_product(gradient, c, from_v, turned + at, c, t.rows, c, c, 0, &ahead, 2);
    store_closed(dk, gradient, keys, factor, stride, &t, c, type);
}

INLINE void state_task_backward(void *dk, void *dv, const real *dstate, const void *k, const void *v,
                                const struct work *w, int64_t c, enum dtype type)
{
    _Alignas(64) states turned;
    turn_states(turned, dstate + w->state, w->heads, c);
    for (int64_t row = w->first; row < w->end; row += TILE)
        for (int64_t h = 0; h < w->heads; h++)
            state_step_backward(dk, dv, dstate, turned, k, v, w, step_at(w, row, h, c), c, type);
}

void ISA_NAME(retention_state_backward)(void *dk, void *dv, const real *dstate, const void *k, const void *v,
                                        const struct retention_shape *shape)
{
    int heads = heads_per_task(shape);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < task_count(shape, heads); t++) {
        struct work w = task_at(shape, heads, t);
        WITH_CONSTANTS(shape, state_task_backward, dk, dv, dstate, k, v, &w);
    }
}
