#include "mpi/reduce.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/vector.h"
#include "mpi/piece_exchange.h"
#include "mpi/watchdog.h"

enum { REPORT_DOUBLES = 12 };
#ifdef CYTOMILL_DOUBLE
#define MPI_REAL_TYPE MPI_DOUBLE
#else
#define MPI_REAL_TYPE MPI_FLOAT
#endif

struct reducer {
    struct param_table *params; /* borrowed */
    struct piece_exchange *exchange;
    int ranks;            /* of mesh->dense */
    int world;            /* ranks in all */
    int ends;             /* stages, if this one holds a tied tensor that another holds too, else 0 */
    int last, next;       /* modules: the heads; the highest whose gradients were not started yet */
    uint64_t *touched;    /* bit r: row r of the sparse tensors */
    int64_t *row;         /* [sparse_rows] the rows, listed */
    int64_t row_count;    /* how many are listed */
    int64_t sparse_rows;  /* most rows of a sparse tensor */
    real *packed, *other; /* [packed_size] touched rows of this end and of the other */
    int64_t packed_size;
    double *reports; /* [world * REPORT_DOUBLES] */
};

/* ---- creation ---- */

static bool is_sparse_here(const struct param *p) { return p->sparse_rows && !p->elsewhere; }

static int64_t most_sparse_rows(const struct param_table *params)
{
    int64_t rows = 0;
    for (int i = 0; i < params->count; i++)
        if (is_sparse_here(&params->rows[i]) && params->rows[i].rows > rows) rows = params->rows[i].rows;
    return rows;
}

/* Room for a piece of any sparse tensor. */
static int64_t packed_reals(const struct param_table *params)
{
    int64_t most = 0;
    for (int i = 0; i < params->count; i++) {
        const struct param *p = &params->rows[i];
        int64_t room = p->cols > PIECE_REALS ? p->cols : PIECE_REALS;
        if (is_sparse_here(p) && room > most) most = room;
    }
    return most;
}

static int64_t touched_words(const struct param_table *params) { return (most_sparse_rows(params) + 63) / 64; }

/* A tied tensor with both ends here needs no exchange. */
static bool shares_ends(const struct param_table *params)
{
    for (int i = 0; i < params->count; i++) {
        const struct param *p = &params->rows[i];
        if (p->tied && !p->elsewhere && !p->two_ends) return true;
    }
    return false;
}

size_t reducer_bytes(const struct param_table *params, int ranks, bool bf16_exchange)
{
    size_t ends = shares_ends(params) ? 2 * (size_t)packed_reals(params) * sizeof(real) : 0;
    return piece_exchange_bytes(params, ranks, bf16_exchange) + ends + (size_t)most_sparse_rows(params) * 8 +
           (size_t)touched_words(params) * 8;
}

static enum status reducer_allocate(struct reducer *r)
{
    enum status st = ST_OK;
    int64_t words = touched_words(r->params);
    r->sparse_rows = most_sparse_rows(r->params);
    TRY(NEW_ARRAY(r->reports, r->world * REPORT_DOUBLES));
    TRY(NEW_ARRAY(r->touched, words));
    memset(r->touched, 0, sizeof *r->touched * (size_t)words);
    TRY(NEW_ARRAY(r->row, r->sparse_rows));
    if (!r->ends) return ST_OK;
    r->packed_size = packed_reals(r->params);
    TRY(NEW_ARRAY(r->packed, r->packed_size));
    TRY(NEW_ARRAY(r->other, r->packed_size));
done:
    return st;
}

enum status reducer_create(struct mesh *mesh, struct param_table *params, bool bf16_exchange, struct reducer **out)
{
    struct reducer *r = NULL;
    enum status st = NEW_ARRAY(r, 1);
    if (st == ST_OK) {
        *r = (struct reducer){.params = params, .ranks = mesh->dense.size, .world = mesh->world.size};
        r->ends = shares_ends(params) ? mesh->pipe.size : 0;
        for (int i = 0; i < params->count; i++)
            if (params->rows[i].module > r->last) r->last = params->rows[i].module;
        r->next = r->last;
        st = reducer_allocate(r);
    }
    if (st == ST_OK) st = piece_exchange_create(&mesh->dense, params, bf16_exchange, &r->exchange);
    st = comm_agree(&mesh->world, st);
    if (st != ST_OK) reducer_destroy(&r);
    *out = r;
    return st;
}

