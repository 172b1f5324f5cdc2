/* Which layout: all that the ranks allow are timed, the quickest are measured, the simplest of the quick ones is taken. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "mpi/plan_inside.h"

struct candidates {
    int count, capacity;
    struct plan_estimate *list;
};

/* ---- what there is to choose from ---- */

static enum status add(const struct plan *p, struct candidates *all, const struct plan_layout *l)
{
    if (all->count == all->capacity) {
        int capacity = all->capacity ? 2 * all->capacity : 64;
        void *list = realloc(all->list, (size_t)capacity * sizeof *all->list);
        if (list) all->list = list;
        if (!list) return fail(ST_MEMORY, "no memory to compare %d layouts", capacity);
        all->capacity = capacity;
    }
    enum status st = plan_estimate_time(p, l, &all->list[all->count]);
    all->count += st == ST_OK;
    return st;
}

/* Every chunk needs a block. Interleaved pipelines are even only when stages divide micro-batches, and with more than
 * INTERLEAVED stages their messages need more than the two buffers that pipeline.h has. */
enum { INTERLEAVED = 10 };
static bool goes(const struct plan *p, const struct plan_wanted *w, const struct plan_layout *l)
{
    int64_t micros = ((p->job->batch + l->data - 1) / l->data + l->micro_batch - 1) / l->micro_batch;
    if (plan_parts(l) > p->layers || (w->chunks && w->chunks != l->chunks)) return false;
    if (w->has_schedule && l->pipe > 1 && w->schedule != l->schedule) return false;
    if (l->schedule == SCHEDULE_INTERLEAVED)
        return l->chunks > 1 && l->pipe <= INTERLEAVED && (w->chunks || micros % l->pipe == 0);
    return l->chunks == 1 && !(l->schedule == SCHEDULE_ZB_H1 && l->recompute);
}

static enum status add_schedules(const struct plan *p, const struct plan_wanted *w, struct plan_layout l,
                                 struct candidates *all)
{
    static const int chunks[] = {1, 2, 3, 4, 5, 8};
    enum status st = ST_OK;
    for (int kind = l.pipe > 1 ? SCHEDULE_GPIPE : SCHEDULE_1F1B; kind <= (l.pipe > 1 ? SCHEDULE_ZB_H1 : SCHEDULE_1F1B);
         kind++) {
        if (kind == SCHEDULE_GPIPE && !w->has_schedule) continue; /* 1f1b takes as long and less memory */
        l.schedule = kind;
        for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
            l.chunks = w->chunks ? w->chunks : chunks[c];
            if (goes(p, w, &l)) TRY(add(p, all, &l));
            if (w->chunks) break;
        }
    }
done:
    return st;
}

/* 1, 2, 4, ... up to the most itself; 0 behind it. */
static int after_micro(int micro, int most) { return micro >= most ? 0 : 2 * micro < most ? 2 * micro : most; }

/* Micro-batches of few cells and of many, up to the replica's share, without and with recomputation. */
static enum status add_pipe(const struct plan *p, const struct plan_wanted *w, int pipe, struct candidates *all)
{
    enum status st = ST_OK;
    struct plan_layout l = {.data = plan_ranks(p->machine) / pipe, .pipe = pipe, .chunks = 1};
    int64_t share = (p->job->batch + l.data - 1) / l.data;
    int most = w->most_micro ? w->most_micro : 16;
    if (share < most) most = (int)share;
    for (l.micro_batch = 1; l.micro_batch > 0; l.micro_batch = after_micro(l.micro_batch, most))
        for (int again = 0; again < 2; again++) {
            l.recompute = again;
            if (w->has_recompute && w->recompute != l.recompute) continue;
            TRY(add_schedules(p, w, l, all));
        }
done:
    return st;
}

static enum status list_candidates(const struct plan *p, const struct plan_wanted *w, struct candidates *all)
{
    enum status st = ST_OK;
    int ranks = plan_ranks(p->machine);
    for (int pipe = 1; pipe <= ranks && pipe <= p->layers; pipe++) {
        if (ranks % pipe != 0 || ranks / pipe > p->job->batch) continue;
        if ((w->pipe && w->pipe != pipe) || (w->data && w->data != ranks / pipe)) continue;
        TRY(add_pipe(p, w, pipe, all));
    }
done:
    return st;
}

