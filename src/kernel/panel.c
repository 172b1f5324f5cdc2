#include "kernel/kernel_list.h"
#include "kernel/lane.h"
#include "kernel/panel.h"

/* A register block is ROWS x 3 vectors of sums: enough to hide the latency of an addition, and with three
 * registers for B and one for A as many as AVX2 has. A panel of a block (24 KiB there) leaves room in the
 * first-level cache for rows of A. */
enum { ROWS = 4, LANES = LANE_BYTES / 4, VECTORS = 3, COLUMNS = VECTORS * LANES, DEPTH = 256 };
typedef float panel_vector __attribute__((vector_size(LANE_BYTES), aligned(4), may_alias));

/* ---- packing ---- */

/* Panel of `depth` rows of B; columns that B lacks are 0. */
INLINE void pack_rows(float *restrict panel, const float *restrict b, int64_t n, int64_t depth, int64_t columns)
{
    for (int64_t k = 0; k < depth; k++, panel += COLUMNS, b += n) {
        if (columns == COLUMNS) memcpy(panel, b, COLUMNS * sizeof *b);
        else
            for (int64_t j = 0; j < COLUMNS; j++) panel[j] = j < columns ? b[j] : 0.0f;
    }
}

/* The same from B's transpose, of rows of k_all numbers. */
INLINE void pack_columns(float *restrict panel, const float *restrict b, int64_t k_all, int64_t depth, int64_t columns)
{
    for (int64_t j = 0; j < COLUMNS; j++)
        for (int64_t k = 0; k < depth; k++) panel[k * COLUMNS + j] = j < columns ? b[j * k_all + k] : 0.0f;
}

void ISA_NAME(panel_pack)(float *packed, const float *b, int64_t n, int64_t k, bool transposed)
{
    for (int64_t block = 0; block < k; block += DEPTH) {
        int64_t depth = k - block < DEPTH ? k - block : DEPTH;
        for (int64_t j = 0; j < n; j += COLUMNS, packed += depth * COLUMNS) {
            int64_t columns = n - j < COLUMNS ? n - j : COLUMNS;
            if (transposed) pack_columns(packed, b + j * k + block, k, depth, columns);
            else pack_rows(packed, b + block * n + j, n, depth, columns);
        }
    }
}

/* Groups of ROWS columns of the transpose, [k, ROWS] each; the last group has what is left. */
void ISA_NAME(panel_pack_left)(float *packed, const void *a, enum dtype type, int64_t stride, int64_t k_given,
                               int64_t m, int64_t k)
{
    int64_t whole = m / ROWS * ROWS, left = m - whole;
    for (int64_t r = 0; r < k_given; r++) {
        const void *row = dtype_at(a, r * stride, type);
        for (int64_t i = 0; i < whole; i += ROWS)
            for (int64_t l = 0; l < ROWS; l++) packed[i * k + r * ROWS + l] = lane_load(row, i + l, type);
        for (int64_t l = 0; l < left; l++) packed[whole * k + r * left + l] = lane_load(row, whole + l, type);
    }
    for (int64_t i = 0; i < m; i += ROWS) {
        int64_t rows = m - i < ROWS ? m - i : ROWS;
        memset(packed + i * k + k_given * rows, 0, (size_t)((k - k_given) * rows) * sizeof *packed);
    }
}

/* ---- product ---- */

/* Rows of A that pass together: element (i, k) lies at a[i * stride + k], or packed at a[k * rows + i].
 * `rows` and `packed` are constants at every call. */
struct left {
    const float *a;
    int64_t stride;
    int rows;
    bool packed;
};

INLINE void step(panel_vector sums[ROWS][VECTORS], struct left left, const float *panel, int64_t k)
{
    panel_vector b[VECTORS];
    for (int v = 0; v < VECTORS; v++) b[v] = *(const panel_vector *)(panel + k * COLUMNS + v * LANES);
    for (int i = 0; i < left.rows; i++) {
        float a = left.packed ? left.a[k * left.rows + i] : left.a[i * left.stride + k];
        for (int v = 0; v < VECTORS; v++) sums[i][v] += a * b[v];
    }
    __asm__ volatile(""); /* a step's loads stay in it: those of four would not fit the registers */
}

