#include "model/param.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "kernel/vector.h"

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
    if (!p->elsewhere) table->size += param_room(p);
    if (p->two_ends) p->second_offset = table->second_size, table->second_size += param_room(p);
    if (index_out) *index_out = table->count;
    table->count++;
    return ST_OK;
}

int64_t param_room(const struct param *p) { return (param_reals(p) + ALIGN_REALS - 1) / ALIGN_REALS * ALIGN_REALS; }

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

enum status param_share(struct param_table *table, int rank, int ranks, int experts)
{
    shard_free(&table->shard);
    return shard_cut(table, rank, ranks, experts, &table->shard);
}

enum status param_allocate(struct param_table *table, bool train)
{
    enum status st = ST_OK;
    if (!table->shard.piece) TRY(param_share(table, 0, 1, 1));
    TRY(take(&table->weight, table->size, "weights"));
    if (!train) return ST_OK;
    TRY(take(&table->gradient, table->size, "gradients"));
    TRY(take(&table->moment1, table->shard.reals, "first moments"));
    TRY(take(&table->moment2, table->shard.reals, "second moments"));
    if (table->second_size > 0) TRY(take(&table->second, table->second_size, "gradients of tied tensors"));
done:
    return st;
}

void param_initialise(struct param_table *table, uint64_t seed)
{
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->rows[i];
        if (p->elsewhere) continue;
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
        if (p->elsewhere) continue;
        hash = hash_block(p->name, strlen(p->name), hash);
        hash = hash_block(param_weight(table, i), (size_t)(p->rows * p->cols) * sizeof(real), hash);
    }
    return hash;
}

real *param_head_gradient(const struct param_table *table, int i)
{
    const struct param *p = &table->rows[i];
    return p->two_ends ? table->second + p->second_offset : param_gradient(table, i);
}

void param_join_row(struct param_table *table, int i, int64_t row)
{
    const struct param *p = &table->rows[i];
    if (!p->two_ends) return;
    real *second = table->second + p->second_offset + row * p->cols;
    vector_add(param_gradient(table, i) + row * p->cols, second, p->cols, DTYPE_REAL);
    memset(second, 0, sizeof *second * (size_t)p->cols);
}

void param_join(struct param_table *table)
{
    for (int i = 0; i < table->count; i++)
        for (int64_t row = 0; table->rows[i].two_ends && row < table->rows[i].rows; row++)
            param_join_row(table, i, row);
}

void param_free(struct param_table *table)
{
    free(table->rows);
    free(table->weight);
    free(table->gradient);
    free(table->moment1);
    free(table->moment2);
    free(table->second);
    shard_free(&table->shard);
    *table = (struct param_table){0};
}
