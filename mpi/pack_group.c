#include "mpi/pack_group.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/text.h"

enum { ALIGN = 64 };

/* What else of a rank lies in /dev/shm and is not yet seen there: Open MPI's segment of 4 MiB, and its like. */
enum { OTHERS_BYTES = 8 << 20 };

/* What the ranks of a group tell each other, at the front of their window. */
struct board {
    atomic_uint_least64_t begun;    /* ranks, over all turns */
    atomic_uint_least64_t packed[]; /* [layers + 2] likewise, of module m at m + 1 */
};

struct window {
    struct comm comm; /* the group */
    MPI_Win handle;   /* MPI_WIN_NULL: alone */
    struct board *board;
};

struct place {
    int rank, ranks; /* in a group */
};

struct pack_group {
    struct model *model; /* borrowed */
    struct window window[PACK_KINDS];
    int ranks;                /* of mesh->dense */
    struct place *places;     /* [ranks][PACK_KINDS] of every rank of mesh->dense */
    int **packer[PACK_KINDS]; /* [ranks + 1] for a group of so many: [tensors] which of them packs it; NULL: no such */
    uint_least64_t turn;
};

static struct place place_of(const struct pack_group *g, enum pack_kind kind, int rank)
{
    return g->places[PACK_KINDS * rank + (int)kind];
}

/* ---- who shares with whom ---- */

static int64_t board_bytes(const struct model *model)
{
    int64_t words = 1 + model_layers(model) + 2;
    return (words * (int64_t)sizeof(uint_least64_t) + ALIGN - 1) / ALIGN * ALIGN;
}

static int64_t window_bytes(const struct model *model, enum pack_kind kind)
{
    return board_bytes(model) + (int64_t)model_packed_bytes(model, kind) + ALIGN;
}

/* The ranks of `comm` on this host that have the same domain. */
static enum status find_group(struct comm *comm, int domain, struct comm *out)
{
    struct comm host = {0};
    enum status st = ST_OK;
    TRY(comm_split_host(comm, &host));
    TRY(comm_split(&host, domain == PACK_ALONE ? comm->rank : domain, out));
done:
    comm_free(&host);
    return st;
}

/* Is there room on this rank's host for all its groups' windows? */
static enum status find_room(struct comm *world, const struct pack_group *g, bool *room)
{
    struct comm host = {0};
    struct statvfs shm;
    int64_t wanted = 0, lacks = 0;
    enum status st = ST_OK;
    TRY(comm_split_host(world, &host));
    for (enum pack_kind kind = 0; kind < PACK_KINDS; kind++)
        if (g->window[kind].comm.size > 1 && g->window[kind].comm.rank == 0) wanted += window_bytes(g->model, kind);
    comm_sum_i64(&host, &wanted, 1);
    int64_t others = (int64_t)host.size * OTHERS_BYTES;
    if (statvfs("/dev/shm", &shm) != 0) shm.f_bavail = 0;
    if (wanted > 0 && (double)shm.f_bavail * (double)shm.f_bsize < (double)(wanted + others)) lacks = wanted + others;
    comm_max_i64(&host, &lacks, 1);
    *room = lacks == 0;
    comm_max_i64(world, &lacks, 1);
    char bytes[32];
    if (lacks > 0)
        comm_note(world,
                  "a host has less than %s free in /dev/shm: there each rank keeps packed weights of its own; mount a "
                  "larger one, or start fewer ranks per node",
                  text_bytes((double)lacks, bytes));
done:
    comm_free(&host);
    return st;
}

/* Ranks that hold the same of a kind. */
static struct comm *parent_of(struct mesh *mesh, enum pack_kind kind)
{
    return kind == PACK_ROUTED ? &mesh->data : &mesh->dense;
}

