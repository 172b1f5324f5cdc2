#include "io/survey.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/stop.h"
#include "cell/sampler.h"

enum { SPAN = 4096 }; /* atlas rows looked at at a time */

/* A growing list of the cells one rank takes. */
struct taken {
    int64_t *row;
    int32_t *group; /* code of balance_by, 0 without */
    int32_t *genes; /* in the vocabulary */
    int64_t count, capacity;
};

/* Which values of a categorical column are held out. */
struct split {
    uint8_t *out; /* [count] by code; NULL: by hash of the value's text */
    int32_t count;
};

struct scan {
    const struct survey_plan *plan;
    struct survey *found;
    struct taken train, held_out;
    struct split split;
    struct cells cells;
    struct token_cell cell;
};

/* ---- which cells are held out ---- */

static double uniform_hash(const char *text) { return (double)(hash_block(text, strlen(text), 0) >> 11) * 0x1p-53; }

struct ranked {
    double hash;
    int32_t code;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->hash != y->hash ? (x->hash > y->hash) - (x->hash < y->hash) : (x->code > y->code) - (x->code < y->code);
}

/* Of a categorical column, the share of values with the smallest hashes, at least one when there are two. */
static enum status split_values(const struct column *column, double share, struct split *split)
{
    enum status st = ST_OK;
    int32_t n = column->category_count, held = (int32_t)(share * n + 0.5);
    struct ranked *ranked = NULL;
    if (held == 0 && n >= 2 && share > 0) held = 1;
    if (held == n && n > 0) held = n - 1;
    TRY(NEW_ARRAY(ranked, n));
    TRY(NEW_ARRAY(split->out, n));
    split->count = n;
    for (int32_t c = 0; c < n; c++) {
        ranked[c] = (struct ranked){uniform_hash(column->category[c]), c};
        split->out[c] = 0;
    }
    qsort(ranked, (size_t)n, sizeof *ranked, compare_ranked);
    for (int32_t c = 0; c < held; c++) split->out[ranked[c].code] = 1;
done:
    free(ranked);
    return st;
}

static bool is_held_out(const struct scan *s, const struct column *column, int64_t at)
{
    char buffer[32];
    if (s->split.out) return column->code[at] >= 0 && s->split.out[column->code[at]];
    return uniform_hash(column_as_text(column, at, buffer)) < s->plan->held_out;
}

/* ---- one cell ---- */

static enum status take(struct taken *list, int64_t row, int32_t group, int64_t genes)
{
    if (list->count == list->capacity) {
        int64_t capacity = 2 * list->capacity + 1024;
        int64_t *rows = realloc(list->row, sizeof *rows * (size_t)capacity);
        if (rows) list->row = rows;
        int32_t *groups = realloc(list->group, sizeof *groups * (size_t)capacity);
        if (groups) list->group = groups;
        int32_t *counts = realloc(list->genes, sizeof *counts * (size_t)capacity);
        if (counts) list->genes = counts;
        if (!rows || !groups || !counts)
            return fail(ST_MEMORY, "no memory for a list of %lld cells", (long long)capacity);
        list->capacity = capacity;
    }
    list->row[list->count] = row;
    list->genes[list->count] = (int32_t)genes;
    list->group[list->count++] = group;
    return ST_OK;
}

static void taken_free(struct taken *list)
{
    free(list->row);
    free(list->group);
    free(list->genes);
}

static void count_kept(struct scan *s, int64_t at)
{
    for (int64_t e = s->cells.start[at]; e < s->cells.start[at + 1]; e++) {
        s->found->counts += s->cells.value[e];
        if (s->plan->lookup[s->cells.feature[e]]) s->found->kept_counts += s->cells.value[e];
    }
}

/* A fixed share of the training cells, whatever the number of ranks. */
static bool serves_references(const struct survey_plan *plan, int64_t row)
{
    if (plan->reference_cells == 0 || plan->count <= plan->reference_cells) return true;
    struct rng r = rng_at(0, RNG_SHUFFLE, (uint64_t)row, 0);
    return rng_uniform(&r) * (double)plan->count < (double)plan->reference_cells;
}

static enum status look_at(struct scan *s, int64_t at, bool held_out, int32_t group)
{
    enum status st = ST_OK;
    int64_t row = s->cells.id[at];
    TRY(token_cell_reserve(&s->cell, s->cells.start[at + 1] - s->cells.start[at]));
    count_kept(s, at);
    token_cell_read(&s->cells, at, s->plan->lookup, &s->plan->rules, true, &s->cell);
    if (!token_cell_selected(&s->cell, &s->plan->rules)) {
        if (s->cell.count < s->plan->rules.min_genes || s->cell.count == 0) s->found->too_short++;
        else s->found->too_long++;
        goto done;
    }
    s->found->genes += s->cell.count < s->plan->rules.max_genes ? s->cell.count : s->plan->rules.max_genes;
    TRY(take(held_out ? &s->held_out : &s->train, row, group, s->cell.count));
    if (!held_out && serves_references(s->plan, row)) reference_add(s->found->reference, &s->cell);
done:
    return st;
}

