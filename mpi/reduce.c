#include "mpi/reduce.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/vector.h"

enum {
    BLOCK = 1 << 22, /* reals summed at a time */
    REPORT_DOUBLES = 11
};
#ifdef CYTOMILL_DOUBLE
#define MPI_REAL_TYPE MPI_DOUBLE
#else
#define MPI_REAL_TYPE MPI_FLOAT
#endif

struct reducer {
    struct param_table *params; /* borrowed */
    int ranks;                  /* of mesh->dense */
    int world;                  /* ranks in all */
    int ends;                   /* stages, if this one holds a tied tensor that another holds too, else 0 */
    bool bf16;
    real *packed; /* [packed_size] touched rows, side by side */
    real *other;  /* [packed_size] the other end's */
    int64_t packed_size;
    real *sum;                    /* fp32: every rank's copy of this rank's slice; bf16: the slice's sum */
    bf16 *sent, *received;        /* bf16 only: a block, and every rank's copy of the slice */
    int *start, *count;           /* [ranks] slices of a block */
    int *copy_start, *copy_count; /* [ranks] copies of this rank's slice */
    uint64_t *touched;            /* bit r: row r of the sparse tensors */
    int64_t *touched_row;         /* [sparse_rows] the rows, listed */
    int64_t sparse_rows;          /* most rows of a sparse tensor */
    double *reports;              /* [world * REPORT_DOUBLES] */
};

/* ---- sizes ---- */

static int64_t most_sparse_rows(const struct param_table *params)
{
    int64_t rows = 0;
    for (int i = 0; i < params->count; i++)
        if (params->rows[i].sparse_rows && !params->rows[i].elsewhere && params->rows[i].rows > rows)
            rows = params->rows[i].rows;
    return rows;
}

/* Reals of a block of whole sparse rows: as many rows as fit, but at least one. */
static int64_t packed_reals(const struct param_table *params)
{
    int64_t most = 0;
    for (int i = 0; i < params->count; i++) {
        const struct param *p = &params->rows[i];
        if (!p->sparse_rows || p->elsewhere) continue;
        int64_t block = p->cols > BLOCK ? p->cols : BLOCK / p->cols * p->cols, all = p->rows * p->cols;
        if (all < block) block = all;
        if (block > most) most = block;
    }
    return most;
}

/* A rank's slice of a block, times the ranks, rounded up. */
static int64_t copies_reals(const struct param_table *params, int ranks)
{
    int64_t block = packed_reals(params) > BLOCK ? packed_reals(params) : BLOCK;
    if (params->size < block) block = params->size;
    return (block / ranks + 1) * ranks;
}

static int64_t touched_words(const struct param_table *params) { return (most_sparse_rows(params) + 63) / 64; }

size_t reducer_bytes(const struct param_table *params, int ranks, bool bf16_exchange)
{
    if (ranks == 1) return 0;
    size_t copies = (size_t)copies_reals(params, ranks);
    size_t exchange = bf16_exchange ? copies * (2 * sizeof(bf16) + sizeof(real)) : copies * sizeof(real);
    return exchange + (size_t)packed_reals(params) * sizeof(real) + (size_t)most_sparse_rows(params) * 8 +
           (size_t)touched_words(params) * 8;
}

static enum status reducer_allocate(struct reducer *r)
{
    enum status st = ST_OK;
    int64_t copies = copies_reals(r->params, r->ranks), words = touched_words(r->params);
    r->sparse_rows = most_sparse_rows(r->params);
    r->packed_size = packed_reals(r->params);
    TRY(NEW_ARRAY(r->reports, r->world * REPORT_DOUBLES));
    TRY(NEW_ARRAY(r->touched, words));
    memset(r->touched, 0, sizeof *r->touched * (size_t)words);
    TRY(NEW_ARRAY(r->touched_row, r->sparse_rows));
    if (r->ends) TRY(NEW_ARRAY(r->other, r->packed_size));
    if (r->ranks > 1 || r->ends) TRY(NEW_ARRAY(r->packed, r->packed_size));
    if (r->ranks == 1) return ST_OK;
    TRY(NEW_ARRAY(r->sum, copies));
    if (r->bf16) TRY(NEW_ARRAY(r->sent, copies));
    if (r->bf16) TRY(NEW_ARRAY(r->received, copies));
    TRY(NEW_ARRAY(r->start, 4 * r->ranks));
    r->count = r->start + r->ranks;
    r->copy_start = r->count + r->ranks;
    r->copy_count = r->copy_start + r->ranks;
done:
    return st;
}

/* A tied tensor with both ends here needs no exchange. */
static bool shares_ends(const struct param_table *params)
{
    for (int i = 0; i < params->count; i++) {
        const struct param *p = &params->rows[i];
        if (p->tied && !p->elsewhere && !p->two_ends) return true;
    }
    return false;
}

