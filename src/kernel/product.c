#include "kernel/product.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/progress.h"
#include "kernel/multiply.h"
#include "kernel/tiled.h"
#include "kernel/vector.h"

/* Buckets whose operands are packed together, so that a block of dW stays in cache meanwhile. */
enum { GROUP_BUCKETS = 4, BLOCK_ROWS = 128 };

struct product {
    struct product_spec spec;
    enum dtype inner; /* operands of the multiplication: spec.type, or fp32 where bf16 is emulated */
    struct tiled forward, data, data_add;
    struct multiply *weight, *weight_tail;
    int64_t tail_rows; /* rows of the last block of dW of a part; 0 = all are BLOCK_ROWS */
    unsigned char *scratch;
    size_t thread_bytes, library_bytes; /* scratch of one thread: two tiles and the library's */
    size_t a_bytes, b_bytes;            /* packed operands of dW of one bucket */
};

static void (*poll_function)(void *);
static void *poll_context;
static double busy_s;

void product_set_poll(void (*poll)(void *context), void *context)
{
    poll_function = poll;
    poll_context = context;
}

static void poll_from_master(int thread)
{
    if (thread == 0 && poll_function) poll_function(poll_context);
}

double product_busy_s(void) { return busy_s; }

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }
static size_t aligned(size_t bytes) { return (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN; }
static size_t inner_bytes(const struct product *p, int64_t count)
{
    return aligned((size_t)count * dtype_bytes(p->inner));
}

/* ---- create ---- */

static enum status create_multiplications(struct product *p)
{
    enum status st = ST_OK;
    int64_t in = p->spec.in, out = p->spec.out, part = out / p->spec.parts;
    struct multiply_spec s = {.n = out, .k = in, .type = p->inner, .c_type = p->inner, .threads = p->spec.threads};
    TRY(tiled_create(&s, PRODUCT_TILE, &p->forward));
    if (!p->spec.backward) return ST_OK;
    s.n = in;
    s.k = out;
    TRY(tiled_create(&s, PRODUCT_TILE, &p->data));
    s.accumulate = true;
    TRY(tiled_create(&s, PRODUCT_TILE, &p->data_add));
    s.c_type = DTYPE_REAL;
    s.left_packed = true;
    s.k = PRODUCT_BUCKET;
    s.m = BLOCK_ROWS;
    if (part >= BLOCK_ROWS) TRY(multiply_create(&s, &p->weight));
    s.m = p->tail_rows = part % BLOCK_ROWS;
    if (p->tail_rows) TRY(multiply_create(&s, &p->weight_tail));
done:
    return st;
}

static void measure_scratch(struct product *p)
{
    const struct tiled *tiled[] = {&p->forward, &p->data, &p->data_add};
    for (int i = 0; i < 3; i++) p->library_bytes = larger(p->library_bytes, aligned(tiled_scratch_bytes(tiled[i])));
    const struct multiply *whole[] = {p->weight, p->weight_tail};
    for (int i = 0; i < 2; i++)
        if (whole[i]) p->library_bytes = larger(p->library_bytes, aligned(multiply_scratch_bytes(whole[i])));
    int64_t tile = PRODUCT_TILE > PRODUCT_BUCKET ? PRODUCT_TILE : PRODUCT_BUCKET;
    p->thread_bytes = inner_bytes(p, tile * p->spec.in) + inner_bytes(p, tile * p->spec.out) + p->library_bytes;
    if (!p->spec.backward) return;
    const struct multiply *weight = p->weight ? p->weight : p->weight_tail;
    p->a_bytes = inner_bytes(p, p->spec.out * PRODUCT_BUCKET);
    p->b_bytes = aligned(multiply_packed_bytes(weight));
}

enum status product_create(const struct product_spec *spec, struct product **out)
{
    enum status st = ST_OK;
    struct product *p = NULL;
    *out = NULL;
    TRY(mem_alloc((void **)&p, 1, sizeof *p, "product"));
    *p = (struct product){.spec = *spec};
    if (p->spec.parts == 0) p->spec.parts = 1;
    if (p->spec.threads == 0) p->spec.threads = omp_get_max_threads();
    if (p->spec.parts > PRODUCT_MAX_PARTS || p->spec.out % p->spec.parts != 0)
        TRY(fail(ST_INTERNAL, "a product of %d parts must divide its %ld outputs and have at most %d", p->spec.parts,
                 (long)spec->out, PRODUCT_MAX_PARTS));
    p->inner = spec->type == DTYPE_BF16 && !multiply_bf16_native() ? DTYPE_F32 : spec->type;
    TRY(create_multiplications(p));
    measure_scratch(p);
    *out = p;
    p = NULL;
done:
    product_destroy(&p);
    return st;
}

void product_destroy(struct product **product)
{
    struct product *p = *product;
    if (!p) return;
    tiled_destroy(&p->forward);
    tiled_destroy(&p->data);
    tiled_destroy(&p->data_add);
    multiply_destroy(&p->weight);
    multiply_destroy(&p->weight_tail);
    free(p);
    *product = NULL;
}

/* ---- memory ---- */

static size_t forward_bytes(const struct product *p) { return aligned(multiply_packed_bytes(p->forward.multiply[0])); }

size_t product_weight_bytes(const struct product *p)
{
    return forward_bytes(p) + (p->data.multiply[0] ? aligned(multiply_packed_bytes(p->data.multiply[0])) : 0);
}

struct product_weight product_weight_take(const struct product *p, struct arena *arena)
{
    struct product_weight w = {.forward = arena_take(arena, forward_bytes(p))};
    if (p->data.multiply[0]) w.backward = arena_take(arena, multiply_packed_bytes(p->data.multiply[0]));
    return w;
}

/* Scratch: threads x {x tile, y tile, library}, then what is larger of the operands of dW and the
 * stacked masters that a pack reads. */
size_t product_scratch_bytes(const struct product *p)
{
    size_t masters = aligned((size_t)(p->spec.in * p->spec.out) * sizeof(real));
    size_t operands = GROUP_BUCKETS * (p->a_bytes + p->b_bytes);
    return (size_t)p->spec.threads * p->thread_bytes + larger(masters, operands);
}

void product_set_scratch(struct product *p, void *scratch) { p->scratch = scratch; }

static unsigned char *thread_scratch(const struct product *p, int thread)
{
    return p->scratch + (size_t)thread * p->thread_bytes;
}
static unsigned char *shared_scratch(const struct product *p) { return thread_scratch(p, p->spec.threads); }

/* ---- packing ---- */

/* The masters as one [out,in] matrix: as they lie if they follow each other and are of a type that can be packed, else
 * stacked in scratch. *type is what they come in and what the matrix is of. */
static const void *masters_stacked(const struct product *p, const void *const *masters, enum dtype *type)
{
    int64_t part = p->spec.in * p->spec.out / p->spec.parts;
    enum dtype given = *type;
    bool follow = given == DTYPE_REAL || given == p->inner;
    for (int i = 1; i < p->spec.parts; i++) follow = follow && masters[i] == dtype_at(masters[0], i * part, given);
    if (follow) return masters[0];
    *type = given == p->inner ? given : DTYPE_REAL;
    void *stacked = shared_scratch(p);
    for (int i = 0; i < p->spec.parts; i++)
        vector_convert(dtype_at(stacked, i * part, *type), *type, masters[i], given, part);
    return stacked;
}

/* Emulated bf16 keeps rounded weights as floats. */
static void round_weights(const struct product *p, void *packed, const struct multiply *m)
{
    if (p->spec.type == DTYPE_BF16 && p->inner == DTYPE_F32)
        vector_round_bf16(packed, (int64_t)(multiply_packed_bytes(m) / sizeof(real)));
}

void product_pack_from(struct product *p, struct product_weight *weight, const void *const *masters, enum dtype type)
{
    const void *w = masters_stacked(p, masters, &type);
    unsigned char *library = thread_scratch(p, 0);
    multiply_pack(p->forward.multiply[0], 0, weight->forward, w, type, true, library);
    round_weights(p, weight->forward, p->forward.multiply[0]);
    if (!p->data.multiply[0]) return;
    multiply_pack(p->data.multiply[0], 0, weight->backward, w, type, false, library);
    round_weights(p, weight->backward, p->data.multiply[0]);
}

void product_pack(struct product *p, struct product_weight *weight, const real *const *masters)
{
    const void *each[PRODUCT_MAX_PARTS];
    for (int i = 0; i < p->spec.parts; i++) each[i] = masters[i];
    product_pack_from(p, weight, each, DTYPE_REAL);
}

uint64_t product_weight_hash(const struct product *p, const struct product_weight *weight)
{
    uint64_t hash = hash_block(weight->forward, multiply_packed_bytes(p->forward.multiply[0]), 0);
    if (!p->data.multiply[0]) return hash;
    return hash_block(weight->backward, multiply_packed_bytes(p->data.multiply[0]), hash);
}

/* ---- y = x W^T and dx = dy W on tiles of rows ---- */

struct tiles {
    const struct tiled *tiled;
    void *y;
    const void *x;
    int64_t in, out;       /* of this direction */
    bool accumulate, back; /* adds to y; goes through the weights' packing for dx */
    const struct product_run *runs;
    int count;
};

/* Rows of one tile through scratch: zero-padded, and in the inner type. */
static void tile_through_scratch(const struct product *p, const struct tiles *t, struct tile at, const void *packed,
                                 int thread)
{
    int64_t rows = t->tiled->rows[at.size], gap = rows - at.count;
    unsigned char *x = thread_scratch(p, thread), *y = x + inner_bytes(p, rows * t->in);
    unsigned char *library = y + inner_bytes(p, rows * t->out);
    enum dtype type = p->spec.type, inner = p->inner;
    vector_convert(x, inner, dtype_at(t->x, at.first * t->in, type), type, at.count * t->in);
    memset(dtype_at(x, at.count * t->in, inner), 0, (size_t)(gap * t->in) * dtype_bytes(inner));
    if (t->accumulate) {
        vector_convert(y, inner, dtype_at(t->y, at.first * t->out, type), type, at.count * t->out);
        memset(dtype_at(y, at.count * t->out, inner), 0, (size_t)(gap * t->out) * dtype_bytes(inner));
    }
    multiply_run(t->tiled->multiply[at.size], thread, y, x, packed, library);
    vector_convert(dtype_at(t->y, at.first * t->out, type), type, y, inner, at.count * t->out);
}

/* Tile `index` of all runs. */
static void tile_run(const struct product *p, const struct tiles *t, int64_t index, int thread)
{
    const struct product_run *run = t->runs;
    for (int64_t tiles; index >= (tiles = tiled_count(t->tiled, run->rows)); run++) index -= tiles;
    const void *packed = t->back ? run->weight->backward : run->weight->forward;
    struct tile at = tiled_at(t->tiled, run->rows, index);
    at.first += run->first;
    if (p->inner != p->spec.type || at.count < t->tiled->rows[at.size]) {
        tile_through_scratch(p, t, at, packed, thread);
        return;
    }
    multiply_run(t->tiled->multiply[at.size], thread, dtype_at(t->y, at.first * t->out, p->spec.type),
                 dtype_at(t->x, at.first * t->in, p->spec.type), packed, thread_scratch(p, thread));
}

/* Which thread runs a tile does not matter: threads take the next one, so that none waits long. */
static void tiles_run(const struct product *p, const struct tiles *t)
{
    double start = clock_s();
    int64_t count = 0;
    for (int i = 0; i < t->count; i++) count += tiled_count(t->tiled, t->runs[i].rows);
#pragma omp parallel num_threads(p->spec.threads)
    {
        omp_set_num_threads(1); /* for this thread's calls into the library only */
        int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < count; i++) {
            tile_run(p, t, i, thread);
            poll_from_master(thread);
        }
    }
    busy_s += clock_s() - start;
}