static enum status find_groups(struct mesh *mesh, struct pack_group *g, int domain)
{
    bool room;
    enum status st = ST_OK;
    for (enum pack_kind kind = 0; kind < PACK_KINDS; kind++)
        TRY(find_group(parent_of(mesh, kind), domain, &g->window[kind].comm));
    TRY(find_room(&mesh->world, g, &room));
    for (int kind = 0; kind < PACK_KINDS && !room; kind++) { /* of this host's ranks alone: others have other room */
        struct comm group = g->window[kind].comm;
        st = comm_split(&group, group.rank, &g->window[kind].comm);
        comm_free(&group);
        TRY(st);
    }
done:
    return st;
}

enum status pack_group_count(struct mesh *mesh, int domain, int ranks[PACK_KINDS])
{
    enum status st = ST_OK;
    for (enum pack_kind kind = 0; kind < PACK_KINDS && st == ST_OK; kind++) {
        struct comm group = {0};
        st = find_group(parent_of(mesh, kind), domain, &group);
        ranks[kind] = group.size;
        comm_free(&group);
    }
    return comm_agree(&mesh->world, st);
}

/* Every rank's place in its groups, told to all that hold the same. */
static enum status tell_places(struct mesh *mesh, struct pack_group *g)
{
    struct place own[PACK_KINDS];
    void *all = NULL;
    int64_t bytes;
    for (int kind = 0; kind < PACK_KINDS; kind++)
        own[kind] = (struct place){g->window[kind].comm.rank, g->window[kind].comm.size};
    enum status st = comm_gather_all(&mesh->dense, own, sizeof own, &all, &bytes, NULL);
    g->places = all;
    return st;
}

/* Which ranks of a group pack what, for every size that a group has. */
static enum status find_packers(struct pack_group *g, enum pack_kind kind)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(g->packer[kind], g->ranks + 1));
    memset(g->packer[kind], 0, sizeof *g->packer[kind] * (size_t)(g->ranks + 1));
    for (int rank = 0; rank < g->ranks; rank++) {
        int ranks = place_of(g, kind, rank).ranks;
        if (g->packer[kind][ranks]) continue;
        TRY(NEW_ARRAY(g->packer[kind][ranks], model_params(g->model)->count));
        TRY(model_packers(g->model, kind, ranks, g->packer[kind][ranks]));
    }
done:
    return st;
}

/* ---- windows ---- */

/* Take the memory now: a page that is missing later would end the program. Kernels before 5.14 cannot. */
static bool is_there(void *base, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)base / page * page;
    return madvise((void *)first, bytes + (uintptr_t)base - first, MADV_POPULATE_WRITE) == 0 || errno == EINVAL;
#else
    return true;
#endif
}

/* The first rank's memory, as this one sees it. */
static enum status open_window(struct pack_group *g, enum pack_kind kind, void **packed)
{
    struct window *w = &g->window[kind];
    MPI_Aint bytes = (MPI_Aint)window_bytes(g->model, kind);
    int unit;
    char *base;
    MPI_Comm_set_errhandler(w->comm.handle, MPI_ERRORS_RETURN);
    if (MPI_Win_allocate_shared(w->comm.rank == 0 ? bytes : 0, 1, MPI_INFO_NULL, w->comm.handle, &base, &w->handle) !=
        MPI_SUCCESS) {
        w->handle = MPI_WIN_NULL;
        return fail(ST_MEMORY,
                    "MPI made no shared window of %lld bytes for packed weights; free space in /dev/shm, or "
                    "start one rank per NUMA domain",
                    (long long)bytes);
    }
    if (w->comm.rank == 0 && !is_there(base, (size_t)bytes))
        return fail(ST_MEMORY,
                    "/dev/shm is full: no %lld bytes for packed weights that ranks share; free some, or set "
                    "mesh.share_packed=false",
                    (long long)bytes);
    MPI_Win_shared_query(w->handle, 0, &bytes, &unit, &base);
    base += (ALIGN - (uintptr_t)base % ALIGN) % ALIGN;
    w->board = (struct board *)base;
    if (w->comm.rank == 0) memset(base, 0, (size_t)board_bytes(g->model));
    *packed = base + board_bytes(g->model);
    return ST_OK;
}

