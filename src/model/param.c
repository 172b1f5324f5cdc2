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
    p->weight_at = p->offset;
    if (!p->elsewhere) table->size += param_room(p);
    table->weight_size = table->size;
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

static void place_piece(struct param_table *table, struct piece *piece)
{
    const struct param *p = &table->rows[piece->tensor];
    piece->weight = p->weight_at + piece->first * p->cols;
    if (!p->split) return;
    bool own = shard_owns(&table->shard, piece);
    piece->weight = own ? table->weight_size : -1;
    if (own) table->weight_size += (piece->reals + ALIGN_REALS - 1) / ALIGN_REALS * ALIGN_REALS;
}

void param_split(struct param_table *table)
{
    if (table->shard.ranks < 2) return;
    table->weight_size = 0;
    for (int i = 0; i < table->count; i++) {
        struct param *p = &table->rows[i];
        if (p->elsewhere) continue;
        p->split = p->packed;
        p->weight_at = p->split ? -1 : table->weight_size;
        if (!p->split) table->weight_size += param_room(p);
    }
    for (int64_t i = 0; i < table->shard.count; i++)
        if (table->shard.piece[i].owner >= 0) place_piece(table, &table->shard.piece[i]);
}

size_t param_split_bytes(const struct param_table *table, int ranks, int replicas)
{
    size_t bytes = 0;
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->rows[i];
        size_t whole = (size_t)param_room(p) * sizeof(real), owners = (size_t)(p->routed ? replicas : ranks);
        if (!p->elsewhere) bytes += p->packed ? whole / owners : whole;
    }
    return bytes;
}

enum status param_allocate(struct param_table *table, bool train)
{
    enum status st = ST_OK;
    if (!table->shard.piece) TRY(param_share(table, 0, 1, 1));
    TRY(take(&table->weight, table->weight_size, "weights"));
    if (!train) return ST_OK;
    TRY(take(&table->gradient, table->size, "gradients"));
    TRY(take(&table->moment1, table->shard.reals, "first moments"));
    TRY(take(&table->moment2, table->shard.reals, "second moments"));
    if (table->second_size > 0) TRY(take(&table->second, table->second_size, "gradients of tied tensors"));
done:
    return st;
}

static real first_value(const struct param *p, struct rng *r)
{
    switch (p->init) {
    case INIT_ZERO: break;
    case INIT_ONE: return 1;
    case INIT_NORMAL: return (real)(p->init_scale * rng_normal(r));
    case INIT_UNIFORM: return (real)(p->init_scale * (2 * rng_uniform(r) - 1));
    }
    return 0;
}

/* The next `count` values of a tensor; w NULL: another rank keeps them. */
static void draw(const struct param *p, struct rng *r, real *w, int64_t count)
{
    for (int64_t k = 0; k < count; k++) {
        real value = first_value(p, r);
        if (w) w[k] = value;
    }
}

void param_initialise(struct param_table *table, uint64_t seed)
{
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->rows[i];
        if (p->elsewhere) continue;
        struct rng r = rng_at(seed, RNG_INIT, hash_block(p->name, strlen(p->name), 0), 0);
        real *w = param_weight(table, i);
        if (w) {
            draw(p, &r, w, param_reals(p));
            memset(w, 0, (size_t)(p->zero_rows * p->cols) * sizeof *w);
            continue;
        }
        const struct piece *piece = &table->shard.piece[table->shard.first[i]];
        for (int64_t done = 0; done < param_reals(p); done += piece++->reals)
            draw(p, &r, piece->weight >= 0 ? param_piece_weight(table, piece) : NULL, piece->reals);
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
        if (p->elsewhere || p->split) continue;
        hash = hash_block(p->name, strlen(p->name), hash);
        hash = hash_block(param_weight(table, i), (size_t)(p->rows * p->cols) * sizeof(real), hash);
    }
    return hash;
}

void param_hash_each(const struct param_table *table, uint64_t *hash)
{
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->rows[i];
        bool here = !p->elsewhere && !p->split;
        hash[i] = here ? hash_block(param_weight(table, i), (size_t)param_reals(p) * sizeof(real), 0) : 0;
    }
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
