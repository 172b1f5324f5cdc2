#include "mpi/comm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "mpi/watchdog.h"

static const char *program = "cytomill";

/* MPI counts are int: everything travels in pieces of at most this many bytes. */
static int64_t piece_bytes = 1 << 30;

void comm_set_piece(int64_t bytes) { piece_bytes = bytes; }
int64_t comm_piece(void) { return piece_bytes; }

void comm_set_program(const char *name) { program = name; }

static void find_node(struct comm *comm)
{
    MPI_Comm node;
    MPI_Comm_split_type(comm->handle, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &node);
    MPI_Comm_rank(node, &comm->node_rank);
    MPI_Comm_size(node, &comm->node_size);
    MPI_Comm_free(&node);
    if (gethostname(comm->host, sizeof comm->host) != 0) strcpy(comm->host, "unknown");
    comm->host[sizeof comm->host - 1] = '\0';
}

enum status comm_open(int *argc, char ***argv, struct comm *world)
{
    int provided;
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return fail(ST_COMM, "MPI did not start; try mpirun -n 1 hostname");
    *world = (struct comm){.handle = MPI_COMM_WORLD};
    MPI_Comm_rank(world->handle, &world->rank);
    MPI_Comm_size(world->handle, &world->size);
    world->world_rank = world->rank;
    world->world_size = world->size;
    find_node(world);
    return ST_OK;
}

void comm_close(struct comm *world)
{
    *world = (struct comm){0};
    MPI_Finalize();
}

/* Order of badness: ST_OK < ST_REQUEUE < any error. */
static int badness(enum status st)
{
    if (st == ST_OK) return 0;
    return st == ST_REQUEUE ? 1 : 1 + (int)st;
}

enum status comm_agree(struct comm *comm, enum status local)
{
    WATCH_EXCHANGE();
    struct {
        int value, rank;
    } mine = {badness(local), comm->rank}, worst;
    MPI_Allreduce(&mine, &worst, 1, MPI_2INT, MPI_MAXLOC, comm->handle);
    enum status st = worst.value == 0 ? ST_OK : worst.value == 1 ? ST_REQUEUE : (enum status)(worst.value - 1);
    if (st != ST_OK && st != ST_REQUEUE && worst.rank == comm->rank && *status_message()) {
        fprintf(stderr, "%s: error[%d %s]: rank %d of %d on %s: %s\n", program, (int)st, status_word(st),
                comm->world_rank, comm->world_size, comm->host, status_message());
        if (getenv("CYTOMILL_WHERE")) fprintf(stderr, "  at %s\n", status_where());
        fflush(stderr);
    }
    status_clear();
    return st;
}

enum status comm_same(struct comm *comm, const void *data, size_t bytes, const char *what)
{
    WATCH_EXCHANGE();
    int64_t size = (int64_t)bytes;
    unsigned char *root = NULL;
    enum status st = ST_OK;
    comm_bcast(comm, &size, sizeof size, 0);
    st = comm_agree(comm, NEW_ARRAY(root, size));
    if (st != ST_OK) return st;
    if (comm->rank == 0) memcpy(root, data, bytes);
    comm_bcast(comm, root, size, 0);
    if ((size_t)size != bytes || memcmp(root, data, bytes) != 0)
        st = fail(ST_COMM, "%s differs from rank 0's; start every rank with the same program, files and options", what);
    free(root);
    return comm_agree(comm, st);
}

void comm_barrier(struct comm *comm)
{
    WATCH_EXCHANGE();
    MPI_Barrier(comm->handle);
}

static int piece_of(int64_t left, int64_t limit) { return (int)(left < limit ? left : limit); }

void comm_sum_f64(struct comm *comm, double *x, int64_t count)
{
    WATCH_EXCHANGE();
    if (comm->size == 1) return;
    /* Small vectors only (losses, moments, statistics): gather all, add in rank order. */
    enum { BLOCK = 4096 };
    double *all = malloc(sizeof *all * BLOCK * (size_t)comm->size);
    if (!all) MPI_Abort(comm->handle, ST_MEMORY);
    for (int64_t at = 0; at < count; at += BLOCK) {
        int n = piece_of(count - at, BLOCK);
        MPI_Allgather(x + at, n, MPI_DOUBLE, all, n, MPI_DOUBLE, comm->handle);
        for (int i = 0; i < n; i++) {
            double sum = 0;
            for (int r = 0; r < comm->size; r++) sum += all[(size_t)r * (size_t)n + (size_t)i];
            x[at + i] = sum;
        }
    }
    free(all);
}