void product_forward_runs(struct product *p, void *y, const void *x, const struct product_run *runs, int count)
{
    struct tiles t = {&p->forward, y, x, p->spec.in, p->spec.out, false, false, runs, count};
    tiles_run(p, &t);
}

void product_backward_data_runs(struct product *p, void *dx, const void *dy, const struct product_run *runs, int count,
                                bool accumulate)
{
    struct tiles t = {
        accumulate ? &p->data_add : &p->data, dx, dy, p->spec.out, p->spec.in, accumulate, true, runs, count};
    tiles_run(p, &t);
}

void product_forward(struct product *p, void *y, const void *x, const struct product_weight *weight, int64_t rows)
{
    product_forward_runs(p, y, x, &(struct product_run){weight, 0, rows}, 1);
}

void product_backward_data(struct product *p, void *dx, const void *dy, const struct product_weight *weight,
                           int64_t rows, bool accumulate)
{
    product_backward_data_runs(p, dx, dy, &(struct product_run){weight, 0, rows}, 1, accumulate);
}

/* ---- dW += dy^T x on buckets of rows ---- */

struct buckets {
    const void *dy, *x;
    int64_t rows;         /* of the whole call */
    int64_t first, count; /* buckets of this group */
    int64_t blocks_per_part;
};

static int64_t bucket_rows(const struct buckets *b, int64_t i)
{
    int64_t left = b->rows - (b->first + i) * PRODUCT_BUCKET;
    return left < PRODUCT_BUCKET ? left : PRODUCT_BUCKET;
}

