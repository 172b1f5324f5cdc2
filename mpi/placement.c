#include "mpi/placement.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int numa_of_core(int core)
{
    char path[96];
    for (int node = 0; node < 64; node++) {
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpu%d", node, core);
        FILE *file = fopen(path, "r");
        if (file) {
            fclose(file);
            return node;
        }
    }
    return 0;
}

/* One row per rank, gathered so that every rank can look at its own host. */
struct seat {
    char host[64];
    cpu_set_t allowed;
    int threads;
    int numa_node;
};

static int threads_wanted(const struct comm *comm, int threads, int allowed, const struct seat *seats)
{
    if (threads > 0) return threads;
    const char *asked = getenv("OMP_NUM_THREADS");
    if (asked && atoi(asked) > 0) return atoi(asked);
    int sharing = 0;
    for (int r = 0; r < comm->size; r++)
        sharing += strcmp(seats[r].host, comm->host) == 0 && CPU_EQUAL(&seats[r].allowed, &seats[comm->rank].allowed);
    return allowed / sharing > 0 ? allowed / sharing : 1;
}

static enum status check_fit(const struct comm *comm, const struct placement *p, bool oversubscribe)
{
    if (oversubscribe || p->node_threads <= p->node_cores) return ST_OK;
    return fail(ST_USAGE,
                "%d ranks of %d threads in all on %s, which has %d cores for them; start fewer ranks, set "
                "OMP_NUM_THREADS, or give --oversubscribe",
                comm->node_size, p->node_threads, comm->host, p->node_cores);
}

enum status placement_find(struct comm *comm, int threads, bool oversubscribe, struct placement *out)
{
    struct seat mine = {0}, *seats = NULL;
    int64_t bytes = 0;
    enum status st = ST_OK;
    memcpy(mine.host, comm->host, sizeof mine.host);
    if (sched_getaffinity(0, sizeof mine.allowed, &mine.allowed) != 0) CPU_SET(0, &mine.allowed);
    *out = (struct placement){.cores_allowed = CPU_COUNT(&mine.allowed)};
    while (out->first_core < CPU_SETSIZE && !CPU_ISSET(out->first_core, &mine.allowed)) out->first_core++;
    out->numa_node = numa_of_core(out->first_core);
    TRY(comm_gather_all(comm, &mine, sizeof mine, (void **)&seats, &bytes, NULL));
    out->threads = threads_wanted(comm, threads, out->cores_allowed, seats);
    omp_set_num_threads(out->threads);
    free(seats);
    seats = NULL;
    mine.threads = out->threads;
    TRY(comm_gather_all(comm, &mine, sizeof mine, (void **)&seats, &bytes, NULL));
    cpu_set_t host_cores;
    CPU_ZERO(&host_cores);
    for (int r = 0; r < comm->size; r++) {
        if (strcmp(seats[r].host, comm->host) != 0) continue;
        CPU_OR(&host_cores, &host_cores, &seats[r].allowed);
        out->node_threads += seats[r].threads;
    }
    out->node_cores = CPU_COUNT(&host_cores);
    TRY(comm_agree(comm, check_fit(comm, out, oversubscribe)));
done:
    free(seats);
    return st;
}

enum status placement_print(struct comm *comm, const struct placement *p)
{
    struct line {
        char host[64];
        int node_rank, node_size, threads, node_cores, numa_node, first_core, cores;
    } mine = {"",           comm->node_rank, comm->node_size, p->threads, p->node_cores,
              p->numa_node, p->first_core,   p->cores_allowed},
      *all = NULL;
    int64_t bytes = 0;
    enum status st = ST_OK;
    memcpy(mine.host, comm->host, sizeof mine.host);
    TRY(comm_gather_all(comm, &mine, sizeof mine, (void **)&all, &bytes, NULL));
    for (int r = 0; r < comm->size; r++) {
        const struct line *l = &all[r];
        if (l->node_rank == 0)
            comm_note(comm, "host %s: %d rank%s of %d, %d thread%s each, %d cores", l->host, l->node_size,
                      l->node_size == 1 ? "" : "s", comm->size, l->threads, l->threads == 1 ? "" : "s", l->node_cores);
        if (comm->size > 1 && l->cores < l->node_cores)
            comm_note(comm, "  rank %d: cores from %d (%d of them), NUMA %d", r, l->first_core, l->cores, l->numa_node);
    }
done:
    free(all);
    return st;
}