/* ---- which of them ---- */

static int compare_time(const void *a, const void *b)
{
    const struct plan_estimate *x = a, *y = b;
    return (x->step_s > y->step_s) - (x->step_s < y->step_s);
}

/* How much there is to understand and to go wrong: replicas alone, then a pipeline, then other schedules. */
static int complexity(const struct plan_layout *l)
{
    return (l->pipe > 1 ? 2 + (l->schedule != SCHEDULE_1F1B) : 0) + l->recompute;
}

/* Layouts that differ in their micro-batch alone are one choice: the quickest that fits. */
static bool same_choice(const struct plan_layout *a, const struct plan_layout *b)
{
    return a->pipe == b->pipe && a->schedule == b->schedule && a->chunks == b->chunks && a->recompute == b->recompute;
}

static bool is_told(const struct candidates *best, const struct plan_layout *l)
{
    for (int i = 0; i < best->count; i++)
        if (same_choice(&best->list[i].layout, l)) return true;
    return false;
}

/* Less than the least that the layout can take: weights, gradients and moments of a stage's fair share. */
static bool is_hopeless(const struct plan *p, const struct plan_estimate *e)
{
    double each = 8 + 8.0 / e->layout.data, least = each * (double)plan_parameters(p) / e->layout.pipe;
    return least * p->machine->ranks_per_node > PLAN_MEMORY_SHARE * p->machine->node_bytes;
}

/* The quickest that fit, one of each choice; `all` is in the order of time. */
static enum status keep_fitting(const struct plan *p, struct candidates *all, int most, struct candidates *best)
{
    enum status st = ST_OK;
    for (int i = 0; i < all->count; i++) {
        struct plan_estimate *e = &all->list[i];
        bool late = best->count >= most && e->step_s > best->list[0].step_s * PLAN_SIMPLER;
        if (late || best->count == best->capacity) break;
        if (is_told(best, &e->layout) || is_hopeless(p, e)) continue;
        TRY(plan_estimate_memory(p, e));
        if (e->fits) best->list[best->count++] = *e;
    }
done:
    return st;
}

/* Of those nearly as quick as the first, the simplest; of these, the quickest. */
static int choose(const struct candidates *best)
{
    int chosen = 0;
    for (int i = 1; i < best->count && best->list[i].step_s <= best->list[0].step_s * PLAN_SIMPLER; i++)
        if (complexity(&best->list[i].layout) < complexity(&best->list[chosen].layout)) chosen = i;
    return chosen;
}

/* The simplest of all, replicas alone, if the batch has a cell for each: the quickest that fits, else the one that takes
 * least. */
static const struct plan_estimate *find_simplest(const struct candidates *all, const struct candidates *best)
{
    const struct plan_estimate *simplest = NULL;
    for (int i = 0; i < best->count; i++)
        if (complexity(&best->list[i].layout) == 0) return &best->list[i];
    for (int i = 0; i < all->count; i++) {
        const struct plan_estimate *e = &all->list[i];
        if (complexity(&e->layout) > 0) continue;
        if (!simplest || e->layout.micro_batch < simplest->layout.micro_batch) simplest = e;
    }
    return simplest;
}

/* ---- why ---- */

static void say(struct plan_estimate *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct plan_estimate *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(e->reason, sizeof e->reason, format, args);
    va_end(args);
}

static void say_too_large(const struct plan *p, struct plan_estimate *e)
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

