#include "model/param.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"

enum { ALIGN_REALS = 64 / sizeof(real) };

enum status param_add(struct param_table *table, const struct param *row, int *index_out)
{
    if (table->count == table->capacity) {
        int capacity = table->capacity ? table->capacity * 2 : 64;
        struct param *rows = realloc(table->rows, sizeof *rows * (size_t)capacity);
        if (!rows) return fail(ST_MEMORY, "no memory for %d parameter rows", capacity);
        table->rows = rows;
        table->capacity = capacity;
    }
    struct param *p = &table->rows[table->count];
    *p = *row;
    p->offset = table->size;
    if (p->rate_scale == 0) p->rate_scale = 1;
    table->size += (p->rows * p->cols + ALIGN_REALS - 1) / ALIGN_REALS * ALIGN_REALS;
    if (index_out) *index_out = table->count;
    table->count++;
    return ST_OK;
}

static enum status take(real **out, int64_t size, const char *what)
{
    size_t bytes = ((size_t)size * sizeof(real) + 63) / 64 * 64;
    *out = aligned_alloc(64, bytes ? bytes : 64);
    if (!*out)
        return fail(ST_MEMORY, "no memory for %lld %s; use a smaller model or fewer ranks per node", (long long)size,
                    what);
    memset(*out, 0, bytes);
    return ST_OK;
}

enum status param_allocate(struct param_table *table, bool train)
{
    enum status st = ST_OK;
    TRY(take(&table->weight, table->size, "weights"));
    if (!train) return ST_OK;
    TRY(take(&table->gradient, table->size, "gradients"));
    TRY(take(&table->moment1, table->size, "first moments"));
    TRY(take(&table->moment2, table->size, "second moments"));
done:
    return st;
}

void param_initialise(struct param_table *table, uint64_t seed)
{
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->rows[i];
        real *w = param_weight(table, i);
        struct rng r = rng_at(seed, RNG_INIT, hash_block(p->name, strlen(p->name), 0), 0);
        for (int64_t k = 0; k < p->rows * p->cols; k++) {
            switch (p->init) {
            case INIT_ZERO: w[k] = 0; break;
            case INIT_ONE: w[k] = 1; break;
            case INIT_NORMAL: w[k] = (real)(p->init_scale * rng_normal(&r)); break;
            case INIT_UNIFORM: w[k] = (real)(p->init_scale * (2 * rng_uniform(&r) - 1)); break;
            }
        }
        memset(w, 0, (size_t)(p->zero_rows * p->cols) * sizeof *w);
    }
}

int param_find(const struct param_table *table, const char *name)
{
    for (int i = 0; i < table->count; i++)
        if (strcmp(table->rows[i].name, name) == 0) return i;
    return -1;
}

uint64_t param_hash(const struct param_table *table)
{
    uint64_t hash = 0;
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->rows[i];
        hash = hash_block(p->name, strlen(p->name), hash);
        hash = hash_block(param_weight(table, i), (size_t)(p->rows * p->cols) * sizeof(real), hash);
    }
    return hash;
}

void param_free(struct param_table *table)
{
    free(table->rows);
    free(table->weight);
    free(table->gradient);
    free(table->moment1);
    free(table->moment2);
    *table = (struct param_table){0};
}
