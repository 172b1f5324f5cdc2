#include <stdlib.h>
#include <string.h>

#include "mpi/schedule.h"

static const char *const op_names[] = {
    "forward",         "backward",           "weights",       "start of an exchange", "end of an exchange",
    "send activation", "receive activation", "send gradient", "receive gradient"};
enum { OPS = sizeof op_names / sizeof *op_names };

/* What a message has been through. */
struct message {
    int micro;
    double arrives_s, taken_s;
};

/* Messages of one direction over one edge between two parts, in the order they were sent. */
struct channel {
    struct message *messages; /* [micros] */
    int sent, taken;
};

/* How far a micro-batch is in a part: pieces of F and B, exchanges. */
struct progress {
    int pieces[2], started, finished;
};

/* An exchange on its way. */
struct flight {
    int micro, chunk, number;
    double arrives_s;
};

/* Those of a stage, in the order they were started. */
struct flights {
    struct flight flight[SCHEDULE_EXCHANGES];
    int started, finished;
    double free_s; /* when the way is */
};

struct simulation {
    const struct schedule *schedule;
    const struct schedule_spec *spec;
    const struct schedule_times *times; /* those of part i at i * stride */
    int stride, buffers;
    bool *done;                /* [ops, parts, micros] */
    struct progress *progress; /* [parts, micros] */
    struct flights *flights;   /* [stages] */
    struct channel *channels;
    struct message *messages;
    int *next, *held; /* [stages] next instruction; micro-batch chunks held */
    double *clock_s;  /* [stages] */
    struct schedule_found *found;
};

static bool *done_of(const struct simulation *s, enum schedule_op op, int part, int micro)
{
    return &s->done[((int)op * schedule_parts(s->spec) + part) * s->spec->micros + micro];
}

static struct progress *progress_of(const struct simulation *s, int part, int micro)
{
    return &s->progress[part * s->spec->micros + micro];
}

/* F or B is cut into pieces; other things are whole. */
static bool has_pieces(enum schedule_op op) { return op == SCHEDULE_FORWARD || op == SCHEDULE_BACKWARD; }
static bool is_exchange(enum schedule_op op) { return op == SCHEDULE_START_EXCHANGE || op == SCHEDULE_FINISH_EXCHANGE; }

static bool is_gradient(enum schedule_op op) { return op == SCHEDULE_SEND_GRADIENT || op == SCHEDULE_RECEIVE_GRADIENT; }

static const struct schedule_times *times_of(const struct simulation *s, int part)
{
    return &s->times[part * s->stride];
}

/* The edge that a message of `part` crosses: the one below it or the one above it. */
static int edge_of(enum schedule_op op, int part)
{
    return op == SCHEDULE_SEND_ACTIVATION || op == SCHEDULE_RECEIVE_GRADIENT ? part : part - 1;
}

static struct channel *channel_of(const struct simulation *s, enum schedule_op op, int part)
{
    return &s->channels[2 * edge_of(op, part) + is_gradient(op)];
}

static enum status broken(const struct simulation *s, int stage, const struct instruction *i, const char *what)
{
    return fail(ST_INTERNAL, "schedule %s: stage %d, instruction %d, %s of micro-batch %d, chunk %d: %s",
                schedule_name(s->spec->kind), stage, (int)(i - s->schedule->instructions - s->schedule->first[stage]),
                (int)i->op >= 0 && (int)i->op < OPS ? op_names[i->op] : "?", i->micro, i->chunk, what);
}

/* Stage at the other end of a message, -1 for none, -2 if there is nobody. */
static int peer_of(const struct simulation *s, const struct instruction *i, int part)
{
    if (i->op < SCHEDULE_SEND_ACTIVATION) return -1;
    int edge = edge_of(i->op, part);
    if (edge < 0 || edge >= schedule_parts(s->spec) - 1) return -2;
    return (edge == part ? part + 1 : part - 1) % s->spec->stages;
}

