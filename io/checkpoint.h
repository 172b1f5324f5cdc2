/* Checkpoints: parallel HDF5, independent of the mesh that wrote them. Tensors lie under global
 * names and shapes; any number of ranks reads what any other wrote. Layout (groups):
 *   /param/<name>            fp32, published shape        master weights
 *   /moment1/<name>, /moment2/<name>                      optimiser (absent in a model-only file)
 *   /vocabulary              bytes of the vocabulary TSV; attribute sha256
 *   /config                  YAML used
 *   /state                   attributes of struct train_state
 * Written as NAME.partial and renamed after every rank agreed; keeps `train.keep` newest. */
#ifndef CYTOMILL_IO_CHECKPOINT_H
#define CYTOMILL_IO_CHECKPOINT_H

#include "cell/vocab.h"
#include "model/model.h"
#include "mpi/comm.h"

/* Where training stands, beside the weights. */
struct train_state {
    int64_t step;          /* optimiser steps done */
    int64_t cells_seen;    /* position of the sampler: cells drawn so far */
    int64_t global_batch;
    uint64_t seed;
    double best_loss;      /* best held-out loss so far; NaN before the first */
    char atlas_hash[SHA256_HEX];
};

/* Write weights, moments and state to `path`. All ranks hold the same table (data parallel); each
 * writes its share of every tensor. Collective. ST_OUTPUT: nothing is left under the final name. */
MUST_CHECK enum status checkpoint_write(struct comm *comm, const char *path, const struct param_table *params,
                                        const struct config *config, const struct vocab *vocab,
                                        const char *model_name, const struct train_state *state);

/* What a program needs before it can build the model: the configuration the checkpoint was trained
 * with (its model.* keys are put into `config`), and its vocabulary (caller destroys). Collective.
 * ST_INPUT: not a checkpoint, damaged, of another version. */
MUST_CHECK enum status checkpoint_open_model(struct comm *comm, const char *path, struct config *config,
                                             struct vocab **vocab);
/* Weights into a table built from that configuration; moments and state too if `state` is not NULL.
 * Names or shapes that do not match are ST_INPUT with the first of them. Collective. */
MUST_CHECK enum status checkpoint_read(struct comm *comm, const char *path, struct param_table *params,
                                       struct train_state *state);
/* Newest readable checkpoint of a run folder (RUN/checkpoint-<step>.h5, falling back one generation
 * when the newest is damaged); *path is NULL if there is none, else the caller frees. Collective. */
MUST_CHECK enum status checkpoint_find(struct comm *comm, const char *folder, char **path);

#endif
