#include "kernel/vector.h"
#include "tape/op.h"

static void convert_forward(struct node *n)
{
    const struct tensor *x = n->in[0];
    vector_convert(n->out->data, n->out->type, x->data, x->type, x->rows * x->cols);
}

static void convert_backward(struct tape *tape, struct node *n)
{
    const struct tensor *x = n->in[0];
    vector_convert(n->din[0], x->type, n->out->gradient, n->out->type, x->rows * x->cols);
}

const struct op op_row_convert = {"convert", convert_forward, convert_backward, NULL, 0, NULL, false};

struct tensor *op_convert(struct tape *tape, struct tensor *x, enum dtype type)
{
    if (x->type == type) return x;
    struct node *n = tape_node(tape, &op_row_convert);
    n->in[0] = x;
    n->out = tape_tensor(tape, type, x->rows, x->cols);
    return tape_run(tape, n, false);
}
