/* How a model's experts are used by the cell types of the held-out cells: OUT/expert_usage.tsv. Rows of later steps that
 * lie there are of steps that were lost, and go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "jobs/pretrain_state.h"

enum { MOST_TYPES = 1000, SPAN = 65536 };
#define HEADER "step\tlayer\texpert\tcell_type\tslots\tshare\n"

/* ---- labels of the held-out cells ---- */

/* Names once, from the first slice that is read: categories are the whole atlas's. */
static enum status take_names(const struct job *job, const struct column *c, struct usage_labels *labels)
{
    enum status st = ST_OK;
    if (c->type != COLUMN_CATEGORY)
        TRY(config_fail(job->config, "data.cell_type",
                        "this column of the atlas is not categorical; give a column of "
                        "labels, or '' for none"));
    if (c->category_count > MOST_TYPES)
        TRY(config_fail(job->config, "data.cell_type",
                        "this column has %d values, %d are the most; give a column of "
                        "fewer, or '' for none",
                        c->category_count, MOST_TYPES));
    if (labels->name) goto done;
    TRY(NEW_ARRAY(labels->name, c->category_count + 1));
    for (int t = 0; t < c->category_count; t++) labels->name[t] = text_copy(c->category[t]);
    labels->count = c->category_count;
done:
    return st;
}

/* Codes of rows[count], ascending, read in spans of neighbours. */
static enum status read_codes(const struct job *job, const char *name, const int64_t *rows, int64_t count,
                              struct usage_labels *labels, int32_t *code)
{
    const struct pretrain *p = job->state;
    enum status st = ST_OK;
    struct column c = {0};
    TRY(atlas_obs_read(p->atlas, name, 0, 0, &c));
    TRY(take_names(job, &c, labels));
    for (int64_t i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && rows[i + n] - rows[i] < SPAN; n++) continue;
        column_free(&c);
        TRY(atlas_obs_read(p->atlas, name, rows[i], rows[i + n - 1] - rows[i] + 1, &c));
        for (int64_t k = i; k < i + n; k++) code[k] = c.code[rows[k] - rows[i]];
    }
done:
    column_free(&c);
    return st;
}

static enum status read_labels(struct job *job, struct usage_labels *labels)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    const char *name = config_text(job->config, "data.cell_type");
    int32_t *mine = NULL;
    int64_t first, count, bytes;
    comm_share(&job->world, p->survey.held_out_count, &first, &count);
    st = NEW_ARRAY(mine, count);
    for (int64_t i = 0; st == ST_OK && i < count; i++) mine[i] = -1;
    bool present = *name && (atlas_obs_has(p->atlas, name) || config_is_given(job->config, "data.cell_type"));
    if (st == ST_OK && present) st = read_codes(job, name, p->survey.held_out + first, count, labels, mine);
    TRY(comm_agree(&job->world, st));
    TRY(comm_gather_all(&job->world, mine, count * (int64_t)sizeof *mine, (void **)&labels->code, &bytes, NULL));
done:
    free(mine);
    return st;
}

enum status pretrain_usage_open(struct job *job)
{
    struct pretrain *p = job->state;
    struct expert_usage *u = &p->usage;
    enum status st = ST_OK;
    if (!config_word_is(job->config, "model.feed_forward", "moe")) return ST_OK;
    TRY(read_labels(job, &p->labels));
    TRY(comm_agree(&job->world,
                   expert_usage_create(model_layers(p->model), (int)config_int(job->config, "model.experts"),
                                       p->labels.count + 1, p->limits.cells, u)));
    u->cell = p->survey.held_out, u->group = p->labels.code, u->cells = p->survey.held_out_count;
done:
    return st;
}

void pretrain_usage_close(struct pretrain *p)
{
    expert_usage_free(&p->usage);
    for (int t = 0; t < p->labels.count; t++) free(p->labels.name[t]);
    free(p->labels.name);
    free(p->labels.code);
}

/* ---- one evaluation ---- */

void pretrain_usage_begin(struct pretrain *p)
{
    if (!p->usage.slots) return;
    expert_usage_clear(&p->usage);
    model_experts(p->model)->usage = &p->usage;
}

void pretrain_usage_end(struct pretrain *p) { model_experts(p->model)->usage = NULL; }

/* What metrics.jsonl says of it; an expert without slots is unused. */
struct digest {
    int64_t slots, layers, types, unused;
    double imbalance, largest_share;
};

