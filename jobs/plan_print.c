/* The plan as people read it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "jobs/plan_state.h"

double plan_node_hours(const struct planning *p, const struct plan_estimate *e)
{
    return e->run_s / 3600 * p->machine.nodes;
}

/* ---- what a table has in its rows ---- */

int plan_memory_rows(const struct plan_estimate *e, struct plan_row *rows)
{
    const struct plan_memory *m = &e->memory;
    int n = 0;
    rows[n++] = (struct plan_row){"weights", "weights", m->weights};
    rows[n++] = (struct plan_row){"packed", "packed weights", m->packed};
    rows[n++] = (struct plan_row){"gradients", "gradients", m->gradients};
    rows[n++] = (struct plan_row){"moments", "moments", m->moments};
    rows[n++] = (struct plan_row){"activations", "activations", m->activations};
    rows[n++] = (struct plan_row){"exchange", "exchange buffers", m->exchange};
    rows[n++] = (struct plan_row){"messages", "pipeline buffers", m->messages};
    rows[n++] = (struct plan_row){"checkpoint", "copy for checkpoints", m->checkpoint};
    rows[n++] = (struct plan_row){"process", "program", m->process};
    rows[n++] = (struct plan_row){"rank", "together", e->rank_bytes};
    return n;
}

int plan_time_rows(const struct plan_estimate *e, struct plan_row *rows)
{
    const struct plan_time *t = &e->time;
    int n = 0;
    rows[n++] = (struct plan_row){"forward", "forward", t->forward};
    rows[n++] = (struct plan_row){"backward", "backward", t->backward};
    rows[n++] = (struct plan_row){"weights", "weight gradients", t->weights};
    rows[n++] = (struct plan_row){"experts", "rows to experts and back", t->experts};
    rows[n++] = (struct plan_row){"idle", "waiting in the pipeline", t->idle};
    rows[n++] = (struct plan_row){"spread", "waiting for long cells", t->spread};
    rows[n++] = (struct plan_row){"exchange", "gradients and weights", t->exchange};
    rows[n++] = (struct plan_row){"tied", "tied table", t->tied};
    rows[n++] = (struct plan_row){"update", "optimiser and packing", t->update};
    rows[n++] = (struct plan_row){"step", "together", e->step_s};
    return n;
}

int plan_traffic_rows(const struct plan_estimate *e, struct plan_row *rows)
{
    const struct plan_traffic *t = &e->traffic;
    int n = 0;
    rows[n++] = (struct plan_row){"gradients", "gradients and weights, a rank", t->gradients};
    rows[n++] = (struct plan_row){"rows", "rows to experts, a rank", t->rows};
    rows[n++] = (struct plan_row){"messages", "activations, a stage", t->messages};
    rows[n++] = (struct plan_row){"tied", "tied table, an end", t->tied};
    rows[n++] = (struct plan_row){"off_node", "out of a node", t->off_node};
    return n;
}

/* ---- the verdict ---- */

/* "1f1b, 4 stages x 2 replicas, micro-batch 4" */
static char *layout_text(const struct plan_layout *l)
{
    struct text t = {0};
    if (l->pipe > 1) text_add(&t, "%s, %d stages x ", schedule_name(l->schedule), l->pipe);
    text_add(&t, "%d replica%s", l->data, l->data > 1 ? "s" : "");
    if (l->expert > 1) text_add(&t, " x %d expert ranks", l->expert);
    text_add(&t, ", micro-batch %d", l->micro_batch);
    if (l->chunks > 1) text_add(&t, ", %d chunks a stage", l->chunks);
    if (l->recompute) text_add(&t, ", recomputed");
    if (l->in_turns) text_add(&t, ", in turns");
    return t.data;
}

/* Three figures of seconds up to a minute, then minutes and hours. */
static char *short_time(double s, char out[32])
{
    if (s < 60) snprintf(out, 32, "%.3g s", s);
    else text_duration(s, out);
    return out;
}

/* "0.52", "1,234" */
static char *hours_text(double hours, char out[32])
{
    if (hours < 1000) snprintf(out, 32, "%.3g", hours);
    else text_count((int64_t)(hours + 0.5), out);
    return out;
}