static unsigned char *bucket_a(const struct product *p, int64_t i)
{
    return shared_scratch(p) + (size_t)i * p->a_bytes;
}
static unsigned char *bucket_b(const struct product *p, int64_t i)
{
    return shared_scratch(p) + GROUP_BUCKETS * p->a_bytes + (size_t)i * p->b_bytes;
}

/* B of bucket i: x in the inner type, zero-padded to a whole bucket. */
static void bucket_pack_x(const struct product *p, const struct buckets *b, int64_t i, int thread)
{
    int64_t in = p->spec.in, rows = bucket_rows(b, i), first = (b->first + i) * PRODUCT_BUCKET;
    const void *x = dtype_at(b->x, first * in, p->spec.type);
    unsigned char *whole = thread_scratch(p, thread), *library = whole + inner_bytes(p, PRODUCT_BUCKET * in);
    struct multiply *m = p->weight ? p->weight : p->weight_tail;
    if (rows < PRODUCT_BUCKET || p->inner != p->spec.type) {
        vector_convert(whole, p->inner, x, p->spec.type, rows * in);
        memset(dtype_at(whole, rows * in, p->inner), 0, (size_t)((PRODUCT_BUCKET - rows) * in) * dtype_bytes(p->inner));
        x = whole;
    }
    multiply_pack(m, thread, bucket_b(p, i), x, p->inner, false, library);
}

