/* What the parts of cytomill-plan share. */
#ifndef CYTOMILL_JOBS_PLAN_STATE_H
#define CYTOMILL_JOBS_PLAN_STATE_H

#include "jobs/job.h"
#include "mpi/plan.h"

struct planning {
    struct vocab *vocab;
    struct plan_machine machine;
    struct plan_job job;
    struct plan_wanted wanted;
    int *blocks; /* mesh.layers, or NULL */
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

/* A figure of a layout: its name in JSON, its title in a table. */
enum { PLAN_MOST_ROWS = 12 };
struct plan_row {
    const char *name, *title;
    double value;
};
/* plan_print.c: bytes of memory, seconds and bytes of traffic of a step; the number of rows, the sum last but for
 * traffic. Local. */
int plan_memory_rows(const struct plan_estimate *e, struct plan_row *rows);
int plan_time_rows(const struct plan_estimate *e, struct plan_row *rows);
int plan_traffic_rows(const struct plan_estimate *e, struct plan_row *rows);
double plan_node_hours(const struct planning *p, const struct plan_estimate *e);
/* One line about a layout; verdict, tables and advice, and what fewer nodes would do. The caller frees.
 * Local. */
char *plan_verdict(const struct planning *p, const struct plan_estimate *e);
MUST_CHECK enum status plan_report(const struct job *job, char **out);
/* plan_json.c: the same as plan.json. Local. ST_OUTPUT. */
MUST_CHECK enum status plan_write_json(const struct job *job);

/* plan_batch.c: a batch file for the layout that is planned. Local. ST_OUTPUT. */
MUST_CHECK enum status plan_write_batch(const struct job *job);
/* Steps between checkpoints. Local. */
int64_t plan_checkpoint_steps(const struct plan_estimate *e);
/* The options of cytomill-pretrain that the layout means: "--set mesh.pipe=4 ...". The caller frees. Local. */
MUST_CHECK enum status plan_options(const struct planning *p, const struct plan_estimate *e, char **out);

#endif
