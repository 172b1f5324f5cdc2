/* Every kernel that has a plain version and one version per instruction set:
 * X(name, parameters, arguments). Contracts stand in the headers included here. */
#ifndef CYTOMILL_KERNEL_LIST_H
#define CYTOMILL_KERNEL_LIST_H

#include "kernel/decode.h"
#include "kernel/embed.h"
#include "kernel/expert.h"
#include "kernel/gate.h"
#include "kernel/isa.h"
#include "kernel/loss.h"
#include "kernel/norm.h"
#include "kernel/panel.h"
#include "kernel/retention.h"
#include "kernel/value.h"
#include "kernel/vector.h"

#define KERNEL_LIST(X) \
    X(panel_pack, (float *packed, const float *b, int64_t n, int64_t k, bool transposed), \
      (packed, b, n, k, transposed)) \
    X(panel_pack_left, \
      (float *packed, const void *a, enum dtype type, int64_t stride, int64_t k_given, int64_t m, int64_t k), \
      (packed, a, type, stride, k_given, m, k)) \
    X(panel_product, (float *c, const float *a, const float *packed, const struct panel_shape *shape), \
      (c, a, packed, shape)) \
    X(norm_residual_forward, \
      (void *y, real *stat, const void *x, const void *a, const real *gamma, const real *beta, \
       const struct norm_shape *shape), \
      (y, stat, x, a, gamma, beta, shape)) \
    X(norm_residual_backward, \
      (void *dx, void *da, real *dgamma, real *dbeta, const void *dy, const real *stat, const void *x, const void *a, \
       const real *gamma, const struct norm_shape *shape, real *scratch), \
      (dx, da, dgamma, dbeta, dy, stat, x, a, gamma, shape, scratch)) \
    X(retention_state_forward, (real * state, const void *k, const void *v, const struct retention_shape *shape), \
      (state, k, v, shape)) \
    X(retention_read_forward, \
      (void *y, const void *q, const void *u, const real *state, const struct retention_shape *shape), \
      (y, q, u, state, shape)) \
    X(retention_read_backward, \
      (void *dq, void *du, real *dstate, const void *dy, const void *q, const void *u, const real *state, \
       const struct retention_shape *shape), \
      (dq, du, dstate, dy, q, u, state, shape)) \
    X(retention_state_backward, \
      (void *dk, void *dv, const real *dstate, const void *k, const void *v, const struct retention_shape *shape), \
      (dk, dv, dstate, k, v, shape)) \
    X(gate_product_forward, (void *y, const void *u, const void *v, const struct gate_shape *shape), (y, u, v, shape)) \
    X(gate_product_backward, \
      (void *du, void *dv, const void *dy, const void *u, const void *v, const struct gate_shape *shape), \
      (du, dv, dy, u, v, shape)) \
    X(value_softmax_forward, (void *p, const float *x, const real *u, int64_t levels, int64_t b, enum dtype type), \
      (p, x, u, levels, b, type)) \
    X(value_softmax_backward, \
      (real * du, const void *dp, const void *p, const float *x, int64_t levels, int64_t b, enum dtype type, \
       real *scratch), \
      (du, dp, p, x, levels, b, type, scratch)) \
    X(embed_forward, \
      (void *h, const real *gene, const void *e, const real *mask, const real *cls, const struct embed_shape *shape), \
      (h, gene, e, mask, cls, shape)) \
    X(embed_backward, \
      (real * dgene, void *de, real *dmask, real *dcls, const void *dh, const struct row_groups *by_feature, \
       const struct row_groups *by_level, const struct embed_shape *shape), \
      (dgene, de, dmask, dcls, dh, by_feature, by_level, shape)) \
    X(table_gather, (void *y, const real *table, const int32_t *id, int64_t rows, int64_t width, enum dtype type), \
      (y, table, id, rows, width, type)) \
    X(table_add, (real * dtable, const void *dy, const struct row_groups *groups, int64_t width, enum dtype type), \
      (dtable, dy, groups, width, type)) \
    X(rows_gather, (void *y, const void *x, const int64_t *index, int64_t rows, int64_t width, enum dtype type), \
      (y, x, index, rows, width, type)) \
    X(rows_scatter, \
      (void *x, const void *y, const int64_t *index, int64_t rows, int64_t total, int64_t width, enum dtype type), \
      (x, y, index, rows, total, width, type)) \
    X(rows_add, (void *x, const void *y, const int64_t *index, int64_t rows, int64_t width, enum dtype type), \
      (x, y, index, rows, width, type)) \
    X(route_forward, \
      (real * weight, int32_t * choice, real * probability, const real *logits, const real *bias, \
       const struct route_shape *shape), \
      (weight, choice, probability, logits, bias, shape)) \
    X(route_backward, \
      (real * dlogits, const real *dweight, const real *balance, const int32_t *choice, const real *weight, \
       const real *probability, const struct route_shape *shape), \
      (dlogits, dweight, balance, choice, weight, probability, shape)) \
    X(expert_combine, \
      (void *y, const void *e, const void *base, const real *weight, const int64_t *place, \
       const struct expert_shape *shape), \
      (y, e, base, weight, place, shape)) \
    X(expert_combine_backward, \
      (void *de, real *dweight, const void *dy, const void *e, const real *weight, const int64_t *place, \
       const struct expert_shape *shape), \
      (de, dweight, dy, e, weight, place, shape)) \
    X(decode_gene_forward, \
      (real * p, const void *a, const real *w2, double slope, int64_t rows, int64_t width, enum dtype type), \
      (p, a, w2, slope, rows, width, type)) \
    X(decode_gene_backward, \
      (void *da, real *dw2, const real *dp, const void *a, const real *w2, double slope, int64_t rows, int64_t width, \
       enum dtype type, real *scratch), \
      (da, dw2, dp, a, w2, slope, rows, width, type, scratch)) \
    X(decode_cell_forward, \
      (real * p, const void *m, const void *z, const int64_t *offsets, int cells, int64_t width, enum dtype type), \
      (p, m, z, offsets, cells, width, type)) \
    X(decode_cell_backward, \
      (void *dm, void *dz, const real *dp, const void *m, const void *z, const int64_t *offsets, int cells, \
       int64_t width, enum dtype type), \
      (dm, dz, dp, m, z, offsets, cells, width, type)) \
    X(loss_square_forward, \
      (double *error, double *weight, const real *p, const float *y, const float *w, int64_t count), \
      (error, weight, p, y, w, count)) \
    X(loss_square_backward, (real * dp, double scale, const real *p, const float *y, const float *w, int64_t count), \
      (dp, scale, p, y, w, count)) \
    X(adam_step, (real * w, real * m, real * v, const real *g, int64_t count, const struct adam *adam), \
      (w, m, v, g, count, adam)) \
    X(vector_square_sum, (double *out, const real *x, int64_t count), (out, x, count)) \
    X(vector_add, (void *y, const void *x, int64_t count, enum dtype type), (y, x, count, type)) \
    X(vector_convert, (void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t count), \
      (y, y_type, x, x_type, count)) \
    X(vector_round_bf16, (real * x, int64_t count), (x, count)) \
    X(vector_transpose, \
      (void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t rows, int64_t columns, int64_t x_stride, \
       int64_t y_stride), \
      (y, y_type, x, x_type, rows, columns, x_stride, y_stride))

/* Plain versions, with the parameters of the public function. */
#define X(name, params, args) void name##_ref params;
KERNEL_LIST(X)
#undef X

/* One table per instruction set. */
struct kernels {
#define X(name, params, args) void(*name) params;
    KERNEL_LIST(X)
#undef X
};
extern const struct kernels kernels_generic, kernels_avx2, kernels_avx512;

/* Inside a kernel file: the prototypes of its own set. */
#ifdef ISA
#define X(name, params, args) void ISA_NAME(name) params;
KERNEL_LIST(X)
#undef X
#endif

#endif