/* A of bucket i, columns of one block: dy^T, zero-padded to a whole bucket. */
static void bucket_pack_dy(const struct product *p, const struct buckets *b, int64_t i, int64_t column, int64_t columns)
{
    int64_t out = p->spec.out, rows = bucket_rows(b, i), first = (b->first + i) * PRODUCT_BUCKET;
    struct multiply *m = columns == BLOCK_ROWS ? p->weight : p->weight_tail;
    multiply_pack_left(m, dtype_at(bucket_a(p, i), column * PRODUCT_BUCKET, p->inner),
                       dtype_at(b->dy, first * out + column, p->spec.type), p->spec.type, out, rows);
}

/* Block `block` of the stacked dW: its part, first row in the part, and rows. */
static void block_find(const struct product *p, const struct buckets *b, int64_t block, int *part, int64_t *row,
                       int64_t *rows)
{
    int64_t part_rows = p->spec.out / p->spec.parts;
    *part = (int)(block / b->blocks_per_part);
    *row = block % b->blocks_per_part * BLOCK_ROWS;
    *rows = part_rows - *row < BLOCK_ROWS ? part_rows - *row : BLOCK_ROWS;
}

static void block_add(const struct product *p, const struct buckets *b, int64_t block, real *const *dw, int thread)
{
    int part;
    int64_t row, rows;
    block_find(p, b, block, &part, &row, &rows);
    int64_t column = part * (p->spec.out / p->spec.parts) + row;
    struct multiply *m = rows == BLOCK_ROWS ? p->weight : p->weight_tail;
    for (int64_t i = 0; i < b->count; i++)
        multiply_run(m, thread, dw[part] + row * p->spec.in,
                     dtype_at(bucket_a(p, i), column * PRODUCT_BUCKET, p->inner), bucket_b(p, i),
                     thread_scratch(p, thread));
}

static void group_run(const struct product *p, const struct buckets *b, real *const *dw, int thread)
{
    int64_t blocks = b->blocks_per_part * p->spec.parts;
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < b->count; i++) bucket_pack_x(p, b, i, thread);
#pragma omp for schedule(static)
    for (int64_t j = 0; j < b->count * blocks; j++) {
        int part;
        int64_t row, rows;
        block_find(p, b, j % blocks, &part, &row, &rows);
        bucket_pack_dy(p, b, j / blocks, part * (p->spec.out / p->spec.parts) + row, rows);
    }
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        block_add(p, b, block, dw, thread);
        poll_from_master(thread);
    }
}

void product_backward_weight(struct product *p, real *const *dw, const void *dy, const void *x, int64_t rows)
{
    double start = clock_s();
    int64_t buckets = (rows + PRODUCT_BUCKET - 1) / PRODUCT_BUCKET, part_rows = p->spec.out / p->spec.parts;
    for (int64_t first = 0; first < buckets; first += GROUP_BUCKETS) {
        struct buckets b = {.dy = dy,
                            .x = x,
                            .rows = rows,
                            .first = first,
                            .count = buckets - first < GROUP_BUCKETS ? buckets - first : GROUP_BUCKETS,
                            .blocks_per_part = (part_rows + BLOCK_ROWS - 1) / BLOCK_ROWS};
#pragma omp parallel num_threads(p->spec.threads)
        {
            omp_set_num_threads(1);
            group_run(p, &b, dw, omp_get_thread_num());
        }
    }
    busy_s += clock_s() - start;
}

/* ---- what the library is ---- */

bool product_bf16_native(void) { return multiply_bf16_native(); }

bool product_choose_bf16(const char *precision)
{
    return strcmp(precision, "bf16") == 0 || (strcmp(precision, "auto") == 0 && product_bf16_native());
}

const char *product_version_text(void)
{
    static char text[160];
    snprintf(text, sizeof text, "%s%s", multiply_version_text(), multiply_bf16_native() ? "" : " (bf16 emulated)");
    return text;
}
