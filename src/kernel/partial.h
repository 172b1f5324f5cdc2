/* Sums over rows in an order that threads do not change: each block of PARTIAL_ROWS rows is summed
 * by one thread into its own row of scratch, then the blocks are added in order. */
#ifndef CYTOMILL_KERNEL_PARTIAL_H
#define CYTOMILL_KERNEL_PARTIAL_H

#include <stdint.h>

#include "base/real.h"

enum { PARTIAL_ROWS = 64, PARTIAL_COLUMNS = 128 };

static inline int64_t partial_blocks(int64_t rows) { return (rows + PARTIAL_ROWS - 1) / PARTIAL_ROWS; }
static inline int64_t partial_reals(int64_t rows, int64_t width) { return partial_blocks(rows) * width; }
/* One past the last row of a block. */
static inline int64_t partial_end(int64_t block, int64_t rows)
{
    int64_t end = (block + 1) * PARTIAL_ROWS;
    return end < rows ? end : rows;
}

/* sum[width] += the rows of partial sums, `stride` apart, in order. Threads share columns. Local. */
static inline void partial_add(real *sum, const real *partial, int64_t stride, int64_t blocks, int64_t width)
{
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < width; first += PARTIAL_COLUMNS) {
        int64_t end = first + PARTIAL_COLUMNS < width ? first + PARTIAL_COLUMNS : width;
        for (int64_t b = 0; b < blocks; b++) {
#pragma omp simd
            for (int64_t i = first; i < end; i++) sum[i] += partial[b * stride + i];
        }
    }
}

#endif
