#include "cell/cells.h"

#include <stdlib.h>

static enum status grow(void **array, int64_t count, size_t item_bytes, const char *what)
{
    void *larger = realloc(*array, (size_t)count * item_bytes);
    if (!larger) return fail(ST_MEMORY, "no memory for %lld %s; read fewer cells at a time", (long long)count, what);
    *array = larger;
    return ST_OK;
}

enum status cells_reserve(struct cells *cells, int64_t rows, int64_t entries)
{
    enum status st = ST_OK;
    if (rows > cells->row_capacity || !cells->start) {
        TRY(grow((void **)&cells->id, rows + 1, sizeof *cells->id, "cell ids"));
        TRY(grow((void **)&cells->start, rows + 1, sizeof *cells->start, "row starts"));
        if (cells->row_capacity == 0) cells->start[0] = 0;
        cells->row_capacity = rows;
    }
    if (entries > cells->entry_capacity || !cells->feature) {
        TRY(grow((void **)&cells->feature, entries + 1, sizeof *cells->feature, "feature indices"));
        TRY(grow((void **)&cells->value, entries + 1, sizeof *cells->value, "values"));
        cells->entry_capacity = entries;
    }
done:
    return st;
}

void cells_free(struct cells *cells)
{
    free(cells->id);
    free(cells->start);
    free(cells->feature);
    free(cells->value);
    *cells = (struct cells){0};
}
