/* Products of matrices that fit the first-level cache, in fp32: c[m,n] = or += a b. Only inside
 * kernels (retention's head-wide states). Sums run over k in order, so an entry depends on its row
 * of a and column of b alone. */
#ifndef CYTOMILL_KERNEL_SMALL_PRODUCT_H
#define CYTOMILL_KERNEL_SMALL_PRODUCT_H

#include "kernel/lane.h"

/* A register block: SMALL_ROWS x 16 sums, as many as hide the latency of an addition and leave registers for
 * the operands. */
#ifdef __AVX512F__
enum { SMALL_ROWS = 8, SMALL_LANES = 16 };
#elif defined __AVX__
enum { SMALL_ROWS = 6, SMALL_LANES = 8 };
#else
enum { SMALL_ROWS = 2, SMALL_LANES = 4 };
#endif
enum { SMALL_COLUMNS = 16, SMALL_VECTORS = SMALL_COLUMNS / SMALL_LANES };
typedef float small_vector __attribute__((vector_size(SMALL_LANES * 4), aligned(4), may_alias));

/* Element (i, k) of a lies at a[i * row + k * column]: either way round. */
struct small_left {
    const float *a;
    int64_t row, column;
};

/* `rows` is a constant at every call, at most SMALL_ROWS. */
INLINE void small_block(float *c, int64_t c_stride, struct small_left left, const float *b, int64_t b_stride, int rows,
                        int64_t depth, int add)
{
    small_vector sums[SMALL_ROWS][SMALL_VECTORS] = {0};
    for (int64_t k = 0; k < depth; k++) {
        small_vector row[SMALL_VECTORS];
        for (int v = 0; v < SMALL_VECTORS; v++) row[v] = *(const small_vector *)(b + k * b_stride + v * SMALL_LANES);
        for (int i = 0; i < rows; i++) {
            float factor = left.a[i * left.row + k * left.column];
            for (int v = 0; v < SMALL_VECTORS; v++) sums[i][v] += factor * row[v];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < SMALL_VECTORS; v++) {
            small_vector *out = (small_vector *)(c + i * c_stride + v * SMALL_LANES);
            if (add) sums[i][v] += *out;
            *out = sums[i][v];
        }
}

/* Columns that do not fill a block. */
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

/* Rows of the next block of `left` rows: 32 are 6 + 6 + 6 + 6 + 4 + 4, not 5 x 6 + 2. */
INLINE int small_rows(int64_t left)
{
    if (left >= SMALL_ROWS && (SMALL_ROWS != 6 || left != 8)) return SMALL_ROWS;
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* Rows of memory, `lines` cache lines each, to ask for between the blocks of a product, so that they arrive
 * while it runs. */
enum { SMALL_STREAMS = 5 };
struct small_ahead {
    const char *next[SMALL_STREAMS];
    int64_t stride_bytes[SMALL_STREAMS];
    int streams, lines;
    int64_t rows; /* left */
};

/* The next `rows` rows of each stream. */
INLINE void small_ask(struct small_ahead *ahead, int64_t rows)
{
    for (; rows > 0 && ahead->rows > 0; rows--, ahead->rows--)
        for (int s = 0; s < ahead->streams; s++) {
            for (int l = 0; l < ahead->lines; l++) __builtin_prefetch(ahead->next[s] + 64 * l);
            ahead->next[s] += ahead->stride_bytes[s];
        }
}

/* Asks for `ask` rows of each stream of `ahead` per block. */
INLINE void small_product(float *c, int64_t c_stride, struct small_left left, const float *b, int64_t b_stride,
                          int64_t rows, int64_t columns, int64_t depth, int add, struct small_ahead *ahead, int ask)
{
    for (int64_t j = 0; j < columns; j += SMALL_COLUMNS) {
        int64_t columns_left = columns - j;
        if (columns_left < SMALL_COLUMNS) {
            small_edge(c + j, c_stride, left, b + j, b_stride, rows, columns_left, depth, add);
            break;
        }
        for (int64_t i = 0, taken; i < rows; i += taken) {
            struct small_left at = {left.a + i * left.row, left.row, left.column};
            float *out = c + i * c_stride + j;
            taken = small_rows(rows - i);
            small_ask(ahead, ask);
            if (taken == SMALL_ROWS) small_block(out, c_stride, at, b + j, b_stride, SMALL_ROWS, depth, add);
            else if (taken == 4)
                small_block(out, c_stride, at, b + j, b_stride, SMALL_ROWS < 4 ? SMALL_ROWS : 4, depth, add);
            else if (taken == 2) small_block(out, c_stride, at, b + j, b_stride, 2, depth, add);
            else small_block(out, c_stride, at, b + j, b_stride, 1, depth, add);
        }
    }
}

#endif
