/* What the files of the plan share: plan.c estimates, plan_formula.c has the formulas, plan_search.c compares. */
#ifndef CYTOMILL_MPI_PLAN_INSIDE_H
#define CYTOMILL_MPI_PLAN_INSIDE_H

#include "mpi/plan.h"

struct plan {
    const struct plan_job *job;
    const struct plan_machine *machine;
    struct model *model; /* without memory */
    int layers;
    double *flops; /* [layers] of training, a token: the first block with the embedding, the last with the heads */
    double cell_flops;
    double step_tokens; /* of a cell of mean length, cls included */
};

/* The estimate without memory: quick, for many layouts. ST_CONFIG as plan_estimate. Local. */
MUST_CHECK enum status plan_estimate_time(const struct plan *plan, const struct plan_layout *layout,
                                          struct plan_estimate *out);
/* What memory it takes, into the same. Local. */
MUST_CHECK enum status plan_estimate_memory(const struct plan *plan, struct plan_estimate *estimate);

/* Parameters that stage `stage` holds; those of rows that travel as touched rows; the latter's width. */
struct plan_held {
    double dense, sparse, sparse_cols;
};
struct plan_held plan_held_by(const struct plan *plan, const struct plan_layout *layout, const int *first, int stage);

static inline int plan_ranks(const struct plan_machine *machine) { return machine->nodes * machine->ranks_per_node; }
static inline int plan_parts(const struct plan_layout *l) { return l->pipe * l->chunks; }

#endif
