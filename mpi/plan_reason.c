/* Why a layout is taken, and what the others lose against it: one line each. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"
#include "mpi/plan_inside.h"

static void say(struct plan_estimate *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct plan_estimate *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(e->reason, sizeof e->reason, format, args);
    va_end(args);
}

void plan_say_too_large(const struct plan *p, struct plan_estimate *e)
{
    const struct plan_memory *m = &e->memory;
    double limit = PLAN_MEMORY_SHARE * p->machine->node_bytes / p->machine->ranks_per_node;
    double states = m->weights + m->packed + m->gradients + m->moments;
    char have[32], need[32];
    say(e, "does not fit: %s a rank, %s are there, mostly %s", text_bytes(e->rank_bytes, need), text_bytes(limit, have),
        states > m->activations ? "weights, gradients and moments" : "activations");
}

/* Percent of a step. */
static double percent(const struct plan_estimate *e, double s) { return 100 * s / e->step_s; }

static double work_s(const struct plan_estimate *e) { return e->time.forward + e->time.backward + e->time.weights; }

static const char *across(const struct plan *p, const struct plan_layout *l)
{
    return plan_crosses(p, l) ? " on other nodes" : " on other ranks";
}

/* What a layout loses against the chosen one: the part of the step that grew most. */
static void say_limit(const struct plan *p, struct plan_estimate *e, const struct plan_estimate *chosen)
{
    const struct plan_time *t = &e->time, *c = &chosen->time;
    double idle = t->idle - c->idle, spread = t->spread - c->spread, work = work_s(e) - work_s(chosen);
    double exchange = t->exchange + t->tied - c->exchange - c->tied, update = t->update - c->update;
    double experts = t->experts - c->experts;
    double most = fmax(fmax(fmax(idle, spread), fmax(work, exchange)), fmax(update, experts));
    if (e->step_s <= chosen->step_s)
        say(e, "%.0f %% quicker, which is not worth what it adds", 100 * (1 - e->step_s / chosen->step_s));
    else if (most == idle) say(e, "stages wait %.0f %% of the pipeline's time", 100 * e->bubble);
    else if (most == spread)
        say(e, "the longest cells hold the others up for %.0f %% of a step", percent(e, t->spread));
    else if (most == exchange)
        say(e, "exchanging gradients takes %.0f %% of a step", percent(e, t->exchange + t->tied));
    else if (most == experts)
        say(e, "rows on their way to experts%s take %.0f %% of a step", across(p, &e->layout), percent(e, t->experts));
    else if (most == update) say(e, "the optimiser takes %.0f %% of a step", percent(e, t->update));
    else if (e->layout.recompute > chosen->layout.recompute)
        say(e, "recomputation adds %.0f %% of work", 100 * work / work_s(chosen));
    else say(e, "stages are uneven, the dearest computes %.0f %% longer", 100 * work / work_s(chosen));
}

/* Why there is a pipeline at all; `simplest` is replicas alone, or NULL. */
static void say_pipeline(const struct plan *p, const struct plan_wanted *w, struct plan_estimate *e,
                         const struct plan_estimate *simplest, struct text *out)
{
    char need[32];
    if (w->pipe) text_add(out, "the configuration asks for %d stages (mesh.pipe, mesh.layers)", w->pipe);
    else if (!simplest)
        text_add(out, "the batch of %lld cells feeds no more than %lld replicas", (long long)p->job->batch,
                 (long long)p->job->batch);
    else if (!simplest->fits)
        text_add(out, "replicas of %s would take %s a rank",
                 plan_experts(&simplest->layout) > 1 ? "all blocks" : "the whole model",
                 text_bytes(simplest->rank_bytes, need));
    else {
        text_add(out, "replicas alone would be %.0f %% slower: gradients take %.0f %% of their step",
                 100 * (simplest->step_s / e->step_s - 1), percent(simplest, simplest->time.exchange));
        if (simplest->time.spread > 0.005 * simplest->step_s)
            text_add(out, ", the longest cells %.0f %%", percent(simplest, simplest->time.spread));
    }
}

