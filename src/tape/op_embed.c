#include <string.h>

#include "kernel/embed.h"
#include "kernel/value.h"
#include "kernel/vector.h"
#include "tape/op.h"

/* ---- softmax of the value encoder, per distinct value ---- */

struct value_attr {
    const float *x;
    struct weight u;
};

static void value_forward(struct node *n)
{
    const struct value_attr *a = (void *)n->attr;
    value_softmax_forward(n->out->data, a->x, a->u.value, n->out->rows, n->out->cols, n->out->type);
}

static void value_backward(struct tape *tape, struct node *n)
{
    const struct value_attr *a = (void *)n->attr;
    value_softmax_backward(a->u.gradient, n->out->gradient, n->out->data, a->x, n->out->rows, n->out->cols,
                           n->out->type, n->scratch);
}

static size_t value_scratch(const struct node *n, bool backward)
{
    return backward ? (size_t)value_scratch_reals(n->out->rows, n->out->cols) * sizeof(real) : 0;
}

static double value_flops(const struct node *n) { return 5.0 * (double)(n->out->rows * n->out->cols); }

const struct op op_row_value_softmax = {"value_softmax", value_forward, value_backward, value_flops, 1,
                                        value_scratch,   false};

struct tensor *op_value_softmax(struct tape *tape, const float *x, int64_t levels, struct weight u, int64_t b)
{
    struct node *n = tape_node(tape, &op_row_value_softmax);
    *(struct value_attr *)n->attr = (struct value_attr){x, u};
    n->out = tape_tensor(tape, DTYPE_REAL, levels, b);
    return tape_run(tape, n, u.learns);
}

/* ---- tokens ---- */

struct embed_attr {
    struct weight gene, mask, cls;
    struct embed_shape shape;
    struct row_groups by_feature, by_level; /* training only */
};
_Static_assert(sizeof(struct embed_attr) <= TAPE_ATTR_BYTES, "embed_attr");

/* e in the type of the tokens: itself, or converted into scratch. */
static const void *values_of(const struct node *n)
{
    const struct tensor *e = n->in[0];
    if (e->type == n->out->type) return e->data;
    vector_convert(n->scratch, n->out->type, e->data, e->type, e->rows * e->cols);
    return n->scratch;
}

static void tokens_forward(struct node *n)
{
    const struct embed_attr *a = (void *)n->attr;
    embed_forward(n->out->data, a->gene.value, values_of(n), a->mask.value, a->cls.value, &a->shape);
}

/* de is summed in `real`: the tokens of one level are many, and softmax's backward then cancels. */
static void tokens_backward(struct tape *tape, struct node *n)
{
    struct embed_attr *a = (void *)n->attr;
    struct tensor *e = n->in[0];
    struct row_groups none = {0};
    row_groups_build(&a->by_feature, a->shape.feature, a->shape.rows, 1);
    embed_backward(a->gene.gradient, NULL, a->mask.gradient, a->cls.gradient, n->out->gradient, &a->by_feature, &none,
                   &a->shape);
    row_groups_build(&a->by_level, a->shape.level, a->shape.rows, 0);
    memset(n->din[0], 0, (size_t)(e->rows * e->cols) * sizeof(real));
    table_add(n->din[0], n->out->gradient, &a->by_level, e->cols, n->out->type);
}

static size_t tokens_scratch(const struct node *n, bool backward)
{
    const struct tensor *e = n->in[0];
    return backward || e->type == n->out->type ? 0 : (size_t)(e->rows * e->cols) * dtype_bytes(n->out->type);
}

static double tokens_flops(const struct node *n) { return (double)(n->out->rows * n->out->cols); }

const struct op op_row_embed = {"embed", tokens_forward, tokens_backward, tokens_flops, 1, tokens_scratch, false};

struct tensor *op_embed(struct tape *tape, struct tensor *e, const struct op_embed *how)
{
    struct node *n = tape_node(tape, &op_row_embed);
    struct embed_attr *a = (void *)n->attr;
    *a = (struct embed_attr){
        how->gene, how->mask, how->cls, {how->tokens, e->cols, how->type, how->feature, how->level}, {0}, {0}};
    n->in[0] = e;
    n->out = tape_tensor(tape, how->type, how->tokens, e->cols);
    if (tape_trains(tape)) {
        row_groups_take(&a->by_feature, tape_arena(tape), how->tokens, how->gene_rows);
        row_groups_take(&a->by_level, tape_arena(tape), how->tokens, e->rows);
    }
    return tape_run(tape, n, how->gene.learns);
}

/* ---- rows of a table ---- */

struct table_attr {
    struct weight table;
    const int32_t *id;
    struct row_groups by_id; /* training only */
};
_Static_assert(sizeof(struct table_attr) <= TAPE_ATTR_BYTES, "table_attr");

static void table_forward(struct node *n)
{
    const struct table_attr *a = (void *)n->attr;
    table_gather(n->out->data, a->table.value, a->id, n->out->rows, n->out->cols, n->out->type);
}

static void table_backward(struct tape *tape, struct node *n)
{
    struct table_attr *a = (void *)n->attr;
    row_groups_build(&a->by_id, a->id, n->out->rows, 1);
    table_add(a->table.gradient, n->out->gradient, &a->by_id, n->out->cols, n->out->type);
}

const struct op op_row_table_rows = {"table_rows", table_forward, table_backward, NULL, 0, NULL, false};

struct tensor *op_table_rows(struct tape *tape, struct weight table, int64_t table_rows, int64_t width,
                             const int32_t *id, int64_t rows, enum dtype type)
{
    struct node *n = tape_node(tape, &op_row_table_rows);
    struct table_attr *a = (void *)n->attr;
    *a = (struct table_attr){table, id, {0}};
    n->out = tape_tensor(tape, type, rows, width);
    if (tape_trains(tape)) row_groups_take(&a->by_id, tape_arena(tape), rows, table_rows);
    return tape_run(tape, n, table.learns);
}

/* ---- rows that somebody reads ---- */

struct rows_attr {
    const int64_t *index;
};

static void rows_forward(struct node *n)
{
    const struct rows_attr *a = (void *)n->attr;
    rows_gather(n->out->data, n->in[0]->data, a->index, n->out->rows, n->out->cols, n->out->type);
}

static void rows_backward(struct tape *tape, struct node *n)
{
    const struct rows_attr *a = (void *)n->attr;
    struct tensor *x = n->in[0];
    if (n->add[0]) rows_add(n->din[0], n->out->gradient, a->index, n->out->rows, n->out->cols, n->out->type);
    else rows_scatter(n->din[0], n->out->gradient, a->index, n->out->rows, x->rows, n->out->cols, n->out->type);
}

const struct op op_row_rows = {"rows", rows_forward, rows_backward, NULL, 0, NULL, true};

struct tensor *op_rows(struct tape *tape, struct tensor *x, const int64_t *index, int64_t rows)
{
    struct node *n = tape_node(tape, &op_row_rows);
    *(struct rows_attr *)n->attr = (struct rows_attr){index};
    n->in[0] = x;
    n->out = tape_tensor(tape, x->type, rows, x->cols);
    return tape_run(tape, n, false);
}
