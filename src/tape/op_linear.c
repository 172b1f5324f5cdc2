#include "tape/op.h"

struct linear_attr {
    const struct linear *map;
};

static void linear_forward(struct node *n)
{
    const struct linear *map = ((struct linear_attr *)n->attr)->map;
    product_forward(map->product, n->out->data, n->in[0]->data, &map->packed, n->out->rows);
}

/* gradient += dy^T x. */
static void linear_weight_gradient(const struct node *n)
{
    const struct linear *map = ((const struct linear_attr *)(const void *)n->attr)->map;
    const struct tensor *x = n->in[0];
    product_backward_weight(map->product, map->gradient, n->out->gradient, x->data, x->rows);
}

static void linear_backward(struct tape *tape, struct node *n)
{
    const struct linear *map = ((struct linear_attr *)n->attr)->map;
    struct tensor *x = n->in[0];
    if (n->din[0]) product_backward_data(map->product, n->din[0], n->out->gradient, &map->packed, x->rows, n->add[0]);
    if (map->learns) tape_defer(tape, n, linear_weight_gradient);
}

static double linear_flops(const struct node *n)
{
    return 2.0 * (double)n->out->rows * (double)n->out->cols * (double)n->in[0]->cols;
}

const struct op op_row_linear = {"linear", linear_forward, linear_backward, linear_flops, 2, NULL, true};

struct tensor *op_linear(struct tape *tape, const struct linear *map, struct tensor *x)
{
    struct node *n = tape_node(tape, &op_row_linear);
    *(struct linear_attr *)n->attr = (struct linear_attr){map};
    n->in[0] = x;
    n->out = tape_tensor(tape, x->type, x->rows, map->out);
    return tape_run(tape, n, map->learns);
}
