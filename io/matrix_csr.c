#include <stdlib.h>

#include "io/h5.h"
#include "io/h5_array.h"
#include "io/matrix.h"

struct matrix_csr {
    struct matrix base;
    struct h5_array *data, *indices, *indptr;
};

static enum status read_starts(struct matrix *m, int64_t first, int64_t count, int64_t *starts)
{
    enum status st = ST_OK;
    struct matrix_csr *csr = (struct matrix_csr *)m;
    TRY(h5_array_read_int64(csr->indptr, first, count + 1, starts));
    for (int64_t r = 0; r <= count; r++) {
        int64_t before = r > 0 ? starts[r - 1] : 0;
        if (starts[r] < before || starts[r] > m->entries)
            TRY(fail(ST_INPUT,
                     "'indptr' is %lld at row %lld after %lld; it must rise from 0 to %lld: the file is damaged",
                     (long long)starts[r], (long long)(first + r), (long long)before, (long long)m->entries));
    }
done:
    return st;
}

static enum status read_rows(struct matrix *m, int64_t first, int64_t count, struct cells *out)
{
    enum status st = ST_OK;
    struct matrix_csr *csr = (struct matrix_csr *)m;
    TRY(cells_reserve(out, count, 0));
    TRY(read_starts(m, first, count, out->start));
    int64_t from = out->start[0], n = out->start[count] - from;
    TRY(cells_reserve(out, count, n));
    for (int64_t r = 0; r <= count; r++) out->start[r] -= from;
    TRY(h5_array_read_index(csr->indices, from, n, m->columns, out->feature));
    TRY(h5_array_read_float(csr->data, from, n, out->value));
done:
    return st;
}

static void rest(struct matrix *m)
{
    struct matrix_csr *csr = (struct matrix_csr *)m;
    h5_array_rest(csr->data);
    h5_array_rest(csr->indices);
    h5_array_rest(csr->indptr);
}

static void destroy(struct matrix *m)
{
    struct matrix_csr *csr = (struct matrix_csr *)m;
    h5_array_close(&csr->data);
    h5_array_close(&csr->indices);
    h5_array_close(&csr->indptr);
    free(csr);
}

/* indptr must begin at 0 and end at the number of entries. */
static enum status check_lengths(struct matrix_csr *csr)
{
    enum status st = ST_OK;
    int64_t ends[2], rows = csr->base.rows;
    if (h5_array_is_real(csr->indices) || h5_array_is_real(csr->indptr))
        return fail(ST_INPUT, "'indices' or 'indptr' hold floats; whole numbers are needed");
    if (h5_array_count(csr->indices) != csr->base.entries)
        return fail(ST_INPUT, "'data' has %lld entries and 'indices' %lld; they must be equal",
                    (long long)csr->base.entries, (long long)h5_array_count(csr->indices));
    if (h5_array_count(csr->indptr) != rows + 1)
        return fail(ST_INPUT, "'indptr' has %lld entries for %lld rows; one more than rows is needed",
                    (long long)h5_array_count(csr->indptr), (long long)rows);
    TRY(h5_array_read_int64(csr->indptr, 0, 1, &ends[0]));
    TRY(h5_array_read_int64(csr->indptr, rows, 1, &ends[1]));
    if (ends[0] != 0 || ends[1] != csr->base.entries)
        TRY(fail(ST_INPUT, "'indptr' runs from %lld to %lld; 0 to %lld is needed: the file is damaged",
                 (long long)ends[0], (long long)ends[1], (long long)csr->base.entries));
done:
    return st;
}

enum status matrix_open_csr(hid_t group, int64_t rows, int64_t columns, struct matrix **out)
{
    enum status st = ST_OK;
    struct matrix_csr *csr = NULL;
    struct matrix *base = NULL;
    if (rows < 0 || columns < 0 || columns > INT32_MAX)
        return fail(ST_INPUT, "its shape is %lld x %lld; at most 2^31 columns are allowed", (long long)rows,
                    (long long)columns);
    TRY(NEW_ARRAY(csr, 1));
    base = &csr->base;
    *base = (struct matrix){
        .rows = rows, .columns = columns, .starts = read_starts, .read = read_rows, .rest = rest, .destroy = destroy};
    TRY(h5_array_open(group, "data", &csr->data));
    TRY(h5_array_open(group, "indices", &csr->indices));
    TRY(h5_array_open(group, "indptr", &csr->indptr));
    base->entries = h5_array_count(csr->data);
    TRY(check_lengths(csr));
    *out = base;
    base = NULL;
done:
    matrix_close(&base);
    return st;
}
