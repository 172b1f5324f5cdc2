/* Accumulation of a Gram matrix in block-cyclic form: exchange of rows, densified tiles, fp32
 * products, fp64 sums. */
#include <stdlib.h>
#include <string.h>

#include "mpi/dense.h"

extern void sgemm_(const char *trans_a, const char *trans_b, const int *m, const int *n, const int *k,
                   const float *alpha, const float *a, const int *lda, const float *b, const int *ldb,
                   const float *beta, float *c, const int *ldc);

/* Local block columns of one product: wide enough for BLAS, narrow enough to skip most of the upper triangle. */
enum { PANEL_BLOCKS = 4 };

/* What travels: a row is its number of entries, then that many entries. */
struct entry {
    int32_t column;
    float value;
};

/* ---- exchange ---- */

/* Does grid process `to` hold any entry of this column's row or column of G? */
static bool needs(const struct dense *d, int to, int32_t column)
{
    int block = column / d->block;
    return block % d->grid_rows == to / d->grid_cols || block % d->grid_cols == to % d->grid_cols;
}

static int64_t pack_for(const struct dense *d, int to, const struct dense_rows *rows, struct entry *out)
{
    int64_t used = 0;
    for (int64_t r = 0; r < rows->count; r++) {
        int64_t head = used++;
        for (int64_t e = rows->start[r]; e < rows->start[r + 1]; e++) {
            if (!needs(d, to, rows->column[e])) continue;
            if (out) out[used] = (struct entry){rows->column[e], rows->value[e]};
            used++;
        }
        if (out) out[head] = (struct entry){(int32_t)(used - head - 1), 0};
    }
    return used;
}

static enum status exchange_rows(struct comm *comm, const struct dense *d, const struct dense_rows *rows,
                                 struct entry **out, int64_t *count)
{
    enum status st = ST_OK;
    struct entry *packed = NULL;
    int64_t *send = NULL, *received = NULL, total = 0;
    int members = d->grid_rows * d->grid_cols;
    st = NEW_ARRAY(send, comm->size);
    if (st == ST_OK) st = NEW_ARRAY(received, comm->size);
    for (int to = 0; st == ST_OK && to < comm->size; to++) {
        send[to] = to < members ? pack_for(d, to, rows, NULL) * (int64_t)sizeof *packed : 0;
        total += send[to];
    }
    if (st == ST_OK) st = mem_alloc((void **)&packed, (size_t)total, 1, "rows to send");
    TRY(comm_agree(comm, st));
    for (int64_t to = 0, at = 0; to < members; to++) at += pack_for(d, (int)to, rows, packed + at);
    TRY(comm_exchange(comm, packed, send, (void **)out, received));
    *count = 0;
    for (int r = 0; r < comm->size; r++) *count += received[r] / (int64_t)sizeof *packed;
done:
    free(packed);
    free(send);
    free(received);
    return st;
}

/* ---- tiles ---- */

/* Densified cells of a tile, seen twice: with the genes of this process's matrix rows and with those of
 * its columns. One cell after another: cell t lies at by_row + t * local_rows. */
struct tile {
    float *by_row, *by_col;         /* [DENSE_TILE, local_rows], [DENSE_TILE, local_cols] */
    float *centre_row, *centre_col; /* [local_rows], [local_cols], as subtracted */
    float *product;                 /* [panel columns, local_rows] */
};

static void local_centre(const struct dense *d, const double *centre, int64_t count, int place, int places, float *out)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t global = (i / d->block * places + place) * d->block + i % d->block;
        out[i] = (float)-centre[global];
    }
}

static enum status tile_create(const struct dense *d, const double *centre, struct tile *t)
{
    enum status st = ST_OK;
    *t = (struct tile){0};
    TRY(NEW_ARRAY(t->by_row, DENSE_TILE * d->local_rows));
    TRY(NEW_ARRAY(t->by_col, DENSE_TILE * d->local_cols));
    TRY(NEW_ARRAY(t->centre_row, d->local_rows));
    TRY(NEW_ARRAY(t->centre_col, d->local_cols));
    TRY(NEW_ARRAY(t->product, (int64_t)PANEL_BLOCKS * d->block * d->local_rows));
    local_centre(d, centre, d->local_rows, d->grid_row, d->grid_rows, t->centre_row);
    local_centre(d, centre, d->local_cols, d->grid_col, d->grid_cols, t->centre_col);
done:
    return st;
}

