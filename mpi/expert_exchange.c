#include "mpi/expert_exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/watchdog.h"

enum { TAG = 2300 }; /* of lane 0 */

struct expert_exchange {
    int ranks, rank, experts, held; /* k, this one, E, E/k */
    int tag;
    int64_t capacity, most_row_bytes, piece;
    int64_t *counts;    /* [k, E] rows of every rank for every expert */
    int64_t *home;      /* [E+1] where this rank's rows for an expert lie at home */
    int64_t *out_start; /* [E] and in the sequence of their owner */
    int64_t *in_start;  /* [k, held] where what comes here lies in this rank's own sequence */
    int rounds;
    MPI_Request counting, *requests; /* [2 k pieces] */
    int request_count;
    double waited_s;
};

/* Consecutive rows. */
struct stretch {
    int64_t first, rows;
};

static int64_t pieces_of(const struct expert_exchange *x, int64_t bytes) { return (bytes + x->piece - 1) / x->piece; }

/* ---- creation ---- */

static enum status create(const struct comm *expert, struct expert_exchange *x)
{
    enum status st = ST_OK;
    if (x->experts % x->ranks != 0)
        return fail(
            ST_CONFIG,
            "%d experts (model.experts) cannot be shared equally by %d expert ranks; take a number of ranks that "
            "divides %d",
            x->experts, x->ranks, x->experts);
    int64_t pieces = pieces_of(x, x->capacity * x->most_row_bytes);
    TRY(NEW_ARRAY(x->counts, (int64_t)x->ranks * x->experts));
    TRY(NEW_ARRAY(x->home, x->experts + 1));
    TRY(NEW_ARRAY(x->out_start, x->experts));
    TRY(NEW_ARRAY(x->in_start, x->ranks * x->held));
    TRY(NEW_ARRAY(x->requests, 2 * x->ranks * pieces));
done:
    return st;
}

enum status expert_exchange_create(struct comm *expert, int experts, int64_t capacity, int64_t most_row_bytes, int lane,
                                   struct expert_exchange **out)
{
    struct expert_exchange *x = NULL;
    enum status st = NEW_ARRAY(x, 1);
    if (st == ST_OK) {
        *x = (struct expert_exchange){.ranks = expert->size,
                                      .rank = expert->rank,
                                      .experts = experts,
                                      .held = experts / expert->size,
                                      .tag = TAG + lane,
                                      .capacity = capacity > 0 ? capacity : 1,
                                      .most_row_bytes = most_row_bytes,
                                      .piece = comm_piece(),
                                      .counting = MPI_REQUEST_NULL};
        st = create(expert, x);
    }
    st = comm_agree(expert, st);
    if (st != ST_OK) expert_exchange_destroy(&x);
    *out = x;
    return st;
}

void expert_exchange_destroy(struct expert_exchange **exchange)
{
    struct expert_exchange *x = *exchange;
    if (!x) return;
    free(x->counts), free(x->home), free(x->out_start), free(x->in_start), free(x->requests);
    free(x);
    *exchange = NULL;
}

int expert_exchange_held(const struct expert_exchange *x) { return x->held; }
int expert_exchange_run_count(const struct expert_exchange *x) { return x->held * x->ranks; }
double expert_exchange_waited_s(const struct expert_exchange *x) { return x->waited_s; }

/* Asking for what there is no room for is a broken invariant. */
static void require(struct comm *expert, bool holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "expert exchange: broken invariant: %s\n", what);
    MPI_Abort(expert->handle, ST_INTERNAL);
}

/* ---- counts and rounds ---- */

void expert_exchange_count(struct comm *expert, struct expert_exchange *x, const int64_t *counts)
{
    memcpy(x->counts + (int64_t)x->rank * x->experts, counts, sizeof *counts * (size_t)x->experts);
    MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x->counts, x->experts, MPI_INT64_T, expert->handle,
                   &x->counting);
}