/* Why experts are shared out, or why not; `opposite` does the other thing. */
static void add_experts(const struct plan *p, const struct plan_wanted *w, const struct plan_estimate *e,
                        const struct plan_estimate *opposite, struct text *out)
{
    int k = plan_experts(&e->layout);
    if (w->expert) text_add(out, "; the configuration asks for %d expert rank%s (mesh.expert)", k, k > 1 ? "s" : "");
    else if (k == 1 && !opposite) text_add(out, "; every rank has room for all experts of its blocks");
    else if (k == 1)
        text_add(
            out,
            "; every rank has room for all experts of its blocks: rows to experts elsewhere would take %.0f %% of a "
            "step",
            percent(opposite, opposite->time.experts));
    else if (!opposite) text_add(out, "; a rank has no room for all experts, so %d share them out", k);
    else
        text_add(out, "; %d ranks share out the experts, as all on each rank would be %.0f %% slower", k,
                 100 * (opposite->step_s / e->step_s - 1));
    if (k > 1 && plan_crosses(p, &e->layout)) text_add(out, ", over several nodes");
    else if (k > 1) text_add(out, ", inside a node, replicas across nodes");
}

/* Why two micro-batches take turns at exchanges, or why not, and what that hides of a step. */
static void add_turns(const struct plan *p, const struct plan_wanted *w, const struct plan_estimate *e,
                      const struct plan_estimate *turned, struct text *out)
{
    if (!turned) return;
    bool takes = e->layout.in_turns;
    double plain_s = takes ? turned->step_s : e->step_s, turns_s = takes ? e->step_s : turned->step_s;
    double hidden = 100 * (1 - turns_s / plain_s);
    if (takes) text_add(out, "; two micro-batches take turns at exchanges%s", w->has_turns ? ", as asked" : "");
    else if (w->has_turns) text_add(out, "; no turns at exchanges, as asked");
    else text_add(out, "; no turns at exchanges%s", turned->fits ? "" : ", as memory is short");
    text_add(out, " (mesh.turns): that %s", takes ? "" : "would ");
    if (hidden >= 0.5) text_add(out, "%s %.0f %% of a step", takes ? "hides" : "hide", hidden);
    else if (hidden <= -0.5) text_add(out, "%s a step %.0f %% longer", takes ? "makes" : "make", -hidden);
    else text_add(out, "%s next to nothing", takes ? "hides" : "hide");
    if (hidden < 0.5 && !plan_crosses(p, &e->layout)) text_add(out, ", as ranks of a node copy rows themselves");
}

static void say_chosen(const struct plan *p, const struct plan_wanted *w, struct plan_estimate *e,
                       const struct plan_beside *b)
{
    struct text text = {0};
    if (e->layout.pipe > 1) say_pipeline(p, w, e, b->simplest, &text);
    else if (plan_experts(&e->layout) == 1)
        text_add(&text, "the whole model fits on a rank, so replicas need no pipeline");
    else text_add(&text, "all blocks fit on a rank, so replicas need no pipeline");
    if (p->experts > 0) add_experts(p, w, e, b->opposite, &text);
    add_turns(p, w, e, b->turned, &text);
    if (e->layout.pipe > 1 && e->layout.schedule == SCHEDULE_ZB_H1)
        text_add(&text, "; zb-h1, as 1f1b would wait longer");
    if (e->layout.schedule == SCHEDULE_INTERLEAVED) text_add(&text, "; interleaved, as one chunk a stage waits longer");
    if (e->layout.recompute) text_add(&text, "; activations do not fit and are computed twice");
    say(e, "%s", text.data);
    text_free(&text);
}

void plan_say_why(const struct plan *p, const struct plan_wanted *w, struct plan_found *found,
                  const struct plan_beside *beside)
{
    for (int i = 1; i < found->count; i++) say_limit(p, &found->best[i], &found->best[0]);
    say_chosen(p, w, &found->best[0], beside);
}
