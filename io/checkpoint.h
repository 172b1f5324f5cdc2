/* Checkpoints: HDF5 files that all ranks write, independent of the mesh that wrote them. Tensors lie under global
 * names and shapes; any number of ranks reads what any other wrote, and writes the same bytes. One rank lays the file
 * out through HDF5; the blocks of tensors then go to their places in it without HDF5.
 *   /                        attributes format, format_version, model_name
 *   /param/<name>            fp32, published shape, contiguous    master weights
 *   /moment1/<name>, /moment2/<name>                      optimiser (absent in a model-only file)
 *   /checksum                XXH3 of every block of 256 Ki values; a tensor's attribute first_block
 *                            says where its blocks begin
 *   /vocabulary              bytes of the vocabulary TSV; attribute sha256
 *   /config                  YAML used: sections data, model, train, and run.cells
 *   /state                   attributes of struct train_state; check: XXH3 of them, /config and /vocabulary
 * All datasets are created together and allocated at once, then every rank writes its blocks at their
 * offsets in the file: through MPI-IO (run.io ompio, romio) or plain POSIX calls (posix; auto when all ranks
 * share one host). The file is NAME.partial until every rank's part is on disk, then it is renamed; the
 * `train.keep` newest stay. */
#ifndef CYTOMILL_IO_CHECKPOINT_H
#define CYTOMILL_IO_CHECKPOINT_H

#include "cell/vocab.h"
#include "model/model.h"
#include "mpi/mesh.h"

/* Where training stands, beside the weights. Random numbers need no state: they are keyed by
 * (seed, purpose, cell, step). */
struct train_state {
    int64_t step;       /* optimiser steps done */
    int64_t cells_seen; /* position of the sampler: cells drawn so far */
    int64_t global_batch;
    uint64_t seed;
    double best_loss; /* best held-out loss so far; NaN before the first */
    char atlas_hash[SHA256_HEX];
};

/* Write weights, moments (if `params` has them) and state to `path`. Each rank writes its share of the tensors that
 * lie on it. In a folder of checkpoint-<step>.h5 the oldest beyond train.keep are removed. Collective. ST_OUTPUT:
 * nothing is left under the final name, and older checkpoints stay. */
MUST_CHECK enum status checkpoint_write(struct mesh *mesh, const char *path, const struct param_table *params,
                                        const struct config *config, const struct vocab *vocab, const char *model_name,
                                        const struct train_state *state);

/* What a program needs before it can build the model: the configuration the checkpoint was trained
 * with (its model.* keys are put into `config`), and its vocabulary (caller destroys). A key the user
 * gave stays if it only says which cells and genes are taken (min_genes, max_genes, …) or names the
 * model; one that contradicts the architecture is refused. Collective. ST_INPUT: not a checkpoint,
 * damaged, of another version, of another model than the user asked for. */
MUST_CHECK enum status checkpoint_open_model(struct comm *comm, const char *path, struct config *config,
                                             struct vocab **vocab);
/* Was the run of this checkpoint configured in these keys (NULL-terminated) as `config` is? For what a resumed run must
 * not change. ST_CONFIG names the first that differs, with both values. Collective, agreed. */
MUST_CHECK enum status checkpoint_check_keys(struct comm *comm, const char *path, const struct config *config,
                                             const char *const *keys);
/* Weights into a table built from that configuration; moments and state too if `state` is not NULL. Ranks of `comm`
 * hold the same tensors and share them out (param_share), or each owns all and reads all; owners read their pieces and
 * send the weights to the others. Names or shapes that do not match are ST_INPUT with the first of them. Every block is verified. Collective. */
MUST_CHECK enum status checkpoint_read(struct comm *comm, const char *path, struct param_table *params,
                                       struct train_state *state);
/* Newest readable checkpoint of a run folder (RUN/checkpoint-<step>.h5): every block of the newest is
 * verified, and if it is damaged the one before is taken, with a note. *path is NULL if there is
 * none, else the caller frees. Collective. ST_INPUT: there are some, but none can be read. */
MUST_CHECK enum status checkpoint_find(struct comm *comm, const char *folder, char **path);

#endif
