/* Adam over this rank's pieces of the parameter table: learning-rate schedule, gradient clipping, weight decay.
 *
 * The step is that of kernel/vector.h (eps outside the root, bias correction in the rate; Kingma &
 * Ba 2015 as MindSpore has it), applied to each row of the table with the row's own rate scale; rows
 * whose `decay` is false are not decayed, rows whose `clip` is false not clipped. Nothing here allocates after
 * optimiser_create.
 *
 *     TRY(optimiser_create(cfg, params, &o));
 *     double norm = optimiser_measure(o);           after the gradients were summed over ranks
 *     if (isfinite(norm)) optimiser_step(o, step);  step counts from 0 */
#ifndef CYTOMILL_OPTIM_OPTIMISER_H
#define CYTOMILL_OPTIM_OPTIMISER_H

#include "base/config.h"
#include "model/param.h"

/* Course of the learning rate, from train.rate, schedule, warmup, rate_end and steps. */
enum rate_kind { RATE_CONSTANT, RATE_COSINE, RATE_LINEAR };
struct rate_schedule {
    enum rate_kind kind;
    double peak, end; /* rate after warm-up; rate of the last step (cosine, linear) */
    int64_t warmup, steps;
};
struct rate_schedule rate_schedule_from(const struct config *config);
/* Rate of step 0 … steps-1: peak (step+1)/(warmup+1) during warm-up, then the course. Local. */
double rate_schedule_at(const struct rate_schedule *schedule, int64_t step);

struct optimiser;

/* An optimiser of `params` (borrowed, allocated for training) as the train section says. ST_CONFIG:
 * warm-up longer than the run. Local. */
MUST_CHECK enum status optimiser_create(const struct config *config, struct param_table *params,
                                        struct optimiser **out);
void optimiser_destroy(struct optimiser **optimiser);

/* Squares of the norms of the gradient's pieces, before clipping, [params->shard.count]: 0 for those that are frozen,
 * not this rank's, or copies of another stage's. The ranks of a job add them up, each having been counted by one, before
 * optimiser_norm: so the norm has the same bits on any mesh that has the same gradient. Borrowed. Local. */
double *optimiser_squares(struct optimiser *optimiser);
/* L2 norm of the whole gradient from these squares, in the order of the table; not finite if any entry is not. The step
 * that follows clips by them. Local. */
double optimiser_norm(struct optimiser *optimiser);
/* Both, where one rank holds all. Local. */
double optimiser_measure(struct optimiser *optimiser);
/* Clip as train.clip says and update weights and moments of this rank's pieces; the gradient is left as it was. `step`
 * counts from 0. The norm of this gradient must have been taken. Local. */
void optimiser_step(struct optimiser *optimiser, int64_t step);
/* Rate the given step uses. Local. */
double optimiser_rate(const struct optimiser *optimiser, int64_t step);

#endif
