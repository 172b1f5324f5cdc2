#include "mpi/piece_exchange.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/vector.h"
#include "mpi/watchdog.h"

enum { RING = 16 };
#ifdef CYTOMILL_DOUBLE
#define MPI_REAL_TYPE MPI_DOUBLE
#else
#define MPI_REAL_TYPE MPI_FLOAT
#endif

/* An own piece that was started; copies come from ranks first, first + step, ... */
struct sum {
    int64_t piece, reals;
    real *data;
    int first, step;
};

/* Copies come in one sequence: those of the first own piece in the order of ranks, then those of the second, ... */
struct cursor {
    int64_t sum;
    int rank;
};

struct piece_exchange {
    const struct param_table *params;
    int rank, ranks;
    bool bf16;
    MPI_Comm handle; /* of the comm that piece_exchange_start was given */
    size_t copy_bytes;
    MPI_Request *sent; /* [pieces] */
    int64_t sent_count;
    struct sum *sums; /* [pieces] */
    int64_t sum_count;
    struct cursor posted, added;    /* next to post a receive for, next to add */
    int64_t post_count, take_count; /* receives posted and taken: number k uses place k % RING */
    MPI_Request received[RING];
    char *ring;    /* [RING] copies */
    real *total;   /* [largest piece] */
    bf16 *rounded; /* [largest piece] */
    double waited_s;
};

size_t piece_exchange_bytes(const struct param_table *params, int ranks, bool in_bf16)
{
    if (ranks == 1) return 0;
    size_t most = (size_t)shard_largest_piece(params), one = in_bf16 ? sizeof(bf16) : sizeof(real);
    return most * (RING * one + sizeof(real) + sizeof(bf16)) +
           (size_t)shard_piece_count(params) * (sizeof(MPI_Request) + sizeof(struct sum));
}

static enum status allocate(struct piece_exchange *x)
{
    enum status st = ST_OK;
    int64_t most = shard_largest_piece(x->params), count = x->params->shard.count;
    x->copy_bytes = (size_t)most * (x->bf16 ? sizeof(bf16) : sizeof(real));
    for (int i = 0; i < RING; i++) x->received[i] = MPI_REQUEST_NULL;
    if (x->ranks == 1) return ST_OK;
    TRY(NEW_ARRAY(x->sent, count));
    TRY(NEW_ARRAY(x->sums, count));
    TRY(NEW_ARRAY(x->ring, RING * (int64_t)x->copy_bytes));
    TRY(NEW_ARRAY(x->total, most));
    TRY(NEW_ARRAY(x->rounded, most));
done:
    return st;
}

enum status piece_exchange_create(const struct comm *comm, const struct param_table *params, bool in_bf16,
                                  struct piece_exchange **out)
{
    struct piece_exchange *x = NULL;
    enum status st = NEW_ARRAY(x, 1);
    if (st == ST_OK) {
        *x = (struct piece_exchange){.params = params, .rank = comm->rank, .ranks = comm->size, .bf16 = in_bf16};
        st = allocate(x);
    }
    if (st != ST_OK) piece_exchange_destroy(&x);
    *out = x;
    return st;
}

void piece_exchange_destroy(struct piece_exchange **exchange)
{
    struct piece_exchange *x = *exchange;
    if (!x) return;
    free(x->sent), free(x->sums), free(x->ring), free(x->total), free(x->rounded), free(x);
    *exchange = NULL;
}

double piece_exchange_waited_s(const struct piece_exchange *x) { return x->waited_s; }

/* ---- the sequence of copies ---- */

/* The cursor's rank is a number among the sources of its sum. */
static int source_of(const struct piece_exchange *x, const struct cursor *c)
{
    return x->sums[c->sum].first + c->rank * x->sums[c->sum].step;
}

static bool is_last(const struct piece_exchange *x, const struct cursor *c)
{
    return source_of(x, c) + x->sums[c->sum].step >= x->ranks;
}

static void step(const struct piece_exchange *x, struct cursor *c)
{
    bool last = is_last(x, c);
    c->rank = last ? 0 : c->rank + 1;
    c->sum += last;
}

static char *place_of(const struct piece_exchange *x, int64_t number)
{
    return x->ring + (size_t)(number % RING) * x->copy_bytes;
}

