#include "model/shard.h"

#include <stdlib.h>

#include "model/param.h"

static int64_t rows_of_piece(const struct param *p)
{
    int64_t rows = PIECE_REALS / p->cols;
    return rows > 0 ? rows : 1;
}

static int64_t pieces_of(const struct param *p) { return (p->rows + rows_of_piece(p) - 1) / rows_of_piece(p); }

int64_t shard_piece_count(const struct param_table *table)
{
    int64_t count = 0;
    for (int i = 0; i < table->count; i++) count += pieces_of(&table->rows[i]);
    return count;
}

int64_t shard_largest_piece(const struct param_table *table)
{
    int64_t largest = 1;
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->rows[i];
        int64_t rows = p->rows < rows_of_piece(p) ? p->rows : rows_of_piece(p);
        if (!p->elsewhere && rows * p->cols > largest) largest = rows * p->cols;
    }
    return largest;
}

/* The holder with least so far, the first of those. All holders see the same loads: those of rows they have in common. */
static int least_loaded(const struct shard *s, const int64_t *load, bool routed)
{
    int first, step;
    shard_holders(s, routed, &first, &step);
    int least = first;
    for (int r = first + step; r < s->ranks; r += step)
        if (load[r] < load[least]) least = r;
    return least;
}

static void cut_tensor(const struct param_table *table, int tensor, struct shard *s, int64_t *load)
{
    const struct param *p = &table->rows[tensor];
    s->first[tensor] = s->count;
    for (int64_t row = 0; row < p->rows; row += rows_of_piece(p)) {
        int64_t left = p->rows - row, rows = left < rows_of_piece(p) ? left : rows_of_piece(p);
        struct piece *piece = &s->piece[s->count++];
        int64_t at = p->offset + row * p->cols;
        *piece = (struct piece){tensor, row, rows, at, rows * p->cols, -1, at, 0};
        if (p->elsewhere) continue;
        piece->owner = least_loaded(s, p->routed ? load + s->ranks : load, p->routed);
        (p->routed ? load + s->ranks : load)[piece->owner] += piece->reals;
    }
}

/* Alone a rank keeps moments as it keeps weights; else its own lie side by side. */
static void place_moments(const struct param_table *table, struct shard *s)
{
    s->reals = s->ranks == 1 ? table->size : 0;
    for (int64_t i = 0; i < s->count; i++) {
        struct piece *piece = &s->piece[i];
        piece->moment = s->ranks == 1 ? piece->at : s->reals;
        if (s->ranks > 1 && shard_owns(s, piece)) s->reals += (piece->reals + 15) / 16 * 16;
    }
}

enum status shard_cut(const struct param_table *table, int rank, int ranks, int experts, struct shard *out)
{
    enum status st = ST_OK;
    int64_t *load = NULL;
    *out = (struct shard){.rank = rank, .ranks = ranks, .experts = experts};
    TRY(NEW_ARRAY(out->piece, shard_piece_count(table)));
    TRY(NEW_ARRAY(out->first, table->count));
    TRY(NEW_ARRAY(load, 2 * ranks)); /* of rows that all have, and of experts' */
    for (int r = 0; r < 2 * ranks; r++) load[r] = 0;
    for (int i = 0; i < table->count; i++) cut_tensor(table, i, out, load);
    place_moments(table, out);
done:
    free(load);
    if (st != ST_OK) shard_free(out);
    return st;
}

void shard_free(struct shard *s)
{
    free(s->piece), free(s->first);
    *s = (struct shard){0};
}
