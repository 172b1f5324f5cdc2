/* The op table, and the op functions that model code calls.
 *
 * Each function takes tensors of the tape, takes its result from the tape's arena, runs its row's
 * forward kernel and returns the result. Parameters come with the gradient that is added to. To add an op: a name in OP_LIST, a file
 * op_<name>.c with its functions and row, a kernel with a plain version, a gradient test. */
#ifndef CYTOMILL_TAPE_OP_H
#define CYTOMILL_TAPE_OP_H

#include "kernel/dropout.h"
#include "kernel/expert.h"
#include "tape/linear.h"
#include "tape/tape.h"

/* An op without kernels is a cut: what comes out is put there by the caller, and backward stops there until the caller
 * has done the same with din (tape_stopped_at). */
struct op {
    const char *name;
    void (*forward)(struct node *node);
    void (*backward)(struct tape *tape, struct node *node);          /* reads out->gradient, writes din[i] */
    double (*flops)(const struct node *node);                        /* of forward; NULL = not worth counting */
    double backward_flops;                                           /* times forward's */
    size_t (*scratch_bytes)(const struct node *node, bool backward); /* NULL = none */
    /* Backward honours add[i], and din[i] NULL where no gradient is wanted; without this flag the tape
     * adds for it and gives it memory for what nobody wants. */
    bool adds;
};

/* A parameter as an op sees it. Both pointers may be NULL while measuring. */
struct weight {
    const real *value;
    real *gradient; /* added to */
    bool learns;    /* wants its gradient */
};

/* Rows of a ragged batch: cell b owns rows [offsets[b], offsets[b+1]). Borrowed. */
struct ragged {
    int cells;
    const int64_t *offsets; /* [B+1] */
};

/* y[R, out] = x[R, in] W^T. */
struct tensor *op_linear(struct tape *tape, const struct linear *map, struct tensor *x);

/* y = gamma (h - mean) / sqrt(var + eps) + beta with h = lambda x + Drop(a): kernel/norm.h. */
struct op_norm {
    struct weight gamma, beta; /* [D] */
    double lambda, eps;
    struct dropout dropout;
};
struct tensor *op_norm_residual(struct tape *tape, struct tensor *x, struct tensor *a, const struct op_norm *norm);

/* y[R, D] = u * v, the halves of uv[R, 2D]. */
struct tensor *op_gate_product(struct tape *tape, struct tensor *uv);

/* Gated retention in two halves (kernel/retention.h). The state [B H C, C] sums K^T V over the rows
 * of kv = [k | v] [S, 2D], on top of `start` (NULL = 0; no gradient flows into it). */
struct op_retention {
    struct ragged rows;
    int heads;
    double feature_scale;
    const float *value_scale; /* [B] or NULL */
    const uint8_t *key_mask;  /* [S] or NULL */
};
struct tensor *op_retention_state(struct tape *tape, struct tensor *kv, const struct tensor *start,
                                  const struct op_retention *how);
/* y[R, D] = RMSnorm(Q state) * SiLU(u) from qu = [q | u] [R, 2D]. */
struct tensor *op_retention_read(struct tape *tape, struct tensor *qu, struct tensor *state,
                                 const struct op_retention *how);

/* p[N, b] = softmax(x u) in `real`, x[N] distinct values, u[b] the model's value vector. */
struct tensor *op_value_softmax(struct tape *tape, const float *x, int64_t levels, struct weight u, int64_t b);

/* Tokens h[S, D] of `type`: cls where feature is 0, else gene[feature] + (level >= 0 ? e[level] : mask);
 * e[N, D] in `real`. */
struct op_embed {
    enum dtype type;
    struct weight gene, mask, cls;  /* [G, D], [D], [D] */
    int64_t gene_rows;              /* G */
    int64_t tokens;                 /* S */
    const int32_t *feature, *level; /* [S] */
};
struct tensor *op_embed(struct tape *tape, struct tensor *e, const struct op_embed *how);

