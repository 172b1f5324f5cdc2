/* Exchange of gradients between ranks that hold the same weights, and what all ranks agree on in each step.
 *
 * Every piece of the gradient is summed by the rank that owns it (model/shard.h, mpi/piece_exchange.h), which also
 * updates it; weights then go to the others (mpi/hand_out.h). A module's pieces start to travel when its last gradient is there, while
 * the backward pass goes on. Tensors marked `sparse_rows` (gene table) travel as the union of the rows that any rank
 * touched.
 *
 *     TRY(reducer_create(mesh, params, false, &r));
 *     reducer_touch(r, &batch);                 for each micro-batch of the step
 *     reducer_start(mesh, r, module);           in the backward pass of the last one, or not at all
 *     reducer_join_ends(mesh, r);
 *     reducer_sum_gradients(mesh, r);           own pieces are sums now: clip, update
 *
 * Nothing here allocates after reducer_create. */
#ifndef CYTOMILL_MPI_REDUCE_H
#define CYTOMILL_MPI_REDUCE_H

#include "cell/batch.h"
#include "model/model.h"
#include "mpi/mesh.h"

struct reducer;

/* A reducer of the gradients of `params` (borrowed). `bf16`: shares travel as bf16. Collective.
 * ST_MEMORY agreed. */
MUST_CHECK enum status reducer_create(struct mesh *mesh, struct param_table *params, bool bf16, struct reducer **out);
void reducer_destroy(struct reducer **reducer);
/* Bytes reducer_create would take on a rank of `ranks`. Local. */
size_t reducer_bytes(const struct param_table *params, int ranks, bool bf16);

/* Note the features of a batch: rows of sparse tensors that this rank's gradient may touch. Local. */
void reducer_touch(struct reducer *reducer, const struct batch *batch);
/* Tied tensors: what the embedding and the heads found is added up, on one rank or on the first and last stage of a
 * pipeline, whose touched rows they send each other. Before reducer_sum_gradients. Collective over mesh->pipe. */
void reducer_join_ends(struct mesh *mesh, struct reducer *reducer);
/* The gradients of all modules from `module` up are final: send them. Called with falling modules; what is left out
 * travels in reducer_sum_gradients. Collective over mesh->dense in that all its ranks end up having started all. */
void reducer_start(struct mesh *mesh, struct reducer *reducer, int module);
/* Let messages move. Local. */
void reducer_poll(struct reducer *reducer);
/* In the pieces that this rank owns, gradient = sum over mesh->dense; the others are used up. The touched rows are
 * forgotten. A sparse row that no rank touched must be zero. Collective. */
void reducer_sum_gradients(struct mesh *mesh, struct reducer *reducer);
/* Sums over all ranks of numbers that one rank counts and the others have as 0: exact. Collective. */
void reducer_sum_counted(struct mesh *mesh, double *x, int64_t count);
/* Seconds this rank has waited for gradients. Local. */
double reducer_waited_s(const struct reducer *reducer);
/* The largest over the stages. Collective over mesh->pipe. */
double reducer_max_stages(struct mesh *mesh, double x);

/* What ranks tell each other at one point of a step, in one small message. */
struct step_report {
    struct loss_sum loss; /* summed over ranks in rank order */
    double cells, tokens; /* likewise */
    bool stop, finish;    /* set by any rank */
    bool saving;          /* likewise */
};
/* Sum the report over ranks and agree on `local`: a failure of any rank is printed once and returned
 * by all. Collective. */
MUST_CHECK enum status reducer_agree(struct mesh *mesh, struct reducer *reducer, enum status local,
                                     struct step_report *report);

#endif
