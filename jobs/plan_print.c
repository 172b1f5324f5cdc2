/* The plan as people read it, and as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "jobs/plan_state.h"

static double node_hours(const struct planning *p, const struct plan_estimate *e)
{
    return e->run_s / 3600 * p->machine.nodes;
}

/* "1f1b, 4 stages x 2 replicas, micro-batch 4" */
static char *layout_text(const struct plan_layout *l)
{
    struct text t = {0};
    if (l->pipe > 1) text_add(&t, "%s, %d stages x ", schedule_name(l->schedule), l->pipe);
    text_add(&t, "%d replica%s, micro-batch %d", l->data, l->data > 1 ? "s" : "", l->micro_batch);
    if (l->chunks > 1) text_add(&t, ", %d chunks a stage", l->chunks);
    if (l->recompute) text_add(&t, ", recomputed");
    return t.data;
}

/* Three figures of seconds up to a minute, then minutes and hours. */
static char *short_time(double s, char out[32])
{
    if (s < 60) snprintf(out, 32, "%.3g s", s);
    else text_duration(s, out);
    return out;
}

char *plan_verdict(const struct planning *p, const struct plan_estimate *e)
{
    char step[32], run[32];
    char *layout = layout_text(&e->layout);
    char *verdict = text_format("%s: %s a step, %s, %.4g node hours, %.3g of %.0f GiB a node", layout,
                                short_time(e->step_s, step), short_time(e->run_s, run), node_hours(p, e),
                                e->node_bytes / 0x1p30, p->machine.node_bytes / 0x1p30);
    free(layout);
    return verdict;
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

struct row {
    const char *name;
    double value;
};

static void add_memory(const struct plan_estimate *e, struct text *out)
{
    const struct plan_memory *m = &e->memory;
    const struct row rows[] = {
        {"weights", m->weights},           {"packed weights", m->packed},   {"gradients", m->gradients},
        {"moments", m->moments},           {"activations", m->activations}, {"exchange buffers", m->exchange},
        {"pipeline buffers", m->messages}, {"program", m->process},         {"together", e->rank_bytes}};
    char bytes[32];
    text_add(out, "\nmemory of the rank that needs most\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        text_add(out, "  %-22s %12s\n", rows[i].name, text_bytes(rows[i].value, bytes));
}

static void add_time(const struct plan_estimate *e, struct text *out)
{
    const struct plan_time *t = &e->time;
    const struct row rows[] = {{"forward", t->forward},
                               {"backward", t->backward},
                               {"weight gradients", t->weights},
                               {"waiting in the pipeline", t->idle},
                               {"waiting for long cells", t->spread},
                               {"gradient exchange", t->exchange},
                               {"tied table", t->tied},
                               {"optimiser and packing", t->update},
                               {"together", e->step_s}};
    text_add(out, "\ntime of a step\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        text_add(out, "  %-22s %10.4g s %5.1f %%\n", rows[i].name, rows[i].value, 100 * rows[i].value / e->step_s);
    if (e->layout.pipe > 1) text_add(out, "  stages stand idle %.1f %% of the pipeline's time\n", 100 * e->bubble);
}

static void add_traffic(const struct plan_estimate *e, struct text *out)
{
    const struct plan_traffic *t = &e->traffic;
    const struct row rows[] = {{"gradients, a rank", t->gradients},
                               {"tied table, an end", t->tied},
                               {"activations, a stage", t->messages},
                               {"out of a node", t->off_node}};
    char bytes[32];
    text_add(out, "\ntraffic of a step, sent\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        text_add(out, "  %-22s %12s\n", rows[i].name, text_bytes(rows[i].value, bytes));
}

/* Stripes: one for each 4 GiB of the file, no more than nodes that write. */
static int stripes(const struct planning *p, const struct plan_estimate *e)
{
    double wanted = ceil(e->checkpoint_bytes / 0x1p32);
    return wanted < p->machine.nodes ? (int)wanted : p->machine.nodes;
}

static void add_checkpoints(const struct planning *p, const struct plan_estimate *e, struct text *out)
{
    char bytes[32], write[32], every[32], fails[32];
    double fails_s = p->machine.node_mtbf_s / p->machine.nodes;
    text_add(out,
             "\ncheckpoint  %s, %s to write; best every %s, train.checkpoint_every %lld (a failure every %s on %d "
             "node%s)\n",
             text_bytes(e->checkpoint_bytes, bytes), short_time(e->checkpoint_s, write),
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
    text_add(out, "\nlayouts%55s %11s %10s\n", "a step", "node hours", "GiB a rank");
    for (int i = 0; i < p->found.count; i++) {
        const struct plan_estimate *e = &p->found.best[i];
        char *layout = layout_text(&e->layout), step[32];
        text_add(out, "%c %-50s %9s %11.4g %10.3g\n      %s\n", i == 0 ? '*' : ' ', layout, short_time(e->step_s, step),
                 node_hours(p, e), e->rank_bytes / 0x1p30, e->reason);
        free(layout);
    }
}

/* The same training on a half, a quarter, an eighth of the nodes. */
static enum status add_fewer_nodes(const struct planning *p, const struct plan_wanted *wanted, struct text *out)
{
    enum status st = ST_OK;
    struct planning fewer = *p;
    fewer.plan = NULL;
    for (int part = 2; part <= 8 && p->machine.nodes / part >= 1; part *= 2) {
        struct plan_found found;
        fewer.machine.nodes = p->machine.nodes / part;
        TRY(plan_open(&fewer.job, &fewer.machine, &fewer.plan));
        st = plan_search(fewer.plan, wanted, &found);
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

enum status plan_report(const struct job *job, const struct plan_wanted *wanted, char **out)
{
    const struct planning *p = job->state;
    const struct plan_estimate *e = &p->found.best[0];
    struct text text = {0};
    char *verdict = plan_verdict(p, e);
    text_add(&text, "%s\n", verdict);
    add_model(p, e, &text);
    add_memory(e, &text);
    add_time(e, &text);
    add_traffic(e, &text);
    add_checkpoints(p, e, &text);
    add_layouts(p, &text);
    enum status st = add_fewer_nodes(p, wanted, &text);
    *out = text.data;
    free(verdict);
    return st;
}

/* ---- JSON ---- */

static json_t *json_layout(const struct plan_estimate *e)
{
    const struct plan_layout *l = &e->layout;
    return json_pack("{s:i, s:i, s:s, s:i, s:i, s:b, s:i, s:b, s:s}", "data", l->data, "pipe", l->pipe, "schedule",
                     schedule_name(l->schedule), "chunks", l->chunks, "micro_batch", l->micro_batch, "recompute",
                     l->recompute, "micro_batches", e->micros, "fits", e->fits, "reason", e->reason);
}

static json_t *json_memory(const struct plan_estimate *e)
{
    const struct plan_memory *m = &e->memory;
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "weights", m->weights, "packed", m->packed,
                     "gradients", m->gradients, "moments", m->moments, "activations", m->activations, "exchange",
                     m->exchange, "messages", m->messages, "process", m->process, "rank", e->rank_bytes);
}

static json_t *json_time(const struct plan_estimate *e)
{
    const struct plan_time *t = &e->time;
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "forward", t->forward, "backward", t->backward,
                     "weights", t->weights, "idle", t->idle, "spread", t->spread, "exchange", t->exchange, "tied",
                     t->tied, "update", t->update, "step", e->step_s);
}

static json_t *json_traffic(const struct plan_estimate *e)
{
    const struct plan_traffic *t = &e->traffic;
    return json_pack("{s:f, s:f, s:f, s:f}", "gradients", t->gradients, "tied", t->tied, "messages", t->messages,
                     "off_node", t->off_node);
}

static json_t *json_estimate(const struct planning *p, const struct plan_estimate *e)
{
    char *options;
    if (plan_options(p, e, &options) != ST_OK) return NULL;
    json_t *json = json_pack("{s:o, s:s, s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "layout", json_layout(e),
                             "options", options, "memory_bytes", json_memory(e), "time_s", json_time(e),
                             "traffic_bytes", json_traffic(e), "bubble", e->bubble, "run_s", e->run_s, "node_hours",
                             node_hours(p, e), "checkpoint_bytes", e->checkpoint_bytes, "checkpoint_s", e->checkpoint_s,
                             "interval_s", e->interval_s, "checkpoint_every", (json_int_t)plan_checkpoint_steps(e));
    free(options);
    return json;
}

enum status plan_write_json(const struct job *job)
{
    const struct planning *p = job->state;
    enum status st = ST_OK;
    char *verdict = plan_verdict(p, &p->found.best[0]);
    json_t *layouts = json_array();
    for (int i = 0; i < p->found.count; i++) json_array_append_new(layouts, json_estimate(p, &p->found.best[i]));
    json_t *json =
        json_pack("{s:s, s:i, s:i, s:i, s:I, s:f, s:o}", "verdict", verdict, "nodes", p->machine.nodes,
                  "ranks_per_node", p->machine.ranks_per_node, "threads", p->machine.threads, "parameters",
                  (json_int_t)plan_parameters(p->plan), "flops_per_cell", plan_cell_flops(p->plan), "layouts", layouts);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    if (!text) TRY(fail(ST_MEMORY, "no memory for the plan as JSON"));
    TRY(text_write_file(config_text(job->config, "plan.json"), text, strlen(text)));
done:
    free(text);
    json_decref(json);
    free(verdict);
    return st;
}
