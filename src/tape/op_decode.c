#include "kernel/decode.h"
#include "kernel/loss.h"
#include "tape/op.h"

/* ---- gene-wise: w2 . LeakyReLU(a) ---- */

struct gene_attr {
    struct weight w2;
    double slope;
};

static void gene_forward(struct node *n)
{
    const struct gene_attr *g = (void *)n->attr;
    const struct tensor *a = n->in[0];
    decode_gene_forward(n->out->data, a->data, g->w2.value, g->slope, a->rows, a->cols, a->type);
}

static void gene_backward(struct tape *tape, struct node *n)
{
    const struct gene_attr *g = (void *)n->attr;
    const struct tensor *a = n->in[0];
    decode_gene_backward(n->din[0], g->w2.gradient, n->out->gradient, a->data, g->w2.value, g->slope, a->rows, a->cols,
                         a->type, n->scratch);
}

static size_t gene_scratch(const struct node *n, bool backward)
{
    return backward ? (size_t)decode_scratch_reals(n->in[0]->rows, n->in[0]->cols) * sizeof(real) : 0;
}

static double decode_flops(const struct node *n) { return 3.0 * (double)(n->in[0]->rows * n->in[0]->cols); }

const struct op op_row_decode_gene = {"decode_gene", gene_forward, gene_backward, decode_flops, 2, gene_scratch, false};

struct tensor *op_decode_gene(struct tape *tape, struct tensor *a, struct weight w2, double slope)
{
    struct node *n = tape_node(tape, &op_row_decode_gene);
    *(struct gene_attr *)n->attr = (struct gene_attr){w2, slope};
    n->in[0] = a;
    n->out = tape_tensor(tape, DTYPE_REAL, a->rows, 1);
    return tape_run(tape, n, w2.learns);
}

/* ---- cell-wise: sigmoid(m) . z ---- */

struct cell_attr {
    struct ragged rows;
};

static void cell_forward(struct node *n)
{
    const struct cell_attr *c = (void *)n->attr;
    const struct tensor *m = n->in[0], *z = n->in[1];
    decode_cell_forward(n->out->data, m->data, z->data, c->rows.offsets, c->rows.cells, m->cols, m->type);
}

static void cell_backward(struct tape *tape, struct node *n)
{
    const struct cell_attr *c = (void *)n->attr;
    const struct tensor *m = n->in[0], *z = n->in[1];
    decode_cell_backward(n->din[0], n->din[1], n->out->gradient, m->data, z->data, c->rows.offsets, c->rows.cells,
                         m->cols, m->type);
}

const struct op op_row_decode_cell = {"decode_cell", cell_forward, cell_backward, decode_flops, 2, NULL, false};

struct tensor *op_decode_cell(struct tape *tape, struct tensor *m, struct tensor *z, struct ragged rows)
{
    struct node *n = tape_node(tape, &op_row_decode_cell);
    *(struct cell_attr *)n->attr = (struct cell_attr){rows};
    n->in[0] = m;
    n->in[1] = z;
    n->out = tape_tensor(tape, DTYPE_REAL, m->rows, 1);
    return tape_run(tape, n, false);
}

/* ---- squared error: where gradients start ---- */

static void square_forward(struct node *n)
{
    const struct op_square_loss *l = (void *)n->attr;
    loss_square_forward(l->error, l->weight_sum, n->in[0]->data, l->target, l->weight, n->in[0]->rows);
}

static void square_backward(struct tape *tape, struct node *n)
{
    const struct op_square_loss *l = (void *)n->attr;
    loss_square_backward(n->din[0], l->scale, n->in[0]->data, l->target, l->weight, n->in[0]->rows);
}

const struct op op_row_square_loss = {"square_loss", square_forward, square_backward, NULL, 0, NULL, false};

void op_square_loss(struct tape *tape, struct tensor *p, const struct op_square_loss *how)
{
    struct node *n = tape_node(tape, &op_row_square_loss);
    *(struct op_square_loss *)n->attr = *how;
    n->in[0] = p;
    (void)tape_run(tape, n, false);
}