static enum status place(struct pack_group *g, enum pack_kind kind)
{
    struct window *w = &g->window[kind];
    void *packed = NULL;
    if (w->comm.size == 1) return model_place_packed(g->model, kind, NULL, NULL, 0);
    enum status st = open_window(g, kind, &packed);
    if (st == ST_OK) st = model_place_packed(g->model, kind, packed, g->packer[kind][w->comm.size], w->comm.rank);
    return st;
}

enum status pack_group_create(struct mesh *mesh, struct model *model, int domain, struct pack_group **out)
{
    struct pack_group *g = NULL;
    enum status st = ST_OK;
    TRY(comm_agree(&mesh->world, NEW_ARRAY(g, 1)));
    *g = (struct pack_group){.model = model, .ranks = mesh->dense.size};
    for (int kind = 0; kind < PACK_KINDS; kind++) g->window[kind].handle = MPI_WIN_NULL;
    TRY(comm_agree(&mesh->world, find_groups(mesh, g, domain)));
    TRY(comm_agree(&mesh->world, tell_places(mesh, g)));
    for (enum pack_kind kind = 0; kind < PACK_KINDS && st == ST_OK; kind++) st = find_packers(g, kind);
    TRY(comm_agree(&mesh->world, st));
    for (enum pack_kind kind = 0; kind < PACK_KINDS; kind++) /* and at the end every board is clear */
        TRY(comm_agree(&mesh->world, place(g, kind)));
done:
    if (st != ST_OK) pack_group_destroy(&g);
    *out = g;
    return st;
}

void pack_group_destroy(struct pack_group **group)
{
    struct pack_group *g = *group;
    if (!g) return;
    for (int kind = 0; kind < PACK_KINDS; kind++) {
        struct window *w = &g->window[kind];
        if (w->handle != MPI_WIN_NULL) MPI_Win_free(&w->handle);
        comm_free(&w->comm);
        for (int n = 0; g->packer[kind] && n <= g->ranks; n++) free(g->packer[kind][n]);
        free(g->packer[kind]);
    }
    free(g->places);
    free(g);
    *group = NULL;
}

/* ---- use ---- */

bool pack_group_packs(const struct pack_group *g, int rank, int tensor)
{
    enum pack_kind kind = model_params(g->model)->rows[tensor].routed ? PACK_ROUTED : PACK_DENSE;
    struct place place = place_of(g, kind, rank);
    return g->packer[kind][place.ranks][tensor] == place.rank;
}

static void tell(struct pack_group *g, atomic_uint_least64_t *(*word)(struct board *, int), int module)
{
    for (int kind = 0; kind < PACK_KINDS; kind++)
        if (g->window[kind].board)
            atomic_fetch_add_explicit(word(g->window[kind].board, module), 1, memory_order_acq_rel);
}

/* Until all ranks of both groups have told it in this turn. */
static void wait_for(struct pack_group *g, atomic_uint_least64_t *(*word)(struct board *, int), int module)
{
    for (int kind = 0; kind < PACK_KINDS; kind++) {
        struct window *w = &g->window[kind];
        if (!w->board) continue;
        while (atomic_load_explicit(word(w->board, module), memory_order_acquire) <
               g->turn * (uint_least64_t)w->comm.size) {
            int any;
            MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, w->comm.handle, &any, MPI_STATUS_IGNORE);
            sched_yield();
        }
    }
}

static atomic_uint_least64_t *begun(struct board *board, int module) { return &board->begun; }
static atomic_uint_least64_t *packed(struct board *board, int module) { return &board->packed[module + 1]; }

void pack_group_begin(struct pack_group *g)
{
    g->turn++;
    tell(g, begun, 0);
}
void pack_group_wait_begun(struct pack_group *g) { wait_for(g, begun, 0); }
void pack_group_tell(struct pack_group *g, int module) { tell(g, packed, module); }
void pack_group_wait_packed(struct pack_group *g, int module) { wait_for(g, packed, module); }