void reducer_destroy(struct reducer **reducer)
{
    struct reducer *r = *reducer;
    if (!r) return;
    piece_exchange_destroy(&r->exchange);
    free(r->touched), free(r->row), free(r->packed), free(r->other), free(r->reports), free(r);
    *reducer = NULL;
}

/* ---- touched rows ---- */

void reducer_touch(struct reducer *r, const struct batch *batch)
{
    for (int64_t t = 0; t < batch->token_count; t++) {
        int64_t row = batch->feature[t];
        if (row < r->sparse_rows) r->touched[row / 64] |= UINT64_C(1) << (row % 64);
    }
}

/* List the marked rows; the marks stay. */
static void list_touched(struct reducer *r)
{
    int64_t words = (r->sparse_rows + 63) / 64;
    r->row_count = 0;
    for (int64_t w = 0; w < words; w++)
        for (uint64_t bits = r->touched[w]; bits; bits &= bits - 1)
            r->row[r->row_count++] = w * 64 + __builtin_ctzll(bits);
}

/* The listed rows in [first, end): *from is the place of the first in the list. They are listed in rising order. */
static int64_t touched_between(const struct reducer *r, int64_t first, int64_t end, int64_t *from)
{
    int64_t n = 0;
    for (*from = 0; *from < r->row_count && r->row[*from] < first;) ++*from;
    while (*from + n < r->row_count && r->row[*from + n] < end) n++;
    return n;
}

/* Touched rows of a piece to its front, and back to their places with zeros between them. */
static int64_t squeeze(struct reducer *r, const struct piece *piece, int64_t cols)
{
    int64_t from, n = touched_between(r, piece->first, piece->first + piece->rows, &from);
    real *data = r->params->gradient + piece->at;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = r->row[from + i] - piece->first;
        if (row != i) memcpy(data + i * cols, data + row * cols, sizeof(real) * (size_t)cols);
    }
    return n * cols;
}

static void spread(struct reducer *r, const struct piece *piece, int64_t cols)
{
    int64_t from, n = touched_between(r, piece->first, piece->first + piece->rows, &from);
    real *data = r->params->gradient + piece->at;
    size_t bytes = sizeof(real) * (size_t)cols;
    for (int64_t i = n - 1; i >= 0; i--) {
        int64_t row = r->row[from + i] - piece->first;
        if (row == i) continue;
        memcpy(data + row * cols, data + i * cols, bytes);
        memset(data + i * cols, 0, bytes);
    }
}

/* ---- tied tensors ---- */

/* What the other end found is added; a sum of two numbers does not depend on their order. */
static void exchange_rows(struct comm *pipe, struct reducer *r, int index, const int64_t *row, int64_t count)
{
    int64_t cols = r->params->rows[index].cols;
    int other = pipe->rank == 0 ? pipe->size - 1 : 0, reals = (int)(count * cols);
    real *gradient = param_gradient(r->params, index);
    for (int64_t i = 0; i < count; i++)
        memcpy(r->packed + i * cols, gradient + row[i] * cols, sizeof(real) * (size_t)cols);
    MPI_Sendrecv(r->packed, reals, MPI_REAL_TYPE, other, 0, r->other, reals, MPI_REAL_TYPE, other, 0, pipe->handle,
                 MPI_STATUS_IGNORE);
    for (int64_t i = 0; i < count; i++) vector_add(gradient + row[i] * cols, r->other + i * cols, cols, DTYPE_REAL);
}

static void join(struct comm *pipe, struct reducer *r, int index)
{
    int64_t from, touched = touched_between(r, 0, r->params->rows[index].rows, &from);
    int64_t at_once = r->ends ? r->packed_size / r->params->rows[index].cols : touched;
    for (int64_t first = 0; first < touched; first += at_once) {
        int64_t n = touched - first < at_once ? touched - first : at_once;
        if (r->ends) exchange_rows(pipe, r, index, r->row + first, n);
        else
            for (int64_t i = 0; i < n; i++) param_join_row(r->params, index, r->row[first + i]);
    }
}