/* ---- a span of atlas rows ---- */

static enum status look_at_span(struct scan *s, const int64_t *rows, int64_t count)
{
    enum status st = ST_OK;
    const struct survey_plan *p = s->plan;
    const char *split_by = *p->split_by ? p->split_by : "source_obs_name";
    struct column split = {0}, balance = {0};
    int64_t first = rows[0], span = rows[count - 1] - first + 1;
    TRY(atlas_read_rows(p->atlas, p->modality, rows, count, &s->cells));
    TRY(atlas_obs_read(p->atlas, split_by, first, span, &split));
    if (*p->balance_by) TRY(atlas_obs_read(p->atlas, p->balance_by, first, span, &balance));
    if (*p->balance_by && balance.type != COLUMN_CATEGORY)
        TRY(fail(ST_INPUT, "data.balance_by: column '%s' is not categorical; give a column of labels", p->balance_by));
    if (*p->split_by && split.type == COLUMN_CATEGORY && !s->split.out)
        TRY(split_values(&split, p->held_out, &s->split));
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows[i] - first;
        TRY(look_at(s, i, is_held_out(s, &split, at), balance.code ? balance.code[at] + 1 : 0));
    }
done:
    column_free(&split);
    column_free(&balance);
    return st;
}

static enum status look_at_share(struct scan *s, const int64_t *rows, int64_t count)
{
    enum status st = ST_OK;
    for (int64_t i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && rows[i + n] - rows[i] < SPAN; n++) continue;
        TRY(stop_asked() ? ST_REQUEUE : look_at_span(s, rows + i, n));
    }
done:
    return st;
}

/* ---- over ranks ---- */

/* Draw every value equally often: a cell weighs 1 / (cells with its value). */
static enum status weigh(const int32_t *group, int64_t count, double *weight)
{
    enum status st = ST_OK;
    int32_t groups = 1;
    int64_t *members = NULL;
    for (int64_t i = 0; i < count; i++)
        if (group[i] >= groups) groups = group[i] + 1;
    TRY(NEW_ARRAY(members, groups));
    memset(members, 0, sizeof *members * (size_t)groups);
    for (int64_t i = 0; i < count; i++) members[group[i]]++;
    for (int64_t i = 0; i < count; i++)
        weight[i] = group[i] > 0 ? 1.0 / (double)members[group[i]] : 0; /* 0: no label */
    TRY(sampler_accumulate(weight, count));
done:
    free(members);
    return st;
}

static enum status gather(struct comm *comm, struct scan *s)
{
    enum status st = ST_OK;
    struct survey *f = s->found;
    int32_t *group = NULL;
    int64_t bytes;
    TRY(comm_gather_all(comm, s->train.row, s->train.count * 8, (void **)&f->train, &bytes, NULL));
    f->train_count = bytes / 8;
    TRY(comm_gather_all(comm, s->train.genes, s->train.count * 4, (void **)&f->train_genes, &bytes, NULL));
    TRY(comm_gather_all(comm, s->held_out.row, s->held_out.count * 8, (void **)&f->held_out, &bytes, NULL));
    f->held_out_count = bytes / 8;
    if (*s->plan->balance_by) {
        TRY(comm_gather_all(comm, s->train.group, s->train.count * 4, (void **)&group, &bytes, NULL));
        st = NEW_ARRAY(f->balance, f->train_count);
        if (st == ST_OK && f->train_count > 0) st = weigh(group, f->train_count, f->balance);
        TRY(comm_agree(comm, st));
    }
done:
    free(group);
    return st;
}

static void add_over_ranks(struct comm *comm, struct survey *f)
{
    int64_t cells[] = {f->too_short, f->too_long}, sums;
    double totals[] = {f->counts, f->kept_counts, f->genes};
    comm_sum_i64(comm, cells, 2);
    comm_sum_f64(comm, totals, 3);
    f->too_short = cells[0];
    f->too_long = cells[1];
    f->counts = totals[0];
    f->kept_counts = totals[1];
    f->genes = totals[2];
    double *reference = reference_sums(f->reference, &sums);
    comm_sum_f64(comm, reference, sums);
    reference_fit(f->reference);
}

enum status survey_run(struct comm *comm, const struct survey_plan *plan, int32_t genes, struct survey *out)
{
    struct scan s = {.plan = plan, .found = out};
    int64_t first, count;
    *out = (struct survey){0};
    comm_share(comm, plan->count, &first, &count);
    enum status st = reference_create(genes, plan->rules.scale, &out->reference);
    if (st == ST_OK) st = look_at_share(&s, plan->rows + first, count);
    TRY(comm_agree(comm, st));
    TRY(gather(comm, &s));
    add_over_ranks(comm, out);
done:
    taken_free(&s.train);
    taken_free(&s.held_out);
    free(s.split.out);
    cells_free(&s.cells);
    token_cell_free(&s.cell);
    return st;
}

void survey_free(struct survey *survey)
{
    free(survey->train);
    free(survey->held_out);
    free(survey->balance);
    free(survey->train_genes);
    reference_destroy(&survey->reference);
    *survey = (struct survey){0};
}