static void tile_free(struct tile *t)
{
    free(t->by_row);
    free(t->by_col);
    free(t->centre_row);
    free(t->centre_col);
    free(t->product);
}

/* Write one received row as cell `at` of the tile. */
static void tile_put(const struct dense *d, struct tile *t, int at, const struct entry *entries, int64_t count)
{
    float *row = t->by_row + at * d->local_rows, *col = t->by_col + at * d->local_cols;
    memcpy(row, t->centre_row, sizeof *row * (size_t)d->local_rows);
    memcpy(col, t->centre_col, sizeof *col * (size_t)d->local_cols);
    for (int64_t e = 0; e < count; e++) {
        int block = entries[e].column / d->block, inside = entries[e].column % d->block;
        if (block % d->grid_rows == d->grid_row) row[block / d->grid_rows * d->block + inside] += entries[e].value;
        if (block % d->grid_cols == d->grid_col) col[block / d->grid_cols * d->block + inside] += entries[e].value;
    }
}

/* First local row whose global block is at or below `block`: rows above it lie in the upper triangle. */
static int64_t first_row_of_lower(const struct dense *d, int64_t block)
{
    int64_t local_block = (block - d->grid_row + d->grid_rows - 1) / d->grid_rows;
    if (block <= d->grid_row) local_block = 0;
    int64_t row = local_block * d->block;
    return row < d->local_rows ? row : d->local_rows;
}

/* G(lower part of a panel of columns) += rows' columns, over `cells` cells. */
static void add_panel(struct dense *d, struct tile *t, int cells, int64_t first_col)
{
    static const float one = 1, zero = 0;
    int64_t left = d->local_cols - first_col, width = (int64_t)PANEL_BLOCKS * d->block;
    int64_t first_row = first_row_of_lower(d, first_col / d->block * d->grid_cols + d->grid_col);
    int m = (int)(d->local_rows - first_row), n = (int)(left < width ? left : width);
    int lda = (int)d->local_rows, ldb = (int)d->local_cols;
    if (m == 0 || n == 0) return;
    sgemm_("N", "T", &m, &n, &cells, &one, t->by_row + first_row, &lda, t->by_col + first_col, &ldb, &zero, t->product,
           &m);
    for (int c = 0; c < n; c++) {
        double *to = d->values + (first_col + c) * d->local_rows + first_row;
        const float *from = t->product + (int64_t)c * m;
        for (int r = 0; r < m; r++) to[r] += from[r];
    }
}

static void add_tile(struct dense *d, struct tile *t, int cells)
{
    for (int64_t c = 0; c < d->local_cols; c += (int64_t)PANEL_BLOCKS * d->block) add_panel(d, t, cells, c);
}

static void add_rows(struct dense *d, struct tile *t, const struct entry *entries, int64_t count)
{
    int cells = 0;
    for (int64_t at = 0; at < count; at += 1 + entries[at].column) {
        tile_put(d, t, cells++, entries + at + 1, entries[at].column);
        if (cells < DENSE_TILE) continue;
        add_tile(d, t, cells);
        cells = 0;
    }
    if (cells > 0) add_tile(d, t, cells);
}

enum status dense_add_gram(struct comm *comm, struct dense *dense, const struct dense_rows *rows, const double *centre)
{
    enum status st = ST_OK;
    struct entry *entries = NULL;
    struct tile tile = {0};
    int64_t count = 0;
    bool inside = dense->context >= 0;
    TRY(exchange_rows(comm, dense, rows, &entries, &count));
    TRY(comm_agree(comm, inside ? tile_create(dense, centre, &tile) : ST_OK));
    if (inside) add_rows(dense, &tile, entries, count);
done:
    tile_free(&tile);
    free(entries);
    return st;
}
