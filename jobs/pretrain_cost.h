/* What a run will cost, told before it is spent. */
#ifndef CYTOMILL_JOBS_PRETRAIN_COST_H
#define CYTOMILL_JOBS_PRETRAIN_COST_H

#include "jobs/pretrain_state.h"

/* Print parameters, memory of a rank, work of a step and, from a short trial product, time. Collective, agreed. */
MUST_CHECK enum status pretrain_print_cost(struct job *job);

#endif
