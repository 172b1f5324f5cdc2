/* A model as the programs see it: built from a configuration and a vocabulary, it turns batches
 * into embeddings, losses, gradients and predictions. Knows no file and no communicator.
 *
 *     TRY(model_create(cfg, vocab, NULL, &m));
 *     TRY(param_allocate(model_params(m), train)); then initialise or read a checkpoint
 *     TRY(model_prepare(m, &(struct model_limits){.cells = 4, .tokens = 8196, .train = true}));
 *     TRY(model_pack(m));                                 after every change of the weights
 *     TRY(model_gradient(m, &batch, scale, step, &loss)); adds into the gradients
 *
 * A rank of a pipeline holds parts of a model (model/part.h) and runs them on micro-batches, several of which may be
 * on their way at once, each in a slot of its own:
 *     TRY(model_forward_part(m, slot, part, &batch, &how, in, out, &loss));
 *     TRY(model_backward_part(m, slot, d_out, d_in));
 *     model_weights_part(m, slot);
 * Where ranks share out the experts of a layer (hold.expert_ranks), forward and backward are cut at every exchange of
 * rows between them, so that other work can be done in between:
 *     TRY(model_begin_forward(m, slot, part, &batch, &how, in));
 *     while ((move = model_move(m, slot))) { the rows move; model_go_on(m, slot); }
 *     TRY(model_end_forward(m, slot, out, &loss)); */
#ifndef CYTOMILL_MODEL_MODEL_H
#define CYTOMILL_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "cell/batch.h"
#include "cell/vocab.h"
#include "model/experts.h"
#include "model/linears.h"
#include "model/param.h"
#include "model/part.h"
#include "tape/travel.h"

struct model;

struct model_limits {
    int cells;           /* most cells of a micro-batch */
    int64_t tokens;      /* most tokens of a micro-batch, cls tokens included */
    bool train;          /* gradients and dropout wanted */
    int threads;         /* OpenMP threads */
    bool bf16;           /* products in bf16 */
    int slots;           /* micro-batches on their way at once; 0 means 1 */
    bool splits;         /* weight gradients wait for model_weights_part; else backward computes them */
    bool recompute;      /* keep only what enters a block, and compute the block again for its backward */
    bool packed_apart;   /* packed weights lie where model_place_packed says, which must be called */
    int64_t expert_rows; /* experts on other ranks: rows that come here in a round, at most; 0: twice an even share */
};

/* What measure mode found, of a part of the model or of all that is held. */
struct model_cost {
    int64_t parameters; /* of the whole model */
    size_t weight_bytes, packed_bytes, gradient_bytes, moment_bytes;
    size_t routed_bytes;     /* of weight_bytes, what is experts', */
    size_t packed_routed;    /* and of packed_bytes */
    size_t activation_bytes; /* of all slots, and of what reaches experts on other ranks in further rounds */
    size_t message_bytes;    /* largest activation handed from part to part */
    double forward_flops_per_token, train_flops_per_token;
};

/* Losses of a batch, as sums: the objective is genewise/weight + cellwise/weight over the global batch. */
struct loss_sum {
    double genewise, cellwise;               /* sum of weight * (prediction - target)^2 */
    double weight;                           /* sum of weights */
    double genewise_hidden, cellwise_hidden; /* the same over hidden positions only */
    double hidden;                           /* number of hidden positions */
};

/* Build the modules and the parameter table (no weights yet); `hold` says which parts lie on this rank, NULL all.
 * ST_CONFIG names the key. Local. */
MUST_CHECK enum status model_create(const struct config *config, const struct vocab *vocab,
                                    const struct model_hold *hold, struct model **out);
void model_destroy(struct model **model);

struct param_table *model_params(struct model *model);
struct expert_layers *model_experts(struct model *model); /* their loads and balance */
int model_width(const struct model *model);               /* D */
int model_layers(const struct model *model);
int model_expert_layers(const struct model *model, struct model_part part); /* held blocks of the part with experts */
const char *model_name(const struct model *model);                          /* "cellfm-80m": names obsm/X_<model> */
enum dtype model_product_type(const struct model *model); /* of activations and products, once prepared */

/* Measure only: bytes and FLOPs of a part under these limits, or with NULL of the parts held; nothing is allocated.
 * Local. */
MUST_CHECK enum status model_measure(const struct model *model, const struct model_limits *limits,
                                     const struct model_part *part, struct model_cost *cost);
/* Allocate arenas and make every product primitive. Local. ST_MEMORY. */
MUST_CHECK enum status model_prepare(struct model *model, const struct model_limits *limits);
/* Where ranks of a host share the packed weights of a kind (model/linears.h): its bytes, once prepared; packer[tensor] of
 * the table, which of `ranks` packs it (-1: nobody here); and the memory (borrowed, 64-byte aligned), where this rank
 * `rank` is to pack what packer says. NULL for memory and packer: memory of the model's own, and it packs all. Local.
 * ST_MEMORY. */
