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
 *   /state                   attributes of struct train_state, guard_norm its norms; check: XXH3 of them, /config and
 *                            /vocabulary
 *   /state/trained, evaluated   [points, 4] step, loss, loss of hidden genes, learning rate; attributes offered and
 *                            halvings (metric/history.h)
 * All datasets are created together and allocated at once, then every rank writes its blocks at their
 * offsets in the file: through MPI-IO (run.io ompio, romio) or plain POSIX calls (posix; auto when all ranks
 * share one host, or, beside the training, when all hosts see the file alike: io/coherence.h). The file is NAME.partial
 * until every rank's part is on disk, then it is renamed; the `train.keep` newest stay, and half-written ones of killed
 * runs go. */
#ifndef CYTOMILL_IO_CHECKPOINT_H
#define CYTOMILL_IO_CHECKPOINT_H

#include "cell/vocab.h"
#include "metric/history.h"
#include "model/model.h"
#include "mpi/mesh.h"
#include "optim/guard.h"

/* Where training stands, beside the weights. Random numbers need no state: they are keyed by
 * (seed, purpose, cell, step). */
struct train_state {
    int64_t step;       /* optimiser steps done */
    int64_t cells_seen; /* position of the sampler: cells drawn so far */
    int64_t global_batch;
    uint64_t seed;
    double best_loss;                  /* best held-out loss so far; NaN before the first */
    struct guard_state guard;          /* norms and skipped steps that the next steps are judged by */
    struct history trained, evaluated; /* losses of steps, and of evaluations on held-out cells */
    char atlas_hash[SHA256_HEX];
};

/* Write weights, moments (if `params` has them) and state to `path`. Each rank writes its share of the tensors that
 * lie on it. In a folder of checkpoint-<step>.h5 the oldest beyond train.keep are removed. Collective. ST_OUTPUT:
 * nothing is left under the final name, and older checkpoints stay. */
MUST_CHECK enum status checkpoint_write(struct mesh *mesh, const char *path, const struct param_table *params,
                                        const struct config *config, const struct vocab *vocab, const char *model_name,
                                        const struct train_state *state);

/* The same while training goes on. Of each rank a thread first copies and hashes what the rank writes, during which
 * weights and moments must not change, then writes the copy, past the page cache where the file system can. One file is
 * on its way at a time. Where that cannot be (train.checkpoint_async false, MPI-IO, no memory for the copy, hosts that do
 * not see alike what they write to one file), checkpoint_begin writes at once, which is said.
 *
 *     TRY(checkpoint_saver_create(&mesh, params, config, &saver));
 *     TRY(checkpoint_begin(&mesh, saver, path, params, config, vocab, name, &state));
 *     ... forward, backward ...
 *     checkpoint_hold(saver);                                        before the update
 *     if (!any rank's checkpoint_poll(saver)) TRY(checkpoint_finish(&mesh, saver)); */
struct checkpoint_saver;
/* Bytes that checkpoint_saver_create takes on this rank; `params` needs no memory yet. Local. ST_MEMORY. */
MUST_CHECK enum status checkpoint_saver_bytes(const struct mesh *mesh, const struct param_table *params,
                                              const struct config *config, int64_t *bytes);
/* Takes the memory of the copy once. Collective, agreed. ST_MEMORY. */
MUST_CHECK enum status checkpoint_saver_create(struct mesh *mesh, const struct param_table *params,
                                               const struct config *config, struct checkpoint_saver **out);
/* Waits for the thread; a file that was not finished stays as PATH.partial. Local. */
void checkpoint_saver_destroy(struct checkpoint_saver **saver);
/* Begin to write, as checkpoint_write says; the table is that of checkpoint_saver_create and stays where it is. None may
 * be under way. Collective, agreed. ST_OUTPUT. */
MUST_CHECK enum status checkpoint_begin(struct mesh *mesh, struct checkpoint_saver *saver, const char *path,
                                        const struct param_table *params, const struct config *config,
                                        const struct vocab *vocab, const char *model_name,
                                        const struct train_state *state);
/* Wait until weights and moments may change (trainer.before_update). `saver` is a struct checkpoint_saver. Local. */
void checkpoint_hold(void *saver);
/* Does this rank still copy or write? Local. */
bool checkpoint_poll(struct checkpoint_saver *saver);
/* Begun and not finished; the same on every rank. Local. */
bool checkpoint_under_way(const struct checkpoint_saver *saver);
/* Wait for all ranks' threads and make the file final; nothing if none is under way. Collective, agreed. ST_OUTPUT:
 * nothing is left of it, older checkpoints stay. */
MUST_CHECK enum status checkpoint_finish(struct mesh *mesh, struct checkpoint_saver *saver);
/* Seconds that the caller has spent in begin, hold and finish of the last file; processor seconds of this rank's thread
 * for it, which the training loses where no core is idle. Local. */
double checkpoint_stall_s(const struct checkpoint_saver *saver);
double checkpoint_thread_s(const struct checkpoint_saver *saver);

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
 * send the weights to the others. Names or shapes that do not match are ST_INPUT with the first of them. Every block is
 * verified. Collective. */
MUST_CHECK enum status checkpoint_read(struct comm *comm, const char *path, struct param_table *params,
                                       struct train_state *state);
/* Newest readable checkpoint of a run folder (RUN/checkpoint-<step>.h5): every block of the newest is
 * verified, and if it is damaged the one before is taken, with a note. *path is NULL if there is
 * none, else the caller frees. Collective. ST_INPUT: there are some, but none can be read. */
MUST_CHECK enum status checkpoint_find(struct comm *comm, const char *folder, char **path);

#endif
