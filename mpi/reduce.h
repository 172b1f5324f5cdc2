/* Exchange of gradients between data-parallel ranks, and what ranks agree on in each step.
 *
 * Every rank ends with the same bits: entries are added in rank order by the rank that owns their
 * slice, and slices are gathered again (traffic 2(p-1)/p of the gradient, as a ring). With bf16 the
 * shares travel to their owner as bf16 and their fp32 sum comes back as fp32: three quarters of the
 * traffic, and one rounding of 2^-8 for each foreign share. Tensors marked `sparse_rows` (gene table) travel
 * as the union of the rows that any rank touched.
 *
 *     TRY(reducer_create(comm, params, false, &r));
 *     reducer_touch(r, &batch);                 for each micro-batch of the step
 *     reducer_sum_gradients(comm, r);
 *
 * Nothing here allocates after reducer_create. */
#ifndef CYTOMILL_MPI_REDUCE_H
#define CYTOMILL_MPI_REDUCE_H

#include "cell/batch.h"
#include "model/model.h"
#include "mpi/comm.h"

struct reducer;

/* A reducer of the gradients of `params` (borrowed). `bf16`: shares travel as bf16. Collective.
 * ST_MEMORY agreed. */
MUST_CHECK enum status reducer_create(struct comm *comm, struct param_table *params, bool bf16, struct reducer **out);
void reducer_destroy(struct reducer **reducer);
/* Bytes reducer_create would take on a rank of `ranks`. Local. */
size_t reducer_bytes(const struct param_table *params, int ranks, bool bf16);

/* Note the features of a batch: rows of sparse tensors that this rank's gradient may touch. Local. */
void reducer_touch(struct reducer *reducer, const struct batch *batch);
/* gradient = sum over ranks of gradient, on every rank; the touched rows are forgotten. A sparse row
 * that no rank touched must be zero. Collective. */
void reducer_sum_gradients(struct comm *comm, struct reducer *reducer);

/* What ranks tell each other at one point of a step, in one small message. */
struct step_report {
    struct loss_sum loss; /* summed over ranks in rank order */
    double cells, tokens; /* likewise */
    bool stop, finish;    /* set by any rank */
};
/* Sum the report over ranks and agree on `local`: a failure of any rank is printed once and returned
 * by all. Collective. */
MUST_CHECK enum status reducer_agree(struct comm *comm, struct reducer *reducer, enum status local,
                                     struct step_report *report);

#endif
