#include <string.h>

#include "kernel/embed.h"

void row_groups_take(struct row_groups *groups, struct arena *arena, int64_t rows, int64_t limit)
{
    int64_t most = rows < limit ? rows : limit;
    *groups = (struct row_groups){.row_capacity = rows, .limit = limit};
    groups->start = arena_take(arena, (size_t)(most + 1) * sizeof *groups->start);
    groups->key = arena_take(arena, (size_t)most * sizeof *groups->key);
    groups->order = arena_take(arena, (size_t)rows * sizeof *groups->order);
    groups->tally = arena_take(arena, (size_t)(limit + 1) * sizeof *groups->tally);
}

/* Turn counts per key into the groups, and tally[key] into the next free place of each. */
static void open_groups(struct row_groups *g)
{
    int64_t place = 0;
    g->count = 0;
    for (int64_t key = 0; key < g->limit; key++) {
        int64_t rows = g->tally[key];
        g->tally[key] = place;
        if (rows == 0) continue;
        g->key[g->count] = (int32_t)key;
        g->start[g->count++] = place;
        place += rows;
    }
    g->start[g->count] = place;
}

void row_groups_build(struct row_groups *groups, const int32_t *key, int64_t rows, int skip_zero)
{
    int64_t least = skip_zero ? 1 : 0;
    memset(groups->tally, 0, (size_t)groups->limit * sizeof *groups->tally);
    for (int64_t r = 0; r < rows; r++)
        if (key[r] >= least && key[r] < groups->limit) groups->tally[key[r]]++;
    open_groups(groups);
    for (int64_t r = 0; r < rows; r++)
        if (key[r] >= least && key[r] < groups->limit) groups->order[groups->tally[key[r]]++] = r;
}
