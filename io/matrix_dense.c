#include <math.h>
#include <stdlib.h>

#include "io/h5.h"
#include "io/h5_filter.h"
#include "io/matrix.h"

/* Rows that are read together: whole chunks, about this many bytes. */
enum { BLOCK_BYTES = 4 << 20 };

struct matrix_dense {
    struct matrix base;
    hid_t dataset;
    int64_t block;        /* rows of a block */
    int64_t held, height; /* first row and number of rows in `data`; height 0 = none */
    double *data;         /* [block, columns] */
};

static enum status read_starts(struct matrix *m, int64_t first, int64_t count, int64_t *starts)
{
    for (int64_t r = 0; r <= count; r++) starts[r] = (first + r) * m->columns;
    return ST_OK;
}

static enum status hold_row(struct matrix_dense *d, int64_t row)
{
    enum status st = ST_OK;
    if (row >= d->held && row < d->held + d->height) return ST_OK;
    int64_t first = row - row % d->block, height = d->base.rows - first;
    if (height > d->block) height = d->block;
    d->height = 0;
    if (!d->data) TRY(NEW_ARRAY(d->data, d->block * d->base.columns));
    TRY(h5_read_rows(d->dataset, H5T_NATIVE_DOUBLE, first, height, d->data));
    d->held = first;
    d->height = height;
done:
    return st;
}

static enum status take_row(const double *from, int64_t columns, int64_t row, struct cells *out, int64_t *n)
{
    for (int64_t c = 0; c < columns; c++) {
        if (from[c] == 0) continue;
        float v = (float)from[c];
        if (fabs(from[c]) > 0x1p24 && isfinite(v) && from[c] == floor(from[c]) && (double)v != from[c])
            return fail(ST_INPUT,
                        "row %lld column %lld is %.17g, a whole number that single precision cannot hold; counts up to "
                        "16,777,216 "
                        "are allowed",
                        (long long)row, (long long)c, from[c]);
        out->feature[*n] = (int32_t)c;
        out->value[(*n)++] = v;
    }
    return ST_OK;
}

static enum status read_rows(struct matrix *m, int64_t first, int64_t count, struct cells *out)
{
    enum status st = ST_OK;
    struct matrix_dense *d = (struct matrix_dense *)m;
    int64_t n = 0;
    TRY(cells_reserve(out, count, 0));
    for (int64_t r = 0; r < count; r++) {
        out->start[r] = n;
        if (n + m->columns > out->entry_capacity) TRY(cells_reserve(out, count, 2 * (n + m->columns)));
        TRY(hold_row(d, first + r));
        TRY(take_row(d->data + (first + r - d->held) * m->columns, m->columns, first + r, out, &n));
    }
    out->start[count] = n;
done:
    return st;
}

static void rest(struct matrix *m)
{
    struct matrix_dense *d = (struct matrix_dense *)m;
    free(d->data);
    d->data = NULL;
    d->height = 0;
}

static void destroy(struct matrix *m)
{
    struct matrix_dense *d = (struct matrix_dense *)m;
    h5_drop(&d->dataset);
    free(d->data);
    free(d);
}

/* Blocks of whole chunk rows, and a chunk cache that holds one such row of chunks. */
static enum status open_cached(hid_t parent, const char *path, int64_t columns, struct matrix_dense *d)
{
    enum status st = ST_OK;
    hsize_t chunk[2] = {1, 1};
    hid_t plist = H5Dget_create_plist(d->dataset), access = H5_NONE;
    int64_t row_bytes = columns * 8 > 0 ? columns * 8 : 8;
    struct h5_pipeline pipeline;
    TRY(h5_pipeline_open(d->dataset, path, &pipeline));
    if (plist >= 0 && H5Pget_layout(plist) == H5D_CHUNKED && H5Pget_chunk(plist, 2, chunk) != 2) chunk[0] = 1;
    d->block = BLOCK_BYTES / row_bytes > 0 ? BLOCK_BYTES / row_bytes : 1;
    if ((int64_t)chunk[0] > d->block && (int64_t)chunk[0] * row_bytes <= (int64_t)256 << 20)
        d->block = (int64_t)chunk[0];
    d->block -= d->block > (int64_t)chunk[0] ? d->block % (int64_t)chunk[0] : 0;
    if (d->block > d->base.rows) d->block = d->base.rows > 0 ? d->base.rows : 1;
    access = H5Pcreate(H5P_DATASET_ACCESS);
    H5Pset_chunk_cache(access, 10007, (size_t)((int64_t)chunk[0] * row_bytes) + ((size_t)16 << 20), 0.75);
    h5_drop(&d->dataset);
    d->dataset = H5Dopen2(parent, path, access);
    if (d->dataset < 0) TRY(h5_fail(ST_INPUT, "'%s' cannot be opened", path));
done:
    h5_drop(&plist);
    h5_drop(&access);
    return st;
}

enum status matrix_open_dense(hid_t parent, const char *path, struct matrix **out)
{
    enum status st = ST_OK;
    struct matrix_dense *d = NULL;
    struct matrix *base = NULL;
    int rank;
    int64_t dims[8];
    h5_filter_register();
    TRY(h5_shape(parent, path, &rank, dims));
    if (rank != 2 || dims[1] > INT32_MAX)
        return fail(ST_INPUT, "'%s' has %d dimensions; a matrix of cells x features is needed", path, rank);
    TRY(NEW_ARRAY(d, 1));
    base = &d->base;
    *base = (struct matrix){.rows = dims[0],
                            .columns = dims[1],
                            .entries = dims[0] * dims[1],
                            .starts = read_starts,
                            .read = read_rows,
                            .rest = rest,
                            .destroy = destroy};
    d->dataset = H5Dopen2(parent, path, H5P_DEFAULT);
    if (d->dataset < 0) TRY(h5_fail(ST_INPUT, "'%s' cannot be opened", path));
    TRY(open_cached(parent, path, dims[1], d));
    *out = base;
    base = NULL;
done:
    matrix_close(&base);
    return st;
}