/* An exchange or a later piece: does it follow what it must follow? The exchanges of B are numbered after those of F. */
static bool is_next(const struct simulation *s, const struct instruction *i, int part)
{
    const struct progress *p = progress_of(s, part, i->micro);
    int forward = schedule_exchanges(s->spec, part, SCHEDULE_FORWARD);
    bool backward = has_pieces(i->op) ? i->op == SCHEDULE_BACKWARD : i->piece >= forward;
    int before = backward ? forward : 0,
        count = schedule_exchanges(s->spec, part, backward ? SCHEDULE_BACKWARD : SCHEDULE_FORWARD);
    if (i->op == SCHEDULE_FINISH_EXCHANGE) return p->finished == i->piece && p->started > i->piece;
    if (i->op == SCHEDULE_START_EXCHANGE)
        return i->piece < before + count && p->started == i->piece && p->pieces[backward] == i->piece - before + 1;
    return p->pieces[backward] == i->piece && i->last == (i->piece == count) &&
           (i->piece == 0 || p->finished == before + i->piece);
}

/* What must have happened on this stage before. */
static bool has_input(const struct simulation *s, const struct instruction *i, int part)
{
    int last = schedule_parts(s->spec) - 1;
    switch (i->op) {
    case SCHEDULE_FORWARD: return part == 0 || *done_of(s, SCHEDULE_RECEIVE_ACTIVATION, part, i->micro);
    case SCHEDULE_BACKWARD:
        return *done_of(s, SCHEDULE_FORWARD, part, i->micro) &&
               (part == last || *done_of(s, SCHEDULE_RECEIVE_GRADIENT, part, i->micro));
    case SCHEDULE_SEND_ACTIVATION: return *done_of(s, SCHEDULE_FORWARD, part, i->micro);
    case SCHEDULE_WEIGHTS:
    case SCHEDULE_SEND_GRADIENT: return *done_of(s, SCHEDULE_BACKWARD, part, i->micro);
    default: return true;
    }
}

static enum status check_instruction(const struct simulation *s, int stage, const struct instruction *i)
{
    const struct schedule_spec *spec = s->spec;
    if ((int)i->op < 0 || (int)i->op >= OPS || i->micro < 0 || i->micro >= spec->micros || i->chunk < 0 ||
        i->chunk >= spec->chunks)
        return broken(s, stage, i, "there is no such thing");
    int part = schedule_part(spec, stage, i->chunk);
    if (i->peer != peer_of(s, i, part)) return broken(s, stage, i, "the peer is wrong");
    if (!is_exchange(i->op) && *done_of(s, i->op, part, i->micro)) return broken(s, stage, i, "a second time");
    if ((is_exchange(i->op) || has_pieces(i->op)) && !is_next(s, i, part))
        return broken(s, stage, i, "what comes before it is not done, or comes later");
    if (!has_input(s, i, part)) return broken(s, stage, i, "what it needs was not computed or received");
    return ST_OK;
}

/* A send of the k-th message needs the place of the one `buffers` before it. */
static bool send(struct simulation *s, int stage, int part, const struct instruction *i)
{
    struct channel *c = channel_of(s, i->op, part);
    int before = c->sent - s->buffers;
    if (before >= c->taken) return false;
    if (before >= 0 && c->messages[before].taken_s > s->clock_s[stage]) s->clock_s[stage] = c->messages[before].taken_s;
    c->messages[c->sent++] = (struct message){i->micro, s->clock_s[stage] + times_of(s, part)->message, 0};
    return true;
}

static enum status receive(struct simulation *s, int stage, const struct instruction *i, struct channel *c, bool *ran)
{
    *ran = c->taken < c->sent;
    if (!*ran) return ST_OK;
    struct message *m = &c->messages[c->taken++];
    if (m->micro != i->micro) return broken(s, stage, i, "another micro-batch's message comes first");
    if (m->arrives_s > s->clock_s[stage]) s->clock_s[stage] = m->arrives_s;
    m->taken_s = s->clock_s[stage];
    return ST_OK;
}

