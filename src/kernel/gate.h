/* Gate: the product of CellFM's SGLU, y = u * v. Sizes: rows R, width D; u and v
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

#endif
