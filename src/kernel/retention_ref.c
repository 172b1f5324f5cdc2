#include <math.h>
#include <string.h>

#include "kernel/kernel_list.h"

/* One head of one cell. */
struct head {
    int64_t first, end; /* rows */
    int64_t column;     /* first channel */
    int64_t state;      /* offset of its C x C sums */
    double value_scale;
};

static struct head head_at(const struct retention_shape *s, int cell, int head)
{
    int64_t c = s->head_width;
    return (struct head){.first = s->offsets[cell],
                         .end = s->offsets[cell + 1],
                         .column = head * c,
                         .state = ((int64_t)cell * s->heads + head) * c * c,
                         .value_scale = s->value_scale ? s->value_scale[cell] : 1};
}

static double strided(const void *x, const struct retention_shape *s, int64_t row, int64_t column)
{
    return dtype_load(x, row * s->stride + column, s->type);
}

/* ReLU feature of channel i, and 0 where the row is masked out. */
static double feature(const void *x, const struct retention_shape *s, const uint8_t *mask, int64_t row, int64_t column)
{
    double value = strided(x, s, row, column);
    return value > 0 && (!mask || mask[row]) ? value * s->feature_scale : 0;
}

static void state_head_forward(real *state, const void *k, const void *v, const struct retention_shape *s,
                               struct head h)
{
    int64_t c = s->head_width;
    for (int64_t i = 0; i < c; i++)
        for (int64_t j = 0; j < c; j++) {
            double sum = 0;
            for (int64_t row = h.first; row < h.end; row++)
                sum += feature(k, s, s->key_mask, row, h.column + i) * strided(v, s, row, h.column + j);
            state[h.state + i * c + j] += (real)(sum * h.value_scale);
        }
}

void retention_state_forward_ref(real *state, const void *k, const void *v, const struct retention_shape *shape)
{
    for (int cell = 0; cell < shape->cells; cell++)
        for (int head = 0; head < shape->heads; head++)
            state_head_forward(state, k, v, shape, head_at(shape, cell, head));
}

/* o[C] = Q_t T; returns 1 / max(1e-12, rms). */
static double read_row(double *o, const void *q, const real *state, const struct retention_shape *s, struct head h,
                       int64_t row)
{
    int64_t c = s->head_width;
    double square = 0;
    for (int64_t j = 0; j < c; j++) {
        o[j] = 0;
        for (int64_t i = 0; i < c; i++) o[j] += feature(q, s, NULL, row, h.column + i) * state[h.state + i * c + j];
        square += o[j] * o[j];
    }
    return 1 / fmax(1e-12, sqrt(square / (double)c));
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

void retention_read_forward_ref(void *y, const void *q, const void *u, const real *state,
                                const struct retention_shape *shape)
{
    int64_t c = shape->head_width, width = shape->heads * c;
    double o[RETENTION_MAX_HEAD_WIDTH];
    for (int cell = 0; cell < shape->cells; cell++)
        for (int head = 0; head < shape->heads; head++) {
            struct head h = head_at(shape, cell, head);
            for (int64_t row = h.first; row < h.end; row++) {
                double inverse = read_row(o, q, state, shape, h, row);
                for (int64_t j = 0; j < c; j++) {
                    double gate = strided(u, shape, row, h.column + j);
                    dtype_store(y, row * width + h.column + j, o[j] * inverse * gate * sigmoid(gate), shape->type);
                }
            }
        }
}

/* From dy of one row: du written, and do_[C] = d loss / d O. */
static void gate_row_backward(double *do_, void *du, const void *dy, const void *u, const double *o, double inverse,
                              const struct retention_shape *s, struct head h, int64_t row)
{
    int64_t c = s->head_width, width = s->heads * c;
    double dot = 0;
    for (int64_t j = 0; j < c; j++) {
        double gate = strided(u, s, row, h.column + j), sg = sigmoid(gate), normal = o[j] * inverse;
        double d = dtype_load(dy, row * width + h.column + j, s->type);
        dtype_store(du, row * s->stride + h.column + j, d * normal * sg * (1 + gate * (1 - sg)), s->type);
        do_[j] = d * gate * sg;
        dot += do_[j] * normal / (double)c;
    }
    if (inverse >= 1e12) dot = 0; /* the norm is held at its floor: a constant factor */
    for (int64_t j = 0; j < c; j++) do_[j] = inverse * (do_[j] - o[j] * inverse * dot);
}

static void read_head_backward(void *dq, void *du, real *dstate, const void *dy, const void *q, const void *u,
                               const real *state, const struct retention_shape *s, struct head h)
{
    int64_t c = s->head_width;
    double o[RETENTION_MAX_HEAD_WIDTH], do_[RETENTION_MAX_HEAD_WIDTH];
    memset(dstate + h.state, 0, (size_t)(c * c) * sizeof *dstate);
    for (int64_t row = h.first; row < h.end; row++) {
        double inverse = read_row(o, q, state, s, h, row);
        gate_row_backward(do_, du, dy, u, o, inverse, s, h, row);
        for (int64_t i = 0; i < c; i++) {
            double f = feature(q, s, NULL, row, h.column + i), sum = 0;
            for (int64_t j = 0; j < c; j++) {
                sum += do_[j] * state[h.state + i * c + j];
                dstate[h.state + i * c + j] += (real)(f * do_[j]);
            }
            bool open = strided(q, s, row, h.column + i) > 0;
            dtype_store(dq, row * s->stride + h.column + i, open ? sum * s->feature_scale : 0, s->type);
        }
    }
}

void retention_read_backward_ref(void *dq, void *du, real *dstate, const void *dy, const void *q, const void *u,
                                 const real *state, const struct retention_shape *shape)
{
    for (int cell = 0; cell < shape->cells; cell++)
        for (int head = 0; head < shape->heads; head++)
            read_head_backward(dq, du, dstate, dy, q, u, state, shape, head_at(shape, cell, head));
}

static void state_row_backward(void *dk, void *dv, const real *dstate, const void *k, const void *v,
                               const struct retention_shape *s, struct head h, int64_t row)
{
    int64_t c = s->head_width;
    const real *dt = dstate + h.state;
    for (int64_t i = 0; i < c; i++) {
        double sum_k = 0, sum_v = 0;
        for (int64_t j = 0; j < c; j++) {
            sum_k += dt[i * c + j] * strided(v, s, row, h.column + j);
            sum_v += feature(k, s, s->key_mask, row, h.column + j) * dt[j * c + i];
        }
        bool open = feature(k, s, s->key_mask, row, h.column + i) > 0;
        int64_t at = row * s->stride + h.column + i;
        dtype_store(dk, at, open ? sum_k * s->feature_scale * h.value_scale : 0, s->type);
        dtype_store(dv, at, sum_v * h.value_scale, s->type);
    }
}

void retention_state_backward_ref(void *dk, void *dv, const real *dstate, const void *k, const void *v,
                                  const struct retention_shape *shape)
{
    for (int cell = 0; cell < shape->cells; cell++)
        for (int head = 0; head < shape->heads; head++) {
            struct head h = head_at(shape, cell, head);
            for (int64_t row = h.first; row < h.end; row++) state_row_backward(dk, dv, dstate, k, v, shape, h, row);
        }
}
