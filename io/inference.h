/* A trained model made ready to embed: weights and vocabulary from a checkpoint, a micro-batch, and
 * the facts that every output made with it states.
 *
 *     TRY(inference_open(comm, config, threads, &inf));
 *     TRY(inference_map(&inf, features, "pbmc.h5ad"));
 *     while cells are left: token_append_embed(&inf.batch, …)
 *     TRY(inference_embed(&inf, z));
 *     inference_close(&inf); */
#ifndef CYTOMILL_IO_INFERENCE_H
#define CYTOMILL_IO_INFERENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "cell/batch.h"
#include "cell/feature.h"
#include "cell/tokenize.h"
#include "cell/vocab.h"
#include "model/model.h"
#include "mpi/comm.h"

struct inference {
    struct model *model;
    struct vocab *vocab;
    struct token_rules rules;
    struct batch batch; /* one micro-batch: room for the longest cell at least */
    int32_t *lookup;    /* [features of the input] vocabulary ids, 0 = none; after inference_map */
    int64_t mapped;     /* features of the input that the vocabulary knows */
    int width;          /* D */
    bool bf16;
    char weights[32];  /* "xxh3:…" of all weights */
    char *config_text; /* the model and data sections that made it, as YAML */
    struct model_cost cost;
};

/* Read run.model (a checkpoint, or a training run's folder: its newest), put its configuration into
 * `config`, build and prepare the model for micro-batches of embed.tokens. Collective, agreed.
 * ST_USAGE: run.model is missing; ST_INPUT: not a checkpoint. */
MUST_CHECK enum status inference_open(struct comm *comm, struct config *config, int threads, struct inference *out);
void inference_close(struct inference *inference);

/* Look the input's features up. ST_INPUT: the vocabulary knows none of them. Local. */
MUST_CHECK enum status inference_map(struct inference *inference, const struct feature_table *features,
                                     const char *input);

/* Embeddings of the cells now in the batch: z[B, D]; the batch stays. Local. */
MUST_CHECK enum status inference_embed(struct inference *inference, float *z);
/* No room for one more cell of `tokens` tokens (cls included)? Local. */
bool inference_is_full(const struct inference *inference, int64_t tokens);

#endif
