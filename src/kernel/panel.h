/* fp32 products C[m,n] = A[m,k] B[k,n] (or +=) with B cut into panels once and read many times: what products
 * run on where the library has no kernel for packed weights. oneDNN 2.6 has none before AVX-512: there it
 * copies W at every call. Row-major, dense, one thread; used by multiply_onednn.c alone.
 *
 * B is cut along k into blocks and along n into panels of three vector registers; a panel of a block stays in the
 * first-level cache while all rows of A pass, four at a time (Goto and van de Geijn, ACM TOMS 34(3), 2008). An
 * entry of C is the sum over blocks, in order, of sums over k, in order: a row's bits depend on the row alone.
 *
 *     panel_pack(packed, w, n, k, true);                                    packed: panel_bytes(n, k)
 *     panel_product(y, x, packed, &(struct panel_shape){.m = m, .n = n, .k = k}); */
#ifndef CYTOMILL_KERNEL_PANEL_H
#define CYTOMILL_KERNEL_PANEL_H

#include <stdbool.h>

#include "kernel/dtype.h"

struct panel_shape {
    int64_t m, n, k;
    bool accumulate;  /* += */
    bool left_packed; /* A comes from panel_pack_left */
};

/* Bytes of packed B, enough for every instruction set. Local. */
size_t panel_bytes(int64_t n, int64_t k);
/* Pack B, given as [k,n], or as [n,k] if `transposed`, into panel_bytes(n, k); only the instruction set that packed
 * can read it. Local. */
void panel_pack(float *packed, const float *b, int64_t n, int64_t k, bool transposed);
/* Pack A[m,k] given as its transpose: k_given rows, `stride` apart, of m numbers; rows up to k are 0.
 * packed holds m k numbers. Local. */
void panel_pack_left(float *packed, const void *a, enum dtype type, int64_t stride, int64_t k_given, int64_t m,
                     int64_t k);
/* c[m,n] = or += A B, from a[m,k] as it lies or packed, and packed B. No array may overlap c. m n k fused
 * multiply-adds; allocates nothing. Local. */
void panel_product(float *c, const float *a, const float *packed, const struct panel_shape *shape);

#endif