char *plan_verdict(const struct planning *p, const struct plan_estimate *e)
{
    char step[32], run[32], hours[32], steps[32];
    char *layout = layout_text(&e->layout);
    char *verdict =
        text_format("%s: %s a step, %s and %s node hours for %s steps, %.3g of %.0f GiB a node", layout,
                    short_time(e->step_s, step), short_time(e->run_s, run), hours_text(plan_node_hours(p, e), hours),
                    text_count(p->job.steps, steps), e->node_bytes / 0x1p30, p->machine.node_bytes / 0x1p30);
    free(layout);
    return verdict;
}

/* What to do, why, and how. */
static enum status add_head(const struct planning *p, const struct plan_estimate *e, struct text *out)
{
    enum status st = ST_OK;
    char *verdict = plan_verdict(p, e), *options = NULL;
    TRY(plan_options(p, e, &options));
    text_add(
        out,
        "%s\nwhy: %s\nhow: the batch file that --sbatch FILE writes, or %d rank%s of cytomill-pretrain with\n  %s\n",
        verdict, e->reason, e->layout.data * e->layout.pipe * e->layout.expert,
        e->layout.data * e->layout.pipe * e->layout.expert > 1 ? "s" : "", options);
done:
    free(verdict), free(options);
    return st;
}

/* For readers who do not know them, the words that the layouts above use. */
static void add_words(const struct planning *p, struct text *out)
{
    text_add(out, "\nwords\n"
                  "  rank          a process; its threads have a share of a node's cores\n"
                  "  replica       ranks that hold the whole model once, and train it on cells of their own\n"
                  "  stage         a rank that holds some of the blocks; cells pass through all stages of a replica\n"
                  "  micro-batch   cells that a rank computes at a time\n");
    if (config_word_is(p->job.config, "model.feed_forward", "moe"))
        text_add(out, "  expert ranks  each holds some of the experts; they send each other the tokens for them\n"
                      "  in turns      while the tokens of a micro-batch are on their way, another one is computed\n");
}

/* ---- tables ---- */

static void add_model(const struct planning *p, const struct plan_estimate *e, struct text *out)
{
    char parameters[32], batch[32], steps[32];
    double flops = plan_cell_flops(p->plan), cells_per_s = (double)p->job.batch / e->step_s;
    text_add(out, "\nmodel       %s parameters, %.3g TFLOP to train on a cell of %.0f genes, products in %s\n",
             text_count(plan_parameters(p->plan), parameters), flops * 1e-12, p->job.genes,
             p->job.bf16 ? "bf16" : "fp32");
    text_add(out, "step        %s cells, %.3g PFLOP, %d micro-batch%s a replica; %.4g cells/s, %.3g TFLOP/s a node\n",
             text_count(p->job.batch, batch), flops * (double)p->job.batch * 1e-15, e->micros,
             e->micros > 1 ? "es" : "", cells_per_s, cells_per_s * flops * 1e-12 / p->machine.nodes);
    text_add(out, "run         %s steps on %d node%s of %d rank%s of %d thread%s\n", text_count(p->job.steps, steps),
             p->machine.nodes, p->machine.nodes > 1 ? "s" : "", p->machine.ranks_per_node,
             p->machine.ranks_per_node > 1 ? "s" : "", p->machine.threads, p->machine.threads > 1 ? "s" : "");
}

/* Rows of 0 are left out: what a layout does not have. */
static void add_bytes(const struct plan_row *rows, int count, struct text *out)
{
    char bytes[32];
    for (int i = 0; i < count; i++)
        if (rows[i].value > 0) text_add(out, "  %-30s %12s\n", rows[i].title, text_bytes(rows[i].value, bytes));
}

static void add_memory(const struct plan_estimate *e, struct text *out)
{
    struct plan_row rows[PLAN_MOST_ROWS];
    int count = plan_memory_rows(e, rows);
    text_add(out, "\nmemory of the rank that needs most\n");
    add_bytes(rows, count, out);
}

static void add_time(const struct plan_estimate *e, struct text *out)
{
    struct plan_row rows[PLAN_MOST_ROWS];
    int count = plan_time_rows(e, rows);
    text_add(out, "\ntime of a step\n");
    for (int i = 0; i < count; i++)
        if (rows[i].value > 0)
            text_add(out, "  %-30s %10.4g s %5.1f %%\n", rows[i].title, rows[i].value, 100 * rows[i].value / e->step_s);
    if (e->layout.pipe > 1) text_add(out, "  stages stand idle %.1f %% of the pipeline's time\n", 100 * e->bubble);
    if (e->layout.expert > 1) text_add(out, "  experts are taken to get equally many rows each\n");
    if (e->layout.in_turns) text_add(out, "  of the rows' time, what turns hide is not counted\n");
}

