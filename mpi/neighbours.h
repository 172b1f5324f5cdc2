/* Nearest neighbours over ranks: rows of queries and references are spread, block after block of the
 * references goes to every rank, and the result is the same for any number of ranks. */
#ifndef CYTOMILL_MPI_NEIGHBOURS_H
#define CYTOMILL_MPI_NEIGHBOURS_H

#include "metric/knn.h"
#include "mpi/comm.h"

/* Rows of a matrix of which each rank holds a run; runs follow each other in rank order. Borrowed. */
struct spread_rows {
    int64_t first, count; /* this rank's run, in global numbers */
    int width;            /* of a row; the same for queries and references */
    const float *values;  /* [count, width] */
};

/* The k nearest references of this rank's queries. With `same`, queries are the references themselves
 * and no row is its own neighbour. *out: found for this rank's run; the caller frees with knn_destroy.
 * Memory: one block of at most 32 MiB beside the input. Collective, agreed. ST_MEMORY; ST_REQUEUE:
 * stop_asked() between blocks. */
MUST_CHECK enum status neighbours_find(struct comm *comm, const struct spread_rows *queries,
                                       const struct spread_rows *references, bool same, int k, struct knn **out);

#endif