static int64_t count_of(const struct expert_exchange *x, int source, int e)
{
    return x->counts[(int64_t)source * x->experts + e];
}

/* Where the next `rows` rows of a sequence begin: at the next round if only there they can stay together. */
static int64_t place(const struct expert_exchange *x, int64_t at, int64_t rows)
{
    int64_t left = x->capacity - at % x->capacity;
    return rows > left && rows <= x->capacity ? at + left : at;
}

/* Lay out the sequence of one owner; keep what of it begins or ends here. Returns its length. */
static int64_t lay_out(struct expert_exchange *x, int owner)
{
    int64_t at = 0;
    for (int s = 0; s < x->ranks; s++)
        for (int l = 0; l < x->held; l++) {
            int e = owner * x->held + l;
            at = place(x, at, count_of(x, s, e));
            if (s == x->rank) x->out_start[e] = at;
            if (owner == x->rank) x->in_start[s * x->held + l] = at;
            at += count_of(x, s, e);
        }
    return at;
}

bool expert_exchange_counted(struct expert_exchange *x)
{
    int done;
    MPI_Test(&x->counting, &done, MPI_STATUS_IGNORE);
    return done;
}

void expert_exchange_counts(const struct expert_exchange *x, int64_t *counts)
{
    memcpy(counts, x->counts, sizeof *counts * (size_t)(x->ranks * x->experts));
}

static int rounds_of_counts(struct expert_exchange *x)
{
    x->home[0] = 0;
    for (int e = 0; e < x->experts; e++) x->home[e + 1] = x->home[e] + count_of(x, x->rank, e);
    x->rounds = 0;
    for (int owner = 0; owner < x->ranks; owner++) {
        int rounds = (int)((lay_out(x, owner) + x->capacity - 1) / x->capacity);
        if (rounds > x->rounds) x->rounds = rounds;
    }
    return x->rounds;
}

int expert_exchange_rounds(struct comm *expert, struct expert_exchange *x)
{
    WATCH_EXCHANGE();
    double start = comm_now_s();
    MPI_Wait(&x->counting, MPI_STATUS_IGNORE);
    x->waited_s += comm_now_s() - start;
    return rounds_of_counts(x);
}

int expert_exchange_use(struct expert_exchange *x, const int64_t *counts)
{
    memcpy(x->counts, counts, sizeof *counts * (size_t)(x->ranks * x->experts));
    return rounds_of_counts(x);
}

/* The part of [start, start + rows) of a sequence that belongs to a round. */
static struct stretch in_round(const struct expert_exchange *x, int round, int64_t start, int64_t rows)
{
    int64_t first = round * x->capacity, end = first + x->capacity;
    if (start > first) first = start;
    if (start + rows < end) end = start + rows;
    return (struct stretch){first, end > first ? end - first : 0};
}

/* Rows at home that go to `owner` in a round. */
static struct stretch outgoing(const struct expert_exchange *x, int round, int owner)
{
    struct stretch all = {0, 0};
    for (int e = owner * x->held; e < (owner + 1) * x->held; e++) {
        struct stretch s = in_round(x, round, x->out_start[e], x->home[e + 1] - x->home[e]);
        if (all.rows == 0 && s.rows) all.first = x->home[e] + s.first - x->out_start[e];
        all.rows += s.rows;
    }
    return all;
}

/* Rows of the room that come from `source` in a round. */
static struct stretch incoming(const struct expert_exchange *x, int round, int source)
{
    struct stretch all = {0, 0};
    for (int l = 0; l < x->held; l++) {
        struct stretch s =
            in_round(x, round, x->in_start[source * x->held + l], count_of(x, source, x->rank * x->held + l));
        if (all.rows == 0 && s.rows) all.first = s.first - round * x->capacity;
        all.rows += s.rows;
    }
    return all;
}