size_t model_packed_bytes(const struct model *model, enum pack_kind kind);
MUST_CHECK enum status model_packers(const struct model *model, enum pack_kind kind, int ranks, int *packer);
MUST_CHECK enum status model_place_packed(struct model *model, enum pack_kind kind, void *memory, const int *packer,
                                          int rank);
/* Repack weights for the products, once for all threads of this rank, and redo prepared segments. Allocates nothing.
 * Local. */
MUST_CHECK enum status model_pack(struct model *model);
/* The same module by module, where new weights arrive while the model runs: none may run from model_expire until it is
 * packed, by all that share in it; model_how.need is asked for it. A tensor's weights are in the table, or at
 * from[tensor] if that is not NULL (nor `from`): as bf16 where its products are, but `real` for `fine` ones
 * (model/param.h). Local. */
void model_expire(struct model *model);
void model_pack_module(struct model *model, int module, const void *const *from);
/* Has it been packed since model_expire? Also true of what does not lie here. Local. */
bool model_is_packed(const struct model *model, int module);

/* hash[params->count]: XXH3 of each tensor as this rank computes with it, 0 of one that lies elsewhere. No module may be
 * expired. Local. */
void model_hash(const struct model *model, uint64_t *hash);

/* ---- the whole model ---- */

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

/* ---- its parts ---- */

/* A pass for training (gradients and dropout, keyed by step), or for the loss alone. */
struct model_how {
    bool train;
    double scale; /* of the loss's gradient */
    uint64_t step;
    /* Called in the backward pass when the linear maps and all else of a module (model/part.h) have added their share:
     * with the last micro-batch, what is there is the whole gradient (but of tied tensors). NULL for none. */
    void (*ready)(void *context, int module);
    /* Called before the forward pass runs a module that has expired, and must pack it (model_pack_module); without one
     * such a pass is refused. */
    void (*need)(void *context, int module);
    void *context; /* of both */
};

/* Bytes of the activation [S, D] that one part hands to the next, under the limits of model_prepare. Local. */
int64_t model_message_bytes(const struct model *model, int64_t tokens);
/* Run held part number `part` forward on `batch`, in `slot` (below limits.slots). `in` is the activation from the part
 * before (NULL if there is none), `out` where the one for the next part goes (likewise); both only during the
 * call. The last part adds to *loss. The batch must stay until the slot's backward is done. Local. ST_NUMERIC;
 * ST_INTERNAL: on expired weights. */
MUST_CHECK enum status model_forward_part(struct model *model, int slot, int part, const struct batch *batch,
                                          const struct model_how *how, const void *in, void *out,
                                          struct loss_sum *loss);
/* The same slot backward: d_out is the gradient of `out`, d_in where that of `in` goes (NULL as above). Adds to the
 * gradients of parameters; those of linear maps wait, with limits.splits, for model_weights_part. Local. */
MUST_CHECK enum status model_backward_part(struct model *model, int slot, const void *d_out, void *d_in);
void model_weights_part(struct model *model, int slot);

/* The same with stops at exchanges. How the ranks share out the experts of the parts here; 1 rank: nothing stops. After
 * model_prepare. Local. */
struct expert_ranks model_expert_ranks(const struct model *model);
/* To the first stop or the end: `in` and d_out are read before it returns. Local. ST_INTERNAL: a batch beyond the
 * limits. */
MUST_CHECK enum status model_begin_forward(struct model *model, int slot, int part, const struct batch *batch,
                                           const struct model_how *how, const void *in);
void model_begin_backward(struct model *model, int slot, const void *d_out);
/* The rows that must move before it goes on (tape/travel.h), in the slot's memory; NULL: it is through. model_go_on runs
 * to the next stop or the end. Moves of rounds after 0 use memory that slots share: from the first of them to the last no
 * other slot goes on. Local. */
struct travel_move *model_move(struct model *model, int slot);
void model_go_on(struct model *model, int slot);
/* What can be computed while the rows are on their way: without limits.splits, the weight gradients that are known. Right
 * after a move has begun; an expert's sums keep their order where slots take turns. Local. */
void model_meanwhile(struct model *model, int slot);
/* When it is through: losses, and what goes to the next or previous part. Local. ST_NUMERIC. */
MUST_CHECK enum status model_end_forward(struct model *model, int slot, void *out, struct loss_sum *loss);
void model_end_backward(struct model *model, int slot, void *d_in);

/* Show inner values to `tap` the moment they exist (tape/tape.h): segments "embed", "block" i,
 * "heads"; names "embed", "kv", "qu", "state", "retention", "mixer", "norm1", "router", "gate", "ffn",
 * "norm2", "genewise", "cellwise". NULL ends it. After model_prepare. Local. */
void model_set_tap(struct model *model, tape_tap_fn *tap, void *context);

#endif
