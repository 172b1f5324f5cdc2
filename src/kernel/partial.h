/* Sums over rows in an order that threads do not change: each block of PARTIAL_ROWS rows is summed
 * by one thread into its own row of scratch, then the blocks are added in order. */
#ifndef CYTOMILL_KERNEL_PARTIAL_H
#define CYTOMILL_KERNEL_PARTIAL_H

#include <stdint.h>

enum { PARTIAL_ROWS = 64 };

static inline int64_t partial_blocks(int64_t rows) { return (rows + PARTIAL_ROWS - 1) / PARTIAL_ROWS; }
static inline int64_t partial_reals(int64_t rows, int64_t width) { return partial_blocks(rows) * width; }

#endif
