#include "mpi/schedule.h"

#include <math.h>
#include <stdlib.h>

#include "mpi/schedule_turns.h"

static const char *const names[] = {"gpipe", "1f1b", "interleaved", "zb-h1", "forward-only"};
const char *schedule_name(enum schedule_kind kind) { return names[kind]; }

int schedule_part(const struct schedule_spec *spec, int stage, int chunk) { return chunk * spec->stages + stage; }
int schedule_parts(const struct schedule_spec *spec) { return spec->stages * spec->chunks; }

/* The order is that of a step in which F, B and W take as long as each other and messages no time. */
static const double unit_s = 1;

static int least(int a, int b) { return a < b ? a : b; }

int schedule_exchanges(const struct schedule_spec *s, int part, enum schedule_op op)
{
    int trips = s->trips ? s->trips[part] : 0;
    return 2 * trips * (op == SCHEDULE_BACKWARD && s->recompute ? 2 : 1);
}

/* Of a table without turns. */
static int limit_of(const struct schedule_spec *s, int stage)
{
    int all = s->micros * s->chunks, after = s->stages - stage - 1;
    switch (s->kind) {
    case SCHEDULE_GPIPE: return all;
    case SCHEDULE_1F1B: return least(all, after + 1);
    case SCHEDULE_INTERLEAVED: return least(all, 2 * after + (s->chunks - 1) * s->stages + 1);
    case SCHEDULE_ZB_H1: return least(all, s->stages);
    case SCHEDULE_FORWARD_ONLY: return 1;
    }
    return all;
}

int schedule_limit(const struct schedule_spec *s, int stage)
{
    struct schedule_spec units = schedule_units(s);
    return least(s->micros * s->chunks, limit_of(&units, stage) * (s->in_turns ? 2 : 1));
}

/* What goes through a table together. */
static int together(const struct schedule_spec *s) { return s->in_turns ? 2 : 1; }

/* Found by playing tables of 2 to 24 stages, of 2 to 4 chunks, of any number of micro-batches, one after another and in
 * turns, where every message is two. */
int schedule_buffers(const struct schedule_spec *s)
{
    int more = s->kind == SCHEDULE_INTERLEAVED ? together(s) * (1 + (s->stages + 1) / 6) : 0;
    return more > 2 ? more : 2;
}

static enum status check_spec(const struct schedule_spec *s)
{
    bool interleaved = s->kind == SCHEDULE_INTERLEAVED;
    if (s->stages < 1 || s->micros < 1 || s->chunks < 1)
        return fail(ST_CONFIG, "a pipeline of %d stages with %d chunks each and %d micro-batches; all are at least 1",
                    s->stages, s->chunks, s->micros);
    if (!interleaved && s->kind != SCHEDULE_FORWARD_ONLY && s->chunks > 1)
        return fail(ST_CONFIG, "schedule %s with %d chunks a stage; only interleaved has more than 1", names[s->kind],
                    s->chunks);
    if (schedule_buffers(s) > SCHEDULE_MOST_BUFFERS)
        return fail(ST_CONFIG, "schedule interleaved on %d stages%s; it goes up to %d, use 1f1b", s->stages,
                    s->in_turns ? " in turns" : "", 6 * SCHEDULE_MOST_BUFFERS / together(s) - 2);
    if (interleaved && s->stages < 2)
        return fail(ST_CONFIG, "schedule interleaved on one stage; it needs at least 2, use 1f1b");
    return ST_OK;
}

/* ---- the step, played to find the order ---- */

/* A micro-batch on a chunk of a stage. */
struct work {
    int micro, chunk;
};

/* How far a stage is. Forward and backward go through fixed orders; W come in the order of their B. */
struct stage_play {
    double clock_s;
    int forwards, backwards, weights; /* done so far */
    struct instruction *next;         /* where its next instruction goes */
};

struct play {
    const struct schedule_spec *spec;
    struct stage_play *stages;
    double *forward_s, *backward_s; /* [parts, micros] when it was done; INFINITY before */
};

/* The k-th F of a stage: p micro-batches go through all chunks before the next p do. B takes chunks from the last. */
static struct work work_at(const struct schedule_spec *s, int k, bool backward)
{
    int group = k / (s->stages * s->chunks), first = group * s->stages, in_group = k - first * s->chunks;
    int size = least(s->stages, s->micros - first), chunk = in_group / size;
    return (struct work){first + in_group % size, backward ? s->chunks - 1 - chunk : chunk};
}

