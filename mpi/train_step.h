/* One optimiser step on a mesh: micro-batches through the pipeline, gradients summed over replicas, clipping, update.
 *
 * A step begins while the weights that the one before has changed are still being handed out (mpi/hand_out.h) and leaves
 * its own on their way: who reads weights between steps finishes that first.
 *
 * The loss is a ratio over the global batch: its denominator (positions in the loss) is known once
 * cells are tokenised, so one small message before the first forward pass settles it, and gradients
 * of micro-batches, ranks and one big batch are the same sum. train.loss_over = rank gives CellFM's
 * mean of per-rank ratios instead. A loss or gradient that is not as it should be leaves no trace in the weights: the
 * step is skipped or ends the run (optim/guard.h).
 *
 *     struct trainer t = {.model = m, .stage = s, .optimiser = o, .reducer = r, .hand_out = h, .guard = ...};
 *     hand_out_start(mesh, h);                   the first weights
 *     TRY(train_step(mesh, &t, micro, count, loaded, asked, step, &result));
 *     if (result.asked.stop) …                   nothing was computed: write a checkpoint and go
 *     if (result.verdict.act == GUARD_SKIP) …    computed and dropped: the step counts as done
 *     hand_out_finish(mesh, h);                  before an evaluation, and in the end */
#ifndef CYTOMILL_MPI_TRAIN_STEP_H
#define CYTOMILL_MPI_TRAIN_STEP_H

#include "mpi/hand_out.h"
#include "mpi/reduce.h"
#include "mpi/stage.h"
#include "optim/guard.h"
#include "optim/optimiser.h"

/* What a step works with; pointers are borrowed. */
struct trainer {
    struct model *model;
    struct stage *stage;
    struct optimiser *optimiser;
    struct reducer *reducer;
    struct hand_out *hand_out;
    bool loss_over_rank;
    void (*before_update)(void *); /* called with `held` before weights and moments change, or NULL */
    void *held;
    struct guard_rules guard;        /* zeros: any NaN ends the run */
    struct guard_state *guard_state; /* the same on all ranks; belongs into the checkpoint */
    enum status pending;             /* failure of this rank after its last agreement; told at the next one */
};

/* Why a run may have to end before its last step. */
struct train_asked {
    bool stop;   /* a signal or the stop file */
    bool finish; /* the time it was given is over */
    bool saving; /* no reason, but told on the way: a rank still writes a checkpoint */
};

struct step_result {
    struct loss_sum loss;    /* of the global batch, with dropout, before the update */
    double cells, tokens;    /* of the global batch */
    double own_loss;         /* loss of the micro-batches of this rank; 0 where the heads lie on another stage */
    double gradient_norm;    /* before clipping */
    double rate;             /* learning rate used */
    double expert_imbalance; /* load of the busiest expert over its layer's mean, the worst layer; 0 without experts
                                 and in a skipped step */
    struct guard_verdict verdict;
    struct train_asked asked; /* by any rank; with stop or finish nothing else is set */
};

/* Loss per position of the loss; NaN without any. Local. */
double loss_mean(double sum, double weight);

/* Gradients of this rank's micro-batches [count] (may be 0; the same on all stages of a pipeline), exchange, clipping,
 * verdict, update, and the weights on their way. Skipped or refused, weights, moments and experts' biases are those before the step.
 * `loaded`: how loading them went on this rank; a failure takes part and is then everybody's.
 * Collective. ST_NUMERIC: the verdict is GUARD_STOP; the line comes from a rank whose own loss it was, if there is one. */
MUST_CHECK enum status train_step(struct mesh *mesh, struct trainer *trainer, const struct batch *micro, int count,
                                  enum status loaded, struct train_asked asked, int64_t step, struct step_result *out);

/* Do all replicas hold the same weights? replica_check of what each rank computes with; finishes the hand-out. Collective,
 * agreed over mesh->data. */
MUST_CHECK enum status train_check_replicas(struct mesh *mesh, struct trainer *trainer);

#endif
