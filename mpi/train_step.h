/* One optimiser step on a mesh: micro-batches through the pipeline, gradients summed over replicas, clipping, update.
 *
 * The loss is a ratio over the global batch: its denominator (positions in the loss) is known once
 * cells are tokenised, so one small message before the first forward pass settles it, and gradients
 * of micro-batches, ranks and one big batch are the same sum. train.loss_over = rank gives CellFM's
 * mean of per-rank ratios instead.
 *
 *     struct trainer t = {.model = m, .stage = s, .optimiser = o, .reducer = r};
 *     TRY(train_step(mesh, &t, micro, count, loaded, asked, step, &result));
 *     if (result.asked.stop) …                   nothing was computed: write a checkpoint and go */
#ifndef CYTOMILL_MPI_TRAIN_STEP_H
#define CYTOMILL_MPI_TRAIN_STEP_H

#include "mpi/reduce.h"
#include "mpi/stage.h"
#include "optim/optimiser.h"

/* What a step works with; all borrowed. */
struct trainer {
    struct model *model;
    struct stage *stage;
    struct optimiser *optimiser;
    struct reducer *reducer;
    bool loss_over_rank;
    void (*before_update)(void *); /* called with `held` before weights and moments change, or NULL */
    void *held;
    enum status pending; /* failure of this rank after its last agreement; told at the next one */
};

/* Why a run may have to end before its last step. */
struct train_asked {
    bool stop;   /* a signal or the stop file */
    bool finish; /* the time it was given is over */
    bool saving; /* no reason, but told on the way: a rank still writes a checkpoint */
};

struct step_result {
    struct loss_sum loss;     /* of the global batch, with dropout, before the update */
    double cells, tokens;     /* of the global batch */
    double gradient_norm;     /* before clipping */
    double rate;              /* learning rate used */
    double expert_imbalance;  /* load of the busiest expert over its layer's mean, the worst layer; 0 without experts */
    struct train_asked asked; /* by any rank; with stop or finish nothing else is set */
};

/* Loss per position of the loss; NaN without any. Local. */
double loss_mean(double sum, double weight);

/* Gradients of this rank's micro-batches [count] (may be 0; the same on all stages of a pipeline), exchange, clipping,
 * update, packing.
 * `loaded`: how loading them went on this rank; a failure takes part and is then everybody's.
 * Collective. ST_NUMERIC: loss or gradient is not finite; weights are those before the step. */
MUST_CHECK enum status train_step(struct mesh *mesh, struct trainer *trainer, const struct batch *micro, int count,
                                  enum status loaded, struct train_asked asked, int64_t step, struct step_result *out);

#endif
