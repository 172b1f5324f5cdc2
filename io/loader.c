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
    struct slot **by_row; /* [window_count] */
    int64_t *row;         /* [window_count] ascending, as they are read */
    struct token_cell cell;
    struct batch *micro; /* [micro_capacity] */
    int micro_capacity;
    double *total; /* [share] */
};

enum status loader_create(const struct loader_plan *plan, struct loader **out)
{
    enum status st = ST_OK;
    struct loader *l = NULL;
    int64_t capacity = plan->ahead > plan->share ? plan->ahead : plan->share;
    TRY(NEW_ARRAY(l, 1));
    *l = (struct loader){.plan = *plan,
                         .window_capacity = capacity,
                         .micro_capacity = (int)((plan->share + plan->micro_cells - 1) / plan->micro_cells)};
    TRY(NEW_ARRAY(l->window, capacity));
    TRY(NEW_ARRAY(l->by_row, capacity));
    TRY(NEW_ARRAY(l->row, capacity));
    TRY(NEW_ARRAY(l->total, plan->share));
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

/* Positions of this call and, as far as the window holds whole ones, of the calls that follow. */
static void list_window(struct loader *l, int64_t position, int64_t count, int64_t stride)
{
    l->window_count = 0;
    for (int64_t first = position; l->window_count + count <= l->window_capacity; first += stride)
        for (int64_t i = 0; i < count; i++) {
            struct sample_member member;
            sampler_draw(&l->plan.sampler, first + i, 1, &member);
            l->window[l->window_count++] = (struct slot){.position = first + i, .row = l->plan.rows[member.item]};
        }
}

/* Fill the window, reading each row once however often it was drawn. */
static enum status read_window(struct loader *l, int64_t position, int64_t count, int64_t stride)
{
    enum status st = ST_OK;
    int64_t rows = 0, longest = 0;
    list_window(l, position, count, stride);
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
    if (st != ST_OK) l->window_count = 0;
    return st;
}

/* Slots of [position, position + count), NULL if the window does not hold them all. */
static const struct slot *find_slots(const struct loader *l, int64_t position, int64_t count)
{
    int64_t low = 0, high = l->window_count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (l->window[middle].position < position) low = middle + 1;
        else high = middle;
    }
    if (low + count > l->window_count || l->window[low].position != position) return NULL;
    return l->window[low + count - 1].position == position + count - 1 ? &l->window[low] : NULL;
}

/* ---- batches ---- */

enum status loader_next(struct loader *l, int64_t position, int64_t count, int64_t stride, int64_t step,
                        struct batch **micro, int *micro_count)
{
    enum status st = ST_OK;
    *micro = l->micro;
    *micro_count = 0;
    if (count == 0) return ST_OK;
    if (!find_slots(l, position, count)) TRY(read_window(l, position, count, stride));
    const struct slot *slots = find_slots(l, position, count);
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
