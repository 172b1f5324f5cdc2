/* A trip to experts on other ranks and back: two ops that move rows and change none, so that the gradient of the one is
 * the other. What does not fit in the first round is done inside the second op, round after round, and its experts run
 * forward once more in the backward pass: memory does not grow with what an unlucky rank is sent. */
#include <string.h>

#include "tape/op.h"

struct travel_attr {
    const struct expert_link *link;
    const int64_t *first; /* [E+1] rows of each expert */
    int rounds;
    struct op_experts experts;
};
_Static_assert(sizeof(struct travel_attr) <= TAPE_ATTR_BYTES, "travel_attr");

enum { MOST_EXPERTS = 512 };

static int64_t row_bytes(const struct tensor *x) { return x->cols * (int64_t)dtype_bytes(x->type); }
static size_t bytes_of(const struct tensor *x) { return (size_t)(x->rows * row_bytes(x)); }

static int begin(const struct travel_attr *a)
{
    int64_t counts[MOST_EXPERTS];
    for (int e = 0; e < a->link->experts; e++) counts[e] = a->first[e + 1] - a->first[e];
    return a->link->begin(a->link->context, counts);
}

/* ---- out ---- */

static void out_forward(struct node *n)
{
    const struct travel_attr *a = (void *)n->attr;
    if (a->rounds > 0) a->link->send(a->link->context, 0, n->in[0]->data, n->out->data, row_bytes(n->out));
}

static void out_backward(struct tape *tape, struct node *n)
{
    const struct travel_attr *a = (void *)n->attr;
    memset(n->din[0], 0, bytes_of(n->in[0])); /* rows of other rounds have their gradient from the way back */
    if (a->rounds > 0) a->link->back(a->link->context, 0, n->out->gradient, n->din[0], row_bytes(n->out));
}

const struct op op_row_travel_out = {"travel_out", out_forward, out_backward, NULL, 0, NULL, false};

/* Rows that come here in the first round, and their runs. */
static int64_t plan_round(struct tape *tape, struct travel_attr *a, struct expert_runs *runs)
{
    const struct expert_link *link = a->link;
    struct expert_run *list = tape_take(tape, (size_t)link->run_count * sizeof *list);
    int64_t rows = 0;
    *runs = (struct expert_runs){link->run_count, list};
    if (!list) return link->capacity;
    memset(list, 0, (size_t)link->run_count * sizeof *list); /* empty runs of the first expert */
    a->rounds = begin(a);
    if (a->rounds > 0) link->runs(link->context, 0, list);
    for (int i = 0; i < link->run_count; i++)
        if (list[i].first + list[i].rows > rows) rows = list[i].first + list[i].rows;
    return rows;
}

struct tensor *op_travel_out(struct tape *tape, struct tensor *rows, const struct routing *routing,
                             const struct expert_link *link, struct expert_trip *trip)
{
    struct node *n = tape_node(tape, &op_row_travel_out);
    struct travel_attr *a = (void *)n->attr;
    *a = (struct travel_attr){.link = link, .first = routing->order.first};
    n->in[0] = rows;
    int64_t count = plan_round(tape, a, &trip->runs);
    trip->link = link;
    trip->rounds = a->rounds;
    n->out = tape_tensor(tape, rows->type, count, rows->cols);
    return tape_run(tape, n, false);
}

/* ---- back ---- */

enum { RESULTS, ROWS }; /* inputs */

/* Rows of round `round` on the spare tape, and through the experts. */
static struct tensor *spare_forward(const struct node *n, int round, enum tape_mode mode, struct tensor **in)
{
    const struct travel_attr *a = (const void *)n->attr;
    const struct expert_link *link = a->link;
    const struct tensor *rows = n->in[ROWS];
    tape_begin(link->spare, mode);
    tape_segment(link->spare, "round", round, NULL);
    struct tensor *x = tape_tensor(link->spare, rows->type, link->capacity, rows->cols);
    x->wants_gradient = mode == TAPE_TRAIN;
    struct expert_run *list = tape_take(link->spare, (size_t)link->run_count * sizeof *list);
    if (list) link->runs(link->context, round, list);
    if (list) link->send(link->context, round, rows->data, x->data, row_bytes(rows));
    if (in) *in = x;
    return a->experts.run(a->experts.self, a->experts.pass, link->spare, x,
                          (struct expert_runs){link->run_count, list});
}

static void back_forward(struct node *n)
{
    const struct travel_attr *a = (void *)n->attr;
    const struct expert_link *link = a->link;
    if (a->rounds > 0) link->back(link->context, 0, n->in[RESULTS]->data, n->out->data, row_bytes(n->out));
    for (int r = 1; r < a->rounds; r++) {
        struct tensor *y = spare_forward(n, r, TAPE_INFER, NULL);
        link->back(link->context, r, y->data, n->out->data, row_bytes(n->out));
    }
}

static void back_backward(struct tape *tape, struct node *n)
{
    const struct travel_attr *a = (void *)n->attr;
    const struct expert_link *link = a->link;
    int64_t bytes = row_bytes(n->out);
    int rounds = begin(a); /* other trips were made since; the way out's backward uses it, too */
    memset(n->din[ROWS], 0, bytes_of(n->in[ROWS]));
    if (rounds > 0) link->send(link->context, 0, n->out->gradient, n->din[RESULTS], bytes);
    for (int r = 1; r < rounds; r++) {
        struct tensor *x, *y = spare_forward(n, r, TAPE_TRAIN, &x);
        link->send(link->context, r, n->out->gradient, tape_start_gradient(link->spare, y), bytes);
        tape_backward_segment(link->spare, 0);
        link->back(link->context, r, x->gradient, n->din[ROWS], bytes);
        tape_drain_segment(link->spare, 0);
    }
}

const struct op op_row_travel_back = {"travel_back", back_forward, back_backward, NULL, 0, NULL, false};

/* What a round takes on the spare tape. */
static void measure_round(struct node *n, enum tape_mode mode)
{
    struct tape *spare = ((struct travel_attr *)n->attr)->link->spare;
    if (!spare || !tape_measures(spare)) return;
    struct tensor *y = spare_forward(n, 1, mode, NULL);
    if (mode == TAPE_INFER) return;
    tape_start_gradient(spare, y);
    tape_backward(spare);
}

struct tensor *op_travel_back(struct tape *tape, struct tensor *results, struct tensor *rows,
                              const struct routing *routing, const struct expert_trip *trip,
                              const struct op_experts *experts)
{
    struct node *n = tape_node(tape, &op_row_travel_back);
    *(struct travel_attr *)n->attr = (struct travel_attr){trip->link, routing->order.first, trip->rounds, *experts};
    n->in[RESULTS] = results;
    n->in[ROWS] = rows;
    n->out = tape_tensor(tape, rows->type, rows->rows, rows->cols);
    if (tape_measures(tape)) measure_round(n, tape_trains(tape) ? TAPE_TRAIN : TAPE_INFER);
    return tape_run(tape, n, false);
}