static void reduce_i64(struct comm *comm, int64_t *x, int64_t count, MPI_Op op)
{
    for (int64_t at = 0; at < count; at += piece_bytes / 8)
        MPI_Allreduce(MPI_IN_PLACE, x + at, piece_of(count - at, piece_bytes / 8), MPI_INT64_T, op, comm->handle);
}

void comm_sum_i64(struct comm *comm, int64_t *x, int64_t count)
{
    WATCH_EXCHANGE();
    reduce_i64(comm, x, count, MPI_SUM);
}

void comm_max_i64(struct comm *comm, int64_t *x, int64_t count)
{
    WATCH_EXCHANGE();
    reduce_i64(comm, x, count, MPI_MAX);
}

/* One block: each rank owns a slice, gets every rank's copy of it, adds in rank order, and the
 * slices are gathered again. Traffic 2(p-1)/p of the block, the same as a ring. */
static void sum_f32_block(struct comm *comm, float *x, int64_t count, float *scratch)
{
    int p = comm->size;
    int *counts = malloc(sizeof *counts * 4 * (size_t)p);
    if (!counts) MPI_Abort(comm->handle, ST_MEMORY);
    int *starts = counts + p, *mine_counts = counts + 2 * p, *mine_starts = counts + 3 * p;
    for (int r = 0; r < p; r++) {
        starts[r] = (int)(count * r / p);
        counts[r] = (int)(count * (r + 1) / p) - starts[r];
    }
    int mine = counts[comm->rank];
    for (int r = 0; r < p; r++) {
        mine_counts[r] = mine;
        mine_starts[r] = mine * r;
    }
    MPI_Alltoallv(x, counts, starts, MPI_FLOAT, scratch, mine_counts, mine_starts, MPI_FLOAT, comm->handle);
    for (int r = 1; r < p; r++)
        for (int i = 0; i < mine; i++) scratch[i] += scratch[(size_t)mine * (size_t)r + (size_t)i];
    MPI_Allgatherv(scratch, mine, MPI_FLOAT, x, counts, starts, MPI_FLOAT, comm->handle);
    free(counts);
}

void comm_sum_f32(struct comm *comm, float *x, int64_t count)
{
    WATCH_EXCHANGE();
    if (comm->size == 1) return;
    enum { BLOCK = 1 << 22 };
    float *scratch = malloc(sizeof *scratch * (BLOCK + (size_t)comm->size * (size_t)comm->size));
    if (!scratch) MPI_Abort(comm->handle, ST_MEMORY);
    for (int64_t at = 0; at < count; at += BLOCK) sum_f32_block(comm, x + at, piece_of(count - at, BLOCK), scratch);
    free(scratch);
}

int64_t comm_prefix_i64(struct comm *comm, int64_t x)
{
    WATCH_EXCHANGE();
    int64_t before = 0;
    MPI_Exscan(&x, &before, 1, MPI_INT64_T, MPI_SUM, comm->handle);
    return comm->rank == 0 ? 0 : before;
}

void comm_bcast(struct comm *comm, void *data, int64_t bytes, int root)
{
    WATCH_EXCHANGE();
    for (int64_t at = 0; at < bytes; at += piece_bytes)
        MPI_Bcast((char *)data + at, piece_of(bytes - at, piece_bytes), MPI_BYTE, root, comm->handle);
}

void comm_bcast_text(struct comm *comm, char **s, int root)
{
    WATCH_EXCHANGE();
    int64_t bytes = comm->rank == root && *s ? (int64_t)strlen(*s) + 1 : 0;
    comm_bcast(comm, &bytes, sizeof bytes, root);
    if (comm->rank != root) *s = bytes ? malloc((size_t)bytes) : NULL;
    if (bytes && !*s) MPI_Abort(comm->handle, ST_MEMORY);
    if (bytes) comm_bcast(comm, *s, bytes, root);
}

enum status comm_exchange(struct comm *comm, const void *send, const int64_t *send_bytes, void **out,
                          int64_t *recv_bytes)
{
    WATCH_EXCHANGE();
    enum status st = ST_OK;
    int64_t total = 0;
    char *received = NULL;
    MPI_Request *requests = NULL;
    MPI_Alltoall(send_bytes, 1, MPI_INT64_T, recv_bytes, 1, MPI_INT64_T, comm->handle);
    int64_t pieces = 0;
    for (int r = 0; r < comm->size; r++) {
        total += recv_bytes[r];
        pieces += (recv_bytes[r] + piece_bytes - 1) / piece_bytes + (send_bytes[r] + piece_bytes - 1) / piece_bytes;
    }
    st = NEW_ARRAY(received, total);
    if (st == ST_OK) st = NEW_ARRAY(requests, pieces);
    TRY(comm_agree(comm, st));
    int n = 0;
    char *to = received;
    for (int r = 0; r < comm->size; r++)
        for (int64_t at = 0; at < recv_bytes[r]; at += piece_bytes) {
            int piece = piece_of(recv_bytes[r] - at, piece_bytes);
            MPI_Irecv(to, piece, MPI_BYTE, r, 7, comm->handle, &requests[n++]);
            to += piece;
        }
    const char *from = send;
    for (int r = 0; r < comm->size; r++)
        for (int64_t at = 0; at < send_bytes[r]; at += piece_bytes) {
            int piece = piece_of(send_bytes[r] - at, piece_bytes);
            MPI_Isend(from, piece, MPI_BYTE, r, 7, comm->handle, &requests[n++]);
            from += piece;
        }
    MPI_Waitall(n, requests, MPI_STATUSES_IGNORE);
    *out = received;
    received = NULL;
done:
    free(received);
    free(requests);
    return st;
}