void expert_exchange_runs(const struct expert_exchange *x, int round, struct expert_run *list)
{
    for (int l = 0; l < x->held; l++)
        for (int source = 0; source < x->ranks; source++) {
            struct stretch s =
                in_round(x, round, x->in_start[source * x->held + l], count_of(x, source, x->rank * x->held + l));
            *list++ = (struct expert_run){l, s.rows ? s.first - round * x->capacity : 0, s.rows};
        }
}

/* ---- transfers ---- */

static int piece_at(const struct expert_exchange *x, int64_t bytes, int64_t at)
{
    return (int)(bytes - at < x->piece ? bytes - at : x->piece);
}

static void begin_receive(struct comm *expert, struct expert_exchange *x, int peer, void *rows, struct stretch s,
                          int64_t row_bytes)
{
    char *to = (char *)rows + s.first * row_bytes;
    for (int64_t at = 0, bytes = s.rows * row_bytes; at < bytes; at += x->piece)
        MPI_Irecv(to + at, piece_at(x, bytes, at), MPI_BYTE, peer, x->tag, expert->handle,
                  &x->requests[x->request_count++]);
}

static void begin_send(struct comm *expert, struct expert_exchange *x, int peer, const void *rows, struct stretch s,
                       int64_t row_bytes)
{
    const char *from = (const char *)rows + s.first * row_bytes;
    for (int64_t at = 0, bytes = s.rows * row_bytes; at < bytes; at += x->piece)
        MPI_Isend(from + at, piece_at(x, bytes, at), MPI_BYTE, peer, x->tag, expert->handle,
                  &x->requests[x->request_count++]);
}

static void copy_own(void *to, struct stretch there, const void *from, struct stretch here, int64_t row_bytes)
{
    if (here.rows)
        memcpy((char *)to + there.first * row_bytes, (const char *)from + here.first * row_bytes,
               (size_t)(here.rows * row_bytes));
}

/* Receives first, and every rank begins with another peer. */
void expert_exchange_send(struct comm *expert, struct expert_exchange *x, int round, const void *home, void *away,
                          int64_t row_bytes)
{
    require(expert, row_bytes <= x->most_row_bytes && x->request_count == 0, "rows too wide, or a transfer unfinished");
    copy_own(away, incoming(x, round, x->rank), home, outgoing(x, round, x->rank), row_bytes);
    for (int i = 1; i < x->ranks; i++) {
        int peer = (x->rank + x->ranks - i) % x->ranks;
        begin_receive(expert, x, peer, away, incoming(x, round, peer), row_bytes);
    }
    for (int i = 1; i < x->ranks; i++) {
        int peer = (x->rank + i) % x->ranks;
        begin_send(expert, x, peer, home, outgoing(x, round, peer), row_bytes);
    }
}

void expert_exchange_return(struct comm *expert, struct expert_exchange *x, int round, const void *away, void *home,
                            int64_t row_bytes)
{
    require(expert, row_bytes <= x->most_row_bytes && x->request_count == 0, "rows too wide, or a transfer unfinished");
    copy_own(home, outgoing(x, round, x->rank), away, incoming(x, round, x->rank), row_bytes);
    for (int i = 1; i < x->ranks; i++) {
        int peer = (x->rank + x->ranks - i) % x->ranks;
        begin_receive(expert, x, peer, home, outgoing(x, round, peer), row_bytes);
    }
    for (int i = 1; i < x->ranks; i++) {
        int peer = (x->rank + i) % x->ranks;
        begin_send(expert, x, peer, away, incoming(x, round, peer), row_bytes);
    }
}

bool expert_exchange_poll(struct expert_exchange *x)
{
    int done;
    MPI_Testall(x->request_count, x->requests, &done, MPI_STATUSES_IGNORE);
    if (done) x->request_count = 0;
    return done;
}

void expert_exchange_finish(struct comm *expert, struct expert_exchange *x)
{
    WATCH_EXCHANGE();
    double start = comm_now_s();
    MPI_Waitall(x->request_count, x->requests, MPI_STATUSES_IGNORE);
    x->request_count = 0;
    x->waited_s += comm_now_s() - start;
}