static void add_traffic(const struct plan_estimate *e, struct text *out)
{
    struct plan_row rows[PLAN_MOST_ROWS];
    int count = plan_traffic_rows(e, rows);
    text_add(out, "\ntraffic of a step, sent\n");
    add_bytes(rows, count, out);
}

/* Stripes: one for each 4 GiB of the file, no more than nodes that write. */
static int stripes(const struct planning *p, const struct plan_estimate *e)
{
    double wanted = ceil(e->checkpoint_bytes / 0x1p32);
    return wanted < p->machine.nodes ? (int)wanted : p->machine.nodes;
}

static void add_checkpoints(const struct planning *p, const struct plan_estimate *e, struct text *out)
{
    char bytes[32], write[32], stall[32], every[32], fails[32];
    double fails_s = p->machine.node_mtbf_s / p->machine.nodes;
    text_add(
        out,
        "\ncheckpoint  %s, %s to write, for which the training waits %s; best every %s, train.checkpoint_every %lld "
        "(a failure every %s on %d node%s)\n",
        text_bytes(e->checkpoint_bytes, bytes), short_time(e->checkpoint_s, write), short_time(e->stall_s, stall),
        short_time(e->interval_s, every), (long long)plan_checkpoint_steps(e), text_duration(fails_s, fails),
        p->machine.nodes, p->machine.nodes > 1 ? "s" : "");
    text_add(out,
             "files       ranks write blocks of 16 MiB of one file: on Lustre, before the run, lfs setstripe -S 16M -c "
             "%d on the folder of run.out\n",
             stripes(p, e));
}

/* One line each: what, how long, how much, and below it why. */
static void add_layouts(const struct planning *p, struct text *out)
{
    text_add(out, "\nlayouts%71s %11s %10s\n", "a step", "node hours", "GiB a rank");
    for (int i = 0; i < p->found.count; i++) {
        const struct plan_estimate *e = &p->found.best[i];
        char *layout = layout_text(&e->layout), step[32], hours[32];
        text_add(out, "%c %-66s %9s %11s %10.3g\n      %s\n", i == 0 ? '*' : ' ', layout, short_time(e->step_s, step),
                 hours_text(plan_node_hours(p, e), hours), e->rank_bytes / 0x1p30, e->reason);
        free(layout);
    }
}

/* The same training on a half, a quarter, an eighth of the nodes. */
static enum status add_fewer_nodes(const struct planning *p, struct text *out)
{
    enum status st = ST_OK;
    struct planning fewer = *p;
    fewer.plan = NULL;
    for (int part = 2; part <= 8 && p->machine.nodes / part >= 1; part *= 2) {
        struct plan_found found;
        fewer.machine.nodes = p->machine.nodes / part;
        TRY(plan_open(&fewer.job, &fewer.machine, &fewer.plan));
        st = plan_search(fewer.plan, &fewer.wanted, &found);
        plan_close(&fewer.plan);
        if (st == ST_CONFIG) { /* does not fit there: no row */
            status_clear();
            st = ST_OK;
            continue;
        }
        TRY(st);
        char *verdict = plan_verdict(&fewer, &found.best[0]);
        if (part == 2) text_add(out, "\nfewer nodes\n");
        text_add(out, "  %4d: %s\n", fewer.machine.nodes, verdict);
        free(verdict);
    }
done:
    return st;
}

enum status plan_report(const struct job *job, char **out)
{
    const struct planning *p = job->state;
    const struct plan_estimate *e = &p->found.best[0];
    struct text text = {0};
    enum status st = add_head(p, e, &text);
    if (st != ST_OK) return st;
    add_model(p, e, &text);
    add_memory(e, &text);
    add_time(e, &text);
    add_traffic(e, &text);
    add_checkpoints(p, e, &text);
    add_layouts(p, &text);
    st = add_fewer_nodes(p, &text);
    add_words(p, &text);
    *out = text.data;
    return st;
}
