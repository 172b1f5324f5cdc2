#include "kernel/norm.h"
#include "tape/op.h"

struct norm_attr {
    struct weight gamma, beta;
    struct norm_shape shape;
};
_Static_assert(sizeof(struct norm_attr) <= TAPE_ATTR_BYTES, "norm_attr");

enum { STAT }; /* saved: mean and 1/sd of each row */

static void norm_forward(struct node *n)
{
    const struct norm_attr *a = (void *)n->attr;
    norm_residual_forward(n->out->data, n->saved[STAT], n->in[0]->data, n->in[1]->data, a->gamma.value, a->beta.value,
                          &a->shape);
}

static void norm_backward(struct tape *tape, struct node *n)
{
    const struct norm_attr *a = (void *)n->attr;
    norm_residual_backward(n->din[0], n->din[1], a->gamma.gradient, a->beta.gradient, n->out->gradient, n->saved[STAT],
                           n->in[0]->data, n->in[1]->data, a->gamma.value, &a->shape, n->scratch);
}

static size_t norm_scratch(const struct node *n, bool backward)
{
    return backward ? (size_t)norm_scratch_reals(n->out->rows, n->out->cols) * sizeof(real) : 0;
}

/* Mean, variance and the affine map: about 8 operations an element. */
static double norm_flops(const struct node *n) { return 8.0 * (double)(n->out->rows * n->out->cols); }

const struct op op_row_norm_residual = {"norm_residual", norm_forward, norm_backward, norm_flops, 2,
                                        norm_scratch,    false};

struct tensor *op_norm_residual(struct tape *tape, struct tensor *x, struct tensor *a, const struct op_norm *norm)
{
    struct node *n = tape_node(tape, &op_row_norm_residual);
    *(struct norm_attr *)n->attr = (struct norm_attr){
        norm->gamma, norm->beta, {x->rows, x->cols, x->type, norm->lambda, norm->eps, norm->dropout}};
    n->in[0] = x;
    n->in[1] = a;
    n->out = tape_tensor(tape, x->type, x->rows, x->cols);
    n->saved[STAT] = tape_take(tape, (size_t)x->rows * 2 * sizeof(real));
    return tape_run(tape, n, norm->gamma.learns);
}