/* y[R, D] = table[id]; id 0 has no gradient. */
struct tensor *op_table_rows(struct tape *tape, struct weight table, int64_t table_rows, int64_t width,
                             const int32_t *id, int64_t rows, enum dtype type);

/* y[R, D] = x[index], index rising. */
struct tensor *op_rows(struct tape *tape, struct tensor *x, const int64_t *index, int64_t rows);

/* p[R, 1] = w2 . LeakyReLU(a) per row, in `real`. */
struct tensor *op_decode_gene(struct tape *tape, struct tensor *a, struct weight w2, double slope);
/* p[R, 1] = sigmoid(m) . z(cell of the row), in `real`; z[B, D]. */
struct tensor *op_decode_cell(struct tape *tape, struct tensor *m, struct tensor *z, struct ragged rows);

/* The start of gradients: *error += sum w (p - target)^2 now; backward gives 2 scale w (p - target). */
struct op_square_loss {
    const float *target, *weight; /* [R] */
    double scale;
    double *error, *weight_sum; /* written by forward */
};
void op_square_loss(struct tape *tape, struct tensor *p, const struct op_square_loss *how);

/* x in another type; x itself if it has it. */
struct tensor *op_convert(struct tape *tape, struct tensor *x, enum dtype type);

/* Mixture of experts (kernel/expert.h): from logits[R, E] in `real` K experts for every row. */
struct op_route {
    int chosen; /* K */
    enum route_rule rule;
    const real *bias; /* [E] on the choice, or NULL */
    double balance;   /* gradient of balance * E * sum_e f_e P_e is added: f_e share of slots, P_e mean probability */
    int64_t *load;    /* [E] the slots of each expert are added to it; NULL: not counted */
    struct expert_count count; /* the same by groups of cells; slots NULL: not counted */
};
/* What a router decided; the order lies in the tape's memory (NULL while measuring) and is known at once. */
struct routing {
    int64_t rows;
    int experts, chosen;
    struct expert_order order;
    struct tensor *weight; /* [R, K] in `real` */
};
struct routing op_route(struct tape *tape, struct tensor *logits, const struct op_route *how);
/* The rows [R K, D] in the order of their experts: routing->order. */
struct tensor *op_dispatch(struct tape *tape, struct tensor *x, const struct routing *routing);

/* Which rows go through which expert. An expert may have several runs, one for each rank that rows came from: its
 * weight gradient is added run after run, in the order of the list. `list` lives as long as the tape's memory; NULL while
 * measuring, when only `count` is known. Rows of no run keep what they are. */
struct expert_run {
    int expert;
    int64_t first, rows;
};
struct expert_runs {
    int count;
    const struct expert_run *list;
};
/* y[N, out]: every run through the map of its expert, maps[e] all of one shape. */
struct tensor *op_expert_linear(struct tape *tape, const struct linear *const *maps, struct tensor *x,
                                struct expert_runs runs);
/* y[R, D] = base (NULL: 0) + the results [R K, D] of each row, which lie in the order of experts, times its weights. */
struct tensor *op_combine(struct tape *tape, struct tensor *results, const struct routing *routing,
                          struct tensor *base);

/* All ops: one row each, beside the functions it names. */
#define OP_LIST(X) \
    X(linear) \
    X(travel_out) \
    X(travel_back) \
    X(norm_residual) \
    X(gate_product) \
    X(retention_state) \
    X(retention_read) \
    X(value_softmax) \
    X(embed) \
    X(table_rows) \
    X(rows) \
    X(decode_gene) \
    X(decode_cell) \
    X(square_loss) \
    X(convert) \
    X(route) \
    X(dispatch) \
    X(expert_linear) \
    X(combine)
#define X(name) extern const struct op op_row_##name;
OP_LIST(X)
#undef X

extern const struct op *const op_table[];
extern const int op_count;

#endif
