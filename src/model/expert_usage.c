#include "model/expert_usage.h"

#include <stdlib.h>
#include <string.h>

enum status expert_usage_create(int blocks, int experts, int groups, int most_cells, struct expert_usage *out)
{
    enum status st = ST_OK;
    *out = (struct expert_usage){.blocks = blocks, .experts = experts, .groups = groups};
    TRY(NEW_ARRAY(out->slots, expert_usage_length(out)));
    TRY(NEW_ARRAY(out->of_pass, most_cells));
    expert_usage_clear(out);
done:
    return st;
}

void expert_usage_free(struct expert_usage *usage)
{
    free(usage->slots);
    free(usage->of_pass);
    *usage = (struct expert_usage){0};
}

void expert_usage_clear(struct expert_usage *usage)
{
    memset(usage->slots, 0, sizeof *usage->slots * (size_t)expert_usage_length(usage));
}

static int64_t *slots_of(const struct expert_usage *u, int block, int expert)
{
    return u->slots + ((int64_t)block * u->experts + expert) * u->groups;
}

int64_t expert_usage_slots(const struct expert_usage *u, int block, int expert, int group)
{
    return slots_of(u, block, expert)[group];
}

int64_t expert_usage_sum(const struct expert_usage *u, int block, int group)
{
    int64_t sum = 0;
    for (int e = 0; e < u->experts; e++) sum += expert_usage_slots(u, block, e, group);
    return sum;
}

static int compare_ids(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int32_t group_of(const struct expert_usage *u, int64_t id)
{
    const int64_t *at = u->cells ? bsearch(&id, u->cell, (size_t)u->cells, sizeof id, compare_ids) : NULL;
    int32_t group = at ? u->group[at - u->cell] : -1;
    return group >= 0 ? group : u->groups - 1;
}

struct expert_count expert_usage_count(const struct expert_layers *layers, int layer, const struct pass *pass,
                                       int64_t rows)
{
    const struct expert_usage *u = layers->usage;
    if (!u || !pass->batch) return (struct expert_count){0};
    const struct ragged *cells = rows == pass->all.count ? &pass->all.cells : &pass->read.cells;
    for (int c = 0; c < cells->cells; c++) u->of_pass[c] = group_of(u, pass->batch->cell_id[c]);
    return (struct expert_count){slots_of(u, layers->layer[layer].block, 0), u->groups, cells->cells, cells->offsets,
                                 u->of_pass};
}
