#include <string.h>

#include "kernel/embed.h"
#include "tape/op.h"

/* ---- route: K of E experts for every row ---- */

struct route_attr {
    struct route_shape shape;
    struct expert_order order;
    const real *bias;
    int64_t *load;
    struct expert_count count;
    double balance;
};
_Static_assert(sizeof(struct route_attr) <= TAPE_ATTR_BYTES, "route_attr");

enum { CHOICE, PROBABILITY }; /* saved */

static void route_run(struct node *n)
{
    const struct route_attr *a = (void *)n->attr;
    const struct route_shape *s = &a->shape;
    route_forward(n->out->data, n->saved[CHOICE], n->saved[PROBABILITY], n->in[0]->data, a->bias, s);
    expert_sort(&a->order, n->saved[CHOICE], s->rows, s->chosen, s->experts);
    for (int e = 0; a->load && e < s->experts; e++) a->load[e] += a->order.first[e + 1] - a->order.first[e];
    if (a->count.slots) expert_count(&a->count, n->saved[CHOICE], s->chosen);
}

/* The gradient of balance * E * sum_e f_e P_e in each row's probabilities: f_e, the share of slots, has none, and P_e
 * is the mean over rows. */
static const real *balance_terms(const struct route_attr *a, real *terms)
{
    const struct route_shape *s = &a->shape;
    if (a->balance == 0 || s->rows == 0) return NULL;
    double scale = a->balance * s->experts / ((double)s->rows * s->chosen * (double)s->rows);
    for (int e = 0; e < s->experts; e++) terms[e] = (real)(scale * (double)(a->order.first[e + 1] - a->order.first[e]));
    return terms;
}

static void route_run_backward(struct tape *tape, struct node *n)
{
    const struct route_attr *a = (void *)n->attr;
    real terms[EXPERT_MAX];
    route_backward(n->din[0], n->out->gradient, balance_terms(a, terms), n->saved[CHOICE], n->out->data,
                   n->saved[PROBABILITY], &a->shape);
}

/* Softmax and K passes over the scores. */
static double route_flops(const struct node *n)
{
    const struct tensor *logits = n->in[0];
    return (double)(logits->rows * logits->cols) * (double)(5 + n->out->cols);
}

const struct op op_row_route = {"route", route_run, route_run_backward, route_flops, 1, NULL, false};

struct routing op_route(struct tape *tape, struct tensor *logits, const struct op_route *how)
{
    struct node *n = tape_node(tape, &op_row_route);
    struct route_attr *a = (void *)n->attr;
    int64_t rows = logits->rows, slots = rows * how->chosen, experts = logits->cols;
    a->shape = (struct route_shape){rows, (int)experts, how->chosen, how->rule};
    a->bias = how->bias;
    a->load = how->load;
    a->count = how->count;
    a->balance = how->balance;
    a->order.first = tape_take(tape, (size_t)(experts + 1) * sizeof *a->order.first);
    a->order.row = tape_take(tape, (size_t)slots * sizeof *a->order.row);
    a->order.place = tape_take(tape, (size_t)slots * sizeof *a->order.place);
    n->saved[CHOICE] = tape_take(tape, (size_t)slots * sizeof(int32_t));
    n->saved[PROBABILITY] = tape_take(tape, (size_t)(rows * experts) * sizeof(real));
    n->in[0] = logits;
    n->out = tape_tensor(tape, DTYPE_REAL, rows, how->chosen);
    struct routing routing = {rows, (int)experts, how->chosen, a->order, NULL};
    routing.weight = tape_run(tape, n, false);
    return routing;
}

/* ---- dispatch: rows in the order of their experts ---- */

struct dispatch_attr {
    struct expert_order order;
    int chosen;
};

static struct expert_shape shape_over(const struct tensor *rows, int chosen)
{
    return (struct expert_shape){rows->rows, rows->cols, chosen, rows->type};
}

static void dispatch_run(struct node *n)
{
    const struct dispatch_attr *a = (void *)n->attr;
    rows_gather(n->out->data, n->in[0]->data, a->order.row, n->out->rows, n->out->cols, n->out->type);
}

static void dispatch_backward(struct tape *tape, struct node *n)
{
    const struct dispatch_attr *a = (void *)n->attr;
    if (!n->din[0]) return;
    struct expert_shape s = shape_over(n->in[0], a->chosen);
    expert_combine(n->din[0], n->out->gradient, n->add[0] ? n->din[0] : NULL, NULL, a->order.place, &s);
}

const struct op op_row_dispatch = {"dispatch", dispatch_run, dispatch_backward, NULL, 0, NULL, true};

struct tensor *op_dispatch(struct tape *tape, struct tensor *x, const struct routing *routing)
{
    struct node *n = tape_node(tape, &op_row_dispatch);
    *(struct dispatch_attr *)n->attr = (struct dispatch_attr){routing->order, routing->chosen};
    n->in[0] = x;
    n->out = tape_tensor(tape, x->type, routing->rows * routing->chosen, x->cols);
    return tape_run(tape, n, false);
}

