#include "tape/travel.h"

#include <string.h>

/* What is kept for the backward pass. */
struct travel_attr {
    int64_t *count;
    int rounds;
    struct travel_experts experts;
};
_Static_assert(sizeof(struct travel_attr) <= TAPE_ATTR_BYTES, "travel_attr");

/* A way out and a way back are cuts that move rows and change none: the gradient of the one is the other. */
const struct op op_row_travel_out = {.name = "travel_out"};
const struct op op_row_travel_back = {.name = "travel_back"};

enum { RESULTS, ROWS }; /* inputs of the way back */

/* What the pass stopped for. */
enum { OUT, BACK, ROUND_OUT, GRADIENT_OUT, GRADIENT_BACK, ROUND_AGAIN, ROUND_GRADIENT, ROUND_BACK };

static struct expert_runs runs_of(const struct travel *t)
{
    return (struct expert_runs){t->ranks.experts, t->move.runs};
}

static struct tensor *run_experts(const struct travel *t, struct tape *tape, struct tensor *rows)
{
    return t->experts.run(t->experts.self, t->experts.pass, tape, rows, runs_of(t));
}

/* Stop for rows between `home` and `away`. */
static void ask(struct travel *t, int at, bool out, void *home, void *away)
{
    t->at = at;
    t->move.out = out;
    t->move.home = home;
    t->move.away = away;
    t->move.counts = at == OUT;
}

/* ---- cuts ---- */

static struct tensor *cut_out(struct travel *t, struct tape *tape)
{
    struct node *n = tape_node(tape, &op_row_travel_out);
    *(struct travel_attr *)n->attr = (struct travel_attr){.count = t->move.count};
    n->in[0] = t->rows;
    n->out = tape_tensor(tape, t->rows->type, t->ranks.capacity, t->rows->cols);
    return tape_run(tape, n, false);
}

static struct tensor *cut_back(struct travel *t, struct tape *tape, struct tensor *results)
{
    struct node *n = tape_node(tape, &op_row_travel_back);
    *(struct travel_attr *)n->attr = (struct travel_attr){t->move.count, t->rounds, t->experts};
    n->in[RESULTS] = results;
    n->in[ROWS] = t->rows;
    n->out = tape_tensor(tape, t->rows->type, t->rows->rows, t->rows->cols);
    return tape_run(tape, n, false);
}

/* ---- rounds after the first ---- */

/* Room for the rows of a round on the spare tape. */
static void begin_round(struct travel *t, enum tape_mode mode, int round, const struct tensor *rows)
{
    struct tape *spare = t->ranks.spare;
    tape_begin(spare, mode);
    tape_segment(spare, "round", round, NULL);
    t->x = tape_tensor(spare, rows->type, t->ranks.capacity, rows->cols);
    t->x->wants_gradient = mode == TAPE_TRAIN;
    t->move.round = round;
    t->move.runs = tape_take(spare, (size_t)t->ranks.experts * sizeof *t->move.runs);
}

/* What a round takes. */
static void measure_round(struct travel *t, enum tape_mode mode)
{
    struct tape *spare = t->ranks.spare;
    if (!spare || !tape_measures(spare)) return;
    begin_round(t, mode, 1, t->rows);
    t->y = run_experts(t, spare, t->x);
    if (mode == TAPE_INFER) return;
    tape_start_gradient(spare, t->y);
    tape_backward(spare);
}

/* ---- forward ---- */

void travel_begin(struct travel *t, struct tape *tape, struct tensor *rows, const struct routing *routing,
                  const struct travel_experts *experts)
{
    int experts_all = t->ranks.experts;
    const int64_t *first = routing->order.first;
    t->experts = *experts;
    t->rows = rows;
    t->rounds = 0;
    t->move = (struct travel_move){.row_bytes = rows->cols * (int64_t)dtype_bytes(rows->type)};
    t->move.count = tape_take(tape, (size_t)(t->ranks.ranks * experts_all) * sizeof *t->move.count);
    t->move.runs = tape_take(tape, (size_t)experts_all * sizeof *t->move.runs);
    for (int e = 0; t->move.count && e < experts_all; e++)
        t->move.count[t->ranks.rank * experts_all + e] = first[e + 1] - first[e];
    t->here = cut_out(t, tape);
    ask(t, OUT, true, rows->data, t->here->data);
}

/* The rows of round 0 are here: through the experts. */
static void run_first(struct travel *t, struct tape *tape)
{
    if (!tape_measures(tape)) t->here->rows = t->move.come, t->rounds = t->move.rounds;
    struct tensor *results = run_experts(t, tape, t->here);
    t->home = cut_back(t, tape, results);
    t->move.runs = NULL;
    ask(t, BACK, false, t->home->data, results->data);
}

struct tensor *travel_on(struct travel *t, struct tape *tape)
{
    if (t->at == OUT) {
        run_first(t, tape);
        if (!tape_measures(tape)) return NULL;
        measure_round(t, tape_trains(tape) ? TAPE_TRAIN : TAPE_INFER);
        return t->home;
    }
    if (t->at == ROUND_OUT) {
        t->y = run_experts(t, t->ranks.spare, t->x);
        t->move.runs = NULL;
        ask(t, BACK, false, t->home->data, t->y->data);
        return NULL;
    }
    if (t->move.round + 1 >= t->rounds) return t->home;
    begin_round(t, TAPE_INFER, t->move.round + 1, t->rows);
    ask(t, ROUND_OUT, true, t->rows->data, t->x->data);
    return NULL;
}

/* ---- backward ---- */

static size_t bytes_of(const struct tensor *x) { return (size_t)(x->rows * x->cols) * dtype_bytes(x->type); }

void travel_turn(struct travel *t, struct node *cut)
{
    const struct travel_attr *a = (const void *)cut->attr;
    bool back = cut->op == &op_row_travel_back;
    const struct tensor *rows = cut->in[back ? ROWS : 0];
    t->cut = cut;
    t->experts = a->experts;
    t->rounds = a->rounds;
    t->move = (struct travel_move){.row_bytes = rows->cols * (int64_t)dtype_bytes(rows->type), .count = a->count};
    memset(cut->din[back ? ROWS : 0], 0, bytes_of(rows)); /* what does not come back in this way came in the other */
    if (back) ask(t, GRADIENT_OUT, true, cut->out->gradient, cut->din[RESULTS]);
    else ask(t, GRADIENT_BACK, false, cut->din[0], cut->out->gradient);
}

/* Rows of the next round come once more. True if there is none. */
static bool next_round(struct travel *t)
{
    const struct tensor *rows = t->cut->in[ROWS];
    if (t->move.round + 1 >= t->rounds) return true;
    begin_round(t, TAPE_TRAIN, t->move.round + 1, rows);
    ask(t, ROUND_AGAIN, true, rows->data, t->x->data);
    return false;
}

bool travel_turn_on(struct travel *t)
{
    struct tape *spare = t->ranks.spare;
    switch (t->at) {
    case GRADIENT_BACK: return true;
    case ROUND_AGAIN:
        t->y = run_experts(t, spare, t->x);
        ask(t, ROUND_GRADIENT, true, t->cut->out->gradient, tape_start_gradient(spare, t->y));
        t->move.runs = NULL;
        return false;
    case ROUND_GRADIENT:
        tape_backward_segment(spare, 0);
        ask(t, ROUND_BACK, false, t->cut->din[ROWS], t->x->gradient);
        return false;
    case ROUND_BACK: tape_drain_segment(spare, 0); return next_round(t);
    default: return next_round(t);
    }
}