enum status comm_gather_all(struct comm *comm, const void *mine, int64_t bytes, void **out, int64_t *out_bytes,
                            int64_t *offsets)
{
    WATCH_EXCHANGE();
    enum status st = ST_OK;
    int64_t *sizes = NULL;
    char *all = NULL;
    int64_t total = 0;
    st = NEW_ARRAY(sizes, comm->size);
    TRY(comm_agree(comm, st));
    MPI_Allgather(&bytes, 1, MPI_INT64_T, sizes, 1, MPI_INT64_T, comm->handle);
    for (int r = 0; r < comm->size; r++) {
        if (offsets) offsets[r] = total;
        total += sizes[r];
    }
    if (offsets) offsets[comm->size] = total;
    TRY(comm_agree(comm, NEW_ARRAY(all, total + 1)));
    int64_t at = 0;
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank && bytes) memcpy(all + at, mine, (size_t)bytes);
        comm_bcast(comm, all + at, sizes[r], r);
        at += sizes[r];
    }
    all[total] = '\0';
    *out = all;
    *out_bytes = total;
    all = NULL;
done:
    free(all);
    free(sizes);
    return st;
}

void comm_send(struct comm *comm, const void *data, int64_t bytes, int to, int tag)
{
    WATCH_EXCHANGE();
    for (int64_t at = 0; at < bytes; at += piece_bytes)
        MPI_Send((const char *)data + at, piece_of(bytes - at, piece_bytes), MPI_BYTE, to, tag, comm->handle);
}

void comm_receive(struct comm *comm, void *data, int64_t bytes, int from, int tag)
{
    WATCH_EXCHANGE();
    for (int64_t at = 0; at < bytes; at += piece_bytes)
        MPI_Recv((char *)data + at, piece_of(bytes - at, piece_bytes), MPI_BYTE, from, tag, comm->handle,
                 MPI_STATUS_IGNORE);
}

enum status comm_split(struct comm *comm, int color, struct comm *out)
{
    WATCH_EXCHANGE();
    *out = (struct comm){.world_rank = comm->world_rank, .world_size = comm->world_size};
    if (MPI_Comm_split(comm->handle, color, comm->rank, &out->handle) != MPI_SUCCESS)
        return fail(ST_COMM, "MPI could not split a communicator of %d ranks", comm->size);
    MPI_Comm_rank(out->handle, &out->rank);
    MPI_Comm_size(out->handle, &out->size);
    find_node(out);
    return ST_OK;
}

enum status comm_split_host(struct comm *comm, struct comm *out)
{
    WATCH_EXCHANGE();
    *out = (struct comm){0};
    if (MPI_Comm_split_type(comm->handle, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &out->handle) != MPI_SUCCESS)
        return fail(ST_COMM, "MPI could not find the ranks that share host %s", comm->host);
    MPI_Comm_rank(out->handle, &out->rank);
    MPI_Comm_size(out->handle, &out->size);
    out->node_rank = out->rank;
    out->node_size = out->size;
    memcpy(out->host, comm->host, sizeof out->host);
    return ST_OK;
}

void comm_free(struct comm *comm)
{
    if (comm->size > 0) MPI_Comm_free(&comm->handle);
    *comm = (struct comm){0};
}

void comm_share(const struct comm *comm, int64_t n, int64_t *first, int64_t *count)
{
    int64_t base = n / comm->size, extra = n % comm->size;
    *first = base * comm->rank + (comm->rank < extra ? comm->rank : extra);
    *count = base + (comm->rank < extra);
}

double comm_now_s(void) { return MPI_Wtime(); }

void comm_print(const struct comm *comm, const char *format, ...)
{
    if (comm->rank != 0) return;
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    fflush(stdout);
}

void comm_note(const struct comm *comm, const char *format, ...)
{
    if (comm->rank != 0) return;
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}
