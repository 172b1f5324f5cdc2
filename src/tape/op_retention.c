#include <string.h>

#include "kernel/retention.h"
#include "tape/op.h"

/* Both halves keep the kernel's shape; inputs are [k | v] and [q | u], so the second of each pair
 * starts `width` elements after the first. */
struct retention_attr {
    struct retention_shape shape;
    const real *start; /* state only: what the sum starts from, or NULL */
    int64_t width;     /* D */
};
_Static_assert(sizeof(struct retention_attr) <= TAPE_ATTR_BYTES, "retention_attr");

static struct retention_attr *attr_of(struct node *n) { return (void *)n->attr; }

static struct retention_attr attr_from(const struct op_retention *how, const struct tensor *pair)
{
    int64_t width = pair->cols / 2;
    return (struct retention_attr){.width = width,
                                   .shape = {.cells = how->rows.cells,
                                             .offsets = how->rows.offsets,
                                             .heads = how->heads,
                                             .head_width = width / how->heads,
                                             .stride = pair->cols,
                                             .type = pair->type,
                                             .feature_scale = how->feature_scale,
                                             .value_scale = how->value_scale,
                                             .key_mask = how->key_mask}};
}

static void *second(const struct node *n, const void *pair)
{
    return dtype_at(pair, ((const struct retention_attr *)(const void *)n->attr)->width, n->in[0]->type);
}

static double retention_flops(const struct node *n)
{
    const struct retention_shape *s = &((const struct retention_attr *)(const void *)n->attr)->shape;
    return 2.0 * (double)(n->in[0]->rows * s->heads * s->head_width * s->head_width);
}

/* ---- the state: sum of K^T V ---- */

static void state_forward(struct node *n)
{
    const struct retention_attr *a = attr_of(n);
    size_t bytes = (size_t)(n->out->rows * n->out->cols) * sizeof(real);
    if (a->start) memcpy(n->out->data, a->start, bytes);
    else memset(n->out->data, 0, bytes);
    retention_state_forward(n->out->data, n->in[0]->data, second(n, n->in[0]->data), &a->shape);
}

static void state_backward(struct tape *tape, struct node *n)
{
    void *dkv = n->din[0];
    retention_state_backward(dkv, second(n, dkv), n->out->gradient, n->in[0]->data, second(n, n->in[0]->data),
                             &attr_of(n)->shape);
}

const struct op op_row_retention_state = {
    "retention_state", state_forward, state_backward, retention_flops, 2, NULL, false};

struct tensor *op_retention_state(struct tape *tape, struct tensor *kv, const struct tensor *start,
                                  const struct op_retention *how)
{
    struct node *n = tape_node(tape, &op_row_retention_state);
    struct retention_attr *a = attr_of(n);
    *a = attr_from(how, kv);
    if (start) a->start = start->data;
    n->in[0] = kv;
    n->out = tape_tensor(tape, DTYPE_REAL, how->rows.cells * a->width, a->shape.head_width);
    return tape_run(tape, n, false);
}

/* ---- the read: RMSnorm(Q state) * SiLU(u) ---- */

static void read_forward(struct node *n)
{
    const void *qu = n->in[0]->data;
    retention_read_forward(n->out->data, qu, second(n, qu), n->in[1]->data, &attr_of(n)->shape);
}

static void read_backward(struct tape *tape, struct node *n)
{
    const void *qu = n->in[0]->data;
    void *dqu = n->din[0];
    retention_read_backward(dqu, second(n, dqu), n->din[1], n->out->gradient, qu, second(n, qu), n->in[1]->data,
                            &attr_of(n)->shape);
}

const struct op op_row_retention_read = {
    "retention_read", read_forward, read_backward, retention_flops, 2, NULL, false};

struct tensor *op_retention_read(struct tape *tape, struct tensor *qu, struct tensor *state,
                                 const struct op_retention *how)
{
    struct node *n = tape_node(tape, &op_row_retention_read);
    *attr_of(n) = attr_from(how, qu);
    n->in[0] = qu;
    n->in[1] = state;
    n->out = tape_tensor(tape, qu->type, qu->rows, qu->cols / 2);
    return tape_run(tape, n, false);
}
