/* What the files of the plan share: plan.c estimates times, plan_memory.c memory, plan_formula.c has the formulas,
 * plan_search.c compares, plan_reason.c says why. */
#ifndef CYTOMILL_MPI_PLAN_INSIDE_H
#define CYTOMILL_MPI_PLAN_INSIDE_H

#include "mpi/plan.h"

struct plan_block {
    double flops;     /* of training, a token: the first with the embedding, the last with the heads */
    bool has_experts; /* else a plain feed-forward */
};

struct plan {
    const struct plan_job *job;
    const struct plan_machine *machine;
    struct model *model; /* without memory */
    int layers, experts, chosen;
    struct plan_block *block; /* [layers] */
    double dense, routed;     /* parameters of the model but for experts, and of these */
    double cell_flops;
    double step_tokens; /* of a cell of mean length, cls included */
};

/* The estimate without memory: quick, for many layouts. ST_CONFIG as plan_estimate. Local. */
MUST_CHECK enum status plan_estimate_time(const struct plan *plan, const struct plan_layout *layout,
                                          struct plan_estimate *out);
/* What memory it takes, into the same. Local. */
MUST_CHECK enum status plan_estimate_memory(const struct plan *plan, struct plan_estimate *estimate);

/* What the chosen layout is compared with; NULL where there is none: replicas alone, with experts shared out and
 * recomputation where they are asked for; the opposite in experts, shared out if the chosen one does not and the other way
 * round; the same in all but turns. */
struct plan_beside {
    const struct plan_estimate *simplest, *opposite, *turned;
};

/* Why the first of `found` is taken, and what each of the others loses against it. Local. */
void plan_say_why(const struct plan *plan, const struct plan_wanted *wanted, struct plan_found *found,
                  const struct plan_beside *beside);
void plan_say_too_large(const struct plan *plan, struct plan_estimate *estimate);

/* Of `ranks` ranks that are `stride` apart, those on one node. Local. */
int plan_near(const struct plan_machine *machine, int ranks, int stride);
/* Do the ranks that share out experts lie on several nodes? Local. */
bool plan_crosses(const struct plan *plan, const struct plan_layout *layout);

static inline int plan_ranks(const struct plan_machine *machine) { return machine->nodes * machine->ranks_per_node; }
static inline int plan_parts(const struct plan_layout *l) { return l->pipe * l->chunks; }
static inline int plan_experts(const struct plan_layout *l) { return l->expert > 0 ? l->expert : 1; }
/* Ranks that have cells of their own: each stage is as many ranks wide. */
static inline int plan_wide(const struct plan_layout *l) { return l->data * plan_experts(l); }

#endif
