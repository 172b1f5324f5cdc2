/* CellFM's two decoders, after their products (product.h):
 *     gene-wise  p_i  = w2 . LeakyReLU(a_i),        a = H W1^T
 *     cell-wise  p'_i = sigmoid(m_i) . z_cell(i),   m = gene_emb[g] M^T, z the cls row of the cell
 * Sizes: R rows, width D, B cells; rows of one cell lie together (offsets[B+1]). */
#ifndef CYTOMILL_KERNEL_DECODE_H
#define CYTOMILL_KERNEL_DECODE_H

#include "kernel/dtype.h"
#include "kernel/partial.h"

/* p[R] from a[R,D], w2[D]. Local. */
void decode_gene_forward(real *p, const void *a, const real *w2, double slope, int64_t rows, int64_t width,
                         enum dtype type);
/* da[R,D] written (may be a), dw2[D] added to, from dp[R]. scratch: decode_scratch_reals(). Local. */
void decode_gene_backward(void *da, real *dw2, const real *dp, const void *a, const real *w2, double slope,
                          int64_t rows, int64_t width, enum dtype type, real *scratch);
/* p[R] from m[R,D], z[B,D]. Local. */
void decode_cell_forward(real *p, const void *m, const void *z, const int64_t *offsets, int cells, int64_t width,
                         enum dtype type);
/* dm[R,D] written (may be m), dz[B,D] written, from dp[R]. Local. */
void decode_cell_backward(void *dm, void *dz, const real *dp, const void *m, const void *z, const int64_t *offsets,
                          int cells, int64_t width, enum dtype type);
static inline int64_t decode_scratch_reals(int64_t rows, int64_t width) { return partial_reals(rows, width); }

#endif