/* Slots of an expert for all types. */
static int64_t slots_in_all(const struct expert_usage *u, int block, int expert)
{
    int64_t sum = 0;
    for (int t = 0; t < u->groups; t++) sum += expert_usage_slots(u, block, expert, t);
    return sum;
}

static void digest_block(const struct expert_usage *u, int block, struct digest *d)
{
    int64_t all = 0, most = 0, types = 0;
    for (int e = 0; e < u->experts; e++) {
        int64_t slots = slots_in_all(u, block, e);
        all += slots;
        if (slots > most) most = slots;
        d->unused += slots == 0;
    }
    for (int t = 0; t < u->groups; t++) {
        int64_t sum = expert_usage_sum(u, block, t);
        types += sum > 0;
        for (int e = 0; e < u->experts && sum > 0; e++) {
            double share = (double)expert_usage_slots(u, block, e, t) / (double)sum;
            if (share > d->largest_share) d->largest_share = share;
        }
    }
    double over = (double)most * u->experts / (double)all;
    if (over > d->imbalance) d->imbalance = over;
    if (types > d->types) d->types = types;
    d->slots += all;
    d->layers++;
}

static bool has_slots(const struct expert_usage *u, int block)
{
    for (int t = 0; t < u->groups; t++)
        if (expert_usage_sum(u, block, t) > 0) return true;
    return false;
}

static struct digest digest_of(const struct expert_usage *u)
{
    struct digest d = {0};
    for (int b = 0; b < u->blocks; b++)
        if (has_slots(u, b)) digest_block(u, b, &d);
    return d;
}

/* ---- the table ---- */

/* Names may hold anything; a line may not. */
static void add_name(struct text *t, const char *name)
{
    for (; *name; name++) text_add_bytes(t, *name == '\t' || *name == '\n' || *name == '\r' ? " " : name, 1);
}

static void add_rows(struct text *t, const struct expert_usage *u, const struct usage_labels *labels, int64_t step,
                     int block)
{
    for (int e = 0; e < u->experts; e++)
        for (int g = 0; g < u->groups; g++) {
            int64_t sum = expert_usage_sum(u, block, g), slots = expert_usage_slots(u, block, e, g);
            if (sum == 0) continue;
            text_add(t, "%lld\t%d\t%d\t", (long long)step, block, e);
            add_name(t, g < labels->count ? labels->name[g] : "unlabelled");
            text_add(t, "\t%lld\t%.6f\n", (long long)slots, (double)slots / (double)sum);
        }
}

/* What earlier evaluations wrote, in `path`; none is no failure. */
static enum status add_earlier(const char *path, int64_t step, struct text *t)
{
    enum status st = ST_OK;
    char *old = NULL;
    size_t bytes;
    if (access(path, F_OK) != 0 && errno == ENOENT) return ST_OK;
    TRY(text_read_file(path, &old, &bytes));
    for (char *rest = old, *line; (line = strsep(&rest, "\n"));)
        if (*line >= '0' && *line <= '9' && atoll(line) < step) text_add(t, "%s\n", line);
done:
    free(old);
    return st;
}

static enum status write_usage(const struct job *job)
{
    struct pretrain *p = job->state;
    const struct expert_usage *u = &p->usage;
    enum status st = ST_OK;
    struct text t = {0};
    struct digest d = digest_of(u);
    const struct metric m[] = {{"step", (double)p->state.step},   {"slots", (double)d.slots},
                               {"layers", (double)d.layers},      {"cell_types", (double)d.types},
                               {"unused", (double)d.unused},      {"imbalance", d.imbalance},
                               {"largest_share", d.largest_share}};
    char *path = text_format("%s/expert_usage.tsv", config_text(job->config, "run.out"));
    text_add(&t, HEADER);
    TRY(add_earlier(path, p->state.step, &t));
    for (int b = 0; b < u->blocks; b++) add_rows(&t, u, &p->labels, p->state.step, b);
    TRY(text_write_file(path, t.data, t.length));
    TRY(metrics_add(&p->metrics, "expert_usage", m, sizeof m / sizeof *m));
done:
    text_free(&t);
    free(path);
    return st;
}

enum status pretrain_usage_write(struct job *job)
{
    struct pretrain *p = job->state;
    if (!p->usage.slots || p->survey.held_out_count == 0) return ST_OK;
    comm_sum_i64(&job->world, p->usage.slots, expert_usage_length(&p->usage));
    return comm_agree(&job->world, job->world.rank == 0 ? write_usage(job) : ST_OK);
}
