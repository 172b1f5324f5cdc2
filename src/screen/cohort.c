#include "screen/cohort.h"

#include <stdlib.h>

static enum status grow(void *array, int64_t count, size_t item_bytes)
{
    void **place = array, *larger = realloc(*place, (size_t)count * item_bytes);
    if (!larger)
        return fail(ST_MEMORY, "no memory for the cells of the screen (%ld items); lower sweep.max_cells", (long)count);
    *place = larger;
    return ST_OK;
}

static enum status reserve(struct cohort *c, int64_t tokens)
{
    enum status st = ST_OK;
    if (c->count == c->cell_capacity) {
        c->cell_capacity = 2 * c->cell_capacity + 64;
        TRY(grow(&c->start, c->cell_capacity + 1, sizeof *c->start));
        TRY(grow(&c->id, c->cell_capacity, sizeof *c->id));
        TRY(grow(&c->total, c->cell_capacity, sizeof *c->total));
        if (c->count == 0) c->start[0] = 0;
    }
    if (c->start[c->count] + tokens > c->token_capacity) {
        c->token_capacity = 2 * c->token_capacity + tokens;
        TRY(grow(&c->gene, c->token_capacity, sizeof *c->gene));
        TRY(grow(&c->value, c->token_capacity, sizeof *c->value));
        TRY(grow(&c->drawn, c->token_capacity, sizeof *c->drawn));
    }
done:
    return st;
}

enum status cohort_add(struct cohort *c, struct token_cell *cell, const struct token_rules *rules,
                       const uint8_t *hidden, int64_t id)
{
    int kept = cell->count < rules->max_genes ? cell->count : rules->max_genes;
    enum status st = reserve(c, kept);
    if (st != ST_OK || kept == 0) return st;
    int64_t first = c->start[c->count], at = first;
    int32_t *drawn = c->drawn + first;
    token_sample_embed(cell, rules, drawn);
    for (int i = 0; i < cell->count; i++) {
        if (hidden && hidden[cell->gene[i]]) continue;
        c->gene[at] = cell->gene[i];
        c->value[at] = token_value(cell->counts[i], cell->total, rules);
        c->drawn[at++] = drawn[i];
    }
    if (at == first) return ST_OK;
    c->id[c->count] = id;
    c->total[c->count] = cell->total;
    c->start[++c->count] = at;
    return ST_OK;
}

void cohort_free(struct cohort *c)
{
    free(c->start);
    free(c->id);
    free(c->total);
    free(c->gene);
    free(c->value);
    free(c->drawn);
    *c = (struct cohort){0};
}

int64_t cohort_carriers(const struct cohort *c, int32_t gene)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->count; i++) {
        struct token_list list = cohort_tokens(c, i);
        n += token_list_find(&list, gene) >= 0;
    }
    return n;
}

int cohort_longest(const struct cohort *c)
{
    int64_t longest = 0;
    for (int64_t i = 0; i < c->count; i++)
        if (c->start[i + 1] - c->start[i] > longest) longest = c->start[i + 1] - c->start[i];
    return (int)longest;
}
