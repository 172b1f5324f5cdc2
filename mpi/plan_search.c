/* Which layout: all that the ranks allow are timed, the quickest are measured, the simplest of the quick ones is taken. */
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

static int micros_of(const struct plan *p, const struct plan_layout *l)
{
    int64_t wide = plan_wide(l);
    return (int)(((p->job->batch + wide - 1) / wide + l->micro_batch - 1) / l->micro_batch);
}

/* Interleaved pipelines end where their messages would need too many buffers. */
static bool has_buffers(const struct plan_layout *l, bool in_turns)
{
    struct schedule_spec spec = {.kind = l->schedule, .stages = l->pipe, .in_turns = in_turns};
    return schedule_buffers(&spec) <= SCHEDULE_MOST_BUFFERS;
}

/* Are there exchanges at which two micro-batches could take turns? */
static bool may_turn(const struct plan *p, const struct plan_layout *l)
{
    return plan_experts(l) > 1 && micros_of(p, l) > 1 && has_buffers(l, true);
}

/* One micro-batch after another, and two in turns. In a pipeline, which fills and empties in pairs then, that can only pay
 * where rows go over links. */
static enum status add_turns(const struct plan *p, const struct plan_wanted *w, struct plan_layout l,
                             struct candidates *all)
{
    enum status st = ST_OK;
    for (int turns = 0; turns < 2; turns++) {
        bool pays = l.pipe == 1 || plan_crosses(p, &l);
        bool open = w->has_turns && may_turn(p, &l) ? w->turns == turns : !turns || (may_turn(p, &l) && pays);
        l.in_turns = turns;
        if (open) TRY(add(p, all, &l));
    }
done:
    return st;
}

/* Every chunk needs a block. Interleaved pipelines are even only when stages divide micro-batches. */
static bool goes(const struct plan *p, const struct plan_wanted *w, const struct plan_layout *l)
{
    if (plan_parts(l) > p->layers || (w->chunks && w->chunks != l->chunks)) return false;
    if (w->blocks && w->parts != plan_parts(l)) return false;
    if (w->has_schedule && l->pipe > 1 && w->schedule != l->schedule) return false;
    if (!has_buffers(l, false)) return false;
    if (l->schedule == SCHEDULE_INTERLEAVED) return l->chunks > 1 && (w->chunks || micros_of(p, l) % l->pipe == 0);
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
            if (goes(p, w, &l)) TRY(add_turns(p, w, l, all));
            if (w->chunks) break;
        }
    }
done:
    return st;
}

/* 1, 2, 4, ... up to the most itself; 0 behind it. */
static int after_micro(int micro, int most) { return micro >= most ? 0 : 2 * micro < most ? 2 * micro : most; }

