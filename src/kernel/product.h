/* Linear maps y = x W^T: W [out, in] fp32 masters, packed for the processor; bf16 or fp32 activations, fp32
 * accumulation. Through oneDNN (2.6 and 3.x; OpenBLAS in the double build), or fp32 panels of our own where
 * oneDNN cannot pack weights (multiply.h).
 *
 * A `struct product` is a shape with its primitives, made once and shared by all layers of that
 * shape; a `struct product_weight` is one packed weight in memory of the caller. Forward and dX run
 * on fixed tiles of PRODUCT_TILE rows (a few less where only that makes equal rows of a tile come out
 * equal; small tiles at the end, zero-padded: tiled.h), threads sharing tiles, so a row's
 * result cannot depend on the batch it is in; dW adds token buckets of PRODUCT_BUCKET in order, threads
 * sharing blocks of the output. Weights that share their input (q, k, v, u) may be one product of
 * several `parts` of equal size, stacked along `out`.
 *
 *     TRY(product_create(&(struct product_spec){.in = D, .out = 4 * D, .parts = 4, .type = t, .backward = true,
 *                                               .threads = n}, &p));
 *     w = product_weight_take(p, &arena);          every layer
 *     product_set_scratch(p, arena_take(&arena, product_scratch_bytes(p)));   one block may serve all products
 *     product_pack(p, &w, masters);                after every change of the masters
 *     product_forward(p, y, x, &w, rows);
 *
 * bf16 on a processor without bf16 products is emulated: operands rounded to bf16, fp32 product. */
#ifndef CYTOMILL_KERNEL_PRODUCT_H
#define CYTOMILL_KERNEL_PRODUCT_H

#include <stdbool.h>

#include "base/arena.h"
#include "kernel/dtype.h"

enum { PRODUCT_TILE = 128, PRODUCT_BUCKET = 256, PRODUCT_MAX_PARTS = 8 };

struct product;

struct product_spec {
    int64_t in, out; /* W is [out, in] */
    int parts;       /* masters stacked along out, each [out/parts, in]; 0 means 1 */
    enum dtype type; /* of x, y, dx, dy: DTYPE_F32 or DTYPE_BF16; DTYPE_F64 in the double build */
    bool backward;   /* dX and dW wanted */
    int threads;     /* OpenMP threads that will call; 0 means omp_get_max_threads() */
};

/* Packed memory of one weight: borrowed from an arena; `backward` NULL without spec.backward. */
struct product_weight {
    void *forward, *backward;
};

/* Make the primitives. ST_CONFIG: this oneDNN cannot do the shape. Local. */
MUST_CHECK enum status product_create(const struct product_spec *spec, struct product **out);
void product_destroy(struct product **product);

/* Bytes of one packed weight, and of the scratch all calls on this product share. Local. */
size_t product_weight_bytes(const struct product *product);
size_t product_scratch_bytes(const struct product *product);
/* Take the packed memory of one weight (measure mode allowed). Local. */
struct product_weight product_weight_take(const struct product *product, struct arena *arena);
/* Memory for tiles and oneDNN, product_scratch_bytes() long, 64-byte aligned; borrowed; products that
 * never run at the same time may share it. Local. */
void product_set_scratch(struct product *product, void *scratch);
/* Repack masters[parts], each [out/parts, in]. Allocates nothing. Local. */
void product_pack(struct product *product, struct product_weight *weight, const real *const *masters);
/* The same from masters of another `type`: DTYPE_REAL, or DTYPE_BF16 where spec.type is that. Masters that were rounded
 * to bf16 before give the same bytes. Local. */
void product_pack_from(struct product *product, struct product_weight *weight, const void *const *masters,
                       enum dtype type);

/* XXH3 of a packed weight. Local. */
uint64_t product_weight_hash(const struct product *product, const struct product_weight *weight);

/* y[rows, out] = x[rows, in] W^T. Local. */
void product_forward(struct product *product, void *y, const void *x, const struct product_weight *weight,
                     int64_t rows);
/* dx[rows, in] (+)= dy[rows, out] W; `accumulate` adds to what is there. Local. */
void product_backward_data(struct product *product, void *dx, const void *dy, const struct product_weight *weight,
                           int64_t rows, bool accumulate);
/* dw[parts], each [out/parts, in], += dy^T x. Local. */
void product_backward_weight(struct product *product, real *const *dw, const void *dy, const void *x, int64_t rows);

/* The same where stretches of rows go through weights of their own, all of this shape: rows that lie in no run are
 * neither read nor written. Threads share the tiles of all runs. A weight's gradient: product_backward_weight of its
 * runs. Local. */
struct product_run {
    const struct product_weight *weight;
    int64_t first, rows;
};
void product_forward_runs(struct product *product, void *y, const void *x, const struct product_run *runs, int count);
void product_backward_data_runs(struct product *product, void *dx, const void *dy, const struct product_run *runs,
                                int count, bool accumulate);

/* Plain versions on unpacked weights, W [out, in]. Local. */
void product_forward_ref(void *y, const void *x, const real *w, int64_t rows, int64_t in, int64_t out, enum dtype type);
void product_backward_data_ref(void *dx, const void *dy, const real *w, int64_t rows, int64_t in, int64_t out,
                               enum dtype type, bool accumulate);
void product_backward_weight_ref(real *dw, const void *dy, const void *x, int64_t rows, int64_t in, int64_t out,
                                 enum dtype type);

/* The library's plain rate, the yardstick of benchmarks: GFLOP/s of one packed product of `rows` x `in`
 * x `out` on `threads` threads of its own, median of nine. Allocates. Local. */
MUST_CHECK enum status product_plain_rate(double *gflops, enum dtype type, int64_t rows, int64_t in, int64_t out,
                                          int threads);

/* Called by the master thread between its tiles, about every millisecond: lets messages progress.
 * NULL for none. Local. */
void product_set_poll(void (*poll)(void *context), void *context);

/* Seconds this process has spent in products so far, poll points included. Local. */
double product_busy_s(void);

/* Does this processor (and oneDNN) multiply bf16 in hardware? `precision: auto` is bf16 then. Local. */
bool product_bf16_native(void);
/* bf16 products? `precision` is the value of run.precision: "bf16", "fp32", or "auto": where the processor has them.
 * Local. */
bool product_choose_bf16(const char *precision);
/* What multiplies, as multiply_version_text (multiply.h), with "(bf16 emulated)" where it is. Never NULL. */
const char *product_version_text(void);

#endif
