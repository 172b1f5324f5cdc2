/* The parameter table: rows of data over one flat memory. Optimiser, reduction, sharding,
 * checkpoint and import loop over rows and never know a model. */
#ifndef CYTOMILL_MODEL_PARAM_H
#define CYTOMILL_MODEL_PARAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/real.h"
#include "base/status.h"
#include "model/shard.h"

enum param_init { INIT_ZERO, INIT_ONE, INIT_NORMAL, INIT_UNIFORM };

struct param {
    char name[96];      /* global name, as in a checkpoint: "encoder.3.attn.q_proj.weight" */
    int64_t rows, cols; /* row-major [rows, cols]; a vector is [1, cols] */
    int shape_rank;     /* number of dimensions in the published layout */
    int64_t shape[3];   /* those dimensions; product = rows*cols */
    int64_t offset;     /* in reals, into the array of gradients */
    int64_t weight_at;  /* likewise of weights; -1 if it is split */
    int module;         /* of the model: model/part.h */
    enum param_init init;
    double init_scale; /* sd of INIT_NORMAL, half width of INIT_UNIFORM */
    int64_t zero_rows; /* leading rows that start, and without gradient stay, 0 (pad row) */
    bool trainable;
    bool decay;        /* weight decay applies */
    bool sparse_rows;  /* gradient touches few rows (gene table): exchanged by rows */
    bool clip;         /* gradient clipping (train.clip) applies */
    double rate_scale; /* multiplies the learning rate */
    bool packed;       /* only products read it, a packed copy of their own; */
    bool fine;         /* these are in `real` even where others are in bf16 */
    bool split;        /* of its weights a rank keeps the pieces it owns (param_split) */
    /* Which of the ranks of a pipeline have it. Every rank's table has all rows, in the same order. */
    bool tied;             /* the heads read it too */
    bool routed;           /* an expert's: held by one of the ranks that share out experts, and its replicas */
    bool elsewhere;        /* other ranks hold it: no memory here, nobody may touch it */
    bool copy;             /* held here, but another stage holds it too and counts and writes it */
    bool two_ends;         /* tied, and read at both ends here: it has a second gradient, at */
    int64_t second_offset; /* in reals */
};

struct param_table {
    int count, capacity;
    struct param *rows;      /* [count] */
    int64_t size;            /* reals of all rows that lie here */
    int64_t weight_size;     /* the same without what other ranks keep */
    real *weight;            /* [weight_size] master weights */
    real *gradient;          /* [size] or NULL (inference) */
    struct shard shard;      /* whose pieces the rows are: by default all are this rank's */
    real *moment1, *moment2; /* [shard.reals] of the pieces this rank owns, or NULL */
    int64_t second_size;
    real *second; /* [second_size] gradients that the heads give to tied rows, or NULL */
};

/* Append a row; its offset is rounded so that rows start 64-byte aligned. The returned pointer is
 * valid until the next add; keep the index. Local. */
MUST_CHECK enum status param_add(struct param_table *table, const struct param *row, int *index_out);
/* Share the rows that lie here among `ranks` ranks that have the same ones; before param_allocate. Of `experts` (1: none)
 * neighbours in a row each has other experts' rows, so those are shared among every `experts`-th rank. Local. */
MUST_CHECK enum status param_share(struct param_table *table, int rank, int ranks, int experts);
/* Keep of packed tensors' weights only the pieces that this rank owns, which must not be read but for packing: others'
 * come when they are wanted (mpi/hand_out.h). Nothing happens where one rank owns all. Between param_share and
 * param_allocate. Local. */
void param_split(struct param_table *table);
/* Bytes of weights that a rank keeps so, of `ranks` that share the table and `replicas` that share an expert's rows, but
 * for the cut's unevenness; the table need not be shared out yet. Local. */
size_t param_split_bytes(const struct param_table *table, int ranks, int replicas);
/* Allocate weights, and gradients and moments if `train`. Local. */
MUST_CHECK enum status param_allocate(struct param_table *table, bool train);
/* Initialise every weight that is kept here from (seed, hash of its name, element): the same on any mesh. Local. */
void param_initialise(struct param_table *table, uint64_t seed);
/* Row with this name, -1 if none. Local. */
int param_find(const struct param_table *table, const char *name);
/* SHA-256-free content hash of all weights but split ones (XXH3), for "same model?" checks. Local. */
uint64_t param_hash(const struct param_table *table);
/* hash[count] of each tensor, 0 of those that are split or lie elsewhere. Local. */
void param_hash_each(const struct param_table *table, uint64_t *hash);
void param_free(struct param_table *table);

/* The weights of row i, NULL of a split one. */
static inline real *param_weight(const struct param_table *t, int i)
{
    return t->rows[i].split ? NULL : t->weight + t->rows[i].weight_at;
}
/* The weights of a piece that is kept here. */
static inline real *param_piece_weight(const struct param_table *t, const struct piece *p)
{
    return t->weight + p->weight;
}
static inline real *param_gradient(const struct param_table *t, int i) { return t->gradient + t->rows[i].offset; }
static inline int64_t param_reals(const struct param *p) { return p->rows * p->cols; }

/* Reals a row takes in each of the flat arrays. */
int64_t param_room(const struct param *row);
/* The gradient that the heads add to: the second one of a row that has two. Both are summed apart, so that one rank adds
 * the same numbers in the same order as a pipeline whose ends lie on two. Local. */
real *param_head_gradient(const struct param_table *table, int i);
/* gradient += second gradient, which is cleared, in row `row` of tensor i; in all rows of all tied tensors. Local. */
void param_join_row(struct param_table *table, int i, int64_t row);
void param_join(struct param_table *table);

#endif