enum status reducer_create(struct mesh *mesh, struct param_table *params, bool bf16_exchange, struct reducer **out)
{
    struct reducer *r = NULL;
    enum status st = NEW_ARRAY(r, 1);
    if (st == ST_OK) {
        *r = (struct reducer){
            .params = params, .ranks = mesh->dense.size, .world = mesh->world.size, .bf16 = bf16_exchange};
        r->ends = shares_ends(params) ? mesh->pipe.size : 0;
        st = reducer_allocate(r);
    }
    st = comm_agree(&mesh->world, st);
    if (st != ST_OK) reducer_destroy(&r);
    *out = r;
    return st;
}

void reducer_destroy(struct reducer **reducer)
{
    struct reducer *r = *reducer;
    if (!r) return;
    free(r->packed);
    free(r->other);
    free(r->sum);
    free(r->sent);
    free(r->received);
    free(r->start);
    free(r->touched);
    free(r->touched_row);
    free(r->reports);
    free(r);
    *reducer = NULL;
}

/* ---- one block ---- */

static int cut_slices(struct reducer *r, int64_t count, int rank)
{
    for (int k = 0; k < r->ranks; k++) {
        r->start[k] = (int)(count * k / r->ranks);
        r->count[k] = (int)(count * (k + 1) / r->ranks) - r->start[k];
    }
    int mine = r->count[rank];
    for (int k = 0; k < r->ranks; k++) {
        r->copy_start[k] = mine * k;
        r->copy_count[k] = mine;
    }
    return mine;
}

static void sum_block_real(struct comm *comm, struct reducer *r, real *x, int mine)
{
    MPI_Alltoallv(x, r->count, r->start, MPI_REAL_TYPE, r->sum, r->copy_count, r->copy_start, MPI_REAL_TYPE,
                  comm->handle);
    for (int k = 1; k < r->ranks; k++) vector_add(r->sum, r->sum + r->copy_start[k], mine, DTYPE_REAL);
    MPI_Allgatherv(r->sum, mine, MPI_REAL_TYPE, x, r->count, r->start, MPI_REAL_TYPE, comm->handle);
}

/* This rank's own share keeps fp32: one rounding fewer. */
static void sum_block_bf16(struct comm *comm, struct reducer *r, real *x, int64_t count, int mine)
{
    vector_convert(r->sent, DTYPE_BF16, x, DTYPE_REAL, count);
    MPI_Alltoallv(r->sent, r->count, r->start, MPI_UINT16_T, r->received, r->copy_count, r->copy_start, MPI_UINT16_T,
                  comm->handle);
    memset(r->sum, 0, sizeof *r->sum * (size_t)mine);
    const real *own = x + r->start[comm->rank];
    for (int k = 0; k < r->ranks; k++) {
        const bf16 *copy = r->received + r->copy_start[k];
        if (k == comm->rank)
            for (int i = 0; i < mine; i++) r->sum[i] += own[i];
        else
            for (int i = 0; i < mine; i++) r->sum[i] += bf16_to_float(copy[i]);
    }
    MPI_Allgatherv(r->sum, mine, MPI_REAL_TYPE, x, r->count, r->start, MPI_REAL_TYPE, comm->handle);
}

/* x[count] summed over ranks, block after block. */
static void sum_reals(struct comm *comm, struct reducer *r, real *x, int64_t count)
{
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        int mine = cut_slices(r, n, comm->rank);
        if (r->bf16) sum_block_bf16(comm, r, x + at, n, mine);
        else sum_block_real(comm, r, x + at, mine);
    }
}

/* ---- touched rows ---- */

void reducer_touch(struct reducer *r, const struct batch *batch)
{
    for (int64_t t = 0; t < batch->token_count; t++) {
        int64_t row = batch->feature[t];
        if (row < r->sparse_rows) r->touched[row / 64] |= UINT64_C(1) << (row % 64);
    }
}

/* The marked rows, listed; the marks stay. */
static int64_t list_touched(struct reducer *r)
{
    int64_t words = (r->sparse_rows + 63) / 64, n = 0;
    for (int64_t w = 0; w < words; w++)
        for (uint64_t bits = r->touched[w]; bits; bits &= bits - 1)
            r->touched_row[n++] = w * 64 + __builtin_ctzll(bits);
    return n;
}

/* Rows of tensor `index` to and from their places side by side. */
static void gather_rows(const struct reducer *r, int index, real *packed, const int64_t *row, int64_t count)
{
    const struct param *p = &r->params->rows[index];
    const real *gradient = param_gradient(r->params, index);
    for (int64_t i = 0; i < count; i++)
        memcpy(packed + i * p->cols, gradient + row[i] * p->cols, sizeof(real) * (size_t)p->cols);
}

static void scatter_rows(const struct reducer *r, int index, const real *packed, const int64_t *row, int64_t count)
{
    const struct param *p = &r->params->rows[index];
    real *gradient = param_gradient(r->params, index);
    for (int64_t i = 0; i < count; i++)
        memcpy(gradient + row[i] * p->cols, packed + i * p->cols, sizeof(real) * (size_t)p->cols);
}

/* Listed rows that tensor `index` has; they are listed in rising order. */
static int64_t touched_of(const struct reducer *r, int index, int64_t touched)
{
    while (touched > 0 && r->touched_row[touched - 1] >= r->params->rows[index].rows) touched--;
    return touched;
}