/* Receives into the places that are free. */
static void post(struct piece_exchange *x)
{
    while (x->posted.sum < x->sum_count && x->post_count < x->take_count + RING) {
        const struct sum *s = &x->sums[x->posted.sum];
        int source = source_of(x, &x->posted);
        if (source != x->rank) {
            MPI_Irecv(place_of(x, x->post_count), (int)s->reals, x->bf16 ? MPI_UINT16_T : MPI_REAL_TYPE, source,
                      (int)s->piece, x->handle, &x->received[x->post_count % RING]);
            x->post_count++;
        }
        step(x, &x->posted);
    }
}

static void add_copy(const struct piece_exchange *x, real *to, const char *copy, int64_t reals)
{
    if (!x->bf16) vector_add(to, copy, reals, DTYPE_REAL);
    else
        for (int64_t i = 0; i < reals; i++) to[i] += bf16_to_float(((const bf16 *)copy)[i]);
}

/* Copy number `number`, in the place of this rank's own share where that can be: a + b is b + a, so one copy before the
 * share is added to it, and several are summed apart first. */
static void add_in_order(const struct piece_exchange *x, const struct sum *s, int number, const char *copy)
{
    int own = (x->rank - s->first) / s->step;
    bool apart = own > 1 && number < own;
    if (number == own && own > 1) vector_add(s->data, x->total, s->reals, DTYPE_REAL);
    else if (apart && number == 0)
        vector_convert(x->total, DTYPE_REAL, copy, x->bf16 ? DTYPE_BF16 : DTYPE_REAL, s->reals);
    else if (number != own) add_copy(x, apart ? x->total : s->data, copy, s->reals);
}

/* Add the next copy of the sequence if it is there, or wait for it. False if there is none to add. */
static bool add_next(struct piece_exchange *x, bool wait)
{
    if (x->added.sum >= x->sum_count) return false;
    const struct sum *s = &x->sums[x->added.sum];
    const char *copy = NULL;
    if (source_of(x, &x->added) != x->rank) {
        MPI_Request *request = &x->received[x->take_count % RING];
        int arrived = 1;
        if (x->take_count == x->post_count) return false;
        if (wait) MPI_Wait(request, MPI_STATUS_IGNORE);
        else MPI_Test(request, &arrived, MPI_STATUS_IGNORE);
        if (!arrived) return false;
        copy = place_of(x, x->take_count++);
    }
    add_in_order(x, s, x->added.rank, copy);
    step(x, &x->added);
    return true;
}

/* ---- use ---- */

static void send(struct piece_exchange *x, int64_t piece, real *data, int64_t reals)
{
    MPI_Datatype type = MPI_REAL_TYPE;
    if (x->bf16) { /* in place: this rank needs its share no more */
        vector_convert(x->rounded, DTYPE_BF16, data, DTYPE_REAL, reals);
        memcpy(data, x->rounded, (size_t)reals * sizeof(bf16));
        type = MPI_UINT16_T;
    }
    MPI_Isend(data, (int)reals, type, x->params->shard.piece[piece].owner, (int)piece, x->handle,
              &x->sent[x->sent_count++]);
}

void piece_exchange_start(struct comm *comm, struct piece_exchange *x, int64_t piece, real *data, int64_t reals)
{
    if (x->ranks == 1) return;
    x->handle = comm->handle;
    const struct shard *shard = &x->params->shard;
    struct sum sum = {piece, reals, data, 0, 1};
    shard_holders(shard, x->params->rows[shard->piece[piece].tensor].routed, &sum.first, &sum.step);
    if (shard_owns(shard, &shard->piece[piece])) x->sums[x->sum_count++] = sum;
    else send(x, piece, data, reals);
    post(x);
}

void piece_exchange_poll(struct piece_exchange *x)
{
    int sent;
    if (x->sent_count > 0) MPI_Test(&x->sent[x->sent_count - 1], &sent, MPI_STATUS_IGNORE);
    while (add_next(x, false)) post(x);
}

void piece_exchange_finish(struct comm *comm, struct piece_exchange *x)
{
    WATCH_EXCHANGE();
    double start = comm_now_s();
    for (; x->added.sum < x->sum_count; post(x)) add_next(x, true);
    MPI_Waitall((int)x->sent_count, x->sent, MPI_STATUSES_IGNORE);
    x->sent_count = x->sum_count = x->post_count = x->take_count = 0;
    x->posted = x->added = (struct cursor){0, 0};
    x->waited_s += comm_now_s() - start;
}