/* sums = A B over one block. */
INLINE void sum_block(panel_vector sums[ROWS][VECTORS], struct left left, const float *panel, int64_t depth)
{
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) {
        step(sums, left, panel, k);
        step(sums, left, panel, k + 1);
        step(sums, left, panel, k + 2);
        step(sums, left, panel, k + 3);
    }
    for (; k < depth; k++) step(sums, left, panel, k);
}

INLINE void store_block(float *c, int64_t n, panel_vector sums[ROWS][VECTORS], int rows, bool add)
{
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < VECTORS; v++) {
            panel_vector *out = (panel_vector *)(c + i * n + v * LANES);
            if (add) sums[i][v] += *out;
            *out = sums[i][v];
        }
}

/* The last panel, where C has fewer columns than it. */
INLINE void store_edge(float *c, int64_t n, panel_vector sums[ROWS][VECTORS], int rows, int64_t columns, bool add)
{
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            float sum = sums[i][j / LANES][j % LANES];
            c[i * n + j] = add ? c[i * n + j] + sum : sum;
        }
}

/* One panel of B: what all rows of A meet before the next. */
struct panel {
    const float *b;
    int64_t depth, columns; /* columns that C has */
    bool add;
};

INLINE void block_run(float *c, int64_t n, struct left left, const struct panel *p)
{
    panel_vector sums[ROWS][VECTORS] = {0};
    for (int i = 0; i < left.rows; i++) {
        __builtin_prefetch(c + i * n, 1);
        __builtin_prefetch(c + i * n + p->columns - 1, 1);
    }
    sum_block(sums, left, p->b, p->depth);
    if (p->columns == COLUMNS) store_block(c, n, sums, left.rows, p->add);
    else store_edge(c, n, sums, left.rows, p->columns, p->add);
}

/* All rows past one panel of the block of depth from `k` on; meanwhile the next panel, which lies behind it, is
 * fetched into the second-level cache. */
INLINE void panel_run(float *c, const float *a, const struct panel *p, const struct panel_shape *s, int64_t k,
                      bool packed)
{
    const char *next = (const char *)(p->b + p->depth * COLUMNS);
    int64_t lines = p->depth * COLUMNS * (int64_t)sizeof *p->b / 64, groups = (s->m + ROWS - 1) / ROWS;
    int64_t share = (lines + groups - 1) / groups;
    for (int64_t i = 0; i < s->m; i += ROWS) {
        int rows = (int)(s->m - i < ROWS ? s->m - i : ROWS);
        const float *left = a + i * s->k + (packed ? k * rows : k);
        float *out = c + i * s->n;
        for (int64_t l = 0; l < share; l++, next += 64) __builtin_prefetch(next, 0, 2);
        if (rows == ROWS) block_run(out, s->n, (struct left){left, s->k, ROWS, packed}, p);
        else if (rows == 3) block_run(out, s->n, (struct left){left, s->k, 3, packed}, p);
        else if (rows == 2) block_run(out, s->n, (struct left){left, s->k, 2, packed}, p);
        else block_run(out, s->n, (struct left){left, s->k, 1, packed}, p);
    }
}

void ISA_NAME(panel_product)(float *c, const float *a, const float *packed, const struct panel_shape *shape)
{
    const struct panel_shape *s = shape;
    for (int64_t k = 0; k < s->k; k += DEPTH) {
        struct panel p = {.b = packed, .depth = s->k - k < DEPTH ? s->k - k : DEPTH, .add = s->accumulate || k > 0};
        for (int64_t j = 0; j < s->n; j += COLUMNS, p.b += p.depth * COLUMNS) {
            p.columns = s->n - j < COLUMNS ? s->n - j : COLUMNS;
            if (s->left_packed) panel_run(c + j, a, &p, s, k, true);
            else panel_run(c + j, a, &p, s, k, false);
        }
        packed = p.b;
    }
}
