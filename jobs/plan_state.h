/* What the parts of cytomill-plan share. */
#ifndef CYTOMILL_JOBS_PLAN_STATE_H
#define CYTOMILL_JOBS_PLAN_STATE_H

#include "jobs/job.h"
#include "mpi/plan.h"

struct planning {
    struct vocab *vocab;
    struct plan_machine machine;
    struct plan_job job;
    struct plan *plan;
    struct plan_found found;
};

/* plan_cluster.c: section cluster of plan.cluster, where --config and --set say nothing. Local. ST_CONFIG. */
MUST_CHECK enum status plan_read_cluster(struct config *config);
/* The section as a machine, for products in bf16 or fp32. Local. ST_CONFIG names the first key that is missing. */
MUST_CHECK enum status plan_machine_from(const struct config *config, bool in_bf16, struct plan_machine *out);

/* plan_calibrate.c: measure what the ranks of this job can, with the configured model, and write plan.calibrate.
 * Collective, agreed. */
MUST_CHECK enum status plan_calibrate(struct job *job);

/* plan_print.c: one line about a layout; verdict, tables and advice, and what fewer nodes would do. The caller frees.
 * Local. */
char *plan_verdict(const struct planning *p, const struct plan_estimate *e);
MUST_CHECK enum status plan_report(const struct job *job, const struct plan_wanted *wanted, char **out);
/* The same as plan.json. Local. ST_OUTPUT. */
MUST_CHECK enum status plan_write_json(const struct job *job);

/* plan_batch.c: a batch file for the layout that is planned. Local. ST_OUTPUT. */
MUST_CHECK enum status plan_write_batch(const struct job *job);
/* Steps between checkpoints. Local. */
int64_t plan_checkpoint_steps(const struct plan_estimate *e);
/* The options of cytomill-pretrain that the layout means: "--set mesh.pipe=4 ...". The caller frees. Local. */
MUST_CHECK enum status plan_options(const struct planning *p, const struct plan_estimate *e, char **out);

#endif