/* Micro-batches of few cells and of many, up to the rank's share, without and with recomputation. */
static enum status add_mesh(const struct plan *p, const struct plan_wanted *w, int pipe, int expert,
                            struct candidates *all)
{
    enum status st = ST_OK;
    struct plan_layout l = {.data = plan_ranks(p->machine) / pipe / expert,
                            .pipe = pipe,
                            .chunks = 1,
                            .expert = expert,
                            .blocks = w->blocks};
    int64_t wide = plan_wide(&l), share = (p->job->batch + wide - 1) / wide;
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

/* Expert ranks that share the experts of a layer equally; on several nodes, some of one node or all of some. */
static bool experts_go(const struct plan *p, int expert)
{
    int per_node = p->machine->ranks_per_node;
    if (expert == 1) return true;
    if (p->experts == 0 || p->experts % expert != 0) return false;
    return p->machine->nodes == 1 || per_node % expert == 0 || expert % per_node == 0;
}

static enum status list_candidates(const struct plan *p, const struct plan_wanted *w, struct candidates *all)
{
    enum status st = ST_OK;
    int ranks = plan_ranks(p->machine);
    for (int pipe = 1; pipe <= ranks && pipe <= p->layers; pipe++) {
        if (ranks % pipe != 0 || ranks / pipe > p->job->batch || (w->pipe && w->pipe != pipe)) continue;
        for (int expert = 1; expert == 1 || expert <= p->experts; expert++) {
            if (ranks / pipe % expert != 0 || (w->data && w->data != ranks / pipe / expert)) continue;
            if (w->expert ? w->expert != expert : !experts_go(p, expert)) continue;
            TRY(add_mesh(p, w, pipe, expert, all));
        }
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

/* How much there is to understand and to go wrong: replicas alone, then experts elsewhere or a pipeline, then other
 * schedules. */
static int complexity(const struct plan_layout *l)
{
    return (l->pipe > 1 ? 2 + (l->schedule != SCHEDULE_1F1B) : 0) + 2 * (plan_experts(l) > 1) + l->recompute;
}

/* Layouts that differ in micro-batch, chunks and turns alone are one choice: the quickest that fits. */
static bool same_choice(const struct plan_layout *a, const struct plan_layout *b)
{
    return a->pipe == b->pipe && a->expert == b->expert && a->schedule == b->schedule && a->recompute == b->recompute;
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
    const struct plan_layout *l = &e->layout;
    double dense = (8 + 8.0 / plan_wide(l)) * p->dense, routed = (8 + 8.0 / l->data) * p->routed / plan_experts(l);
    double least = (dense + routed) / l->pipe;
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

static bool shares_experts(const struct plan_estimate *e) { return plan_experts(&e->layout) > 1; }

/* The quickest that fits and does the opposite of the chosen one with its experts; *found is false if none is known. */
static enum status find_opposite(const struct plan *p, struct candidates *all, const struct plan_estimate *chosen,
                                 struct plan_estimate *out, bool *found)
{
    enum status st = ST_OK;
    *found = false;
    for (int i = 0; i < all->count && p->experts > 0 && !*found; i++) {
        struct plan_estimate *e = &all->list[i];
        if (shares_experts(e) == shares_experts(chosen) || is_hopeless(p, e)) continue;
        if (e->rank_bytes == 0) TRY(plan_estimate_memory(p, e));
        *found = e->fits;
        *out = *e;
    }
done:
    return st;
}

/* The same in all but turns. */
static enum status turn(const struct plan *p, struct plan_layout l, struct plan_estimate *out)
{
    l.in_turns = !l.in_turns;
    return plan_estimate(p, &l, out);
}

/* Of those nearly as quick as the first, the simplest; of these, the quickest. */
static int choose(const struct candidates *best)
{
    int chosen = 0;
    for (int i = 1; i < best->count && best->list[i].step_s <= best->list[0].step_s * PLAN_SIMPLER; i++)
        if (complexity(&best->list[i].layout) < complexity(&best->list[chosen].layout)) chosen = i;
    return chosen;
}

/* The simplest that there may be: replicas alone, with experts shared out and recomputation where they are asked for. */
static bool is_simplest(const struct plan_wanted *w, const struct plan_layout *l)
{
    return l->pipe == 1 && plan_experts(l) == (w->expert ? w->expert : 1) &&
           l->recompute == (w->has_recompute && w->recompute);
}

/* What such a layout holds on its way, in cells. */
static int cells_held(const struct plan_layout *l) { return l->micro_batch * (l->in_turns ? 2 : 1); }

/* If the batch has a cell for each replica: the quickest that fits, else the one that takes least. */
static const struct plan_estimate *find_simplest(const struct plan_wanted *w, const struct candidates *all,
                                                 const struct candidates *best)
{
    const struct plan_estimate *simplest = NULL;
    for (int i = 0; i < best->count; i++)
        if (is_simplest(w, &best->list[i].layout)) return &best->list[i];
    for (int i = 0; i < all->count; i++) {
        const struct plan_estimate *e = &all->list[i];
        if (!is_simplest(w, &e->layout)) continue;
        if (!simplest || cells_held(&e->layout) < cells_held(&simplest->layout)) simplest = e;
    }
    return simplest;
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

static bool is_among(const struct plan_found *found, const struct plan_estimate *e)
{
    for (int i = 0; i < found->count; i++)
        if (same_choice(&found->best[i].layout, &e->layout)) return true;
    return false;
}

/* Put the chosen one first, then the others by time, last what is simpler but does not fit. */
static void tell(const struct plan *p, const struct plan_wanted *w, struct candidates *best,
                 const struct plan_beside *b, struct plan_found *out)
{
    bool too_large = b->simplest && !b->simplest->fits;
    int chosen = choose(best), room = PLAN_MOST - too_large - (b->opposite != NULL);
    *out = (struct plan_found){0};
    out->best[out->count++] = best->list[chosen];
    for (int i = 0; i < best->count && out->count < room; i++)
        if (i != chosen) out->best[out->count++] = best->list[i];
    if (b->opposite && !is_among(out, b->opposite)) out->best[out->count++] = *b->opposite;
    plan_say_why(p, w, out, b);
    if (too_large) {
        out->best[out->count] = *b->simplest;
        plan_say_too_large(p, &out->best[out->count++]);
    }
}

enum status plan_search(const struct plan *p, const struct plan_wanted *w, struct plan_found *out)
{
    enum status st = ST_OK;
    struct candidates all = {0}, best = {.capacity = 8 * PLAN_MOST};
    struct plan_estimate simplest = {0}, opposite, turned;
    struct plan_beside beside = {0};
    bool found;
    TRY(NEW_ARRAY(best.list, best.capacity));
    TRY(list_candidates(p, w, &all));
    if (all.count > 0) qsort(all.list, (size_t)all.count, sizeof *all.list, compare_time);
    TRY(keep_fitting(p, &all, PLAN_MOST, &best));
    if (best.count == 0) TRY(nothing_fits(p, &all));
    const struct plan_layout *chosen = &best.list[choose(&best)].layout;
    TRY(find_opposite(p, &all, &best.list[choose(&best)], &opposite, &found));
    if (found) beside.opposite = &opposite;
    if (may_turn(p, chosen)) {
        TRY(turn(p, *chosen, &turned));
        beside.turned = &turned;
    }
    const struct plan_estimate *alone = find_simplest(w, &all, &best);
    if (alone) simplest = *alone, beside.simplest = &simplest;
    if (alone) TRY(plan_estimate_memory(p, &simplest));
    tell(p, w, &best, &beside, out);
done:
    free(all.list), free(best.list);
    return st;
}

/* ---- how many nodes ---- */

/* Does it fit when a stage has at most `slots` micro-batches of one cell on their way, computed once or again? Fewer
 * come with more replicas, *data of them at least. */
static enum status fits_with(const struct plan *p, int pipe, int expert, int slots, int *data, bool *fits)
{
    enum status st = ST_OK;
    int64_t batch = p->job->batch;
    *fits = false;
    *data = slots >= pipe ? 1 : (int)((batch + (int64_t)slots * expert - 1) / ((int64_t)slots * expert));
    for (int again = 0; again < 2 && !*fits; again++) {
        struct plan_estimate e = {.layout = {*data, pipe, SCHEDULE_1F1B, 1, 1, again, expert, NULL, false}};
        e.micros = (int)((batch + plan_wide(&e.layout) - 1) / plan_wide(&e.layout));
        TRY(plan_estimate_memory(p, &e));
        *fits = e.fits;
    }
done:
    return st;
}

/* Fewest replicas with which `pipe` stages fit, 0 if none do. */
static enum status least_replicas(const struct plan *p, int pipe, int expert, int *replicas)
{
    enum status st = ST_OK;
    *replicas = 0;
    for (int low = 1, high = pipe; low <= high;) { /* slots up to low - 1 fit, above high do not */
        int slots = *replicas == 0 && low == 1 && high == pipe ? pipe : (low + high) / 2, data;
        bool fits;
        TRY(fits_with(p, pipe, expert, slots, &data, &fits));
        if (fits) *replicas = data, low = slots + 1;
        else high = slots - 1;
    }
done:
    return st;
}

static int divisor(int a, int b) { return b == 0 ? a : divisor(b, a % b); }

/* Fewest nodes for stages of this width, if they are fewer than *nodes. */
static enum status least_with(const struct plan *p, int pipe, int expert, int *nodes)
{
    enum status st = ST_OK;
    int per_node = p->machine->ranks_per_node, unit = pipe * expert, replicas;
    int step = unit / divisor(unit, per_node); /* ranks must be a multiple of the unit */
    if (*nodes > 0 && unit > *nodes * per_node) return ST_OK;
    TRY(least_replicas(p, pipe, expert, &replicas));
    if (replicas == 0) return ST_OK;
    int64_t least = ((int64_t)unit * replicas + per_node - 1) / per_node;
    least = (least + step - 1) / step * step;
    if (least * per_node / pipe > p->job->batch) return ST_OK;
    if (*nodes == 0 || least < *nodes) *nodes = (int)least;
done:
    return st;
}

enum status plan_least_nodes(const struct plan *p, int *nodes)
{
    enum status st = ST_OK;
    *nodes = 0;
    for (int pipe = 1; pipe <= p->layers; pipe++)
        for (int expert = 1; expert == 1 || expert <= p->experts; expert++)
            if (expert == 1 || p->experts % expert == 0) TRY(least_with(p, pipe, expert, nodes));
done:
    return st;
}
