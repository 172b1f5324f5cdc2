#include "io/loader.h"

#include <stdlib.h>

/* One position of the window: where its cell lies. */
struct slot {
    int64_t position, row;
    int64_t at; /* index in `cells` */
};

struct loader {
    struct loader_plan plan;
    struct cells cells;
    struct slot *window; /* [window_count], ascending by position */
    int64_t window_count, window_capacity;
    int64_t window_first, window_end; /* the window holds this rank's share of these positions */
    struct sample_work *batch;        /* [plan.batch] scratch */
    struct slot **by_row;             /* [window_count] */
    int64_t *row;                     /* [window_count] ascending, as they are read */
    struct token_cell cell;
    struct batch *micro; /* [micro_capacity] */
    int micro_capacity;
    double *total; /* [cells of this rank's share] */
};

enum status loader_create(const struct loader_plan *plan, struct loader **out)
{
    enum status st = ST_OK;
    struct loader *l = NULL;
    int64_t share = (plan->batch + plan->ranks - 1) / plan->ranks;
    int64_t capacity = plan->ahead > share ? plan->ahead : share;
    TRY(NEW_ARRAY(l, 1));
    *l = (struct loader){.plan = *plan,
                         .window_capacity = capacity,
                         .micro_capacity = (int)((share + plan->micro_cells - 1) / plan->micro_cells)};
    TRY(NEW_ARRAY(l->window, capacity));
    TRY(NEW_ARRAY(l->by_row, capacity));
    TRY(NEW_ARRAY(l->row, capacity));
    TRY(NEW_ARRAY(l->total, share));
    TRY(NEW_ARRAY(l->batch, plan->batch));
    TRY(NEW_ARRAY(l->micro, l->micro_capacity));
    for (int i = 0; i < l->micro_capacity; i++) l->micro[i] = (struct batch){0};
    int64_t tokens = (int64_t)plan->micro_cells * (plan->rules.max_genes + 1);
    for (int i = 0; i < l->micro_capacity; i++) TRY(batch_create(plan->micro_cells, tokens, &l->micro[i]));
    *out = l;
    l = NULL;
done:
    loader_destroy(&l);
    return st;
}

void loader_destroy(struct loader **loader)
{
    struct loader *l = *loader;
    if (!l) return;
    for (int i = 0; l->micro && i < l->micro_capacity; i++) batch_destroy(&l->micro[i]);
    cells_free(&l->cells);
    token_cell_free(&l->cell);
    free(l->window);
    free(l->by_row);
    free(l->row);
    free(l->total);
    free(l->batch);
    free(l->micro);
    free(l);
    *loader = NULL;
}

/* ---- reading ahead ---- */

static int compare_rows(const void *a, const void *b)
{
    const struct slot *x = *(struct slot *const *)a, *y = *(struct slot *const *)b;
    return (x->row > y->row) - (x->row < y->row);
}

/* This rank's share of a batch into l->batch; returns its size. */
static int64_t share_of(struct loader *l, int64_t position, int64_t batch)
{
    for (int64_t i = 0; i < batch; i++) {
        struct sample_member member;
        sampler_draw(&l->plan.sampler, position + i, 1, &member);
        int64_t genes = l->plan.genes ? l->plan.genes[member.item] : 0;
        l->batch[i] =
            (struct sample_work){position + i, genes < l->plan.rules.max_genes ? genes : l->plan.rules.max_genes};
    }
    return sampler_share(l->batch, batch, l->plan.rank, l->plan.ranks);
}

/* The share of this batch and, as far as the window holds whole ones, of those that follow. */
static void list_window(struct loader *l, int64_t position, int64_t batch)
{
    l->window_count = 0;
    l->window_first = l->window_end = position;
    for (;;) {
        int64_t count = share_of(l, l->window_end, batch);
        if (l->window_count + count > l->window_capacity) return;
        for (int64_t i = 0; i < count; i++) {
            struct sample_member member;
            sampler_draw(&l->plan.sampler, l->batch[i].sample, 1, &member);
            l->window[l->window_count++] =
                (struct slot){.position = l->batch[i].sample, .row = l->plan.rows[member.item]};
        }
        l->window_end += batch;
    }
}

/* Fill the window, reading each row once however often it was drawn. */
static enum status read_window(struct loader *l, int64_t position, int64_t batch)
{
    enum status st = ST_OK;
    int64_t rows = 0, longest = 0;
    list_window(l, position, batch);
    for (int64_t i = 0; i < l->window_count; i++) l->by_row[i] = &l->window[i];
    qsort(l->by_row, (size_t)l->window_count, sizeof *l->by_row, compare_rows);
    for (int64_t i = 0; i < l->window_count; i++) {
        if (rows == 0 || l->row[rows - 1] != l->by_row[i]->row) l->row[rows++] = l->by_row[i]->row;
        l->by_row[i]->at = rows - 1;
    }
    TRY(atlas_read_rows(l->plan.atlas, l->plan.modality, l->row, rows, &l->cells));
    for (int64_t r = 0; r < rows; r++)
        if (l->cells.start[r + 1] - l->cells.start[r] > longest) longest = l->cells.start[r + 1] - l->cells.start[r];
    TRY(token_cell_reserve(&l->cell, longest));
done:
    if (st != ST_OK) l->window_end = l->window_first;
    return st;
}

/* The window's slots of [position, position + batch), of which there are *count. */
static const struct slot *find_slots(const struct loader *l, int64_t position, int64_t batch, int64_t *count)
{
    int64_t low = 0, high = l->window_count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (l->window[middle].position < position) low = middle + 1;
        else high = middle;
    }
    for (*count = 0; low + *count < l->window_count && l->window[low + *count].position < position + batch;) ++*count;
    return &l->window[low];
}

/* ---- batches ---- */

enum status loader_next(struct loader *l, int64_t position, int64_t batch, int64_t step, struct batch **micro,
                        int *micro_count)
{
    enum status st = ST_OK;
    int64_t count;
    *micro = l->micro;
    *micro_count = 0;
    if (position < l->window_first || position + batch > l->window_end) TRY(read_window(l, position, batch));
    const struct slot *slots = find_slots(l, position, batch, &count);
    for (int64_t i = 0; i < count; i++) {
        if (i % l->plan.micro_cells == 0) batch_clear(&l->micro[(*micro_count)++]);
        token_cell_read(&l->cells, slots[i].at, l->plan.lookup, &l->plan.rules, true, &l->cell);
        l->total[i] = l->cell.total;
        token_append_train(&l->micro[*micro_count - 1], &l->cell, &l->plan.rules, slots[i].row, l->plan.seed,
                           (uint64_t)step);
    }
    for (int i = 0; i < *micro_count; i++) batch_find_levels(&l->micro[i]);
done:
    return st;
}

const double *loader_totals(const struct loader *l) { return l->total; }
