/* Gates: the product of CellFM's SGLU, y = u * v, and LeakyReLU. Sizes: rows R, width D; u and v
 * are columns of one packed product, rows `stride` elements apart; y is dense [R, D]. */
#ifndef CYTOMILL_KERNEL_GATE_H
#define CYTOMILL_KERNEL_GATE_H

#include "kernel/dtype.h"

struct gate_shape {
    int64_t rows, width, stride;
    enum dtype type;
};

/* y[R,D] = u * v. Local. */
void gate_product_forward(void *y, const void *u, const void *v, const struct gate_shape *shape);
/* du = dy * v, dv = dy * u, both written with the stride of u and v; du and dv may be u and v. Local. */
void gate_product_backward(void *du, void *dv, const void *dy, const void *u, const void *v,
                           const struct gate_shape *shape);

/* y[n] = x > 0 ? x : slope x; y may be x. Local. */
void leaky_forward(void *y, const void *x, double slope, int64_t count, enum dtype type);
/* dx[n] = x > 0 ? dy : slope dy; dx may be dy. Local. */
void leaky_backward(void *dx, const void *dy, const void *x, double slope, int64_t count, enum dtype type);

#endif