static double *done_at(const struct play *p, double *times, int part, int micro)
{
    return &times[part * p->spec->micros + micro];
}

/* A thing that a stage could do next. */
struct candidate {
    enum schedule_op op;
    struct work work;
    double start_s;
};

static double ready_s(const struct play *p, int stage, const struct candidate *c)
{
    const struct schedule_spec *s = p->spec;
    int part = schedule_part(s, stage, c->work.chunk), last = schedule_parts(s) - 1;
    if (c->op == SCHEDULE_FORWARD) return part == 0 ? 0 : *done_at(p, p->forward_s, part - 1, c->work.micro);
    double own = *done_at(p, p->forward_s, part, c->work.micro);
    if (part == last) return own;
    double after = *done_at(p, p->backward_s, part + 1, c->work.micro);
    return own > after ? own : after;
}

/* Keep the one that starts first; of equals the one seen first. */
static void consider(const struct play *p, int stage, enum schedule_op op, struct work work, struct candidate *best)
{
    struct candidate c = {.op = op, .work = work};
    double ready = op == SCHEDULE_WEIGHTS ? 0 : ready_s(p, stage, &c), clock = p->stages[stage].clock_s;
    c.start_s = ready > clock ? ready : clock;
    if (c.start_s < best->start_s) *best = c;
}

bool schedule_splits(enum schedule_kind kind) { return kind == SCHEDULE_ZB_H1; }
static bool is_split(const struct schedule_spec *s) { return schedule_splits(s->kind); }

/* What stage `stage` does next; start_s is INFINITY if it cannot know yet or is done. Split, a stage that has put off
 * as many W as it may does one; a stage that would wait does one, too. */
static struct candidate stage_next(const struct play *p, int stage)
{
    const struct schedule_spec *s = p->spec;
    const struct stage_play *at = &p->stages[stage];
    struct candidate best = {.start_s = INFINITY};
    int all = s->micros * s->chunks, late = at->backwards - at->weights;
    bool split = is_split(s), due = split && late > stage;
    int held = at->forwards - at->backwards, most = split ? s->stages - stage : limit_of(s, stage);
    bool forward = !due && at->forwards < all && held < most;
    bool backward = !due && held > 0 && (s->kind != SCHEDULE_GPIPE || at->forwards == all);
    if (forward) consider(p, stage, SCHEDULE_FORWARD, work_at(s, at->forwards, false), &best);
    if (backward) consider(p, stage, SCHEDULE_BACKWARD, work_at(s, at->backwards, true), &best);
    if (late > 0) consider(p, stage, SCHEDULE_WEIGHTS, work_at(s, at->weights, true), &best);
    return best;
}

static void emit(struct stage_play *at, enum schedule_op op, struct work w, int peer)
{
    bool last = op == SCHEDULE_FORWARD || op == SCHEDULE_BACKWARD;
    *at->next++ = (struct instruction){.op = op, .micro = w.micro, .chunk = w.chunk, .peer = peer, .last = last};
}

static void play_forward(struct play *p, int stage, struct work w)
{
    const struct schedule_spec *s = p->spec;
    struct stage_play *at = &p->stages[stage];
    int part = schedule_part(s, stage, w.chunk), last = schedule_parts(s) - 1;
    if (part > 0) emit(at, SCHEDULE_RECEIVE_ACTIVATION, w, (part - 1) % s->stages);
    emit(at, SCHEDULE_FORWARD, w, -1);
    if (part < last) emit(at, SCHEDULE_SEND_ACTIVATION, w, (part + 1) % s->stages);
    at->clock_s += unit_s;
    at->forwards++;
    if (s->kind == SCHEDULE_FORWARD_ONLY) at->backwards++, at->weights++; /* it holds nothing */
    *done_at(p, p->forward_s, part, w.micro) = at->clock_s;
}

static void play_weights(struct play *p, int stage, struct work w)
{
    emit(&p->stages[stage], SCHEDULE_WEIGHTS, w, -1);
    p->stages[stage].clock_s += unit_s;
    p->stages[stage].weights++;
}

