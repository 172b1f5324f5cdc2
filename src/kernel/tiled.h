/* Multiplications of any number of rows as tiles of two fixed sizes, in which a row's bits depend on
 * nothing but the row. Used by product.c alone.
 *
 * A library's kernel may work on 6 rows at a time and add up the 2 left over of 128 in another order (oneDNN
 * 2.6 on AVX2 does); so tile sizes are tried when the product is made: the largest in which equal rows come out
 * equal, and a small one, for what is left at the end, that gives the same bits as the large one. */
#ifndef CYTOMILL_KERNEL_TILED_H
#define CYTOMILL_KERNEL_TILED_H

#include "kernel/multiply.h"

enum { TILED_SIZES = 2 };

struct tiled {
    struct multiply *multiply[TILED_SIZES]; /* large, small; small may be NULL */
    int64_t rows[TILED_SIZES];
};

/* One tile: rows [first, first + count) of `rows[size]` that the multiplication takes. */
struct tile {
    int size;
    int64_t first, count;
};

/* spec.m is ignored. ST_CONFIG. Local. */
MUST_CHECK enum status tiled_create(const struct multiply_spec *spec, int64_t largest, struct tiled *out);
void tiled_destroy(struct tiled *tiled);
size_t tiled_scratch_bytes(const struct tiled *tiled);

/* Tiles of `rows` rows: large ones, then small ones for the rest. Local. */
int64_t tiled_count(const struct tiled *tiled, int64_t rows);
struct tile tiled_at(const struct tiled *tiled, int64_t rows, int64_t index);

#endif