/* ---- expert_linear: a linear map for each run of rows ---- */

struct expert_attr {
    const struct linear *const *maps;
    struct expert_runs runs;
};

static const struct product_run *runs_of(const struct node *n)
{
    const struct expert_attr *a = (const void *)n->attr;
    struct product_run *runs = n->scratch;
    for (int i = 0; i < a->runs.count; i++) {
        const struct expert_run *r = &a->runs.list[i];
        runs[i] = (struct product_run){&a->maps[r->expert]->packed, r->first, r->rows};
    }
    return runs;
}

static void expert_forward(struct node *n)
{
    const struct expert_attr *a = (void *)n->attr;
    product_forward_runs(a->maps[0]->product, n->out->data, n->in[0]->data, runs_of(n), a->runs.count);
}

/* Run after run, so that what an expert adds up does not depend on which rank it does it on. */
static void expert_weight_gradients(const struct node *n)
{
    const struct expert_attr *a = (const void *)n->attr;
    const struct tensor *x = n->in[0], *y = n->out;
    for (int i = 0; i < a->runs.count; i++) {
        const struct expert_run *r = &a->runs.list[i];
        const struct linear *map = a->maps[r->expert];
        product_backward_weight(map->product, map->gradient, dtype_at(y->gradient, r->first * y->cols, y->type),
                                dtype_at(x->data, r->first * x->cols, x->type), r->rows);
    }
}

static void expert_backward(struct tape *tape, struct node *n)
{
    const struct expert_attr *a = (void *)n->attr;
    if (n->din[0])
        product_backward_data_runs(a->maps[0]->product, n->din[0], n->out->gradient, runs_of(n), a->runs.count,
                                   n->add[0]);
    if (a->maps[0]->learns) tape_defer(tape, n, expert_weight_gradients);
}

static size_t expert_scratch(const struct node *n, bool backward)
{
    const struct expert_attr *a = (const void *)n->attr;
    return (size_t)a->runs.count * sizeof(struct product_run);
}

static double expert_flops(const struct node *n)
{
    return 2.0 * (double)n->out->rows * (double)n->out->cols * (double)n->in[0]->cols;
}

const struct op op_row_expert_linear = {
    "expert_linear", expert_forward, expert_backward, expert_flops, 2, expert_scratch, true};

struct tensor *op_expert_linear(struct tape *tape, const struct linear *const *maps, struct tensor *x,
                                struct expert_runs runs)
{
    struct node *n = tape_node(tape, &op_row_expert_linear);
    *(struct expert_attr *)n->attr = (struct expert_attr){maps, runs};
    n->in[0] = x;
    n->out = tape_tensor(tape, x->type, x->rows, maps[0]->out);
    return tape_run(tape, n, maps[0]->learns);
}

/* ---- combine: what the experts of a row give, weighted ---- */

struct combine_attr {
    const int64_t *place;
    int chosen;
};

enum { RESULTS, WEIGHT, BASE }; /* inputs */

static void combine_forward(struct node *n)
{
    const struct combine_attr *a = (void *)n->attr;
    struct expert_shape s = shape_over(n->out, a->chosen);
    const struct tensor *base = n->in[BASE];
    expert_combine(n->out->data, n->in[RESULTS]->data, base ? base->data : NULL, n->in[WEIGHT]->data, a->place, &s);
}

static void combine_backward(struct tape *tape, struct node *n)
{
    const struct combine_attr *a = (void *)n->attr;
    struct expert_shape s = shape_over(n->out, a->chosen);
    expert_combine_backward(n->din[RESULTS], n->din[WEIGHT], n->out->gradient, n->in[RESULTS]->data,
                            n->in[WEIGHT]->data, a->place, &s);
    if (n->in[BASE]) memcpy(n->din[BASE], n->out->gradient, (size_t)(s.rows * s.width) * dtype_bytes(s.type));
}

static double combine_flops(const struct node *n) { return 2.0 * (double)(n->in[RESULTS]->rows * n->out->cols); }

const struct op op_row_combine = {"combine", combine_forward, combine_backward, combine_flops, 2, NULL, false};

struct tensor *op_combine(struct tape *tape, struct tensor *results, const struct routing *routing, struct tensor *base)
{
    struct node *n = tape_node(tape, &op_row_combine);
    *(struct combine_attr *)n->attr = (struct combine_attr){routing->order.place, routing->chosen};
    n->in[RESULTS] = results;
    n->in[WEIGHT] = routing->weight;
    n->in[BASE] = base;
    n->out = tape_tensor(tape, results->type, routing->rows, results->cols);
    return tape_run(tape, n, false);
}