/* Unless they are split, W follows B at once and the gradient leaves after both. */
static void play_backward(struct play *p, int stage, struct work w)
{
    const struct schedule_spec *s = p->spec;
    struct stage_play *at = &p->stages[stage];
    int part = schedule_part(s, stage, w.chunk), last = schedule_parts(s) - 1;
    if (part < last) emit(at, SCHEDULE_RECEIVE_GRADIENT, w, (part + 1) % s->stages);
    emit(at, SCHEDULE_BACKWARD, w, -1);
    at->clock_s += unit_s;
    at->backwards++;
    if (!is_split(s)) play_weights(p, stage, w);
    if (part > 0) emit(at, SCHEDULE_SEND_GRADIENT, w, (part - 1) % s->stages);
    *done_at(p, p->backward_s, part, w.micro) = at->clock_s;
}

/* One thing on the stage that starts first. False when nothing is left to do. */
static bool play_one(struct play *p)
{
    struct candidate best = {.start_s = INFINITY};
    int stage = -1;
    for (int i = 0; i < p->spec->stages; i++) {
        struct candidate c = stage_next(p, i);
        if (c.start_s < best.start_s) best = c, stage = i;
    }
    if (stage < 0) return false;
    p->stages[stage].clock_s = best.start_s;
    if (best.op == SCHEDULE_FORWARD) play_forward(p, stage, best.work);
    else if (best.op == SCHEDULE_BACKWARD) play_backward(p, stage, best.work);
    else play_weights(p, stage, best.work);
    return true;
}

/* F, B, W, two messages for every edge of the part. */
static int instruction_count(const struct schedule_spec *s, int stage)
{
    int count = 0;
    for (int chunk = 0; chunk < s->chunks; chunk++) {
        int part = schedule_part(s, stage, chunk);
        int edges = (part > 0) + (part < schedule_parts(s) - 1);
        count += s->kind == SCHEDULE_FORWARD_ONLY ? 1 + edges : 3 + 2 * edges;
    }
    return count * s->micros;
}

static enum status play_open(struct play *p, struct schedule *out)
{
    enum status st = ST_OK;
    const struct schedule_spec *s = &out->spec;
    int cells = schedule_parts(s) * s->micros;
    *p = (struct play){.spec = s};
    TRY(NEW_ARRAY(out->first, s->stages + 1));
    for (int i = 0; i < s->stages; i++) out->first[i + 1] = out->first[i] + instruction_count(s, i);
    TRY(NEW_ARRAY(out->instructions, out->first[s->stages]));
    TRY(NEW_ARRAY(p->stages, s->stages));
    TRY(NEW_ARRAY(p->forward_s, cells));
    TRY(NEW_ARRAY(p->backward_s, cells));
    for (int i = 0; i < s->stages; i++) p->stages[i].next = out->instructions + out->first[i];
    for (int i = 0; i < cells; i++) p->forward_s[i] = p->backward_s[i] = INFINITY;
done:
    return st;
}

/* Whole F and B. */
static enum status build_whole(const struct schedule_spec *spec, struct schedule *out)
{
    enum status st = ST_OK;
    struct play play = {0};
    *out = (struct schedule){.spec = *spec};
    TRY(play_open(&play, out));
    while (play_one(&play)) {}
    for (int i = 0; i < spec->stages; i++)
        if (play.stages[i].next != out->instructions + out->first[i + 1])
            TRY(fail(ST_INTERNAL, "schedule %s of %d stages, %d chunks, %d micro-batches: stage %d got stuck",
                     names[spec->kind], spec->stages, spec->chunks, spec->micros, i));
done:
    free(play.stages), free(play.forward_s), free(play.backward_s);
    if (st != ST_OK) schedule_free(out);
    return st;
}

enum status schedule_build(const struct schedule_spec *spec, struct schedule *out)
{
    enum status st = ST_OK;
    struct schedule units = {0};
    struct schedule_spec unit = schedule_units(spec);
    *out = (struct schedule){.spec = *spec};
    TRY(check_spec(spec));
    if (!spec->trips) return build_whole(spec, out);
    TRY(build_whole(&unit, &units));
    TRY(schedule_cut(&units, spec, out));
done:
    schedule_free(&units);
    return st;
}

void schedule_free(struct schedule *schedule)
{
    free(schedule->instructions), free(schedule->first);
    *schedule = (struct schedule){0};
}