static void sum_touched_rows(struct comm *comm, struct reducer *r, int index, int64_t touched)
{
    int64_t cols = r->params->rows[index].cols, at_once = r->packed_size / cols;
    touched = touched_of(r, index, touched);
    for (int64_t first = 0; first < touched; first += at_once) {
        int64_t n = touched - first < at_once ? touched - first : at_once;
        gather_rows(r, index, r->packed, r->touched_row + first, n);
        sum_reals(comm, r, r->packed, n * cols);
        scatter_rows(r, index, r->packed, r->touched_row + first, n);
    }
}

/* ---- tied tensors ---- */

/* What the other end found is added; a sum of two numbers does not depend on their order. */
static void exchange_ends(struct comm *pipe, struct reducer *r, int index, int64_t touched)
{
    int64_t cols = r->params->rows[index].cols, at_once = r->packed_size / cols;
    int other = pipe->rank == 0 ? pipe->size - 1 : 0;
    touched = touched_of(r, index, touched);
    for (int64_t first = 0; first < touched; first += at_once) {
        int64_t n = touched - first < at_once ? touched - first : at_once;
        gather_rows(r, index, r->packed, r->touched_row + first, n);
        MPI_Sendrecv(r->packed, (int)(n * cols), MPI_REAL_TYPE, other, 0, r->other, (int)(n * cols), MPI_REAL_TYPE,
                     other, 0, pipe->handle, MPI_STATUS_IGNORE);
        vector_add(r->packed, r->other, n * cols, DTYPE_REAL);
        scatter_rows(r, index, r->packed, r->touched_row + first, n);
    }
}

void reducer_join_ends(struct mesh *mesh, struct reducer *r)
{
    int64_t touched = list_touched(r);
    for (int i = 0; i < r->params->count; i++) {
        const struct param *p = &r->params->rows[i];
        if (!p->tied || p->elsewhere) continue;
        if (r->ends) exchange_ends(&mesh->pipe, r, i, touched);
        else
            for (int64_t k = 0; k < touched_of(r, i, touched); k++) param_join_row(r->params, i, r->touched_row[k]);
    }
}

void reducer_sum_stages(struct mesh *mesh, double *x, int count)
{
    if (mesh->pipe.size > 1) MPI_Allreduce(MPI_IN_PLACE, x, count, MPI_DOUBLE, MPI_SUM, mesh->pipe.handle);
}

double reducer_max_stages(struct mesh *mesh, double x)
{
    MPI_Allreduce(MPI_IN_PLACE, &x, 1, MPI_DOUBLE, MPI_MAX, mesh->pipe.handle);
    return x;
}

/* ---- all of it ---- */

static void sum_gradients(struct comm *dense, struct reducer *r)
{
    int64_t words = (r->sparse_rows + 63) / 64, from = 0;
    MPI_Allreduce(MPI_IN_PLACE, r->touched, (int)words, MPI_UINT64_T, MPI_BOR, dense->handle);
    int64_t touched = list_touched(r);
    for (int i = 0; i < r->params->count; i++) { /* dense tensors lie side by side: one run up to each sparse one */
        const struct param *p = &r->params->rows[i];
        if (!p->sparse_rows || p->elsewhere) continue;
        sum_reals(dense, r, r->params->gradient + from, p->offset - from);
        sum_touched_rows(dense, r, i, touched);
        from = p->offset + p->rows * p->cols;
    }
    sum_reals(dense, r, r->params->gradient + from, r->params->size - from);
}

void reducer_sum_gradients(struct mesh *mesh, struct reducer *r)
{
    if (r->ranks > 1) sum_gradients(&mesh->dense, r);
    memset(r->touched, 0, sizeof *r->touched * (size_t)((r->sparse_rows + 63) / 64));
}

/* ---- agreement ---- */

enum status reducer_agree(struct mesh *mesh, struct reducer *r, enum status local, struct step_report *report)
{
    struct comm *world = &mesh->world;
    struct loss_sum *loss = &report->loss;
    double mine[REPORT_DOUBLES] = {loss->genewise,        loss->cellwise, loss->weight,  loss->genewise_hidden,
                                   loss->cellwise_hidden, loss->hidden,   report->cells, report->tokens,
                                   report->stop,          report->finish, local != ST_OK};
    double sum[REPORT_DOUBLES] = {0};
    MPI_Allgather(mine, REPORT_DOUBLES, MPI_DOUBLE, r->reports, REPORT_DOUBLES, MPI_DOUBLE, world->handle);
    for (int k = 0; k < r->world; k++)
        for (int i = 0; i < REPORT_DOUBLES; i++) sum[i] += r->reports[k * REPORT_DOUBLES + i];
    *report =
        (struct step_report){{sum[0], sum[1], sum[2], sum[3], sum[4], sum[5]}, sum[6], sum[7], sum[8] > 0, sum[9] > 0};
    return sum[10] > 0 ? comm_agree(world, local) : ST_OK;
}