void reducer_join_ends(struct mesh *mesh, struct reducer *r)
{
    WATCH_EXCHANGE();
    list_touched(r);
    for (int i = 0; i < r->params->count; i++)
        if (r->params->rows[i].tied && !r->params->rows[i].elsewhere) join(&mesh->pipe, r, i);
}

/* ---- sums ---- */

static void start_module(struct comm *dense, struct reducer *r, int module)
{
    const struct shard *shard = &r->params->shard;
    for (int64_t i = 0; i < shard->count; i++) {
        const struct piece *piece = &shard->piece[i];
        const struct param *p = &r->params->rows[piece->tensor];
        if (p->module != module || piece->owner < 0 || !p->trainable) continue;
        int64_t reals = p->sparse_rows ? squeeze(r, piece, p->cols) : piece->reals;
        piece_exchange_start(dense, r->exchange, i, r->params->gradient + piece->at, reals);
    }
}

void reducer_start(struct mesh *mesh, struct reducer *r, int module)
{
    if (r->ranks == 1) return;
    if (module < 0) module = 0; /* the embedding waits for the tied table and for the rows that others touched */
    for (; r->next >= module; r->next--) start_module(&mesh->dense, r, r->next);
}

void reducer_poll(struct reducer *r)
{
    if (r->ranks > 1) piece_exchange_poll(r->exchange);
}

static void sum_all(struct mesh *mesh, struct reducer *r)
{
    int words = (int)((r->sparse_rows + 63) / 64);
    const struct shard *shard = &r->params->shard;
    reducer_start(mesh, r, 0);
    MPI_Allreduce(MPI_IN_PLACE, r->touched, words, MPI_UINT64_T, MPI_BOR, mesh->dense.handle);
    list_touched(r);
    start_module(&mesh->dense, r, MODULE_EMBEDDING);
    piece_exchange_finish(&mesh->dense, r->exchange);
    for (int64_t i = 0; i < shard->count; i++) {
        const struct param *p = &r->params->rows[shard->piece[i].tensor];
        if (p->sparse_rows && shard_owns(shard, &shard->piece[i])) spread(r, &shard->piece[i], p->cols);
    }
}

void reducer_sum_gradients(struct mesh *mesh, struct reducer *r)
{
    WATCH_EXCHANGE();
    if (r->ranks > 1) sum_all(mesh, r);
    r->next = r->last;
    memset(r->touched, 0, sizeof *r->touched * (size_t)((r->sparse_rows + 63) / 64));
}

void reducer_sum_counted(struct mesh *mesh, double *x, int64_t count)
{
    WATCH_EXCHANGE();
    if (mesh->world.size > 1) MPI_Allreduce(MPI_IN_PLACE, x, (int)count, MPI_DOUBLE, MPI_SUM, mesh->world.handle);
}

double reducer_max_stages(struct mesh *mesh, double x)
{
    WATCH_EXCHANGE();
    MPI_Allreduce(MPI_IN_PLACE, &x, 1, MPI_DOUBLE, MPI_MAX, mesh->pipe.handle);
    return x;
}

double reducer_waited_s(const struct reducer *r) { return piece_exchange_waited_s(r->exchange); }

/* ---- agreement ---- */

enum status reducer_agree(struct mesh *mesh, struct reducer *r, enum status local, struct step_report *report)
{
    WATCH_EXCHANGE();
    struct comm *world = &mesh->world;
    struct loss_sum *loss = &report->loss;
    double mine[REPORT_DOUBLES] = {loss->genewise,        loss->cellwise, loss->weight,   loss->genewise_hidden,
                                   loss->cellwise_hidden, loss->hidden,   report->cells,  report->tokens,
                                   report->stop,          report->finish, report->saving, local != ST_OK};
    double sum[REPORT_DOUBLES] = {0};
    MPI_Allgather(mine, REPORT_DOUBLES, MPI_DOUBLE, r->reports, REPORT_DOUBLES, MPI_DOUBLE, world->handle);
    for (int k = 0; k < r->world; k++)
        for (int i = 0; i < REPORT_DOUBLES; i++) sum[i] += r->reports[k * REPORT_DOUBLES + i];
    *report = (struct step_report){
        {sum[0], sum[1], sum[2], sum[3], sum[4], sum[5]}, sum[6], sum[7], sum[8] > 0, sum[9] > 0, sum[10] > 0};
    return sum[11] > 0 ? comm_agree(world, local) : ST_OK;
}
