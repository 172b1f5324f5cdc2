/* A trial of the configured model for calibration: a block of each kind, forward and backward on a micro-batch, alone and
 * as two stages of a pipeline.
 *
 *     TRY(trial_open(job, &trial));
 *     TRY(trial_fill(&trial, &plan_job, cells, genes));
 *     TRY(trial_time(&world, &trial));                        trial.seconds
 *     trial_close(&trial); */
#ifndef CYTOMILL_JOBS_PLAN_TRIAL_H
#define CYTOMILL_JOBS_PLAN_TRIAL_H

#include "jobs/plan_state.h"
#include "mpi/mesh.h"

enum { ROUNDS = 5, MOST_ROUNDS = 25 };

enum pass { FORWARD, BACKWARD, WEIGHTS, PASSES };
/* The first block with the embedding, one between the ends, one of those with experts, the last with the heads. */
enum kind { FIRST, BETWEEN, EXPERTS, LAST, KINDS };

/* A block of each kind that the model has, and a micro-batch of even cells. */
struct trial {
    int count;
    enum kind kind[KINDS]; /* [count] */
    int block[KINDS];      /* of the model */
    struct model *model;
    struct model_limits limits;
    struct batch batch;
    void *activation, *gradient;
    double seconds[KINDS][PASSES]; /* medians of each part */
    double flops[KINDS];           /* of a token in training, likewise */
    double packing_s;              /* of all weights */
};

/* Blocks, memory and weights. Local. ST_CONFIG, ST_MEMORY. */
MUST_CHECK enum status trial_open(struct job *job, struct trial *trial);
void trial_close(struct trial *trial);
/* A micro-batch of `cells` cells (at most train.micro_batch) of `genes` genes. Local. ST_MEMORY. */
MUST_CHECK enum status trial_fill(struct trial *trial, const struct plan_job *job, int cells, int genes);
/* Time every part on all ranks at once, as they share memory and power in training: trial->seconds are means over ranks
 * of medians over rounds. Collective, agreed. */
MUST_CHECK enum status trial_time(struct comm *comm, struct trial *trial);
/* Forward, backward and weights of a part. Local. */
double trial_train_s(const struct trial *trial, int part);
/* Seconds of a step of a pipeline whose stages all have part 1, the median of some. The schedule has one chunk a stage and
 * as many stages as mesh->pipe has ranks. Collective, agreed. */
MUST_CHECK enum status trial_pipeline(struct mesh *mesh, struct trial *trial, const struct schedule *schedule,
                                      double *step_s);
/* Sorts x. Local. */
double trial_median(double *x, int count);

#endif
