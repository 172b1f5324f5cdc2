#include "io/matrix.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_AHEAD = 4096 }; /* rows whose starts are read at a time */

void matrix_close(struct matrix **matrix)
{
    if (*matrix) (*matrix)->destroy(*matrix);
    *matrix = NULL;
}

struct entry {
    int32_t column;
    float value;
};

static int by_column(const void *a, const void *b)
{
    int32_t x = ((const struct entry *)a)->column, y = ((const struct entry *)b)->column;
    return (x > y) - (x < y);
}

static enum status sort_row(int64_t n, int32_t *column, float *value)
{
    enum status st = ST_OK;
    struct entry *entries = NULL;
    TRY(NEW_ARRAY(entries, n));
    for (int64_t i = 0; i < n; i++) entries[i] = (struct entry){column[i], value[i]};
    qsort(entries, (size_t)n, sizeof *entries, by_column);
    for (int64_t i = 0; i < n; i++) {
        column[i] = entries[i].column;
        value[i] = entries[i].value;
    }
done:
    free(entries);
    return st;
}

static bool is_ascending(int64_t n, const int32_t *column)
{
    bool ascending = true;
    for (int64_t i = 1; i < n; i++) ascending &= column[i - 1] < column[i];
    return ascending;
}

static enum status put_in_order(int64_t row, int64_t n, int32_t *column, float *value)
{
    enum status st = ST_OK;
    if (is_ascending(n, column)) return ST_OK;
    TRY(sort_row(n, column, value));
    for (int64_t i = 1; i < n; i++)
        if (column[i - 1] == column[i])
            TRY(fail(ST_INPUT,
                     "row %lld holds column %d twice; each may stand once: sum or remove the duplicates "
                     "(scipy: X.sum_duplicates())",
                     (long long)row, column[i]));
done:
    return st;
}

enum status matrix_read(struct matrix *m, int64_t first, int64_t count, struct cells *out)
{
    enum status st = ST_OK;
    TRY(m->read(m, first, count, out));
    for (int64_t r = 0; r < count; r++) {
        int64_t start = out->start[r];
        out->id[r] = first + r;
        TRY(put_in_order(first + r, out->start[r + 1] - start, out->feature + start, out->value + start));
    }
    out->count = count;
done:
    return st;
}

enum status matrix_block(struct matrix *m, int64_t first, int64_t end, int64_t entries, int64_t *count)
{
    enum status st = ST_OK;
    int64_t starts[LOOK_AHEAD + 1];
    int64_t ahead = end - first < LOOK_AHEAD ? end - first : LOOK_AHEAD;
    *count = 0;
    if (ahead <= 0) return ST_OK;
    TRY(m->starts(m, first, ahead, starts));
    *count = 1;
    while (*count < ahead && starts[*count + 1] - starts[0] <= entries) ++*count;
done:
    return st;
}

enum status matrix_row_at(struct matrix *m, int64_t entry, int64_t *row)
{
    enum status st = ST_OK;
    int64_t low = 0, high = m->rows; /* the row lies in [low, high] */
    while (low < high) {
        int64_t middle = low + (high - low) / 2, starts[2];
        TRY(m->starts(m, middle, 1, starts));
        if (starts[0] < entry) low = middle + 1;
        else high = middle;
    }
    *row = low;
done:
    return st;
}
