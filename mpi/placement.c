#include "mpi/placement.h"

#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int numa_of_core(int core)
{
    char path[96];
    for (int node = 0; node < 64; node++) {
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpu%d", node, core);
        if (access(path, F_OK) == 0) return node;
    }
    return 0;
}

/* "0-3,8" of a set; cut with "..." where it does not fit. */
static void list_cores(const cpu_set_t *cores, char *out, size_t bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (int core = 0, last; core < CPU_SETSIZE; core = last + 1) {
        last = core;
        if (!CPU_ISSET(core, cores)) continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, cores)) last++;
        if (used + 24 > bytes) {
            snprintf(out + used, bytes - used, ",...");
            return;
        }
        used +=
            (size_t)snprintf(out + used, bytes - used, last > core ? "%s%d-%d" : "%s%d", used ? "," : "", core, last);
    }
}

/* OpenMP binds the first thread of a program to the first of its places before the program begins. */
static void find_own_cores(cpu_set_t *cores)
{
    if (sched_getaffinity(0, sizeof *cores, cores) != 0) CPU_SET(0, cores);
    for (int place = 0; place < omp_get_num_places(); place++) {
        int core[CPU_SETSIZE], count = omp_get_place_num_procs(place);
        if (count > CPU_SETSIZE) continue;
        omp_get_place_proc_ids(place, core);
        for (int i = 0; i < count; i++) CPU_SET(core[i], cores);
    }
}

/* NUMA nodes of a set of cores. */
static int count_nodes(const cpu_set_t *cores)
{
    uint64_t seen = 0;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, cores)) seen |= (uint64_t)1 << numa_of_core(core);
    return __builtin_popcountll(seen);
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
    find_own_cores(&mine.allowed);
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
    out->node_numa_nodes = count_nodes(&host_cores);
    list_cores(&mine.allowed, out->cores, sizeof out->cores);
    TRY(comm_agree(comm, check_fit(comm, out, oversubscribe)));
done:
    free(seats);
    return st;
}

static const char *s(int count) { return count == 1 ? "" : "s"; }

enum status placement_print(struct comm *comm, const struct placement *p)
{
    struct line {
        char host[64];
        int node_rank, node_size;
        struct placement p;
    } mine = {.node_rank = comm->node_rank, .node_size = comm->node_size, .p = *p}, *all = NULL;
    int64_t bytes = 0;
    enum status st = ST_OK;
    memcpy(mine.host, comm->host, sizeof mine.host);
    TRY(comm_gather_all(comm, &mine, sizeof mine, (void **)&all, &bytes, NULL));
    for (int r = 0; r < comm->size; r++) {
        const struct line *l = &all[r];
        bool bound = l->p.cores_allowed < l->p.node_cores;
        if (l->node_rank == 0)
            comm_note(comm, "host %s: %d rank%s of %d, %d thread%s each, %d core%s, %d NUMA node%s%s", l->host,
                      l->node_size, s(l->node_size), comm->size, l->p.threads, s(l->p.threads), l->p.node_cores,
                      s(l->p.node_cores), l->p.node_numa_nodes, s(l->p.node_numa_nodes),
                      bound || l->node_size == 1 ? "" : "; its ranks are not bound: each may use all of them");
        if (bound) comm_note(comm, "  rank %d: cores %s, NUMA node %d", r, l->p.cores, l->p.numa_node);
    }
done:
    free(all);
    return st;
}

/* Those on which no thread of OpenMP is; all if there is no such core, or if the system places threads that are not
 * bound. */
static void find_idle_cores(cpu_set_t *cores)
{
    cpu_set_t own, busy;
    CPU_ZERO(&own);
    CPU_ZERO(&busy);
    find_own_cores(&own);
    *cores = own;
    if (omp_get_num_places() == 0) return;
#pragma omp parallel
    {
        int core = sched_getcpu();
#pragma omp critical
        if (core >= 0) CPU_SET(core, &busy);
    }
    CPU_AND(&busy, &busy, &own);
    if (!CPU_EQUAL(&busy, &own)) CPU_XOR(cores, &own, &busy);
}

bool placement_start_thread(pthread_t *thread, void *(*work)(void *), void *context)
{
    sigset_t all, before;
    cpu_set_t cores;
    pthread_attr_t how;
    find_idle_cores(&cores);
    pthread_attr_init(&how);
    pthread_attr_setaffinity_np(&how, sizeof cores, &cores);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(thread, &how, work, context) == 0 || pthread_create(thread, NULL, work, context) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&how);
    return started;
}