/* What a layout loses against the chosen one: the part of the step that grew most. */
static void say_limit(struct plan_estimate *e, const struct plan_estimate *chosen)
{
    const struct plan_time *t = &e->time, *c = &chosen->time;
    double idle = t->idle - c->idle, spread = t->spread - c->spread, work = work_s(e) - work_s(chosen);
    double exchange = t->exchange + t->tied - c->exchange - c->tied, update = t->update - c->update;
    double most = fmax(fmax(fmax(idle, spread), fmax(work, exchange)), update);
    if (e->step_s <= chosen->step_s)
        say(e, "%.0f %% quicker, which is not worth what it adds", 100 * (1 - e->step_s / chosen->step_s));
    else if (most == idle) say(e, "stages wait %.0f %% of the pipeline's time", 100 * e->bubble);
    else if (most == spread)
        say(e, "the longest cells hold the others up for %.0f %% of a step", percent(e, t->spread));
    else if (most == exchange)
        say(e, "exchanging gradients takes %.0f %% of a step", percent(e, t->exchange + t->tied));
    else if (most == update) say(e, "the optimiser takes %.0f %% of a step", percent(e, t->update));
    else if (e->layout.recompute > chosen->layout.recompute)
        say(e, "recomputation adds %.0f %% of work", 100 * work / work_s(chosen));
    else say(e, "stages are uneven, the dearest computes %.0f %% longer", 100 * work / work_s(chosen));
}

/* Why there is a pipeline at all; `simplest` is replicas alone, or NULL. */
static void say_pipeline(const struct plan *p, struct plan_estimate *e, const struct plan_estimate *simplest,
                         struct text *out)
{
    char need[32];
    if (!simplest)
        text_add(out, "the batch of %lld cells feeds no more than %lld replicas", (long long)p->job->batch,
                 (long long)p->job->batch);
    else if (!simplest->fits)
        text_add(out, "replicas of the whole model would take %s a rank", text_bytes(simplest->rank_bytes, need));
    else
        text_add(out, "replicas alone would be %.0f %% slower: gradients %.0f %%, long cells %.0f %% of a step",
                 100 * (simplest->step_s / e->step_s - 1), percent(simplest, simplest->time.exchange),
                 percent(simplest, simplest->time.spread));
}

static void say_why(const struct plan *p, struct plan_estimate *e, const struct plan_estimate *simplest)
{
    struct text text = {0};
    if (e->layout.pipe == 1) text_add(&text, "the whole model fits on a rank, so replicas need no pipeline");
    else say_pipeline(p, e, simplest, &text);
    if (e->layout.pipe > 1 && e->layout.schedule == SCHEDULE_ZB_H1)
        text_add(&text, "; zb-h1, as 1f1b would wait longer");
    if (e->layout.schedule == SCHEDULE_INTERLEAVED) text_add(&text, "; interleaved, as one chunk a stage waits longer");
    if (e->layout.recompute) text_add(&text, "; activations do not fit and are computed twice");
    say(e, "%s", text.data);
    text_free(&text);
}

/* ---- search ---- */

static enum status nothing_fits(const struct plan *p, const struct candidates *all)
{
    const struct plan_machine *m = p->machine;
    int nodes;
    char have[32];
    enum status st = plan_least_nodes(p, &nodes);
    if (st != ST_OK) return st;
    text_bytes(PLAN_MEMORY_SHARE * m->node_bytes / m->ranks_per_node, have);
    if (all->count == 0)
        return fail(ST_CONFIG,
                    "no layout uses %d ranks: the batch has %lld cells and the model %d blocks (train.batch, "
                    "model.layers); take a number of nodes with a divisor between %lld and %d ranks, or a larger batch",
                    plan_ranks(m), (long long)p->job->batch, p->layers,
                    (long long)((plan_ranks(m) + p->job->batch - 1) / p->job->batch), p->layers);
    if (nodes == 0)
        return fail(ST_CONFIG,
                    "the model fits on no number of such nodes: not even one block a rank with %s; use fewer ranks per "
                    "node (cluster.ranks_per_node) or nodes with more memory",
                    have);
    return fail(
        ST_CONFIG,
        "the model does not fit on %d node%s of %d rank%s with %s each; %d such nodes are the least that would do",
        m->nodes, m->nodes > 1 ? "s" : "", m->ranks_per_node, m->ranks_per_node > 1 ? "s" : "", have, nodes);
}