static void compute(struct simulation *s, int stage, int part, const struct instruction *i)
{
    const struct schedule_times *t = times_of(s, part);
    bool forward = i->op == SCHEDULE_FORWARD;
    double takes = forward ? t->forward : i->op == SCHEDULE_BACKWARD ? t->backward : t->weights;
    if (has_pieces(i->op)) {
        takes /= 1 + schedule_exchanges(s->spec, part, i->op);
        progress_of(s, part, i->micro)->pieces[i->op]++;
    }
    s->clock_s[stage] += takes;
    if (s->found->busy_s) s->found->busy_s[stage] += takes;
    s->held[stage] += (forward && i->piece == 0) - (i->op == SCHEDULE_WEIGHTS);
    if (s->found->peak && s->held[stage] > s->found->peak[stage]) s->found->peak[stage] = s->held[stage];
    if (s->spec->kind == SCHEDULE_FORWARD_ONLY) s->held[stage] -= i->last;
}

/* Rows leave when those of the exchange before have arrived. */
static enum status start_exchange(struct simulation *s, int stage, int part, const struct instruction *i)
{
    struct flights *f = &s->flights[stage];
    if (f->started - f->finished == SCHEDULE_EXCHANGES) return broken(s, stage, i, "too many are on their way");
    if (s->clock_s[stage] > f->free_s) f->free_s = s->clock_s[stage];
    f->free_s += times_of(s, part)->exchange;
    f->flight[f->started++ % SCHEDULE_EXCHANGES] = (struct flight){i->micro, i->chunk, i->piece, f->free_s};
    progress_of(s, part, i->micro)->started++;
    return ST_OK;
}

static enum status finish_exchange(struct simulation *s, int stage, int part, const struct instruction *i)
{
    struct flights *f = &s->flights[stage];
    const struct flight *oldest = &f->flight[f->finished++ % SCHEDULE_EXCHANGES];
    if (oldest->micro != i->micro || oldest->chunk != i->chunk || oldest->number != i->piece)
        return broken(s, stage, i, "another exchange was started first");
    if (oldest->arrives_s > s->clock_s[stage]) {
        s->found->exchange_s += oldest->arrives_s - s->clock_s[stage];
        s->clock_s[stage] = oldest->arrives_s;
    }
    progress_of(s, part, i->micro)->finished++;
    return ST_OK;
}

/* The next instruction of a stage, if it can run by now. */
static enum status run_one(struct simulation *s, int stage, bool *ran)
{
    const struct instruction *i = s->schedule->instructions + s->next[stage];
    enum status st = check_instruction(s, stage, i);
    *ran = true;
    if (st != ST_OK) return st;
    int part = schedule_part(s->spec, stage, i->chunk);
    if (i->op == SCHEDULE_SEND_ACTIVATION || i->op == SCHEDULE_SEND_GRADIENT) *ran = send(s, stage, part, i);
    else if (i->op == SCHEDULE_RECEIVE_ACTIVATION || i->op == SCHEDULE_RECEIVE_GRADIENT)
        st = receive(s, stage, i, channel_of(s, i->op, part), ran);
    else if (i->op == SCHEDULE_START_EXCHANGE) st = start_exchange(s, stage, part, i);
    else if (i->op == SCHEDULE_FINISH_EXCHANGE) st = finish_exchange(s, stage, part, i);
    else compute(s, stage, part, i);
    if (st != ST_OK || !*ran) return st;
    *done_of(s, i->op, part, i->micro) = !has_pieces(i->op) || i->last;
    s->next[stage]++;
    return ST_OK;
}

/* Every stage as far as it gets, until none gets further. */
static enum status run_all(struct simulation *s)
{
    enum status st = ST_OK;
    for (bool progress = true; progress;) {
        progress = false;
        for (int stage = 0; stage < s->spec->stages; stage++)
            for (bool ran = true; ran && s->next[stage] < s->schedule->first[stage + 1];) {
                TRY(run_one(s, stage, &ran));
                progress = progress || ran;
            }
    }
done:
    return st;
}

