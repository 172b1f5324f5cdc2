/* A linear map y = x W^T with its packed weight: what op_linear runs and what a deferred weight
 * gradient needs. Several weights that read the same rows stand side by side (parts), in the order
 * of their columns in y. The model fills and owns it (model/linears.h). */
#ifndef CYTOMILL_TAPE_LINEAR_H
#define CYTOMILL_TAPE_LINEAR_H

#include "base/real.h"
#include "kernel/product.h"

struct linear {
    int64_t in, out; /* widths; out over all parts */
    int parts;
    bool learns;                       /* wants weight gradients */
    bool fine;                         /* computed in `real` even where activations are bf16 */
    real *gradient[PRODUCT_MAX_PARTS]; /* [out/parts, in] each, fp32, added to; NULL without training */
    struct product *product;           /* shared by maps of the same shape */
    struct product_weight packed;
};

#endif