/* Put the chosen one first, then the others by time, each with its reason; last what is simpler but does not fit. */
static void tell(const struct plan *p, struct candidates *best, const struct plan_estimate *simplest,
                 struct plan_found *out)
{
    int chosen = choose(best), room = PLAN_MOST - (simplest && !simplest->fits);
    *out = (struct plan_found){0};
    out->best[out->count++] = best->list[chosen];
    say_why(p, &out->best[0], simplest);
    for (int i = 0; i < best->count && out->count < room; i++) {
        if (i == chosen) continue;
        say_limit(&best->list[i], &out->best[0]);
        out->best[out->count++] = best->list[i];
    }
    if (simplest && !simplest->fits) {
        out->best[out->count] = *simplest;
        say_too_large(p, &out->best[out->count++]);
    }
}

enum status plan_search(const struct plan *p, const struct plan_wanted *w, struct plan_found *out)
{
    enum status st = ST_OK;
    struct candidates all = {0}, best = {.capacity = 8 * PLAN_MOST};
    struct plan_estimate simplest = {0};
    TRY(NEW_ARRAY(best.list, best.capacity));
    TRY(list_candidates(p, w, &all));
    if (all.count > 0) qsort(all.list, (size_t)all.count, sizeof *all.list, compare_time);
    TRY(keep_fitting(p, &all, PLAN_MOST, &best));
    if (best.count == 0) TRY(nothing_fits(p, &all));
    const struct plan_estimate *found = find_simplest(&all, &best);
    if (found) simplest = *found;
    if (found) TRY(plan_estimate_memory(p, &simplest));
    tell(p, &best, found ? &simplest : NULL, out);
done:
    free(all.list), free(best.list);
    return st;
}

/* ---- how many nodes ---- */

/* Does it fit when a stage has at most `slots` micro-batches of one cell on their way, computed once or again? Fewer
 * come with more replicas, *data of them at least. */
static enum status fits_with(const struct plan *p, int pipe, int slots, int *data, bool *fits)
{
    enum status st = ST_OK;
    int64_t batch = p->job->batch;
    *fits = false;
    *data = slots >= pipe ? 1 : (int)((batch + slots - 1) / slots);
    for (int again = 0; again < 2 && !*fits; again++) {
        struct plan_estimate e = {.layout = {*data, pipe, SCHEDULE_1F1B, 1, 1, again},
                                  .micros = (int)((batch + *data - 1) / *data)};
        TRY(plan_estimate_memory(p, &e));
        *fits = e.fits;
    }
done:
    return st;
}

/* Fewest replicas with which `pipe` stages fit, 0 if none do. */
static enum status least_replicas(const struct plan *p, int pipe, int *replicas)
{
    enum status st = ST_OK;
    *replicas = 0;
    for (int low = 1, high = pipe; low <= high;) { /* slots up to low - 1 fit, above high do not */
        int slots = *replicas == 0 && low == 1 && high == pipe ? pipe : (low + high) / 2, data;
        bool fits;
        TRY(fits_with(p, pipe, slots, &data, &fits));
        if (fits) *replicas = data, low = slots + 1;
        else high = slots - 1;
    }
done:
    return st;
}

static int divisor(int a, int b) { return b == 0 ? a : divisor(b, a % b); }

enum status plan_least_nodes(const struct plan *p, int *nodes)
{
    enum status st = ST_OK;
    int per_node = p->machine->ranks_per_node;
    *nodes = 0;
    for (int pipe = 1; pipe <= p->layers; pipe++) {
        int replicas, step = pipe / divisor(pipe, per_node); /* ranks must be a multiple of stages */
        TRY(least_replicas(p, pipe, &replicas));
        if (replicas == 0) continue;
        int64_t ranks = (int64_t)pipe * replicas, least = (ranks + per_node - 1) / per_node;
        least = (least + step - 1) / step * step;
        if (least * per_node / pipe > p->job->batch) continue;
        if (*nodes == 0 || least < *nodes) *nodes = (int)least;
    }
done:
    return st;
}
