#include "kernel/gate.h"
#include "tape/op.h"

static struct gate_shape shape_of(const struct node *n)
{
    return (struct gate_shape){n->out->rows, n->out->cols, n->in[0]->cols, n->out->type};
}

static void gate_forward(struct node *n)
{
    struct gate_shape s = shape_of(n);
    const void *uv = n->in[0]->data;
    gate_product_forward(n->out->data, uv, dtype_at(uv, s.width, s.type), &s);
}

static void gate_backward(struct tape *tape, struct node *n)
{
    struct gate_shape s = shape_of(n);
    const void *uv = n->in[0]->data;
    void *duv = n->din[0];
    gate_product_backward(duv, dtype_at(duv, s.width, s.type), n->out->gradient, uv, dtype_at(uv, s.width, s.type), &s);
}

static double gate_flops(const struct node *n) { return (double)(n->out->rows * n->out->cols); }

const struct op op_row_gate_product = {"gate_product", gate_forward, gate_backward, gate_flops, 2, NULL, false};

struct tensor *op_gate_product(struct tape *tape, struct tensor *uv)
{
    struct node *n = tape_node(tape, &op_row_gate_product);
    n->in[0] = uv;
    n->out = tape_tensor(tape, uv->type, uv->rows, uv->cols / 2);
    return tape_run(tape, n, false);
}
