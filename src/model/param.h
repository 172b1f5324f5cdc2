/* The parameter table: rows of data over one flat memory. Optimiser, reduction, sharding,
 * checkpoint and import loop over rows and never know a model. */
#ifndef CYTOMILL_MODEL_PARAM_H
#define CYTOMILL_MODEL_PARAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/real.h"
#include "base/status.h"

enum param_init { INIT_ZERO, INIT_ONE, INIT_NORMAL, INIT_UNIFORM };

struct param {
    char name[96];      /* global name, as in a checkpoint: "encoder.3.attn.q_proj.weight" */
    int64_t rows, cols; /* row-major [rows, cols]; a vector is [1, cols] */
    int shape_rank;     /* number of dimensions in the published layout */
    int64_t shape[3];   /* those dimensions; product = rows*cols */
    int64_t offset;     /* in reals, into each of the flat arrays */
    enum param_init init;
    double init_scale; /* sd of INIT_NORMAL, half width of INIT_UNIFORM */
    int64_t zero_rows; /* leading rows that start, and without gradient stay, 0 (pad row) */
    bool trainable;
    bool decay;        /* weight decay applies */
    bool sparse_rows;  /* gradient touches few rows (gene table): exchanged by rows */
    bool clip;         /* gradient clipping (train.clip) applies */
    double rate_scale; /* multiplies the learning rate */
};

struct param_table {
    int count, capacity;
    struct param *rows;      /* [count] */
    int64_t size;            /* reals in each array */
    real *weight;            /* [size] master weights */
    real *gradient;          /* [size] or NULL (inference) */
    real *moment1, *moment2; /* [size] or NULL */
};

/* Append a row; its offset is rounded so that rows start 64-byte aligned. The returned pointer is
 * valid until the next add; keep the index. Local. */
MUST_CHECK enum status param_add(struct param_table *table, const struct param *row, int *index_out);
/* Allocate weights, and gradients and moments if `train`. Local. */
MUST_CHECK enum status param_allocate(struct param_table *table, bool train);
/* Initialise every weight from (seed, hash of its name, element): the same on any mesh. Local. */
void param_initialise(struct param_table *table, uint64_t seed);
/* Row with this name, -1 if none. Local. */
int param_find(const struct param_table *table, const char *name);
/* SHA-256-free content hash of all weights (XXH3), for "same model?" checks. Local. */
uint64_t param_hash(const struct param_table *table);
void param_free(struct param_table *table);

static inline real *param_weight(const struct param_table *t, int i) { return t->weight + t->rows[i].offset; }
static inline real *param_gradient(const struct param_table *t, int i) { return t->gradient + t->rows[i].offset; }

#endif
