/* Do all replicas of the weights hold the same bits? They must, because every rank of the data axis applies the same
 * update to the same numbers: where one differs, its memory or processor erred, or the program is wrong. */
#ifndef CYTOMILL_MPI_REPLICA_H
#define CYTOMILL_MPI_REPLICA_H

#include "model/param.h"
#include "mpi/comm.h"

/* Compare the weights over the ranks of the data axis, by hashes[params->count] of their tensors (model_hash). ST_NUMERIC:
 * one line names the ranks that are not with the majority (of equal camps: not with the lowest rank), their hosts, and the
 * first tensor that differs. Cost: a message of 8 bytes a rank; allocates. Collective, agreed. */
MUST_CHECK enum status replica_check(struct comm *data, const struct param_table *params, const uint64_t *hashes);

#endif
