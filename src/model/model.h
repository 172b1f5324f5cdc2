/* A model as the programs see it: built from a configuration and a vocabulary, it turns batches
 * into embeddings, losses, gradients and predictions. Knows no file and no communicator.
 *
 *     TRY(model_create(cfg, vocab, &m));
 *     TRY(param_allocate(model_params(m), train)); then initialise or read a checkpoint
 *     TRY(model_prepare(m, &(struct model_limits){.cells = 4, .tokens = 8196, .train = true}));
 *     TRY(model_pack(m));                                 after every change of the weights
 *     TRY(model_gradient(m, &batch, scale, step, &loss)); adds into the gradients
 */
#ifndef CYTOMILL_MODEL_MODEL_H
#define CYTOMILL_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "cell/batch.h"
#include "cell/vocab.h"
#include "model/param.h"
#include "tape/tape.h"

struct model;

struct model_limits {
    int cells;      /* most cells of a micro-batch */
    int64_t tokens; /* most tokens of a micro-batch, cls tokens included */
    bool train;     /* gradients and dropout wanted */
    int threads;    /* OpenMP threads */
    bool bf16;      /* products in bf16 */
};

/* What measure mode found. */
struct model_cost {
    int64_t parameters;
    size_t weight_bytes, packed_bytes, gradient_bytes, moment_bytes, activation_bytes;
    double forward_flops_per_token, train_flops_per_token;
};

/* Losses of a batch, as sums: the objective is genewise/weight + cellwise/weight over the global batch. */
struct loss_sum {
    double genewise, cellwise;               /* sum of weight * (prediction - target)^2 */
    double weight;                           /* sum of weights */
    double genewise_hidden, cellwise_hidden; /* the same over hidden positions only */
    double hidden;                           /* number of hidden positions */
};

/* Build the modules and the parameter table (no weights yet). ST_CONFIG names the key. Local. */
MUST_CHECK enum status model_create(const struct config *config, const struct vocab *vocab, struct model **out);
void model_destroy(struct model **model);

struct param_table *model_params(struct model *model);
int model_width(const struct model *model);        /* D */
const char *model_name(const struct model *model); /* "cellfm-80m": names obsm/X_<model> */

/* Measure only: bytes and FLOPs under these limits, nothing allocated. Local. */
MUST_CHECK enum status model_measure(const struct model *model, const struct model_limits *limits,
                                     struct model_cost *cost);
/* Allocate arenas and make every product primitive. Local. ST_MEMORY. */
MUST_CHECK enum status model_prepare(struct model *model, const struct model_limits *limits);
/* Repack weights for the products and redo prepared segments. Allocates nothing. Local. */
MUST_CHECK enum status model_pack(struct model *model);

/* Cell embeddings: z[B, D] fp32, the cls rows of the last layer. Depends on each cell, the weights
 * and the instruction set alone. Local. */
MUST_CHECK enum status model_embed(struct model *model, const struct batch *batch, float *z);
/* Predictions for every token (cls rows are 0): genewise[S] and cellwise[S], either may be NULL. Local. */
MUST_CHECK enum status model_predict(struct model *model, const struct batch *batch, float *genewise, float *cellwise);
/* vectors[count, D]: the cell-wise head predicts genes[i] (vocabulary ids) in a cell with embedding z
 * as vectors[i] . z. About count D^2 FLOPs. Local. */
void model_read_out(const struct model *model, const int32_t *genes, int count, float *vectors);
/* Losses without gradient; no dropout. *out is written. Local. */
MUST_CHECK enum status model_loss(struct model *model, const struct batch *batch, struct loss_sum *out);
/* Losses and gradients: gradient += d/dw [scale * (genewise + cellwise)]. Dropout is keyed by (seed,
 * cell id, step). `scale` is 1 / weight of the global batch. *out is added to. Allocates nothing. Local. */
MUST_CHECK enum status model_gradient(struct model *model, const struct batch *batch, double scale, uint64_t step,
                                      struct loss_sum *out);

/* Show inner values to `tap` the moment they exist (tape/tape.h): segments "embed", "block" i,
 * "heads"; names "embed", "kv", "qu", "state", "retention", "mixer", "norm1", "gate", "ffn",
 * "norm2", "genewise", "cellwise". NULL ends it. After model_prepare. Local. */
void model_set_tap(struct model *model, tape_tap_fn *tap, void *context);

#endif
