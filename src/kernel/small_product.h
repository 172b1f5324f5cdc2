/* Products of matrices that fit the first-level cache, in fp32: c[m,n] = or += a b. Only inside
 * kernels (retention's head-wide states). Sums run over k in order, so an entry depends on its row
 * of a and column of b alone. */
#ifndef CYTOMILL_KERNEL_SMALL_PRODUCT_H
#define CYTOMILL_KERNEL_SMALL_PRODUCT_H

#include "kernel/lane.h"

/* A register block: SMALL_ROWS x 16 sums. With 64-byte registers a row is one of them. */
#ifdef __AVX512F__
enum { SMALL_ROWS = 8, SMALL_LANES = 16 };
#else
enum { SMALL_ROWS = 4, SMALL_LANES = 8 };
#endif
enum { SMALL_COLUMNS = 16, SMALL_VECTORS = SMALL_COLUMNS / SMALL_LANES };
typedef float small_vector __attribute__((vector_size(SMALL_LANES * 4), aligned(4), may_alias));

/* Element (i, k) of a lies at a[i * row + k * column]: either way round. */
struct small_left {
    const float *a;
    int64_t row, column;
};

INLINE void small_block(float *c, int64_t c_stride, struct small_left left, const float *b, int64_t b_stride,
                        int64_t depth, int add)
{
    small_vector sums[SMALL_ROWS][SMALL_VECTORS] = {0};
    for (int64_t k = 0; k < depth; k++) {
        small_vector row[SMALL_VECTORS];
        for (int v = 0; v < SMALL_VECTORS; v++) row[v] = *(const small_vector *)(b + k * b_stride + v * SMALL_LANES);
        for (int i = 0; i < SMALL_ROWS; i++) {
            float factor = left.a[i * left.row + k * left.column];
            for (int v = 0; v < SMALL_VECTORS; v++) sums[i][v] += factor * row[v];
        }
    }
    for (int i = 0; i < SMALL_ROWS; i++)
        for (int v = 0; v < SMALL_VECTORS; v++) {
            small_vector *out = (small_vector *)(c + i * c_stride + v * SMALL_LANES);
            if (add) sums[i][v] += *out;
            *out = sums[i][v];
        }
}

/* Rows or columns that do not fill a block. */
INLINE void small_edge(float *c, int64_t c_stride, struct small_left left, const float *b, int64_t b_stride,
                       int64_t rows, int64_t columns, int64_t depth, int add)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            float sum = 0;
            for (int64_t k = 0; k < depth; k++) sum += left.a[i * left.row + k * left.column] * b[k * b_stride + j];
            c[i * c_stride + j] = add ? c[i * c_stride + j] + sum : sum;
        }
}

INLINE void small_product(float *c, int64_t c_stride, struct small_left left, const float *b, int64_t b_stride,
                          int64_t rows, int64_t columns, int64_t depth, int add)
{
    for (int64_t i = 0; i < rows; i += SMALL_ROWS)
        for (int64_t j = 0; j < columns; j += SMALL_COLUMNS) {
            struct small_left at = {left.a + i * left.row, left.row, left.column};
            float *out = c + i * c_stride + j;
            int64_t rows_left = rows - i, columns_left = columns - j;
            if (rows_left >= SMALL_ROWS && columns_left >= SMALL_COLUMNS)
                small_block(out, c_stride, at, b + j, b_stride, depth, add);
            else
                small_edge(out, c_stride, at, b + j, b_stride, rows_left < SMALL_ROWS ? rows_left : SMALL_ROWS,
                           columns_left < SMALL_COLUMNS ? columns_left : SMALL_COLUMNS, depth, add);
        }
}

#endif
