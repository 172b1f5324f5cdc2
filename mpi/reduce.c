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
    int ranks;
    bool bf16;
    real *packed; /* [packed_size] touched rows, side by side */
    int64_t packed_size;
    real *sum;                    /* fp32: every rank's copy of this rank's slice; bf16: the slice's sum */
    bf16 *sent, *received;        /* bf16 only: a block, and every rank's copy of the slice */
    int *start, *count;           /* [ranks] slices of a block */
    int *copy_start, *copy_count; /* [ranks] copies of this rank's slice */
    uint64_t *touched;            /* bit r: row r of the sparse tensors */
    int64_t *touched_row;         /* [sparse_rows] the rows, listed */
    int64_t sparse_rows;          /* most rows of a sparse tensor */
    double *reports;              /* [ranks * REPORT_DOUBLES] */
};

/* ---- sizes ---- */

static int64_t most_sparse_rows(const struct param_table *params)
{
    int64_t rows = 0;
    for (int i = 0; i < params->count; i++)
        if (params->rows[i].sparse_rows && params->rows[i].rows > rows) rows = params->rows[i].rows;
    return rows;
}

/* Reals of a block of whole sparse rows: as many rows as fit, but at least one. */
static int64_t packed_reals(const struct param_table *params)
{
    int64_t most = 0;
    for (int i = 0; i < params->count; i++) {
        const struct param *p = &params->rows[i];
        if (!p->sparse_rows) continue;
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
    TRY(NEW_ARRAY(r->reports, r->ranks * REPORT_DOUBLES));
    TRY(NEW_ARRAY(r->touched, words));
    memset(r->touched, 0, sizeof *r->touched * (size_t)words);
    if (r->ranks == 1) return ST_OK;
    TRY(NEW_ARRAY(r->touched_row, r->sparse_rows));
    TRY(NEW_ARRAY(r->packed, r->packed_size));
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

enum status reducer_create(struct comm *comm, struct param_table *params, bool bf16_exchange, struct reducer **out)
{
    struct reducer *r = NULL;
    enum status st = NEW_ARRAY(r, 1);
    if (st == ST_OK) {
        *r = (struct reducer){.params = params, .ranks = comm->size, .bf16 = bf16_exchange};
        st = reducer_allocate(r);
    }
    st = comm_agree(comm, st);
    if (st != ST_OK) reducer_destroy(&r);
    *out = r;
    return st;
}

void reducer_destroy(struct reducer **reducer)
{
    struct reducer *r = *reducer;
    if (!r) return;
    free(r->packed);
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

/* Union over ranks, listed; the marks are cleared. */
static int64_t list_touched(struct comm *comm, struct reducer *r)
{
    int64_t words = (r->sparse_rows + 63) / 64, n = 0;
    if (words == 0) return 0;
    MPI_Allreduce(MPI_IN_PLACE, r->touched, (int)words, MPI_UINT64_T, MPI_BOR, comm->handle);
    for (int64_t w = 0; w < words; w++) {
        for (uint64_t bits = r->touched[w]; bits; bits &= bits - 1)
            r->touched_row[n++] = w * 64 + __builtin_ctzll(bits);
        r->touched[w] = 0;
    }
    return n;
}

static void sum_touched_rows(struct comm *comm, struct reducer *r, int index, int64_t touched)
{
    const struct param *p = &r->params->rows[index];
    real *gradient = param_gradient(r->params, index);
    size_t row_bytes = sizeof(real) * (size_t)p->cols;
    int64_t at_once = r->packed_size / p->cols;
    while (touched > 0 && r->touched_row[touched - 1] >= p->rows) touched--;
    for (int64_t first = 0; first < touched; first += at_once) {
        int64_t n = touched - first < at_once ? touched - first : at_once;
        for (int64_t i = 0; i < n; i++)
            memcpy(r->packed + i * p->cols, gradient + r->touched_row[first + i] * p->cols, row_bytes);
        sum_reals(comm, r, r->packed, n * p->cols);
        for (int64_t i = 0; i < n; i++)
            memcpy(gradient + r->touched_row[first + i] * p->cols, r->packed + i * p->cols, row_bytes);
    }
}

void reducer_sum_gradients(struct comm *comm, struct reducer *r)
{
    if (r->ranks == 1) return;
    int64_t touched = list_touched(comm, r), from = 0;
    for (int i = 0; i < r->params->count; i++) { /* dense tensors lie side by side: one run up to each sparse one */
        const struct param *p = &r->params->rows[i];
        if (!p->sparse_rows) continue;
        sum_reals(comm, r, r->params->gradient + from, p->offset - from);
        sum_touched_rows(comm, r, i, touched);
        from = p->offset + p->rows * p->cols;
    }
    sum_reals(comm, r, r->params->gradient + from, r->params->size - from);
}

/* ---- agreement ---- */

enum status reducer_agree(struct comm *comm, struct reducer *r, enum status local, struct step_report *report)
{
    struct loss_sum *loss = &report->loss;
    double mine[REPORT_DOUBLES] = {loss->genewise,        loss->cellwise, loss->weight,  loss->genewise_hidden,
                                   loss->cellwise_hidden, loss->hidden,   report->cells, report->tokens,
                                   report->stop,          report->finish, local != ST_OK};
    double sum[REPORT_DOUBLES] = {0};
    MPI_Allgather(mine, REPORT_DOUBLES, MPI_DOUBLE, r->reports, REPORT_DOUBLES, MPI_DOUBLE, comm->handle);
    for (int k = 0; k < r->ranks; k++)
        for (int i = 0; i < REPORT_DOUBLES; i++) sum[i] += r->reports[k * REPORT_DOUBLES + i];
    *report =
        (struct step_report){{sum[0], sum[1], sum[2], sum[3], sum[4], sum[5]}, sum[6], sum[7], sum[8] > 0, sum[9] > 0};
    return sum[10] > 0 ? comm_agree(comm, local) : ST_OK;
}