/* Every stage came to its end, and everything was done. */
static enum status check_end(const struct simulation *s)
{
    for (int stage = 0; stage < s->spec->stages; stage++)
        if (s->next[stage] < s->schedule->first[stage + 1])
            return broken(s, stage, s->schedule->instructions + s->next[stage], "waits for ever");
    int last = s->spec->kind == SCHEDULE_FORWARD_ONLY ? SCHEDULE_FORWARD : SCHEDULE_WEIGHTS;
    for (int op = SCHEDULE_FORWARD; op <= last; op++)
        for (int part = 0; part < schedule_parts(s->spec); part++)
            for (int micro = 0; micro < s->spec->micros; micro++)
                if (!*done_of(s, op, part, micro))
                    return fail(ST_INTERNAL, "schedule %s: no %s of micro-batch %d on part %d",
                                schedule_name(s->spec->kind), op_names[op], micro, part);
    for (int c = 0; c < 2 * (schedule_parts(s->spec) - 1); c++)
        if (s->channels[c].taken < s->channels[c].sent)
            return fail(ST_INTERNAL, "schedule %s: nobody receives message %d over edge %d",
                        schedule_name(s->spec->kind), s->channels[c].taken, c / 2);
    return ST_OK;
}

static enum status simulation_open(struct simulation *s)
{
    enum status st = ST_OK;
    const struct schedule_spec *spec = s->spec;
    int parts = schedule_parts(spec), channels = 2 * (parts - 1);
    TRY(NEW_ARRAY(s->done, OPS * parts * spec->micros));
    TRY(NEW_ARRAY(s->progress, parts * spec->micros));
    TRY(NEW_ARRAY(s->flights, spec->stages));
    TRY(NEW_ARRAY(s->channels, channels + 1));
    TRY(NEW_ARRAY(s->messages, (channels + 1) * spec->micros));
    TRY(NEW_ARRAY(s->next, spec->stages));
    TRY(NEW_ARRAY(s->held, spec->stages));
    TRY(NEW_ARRAY(s->clock_s, spec->stages));
    for (int c = 0; c < channels; c++) s->channels[c].messages = s->messages + c * spec->micros;
    memcpy(s->next, s->schedule->first, (size_t)spec->stages * sizeof *s->next);
done:
    return st;
}

static void simulation_close(struct simulation *s)
{
    free(s->done), free(s->progress), free(s->flights), free(s->channels), free(s->messages), free(s->next),
        free(s->held), free(s->clock_s);
}

/* Until the last stage is done, and the share of it that stages have no work. */
static void sum_up(const struct simulation *s)
{
    struct schedule_found *out = s->found;
    double work_s = 0;
    for (int part = 0; part < schedule_parts(s->spec); part++) {
        const struct schedule_times *t = times_of(s, part);
        work_s += s->spec->micros * t->forward;
        if (s->spec->kind != SCHEDULE_FORWARD_ONLY) work_s += s->spec->micros * (t->backward + t->weights);
    }
    out->step_s = 0;
    for (int i = 0; i < s->spec->stages; i++)
        if (s->clock_s[i] > out->step_s) out->step_s = s->clock_s[i];
    out->bubble = out->step_s > 0 ? 1 - work_s / (out->step_s * s->spec->stages) : 0;
}

static enum status simulate(struct simulation *s)
{
    enum status st = ST_OK;
    s->spec = &s->schedule->spec;
    s->found->exchange_s = 0;
    for (int i = 0; i < s->spec->stages; i++) {
        if (s->found->peak) s->found->peak[i] = 0;
        if (s->found->busy_s) s->found->busy_s[i] = 0;
    }
    TRY(simulation_open(s));
    TRY(run_all(s));
    TRY(check_end(s));
    sum_up(s);
done:
    simulation_close(s);
    return st;
}

enum status schedule_simulate(const struct schedule *schedule, const struct schedule_times *times, int buffers,
                              struct schedule_found *out)
{
    return simulate(&(struct simulation){.schedule = schedule, .times = times, .buffers = buffers, .found = out});
}

enum status schedule_simulate_parts(const struct schedule *schedule, const struct schedule_times *times, int buffers,
                                    struct schedule_found *out)
{
    return simulate(
        &(struct simulation){.schedule = schedule, .times = times, .stride = 1, .buffers = buffers, .found = out});
}
