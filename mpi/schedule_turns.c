#include "mpi/schedule_turns.h"

#include <stdlib.h>

struct schedule_spec schedule_units(const struct schedule_spec *s)
{
    int together = s->in_turns ? 2 : 1;
    return (struct schedule_spec){
        .kind = s->kind, .stages = s->stages, .chunks = s->chunks, .micros = (s->micros + together - 1) / together};
}

/* Writes a stage's table, or counts it while there is no memory. */
struct cutter {
    const struct schedule_spec *spec;
    struct instruction *table; /* NULL while counting */
    int count;
};

static void emit(struct cutter *c, struct instruction i)
{
    if (c->table) c->table[c->count] = i;
    c->count++;
}

/* An instruction of a unit, for one of its micro-batches. */
static struct instruction of(const struct instruction *unit, int micro)
{
    struct instruction i = *unit;
    i.micro = micro;
    return i;
}

static void emit_exchange(struct cutter *c, enum schedule_op op, const struct instruction *work, int micro, int number)
{
    emit(c, (struct instruction){.op = op, .micro = micro, .chunk = work->chunk, .peer = -1, .piece = number});
}

/* F or B of a unit with what it receives (NULL: nothing) and `tail` instructions that follow it. */
struct stretch {
    const struct instruction *receive, *work;
    int tail;
};

/* One piece for one micro-batch, from the exchange before it to the one after it; `first` is the number of the pass's
 * first exchange, `count` how many it has. */
static void emit_piece(struct cutter *c, const struct stretch *s, int micro, int piece, int first, int count)
{
    struct instruction work = of(s->work, micro);
    work.piece = piece;
    work.last = piece == count;
    if (piece == 0 && s->receive) emit(c, of(s->receive, micro));
    if (piece > 0) emit_exchange(c, SCHEDULE_FINISH_EXCHANGE, s->work, micro, first + piece - 1);
    emit(c, work);
    if (piece < count) emit_exchange(c, SCHEDULE_START_EXCHANGE, s->work, micro, first + piece);
    for (int i = 1; piece == count && i <= s->tail; i++) emit(c, of(&s->work[i], micro));
}

static int first_micro(const struct cutter *c, int unit) { return c->spec->in_turns ? 2 * unit : unit; }

static int end_micro(const struct cutter *c, int unit)
{
    int end = first_micro(c, unit + 1);
    return end < c->spec->micros ? end : c->spec->micros;
}

static void emit_stretch(struct cutter *c, int stage, const struct stretch *s)
{
    int part = schedule_part(c->spec, stage, s->work->chunk), unit = s->work->micro;
    int count = schedule_exchanges(c->spec, part, s->work->op);
    int first = s->work->op == SCHEDULE_BACKWARD ? schedule_exchanges(c->spec, part, SCHEDULE_FORWARD) : 0;
    for (int piece = 0; piece <= count; piece++)
        for (int m = first_micro(c, unit); m < end_micro(c, unit); m++) emit_piece(c, s, m, piece, first, count);
}

static bool receives(enum schedule_op op)
{
    return op == SCHEDULE_RECEIVE_ACTIVATION || op == SCHEDULE_RECEIVE_GRADIENT;
}

/* What belongs to F or B and follows it: its message, and before that W unless W is put off. */
static int tail_of(const struct cutter *c, const struct instruction *work, const struct instruction *end)
{
    const struct instruction *i = work + 1;
    if (i < end && i->op == SCHEDULE_WEIGHTS && !schedule_splits(c->spec->kind)) i++;
    if (i < end && (i->op == SCHEDULE_SEND_ACTIVATION || i->op == SCHEDULE_SEND_GRADIENT)) i++;
    return (int)(i - work - 1);
}

static void cut_stage(struct cutter *c, const struct schedule *units, int stage)
{
    const struct instruction *i = units->instructions + units->first[stage], *receive = NULL;
    const struct instruction *end = units->instructions + units->first[stage + 1];
    for (; i < end; i++) {
        if (receives(i->op)) {
            receive = i;
        } else if (i->op == SCHEDULE_WEIGHTS) {
            for (int m = first_micro(c, i->micro); m < end_micro(c, i->micro); m++) emit(c, of(i, m));
        } else {
            struct stretch s = {receive, i, tail_of(c, i, end)};
            emit_stretch(c, stage, &s);
            i += s.tail;
            receive = NULL;
        }
    }
}

enum status schedule_cut(const struct schedule *units, const struct schedule_spec *spec, struct schedule *out)
{
    enum status st = ST_OK;
    struct cutter count = {.spec = spec}, write = {.spec = spec};
    *out = (struct schedule){.spec = *spec};
    TRY(NEW_ARRAY(out->first, spec->stages + 1));
    for (int i = 0; i < spec->stages; i++) {
        cut_stage(&count, units, i);
        out->first[i + 1] = count.count;
    }
    TRY(NEW_ARRAY(out->instructions, count.count));
    write.table = out->instructions;
    for (int i = 0; i < spec->stages; i++) cut_stage(&write, units, i);
done:
    if (st != ST_OK) schedule_free(out);
    return st;
}
