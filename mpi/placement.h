/* Where ranks run: host, cores, NUMA domain, threads; whether they fit; and threads beside those that compute. */
#ifndef CYTOMILL_MPI_PLACEMENT_H
#define CYTOMILL_MPI_PLACEMENT_H

#include <pthread.h>
#include <stdbool.h>

#include "mpi/comm.h"

struct placement {
    int threads;         /* OpenMP threads of this rank */
    int cores_allowed;   /* cores this rank may run on */
    int first_core;      /* lowest of them */
    char cores[128];     /* all of them: "0-3,8" */
    int numa_node;       /* NUMA node of first_core, 0 where unknown */
    int node_cores;      /* distinct cores all ranks of this host may use together */
    int node_numa_nodes; /* NUMA nodes these lie on */
    int node_threads;    /* threads of all ranks of this host */
};

/* Find it out and set the number of OpenMP threads. `threads` 0 takes OMP_NUM_THREADS, or the cores
 * allowed divided by the ranks that share them. ST_USAGE if a host gets more threads than cores and
 * `oversubscribe` is false: the line says how many fit. Collective. */
MUST_CHECK enum status placement_find(struct comm *comm, int threads, bool oversubscribe, struct placement *out);
/* Print one line per host (rank 0): ranks, threads, cores, NUMA nodes, and whether its ranks are not bound; below it one
 * line per bound rank: cores and NUMA node. Collective. */
MUST_CHECK enum status placement_print(struct comm *comm, const struct placement *placement);
/* Start a thread beside those that compute: on the cores of this rank to which OpenMP has bound none of them, or on
 * all if there are none; it would else stay on the one core of its caller. Signals are for others. False if it cannot
 * be made. Not within a parallel region. Local. */
MUST_CHECK bool placement_start_thread(pthread_t *thread, void *(*work)(void *), void *context);

#endif
