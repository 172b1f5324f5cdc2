#include "mpi/dense.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

/* ScaLAPACK and BLACS ship no C headers. */
extern int Csys2blacs_handle(MPI_Comm comm);
extern void Cfree_blacs_system_handle(int handle);
extern void Cblacs_gridinit(int *context, const char *order, int rows, int cols);
extern void Cblacs_gridinfo(int context, int *rows, int *cols, int *row, int *col);
extern void Cblacs_gridexit(int context);
extern void descinit_(int *descriptor, const int *m, const int *n, const int *mb, const int *nb, const int *row_source,
                      const int *col_source, const int *context, const int *local_rows, int *info);
extern void pdsyevr_(const char *jobz, const char *range, const char *triangle, const int *n, double *a, const int *ia,
                     const int *ja, const int *desc_a, const double *vl, const double *vu, const int *il, const int *iu,
                     int *m, int *nz, double *w, double *z, const int *iz, const int *jz, const int *desc_z,
                     double *work, const int *lwork, int *iwork, const int *liwork, int *info);
extern void openblas_set_num_threads(int threads) __attribute__((weak));

enum { BLOCK = 64, ENTRY_MAX = INT_MAX };

void dense_set_threads(int threads)
{
    if (openblas_set_num_threads) openblas_set_num_threads(threads);
}

void dense_grid_shape(int ranks, int *rows, int *cols)
{
    *rows = *cols = 1;
    for (int r = 1; r * r <= ranks; r++) {
        int c = ranks / r < 2 * r ? ranks / r : 2 * r;
        if (r * c >= *rows * *cols) {
            *rows = r;
            *cols = c;
        }
    }
}

/* Small matrices get small blocks, so that every process owns some of it. */
static int block_of(int64_t n, int grid_cols)
{
    int64_t even = (n + grid_cols - 1) / grid_cols;
    return even < BLOCK ? (int)even : BLOCK;
}

/* Rows (or columns) of n that process `place` of `places` owns. */
static int64_t local_count(int64_t n, int block, int place, int places)
{
    int64_t blocks = n / block, mine = blocks / places * block, extra = blocks % places;
    return mine + (place < extra ? block : place == extra ? n % block : 0);
}

static int64_t global_index(const struct dense *d, int64_t local, int place, int places)
{
    return (local / d->block * places + place) * d->block + local % d->block;
}

double dense_bytes(int ranks, int64_t n)
{
    int rows, cols;
    dense_grid_shape(ranks, &rows, &cols);
    int block = block_of(n, cols);
    double part = (double)local_count(n, block, 0, rows) * (double)local_count(n, block, 0, cols);
    /* matrix, eigenvectors and the solver's own copy of them */
    return 3 * part * sizeof(double);
}

/* ---- create ---- */

static enum status check_size(const struct comm *comm, const struct dense *d)
{
    int64_t entries = local_count(d->n, d->block, 0, d->grid_rows) * local_count(d->n, d->block, 0, d->grid_cols);
    double need = dense_bytes(comm->size, d->n) * comm->node_size;
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    char need_text[32], have_text[32];
    if (d->n > INT_MAX || entries > ENTRY_MAX)
        return fail(ST_MEMORY,
                    "a matrix of order %lld gives each of %d ranks %lld entries, ScaLAPACK takes at most %d; use at "
                    "least %lld ranks or fewer genes",
                    (long long)d->n, comm->size, (long long)entries, ENTRY_MAX,
                    (long long)(2 * (d->n * d->n / ENTRY_MAX + 1)));
    if (need > 0.9 * have)
        return fail(
            ST_MEMORY,
            "a matrix of order %lld needs about %s on a node of %s; use more nodes or fewer genes (analyze.genes)",
            (long long)d->n, text_bytes(need, need_text), text_bytes(have, have_text));
    return ST_OK;
}

static void make_grid(struct comm *comm, struct dense *d)
{
    int handle = Csys2blacs_handle(comm->handle);
    d->context = handle;
    Cblacs_gridinit(&d->context, "Row", d->grid_rows, d->grid_cols);
    Cfree_blacs_system_handle(handle);
    bool inside = comm->rank < d->grid_rows * d->grid_cols;
    d->grid_row = inside ? comm->rank / d->grid_cols : -1;
    d->grid_col = inside ? comm->rank % d->grid_cols : -1;
    if (!inside) {
        d->context = -1;
        return;
    }
    d->local_rows = local_count(d->n, d->block, d->grid_row, d->grid_rows);
    d->local_cols = local_count(d->n, d->block, d->grid_col, d->grid_cols);
}

enum status dense_create(struct comm *comm, int64_t n, struct dense **out)
{
    enum status st = ST_OK;
    struct dense *d = NULL;
    TRY(comm_agree(comm, NEW_ARRAY(d, 1)));
    *d = (struct dense){.n = n, .context = -1, .grid_row = -1, .grid_col = -1};
    dense_grid_shape(comm->size, &d->grid_rows, &d->grid_cols);
    d->block = block_of(n, d->grid_cols);
    TRY(comm_agree(comm, check_size(comm, d)));
    make_grid(comm, d);
    TRY(comm_agree(comm, NEW_ARRAY(d->values, d->local_rows * d->local_cols)));
    memset(d->values, 0, sizeof *d->values * (size_t)(d->local_rows * d->local_cols));
    *out = d;
    d = NULL;
done:
    dense_destroy(comm, &d);
    return st;
}

void dense_destroy(struct comm *comm, struct dense **dense)
{
    (void)comm;
    if (!*dense) return;
    if ((*dense)->context >= 0) Cblacs_gridexit((*dense)->context);
    free((*dense)->values);
    free(*dense);
    *dense = NULL;
}

/* ---- small collectives ---- */

void dense_scale(struct dense *dense, double factor)
{
    for (int64_t i = 0; i < dense->local_rows * dense->local_cols; i++) dense->values[i] *= factor;
}

double dense_trace(struct comm *comm, const struct dense *d)
{
    double trace = 0;
    for (int64_t c = 0; c < d->local_cols; c++)
        for (int64_t r = 0; r < d->local_rows; r++)
            if (global_index(d, r, d->grid_row, d->grid_rows) == global_index(d, c, d->grid_col, d->grid_cols))
                trace += d->values[c * d->local_rows + r];
    comm_sum_f64(comm, &trace, 1);
    return trace;
}

/* Put the local part of columns [first, first+columns) of a distributed matrix into whole[columns, n] (one
 * matrix column per row), zero elsewhere, and add over ranks: every entry has one owner. */
static void gather_columns(struct comm *comm, const struct dense *d, const double *values, int64_t first,
                           int64_t columns, double *whole)
{
    memset(whole, 0, sizeof *whole * (size_t)(columns * d->n));
    for (int64_t c = 0; c < d->local_cols; c++) {
        int64_t column = global_index(d, c, d->grid_col, d->grid_cols) - first;
        if (column < 0 || column >= columns) continue;
        for (int64_t r = 0; r < d->local_rows; r++)
            whole[column * d->n + global_index(d, r, d->grid_row, d->grid_rows)] = values[c * d->local_rows + r];
    }
    comm_sum_f64(comm, whole, columns * d->n);
}

enum status dense_gather(struct comm *comm, const struct dense *d, double *whole)
{
    gather_columns(comm, d, d->values, 0, d->n, whole);
    for (int64_t i = 0; i < d->n; i++)
        for (int64_t j = i + 1; j < d->n; j++) whole[j * d->n + i] = whole[i * d->n + j];
    return ST_OK;
}

/* ---- eigenvectors ---- */

struct solver {
    int descriptor[9];
    double *w, *z, *work;
    int *iwork;
    int lwork, liwork;
};

static enum status check_finite(const struct dense *d)
{
    for (int64_t i = 0; i < d->local_rows * d->local_cols; i++)
        if (!isfinite(d->values[i]))
            return fail(ST_NUMERIC,
                        "the covariance holds NaN or infinite values; check the input for values that are not finite");
    return ST_OK;
}

/* One call of the solver; lwork = -1 asks for sizes. */
static int call_solver(const struct dense *d, struct solver *s, int k)
{
    int n = (int)d->n, one = 1, first = n - k + 1, found = 0, vectors = 0, info = 0;
    double unused = 0;
    pdsyevr_("V", "I", "L", &n, d->values, &one, &one, s->descriptor, &unused, &unused, &first, &n, &found, &vectors,
             s->w, s->z, &one, &one, s->descriptor, s->work, &s->lwork, s->iwork, &s->liwork, &info);
    return info == 0 && (s->lwork == -1 ? 0 : found != k || vectors != k) ? INT_MAX : info;
}

/* The query answers in a double, which may be rounded down: a little is added. */
static enum status solver_prepare(const struct dense *d, struct solver *s, int k)
{
    enum status st = ST_OK;
    int n = (int)d->n, zero = 0, info = 0, leading = d->local_rows > 0 ? (int)d->local_rows : 1;
    double size[3] = {0};
    int isize[8] = {0};
    descinit_(s->descriptor, &n, &n, &d->block, &d->block, &zero, &zero, &d->context, &leading, &info);
    if (info) TRY(fail(ST_INTERNAL, "descinit refused argument %d", -info));
    TRY(NEW_ARRAY(s->w, n));
    TRY(NEW_ARRAY(s->z, d->local_rows * d->local_cols));
    s->work = size;
    s->iwork = isize;
    s->lwork = s->liwork = -1;
    info = call_solver(d, s, k);
    s->work = NULL;
    s->iwork = NULL;
    double lwork = ceil(size[0] * (1 + 1e-9)) + 16;
    if (info) TRY(fail(ST_INTERNAL, "pdsyevr refused argument %d when asked for its workspace", -info));
    if (lwork > INT_MAX)
        TRY(fail(ST_MEMORY, "the eigen-solver wants %.0f words on a rank, more than it can count; use more ranks",
                 lwork));
    s->lwork = (int)lwork;
    s->liwork = isize[0] + 16;
    TRY(NEW_ARRAY(s->work, s->lwork));
    TRY(NEW_ARRAY(s->iwork, s->liwork));
done:
    return st;
}

static void solver_free(struct solver *s)
{
    free(s->w);
    free(s->z);
    free(s->work);
    free(s->iwork);
}

static void fix_sign(double *vector, int64_t n)
{
    int64_t top = 0;
    for (int64_t i = 1; i < n; i++)
        if (fabs(vector[i]) > fabs(vector[top]) * (1 + 1e-9)) top = i;
    if (vector[top] < 0)
        for (int64_t i = 0; i < n; i++) vector[i] = -vector[i];
}

static void reverse_order(int k, int64_t n, double *values, double *vectors)
{
    for (int i = 0, j = k - 1; i < j; i++, j--) {
        double t = values[i];
        values[i] = values[j];
        values[j] = t;
        for (int64_t x = 0; x < n; x++) {
            t = vectors[i * n + x];
            vectors[i * n + x] = vectors[j * n + x];
            vectors[j * n + x] = t;
        }
    }
}

/* pdsyevr (2.2.1) hands pdormtr too little of its workspace when a process column holds fewer vectors
 * than a block, whatever lwork is: a whole block of vectors is solved for. */
static int vectors_to_solve(const struct dense *d, int k) { return k > d->block ? k : d->block; }

enum status dense_eigen(struct comm *comm, struct dense *d, int k, double *values, double *vectors)
{
    enum status st = ST_OK;
    struct solver s = {0};
    int info = 0;
    TRY(comm_agree(comm, check_finite(d)));
    bool inside = d->context >= 0;
    int solved = vectors_to_solve(d, k);
    TRY(comm_agree(comm, inside ? solver_prepare(d, &s, solved) : ST_OK));
    if (inside) info = call_solver(d, &s, solved);
    if (info)
        st = fail(ST_NUMERIC, "the eigen-solver failed (pdsyevr info %d, order %lld, %d of %d x %d processes)", info,
                  (long long)d->n, comm->rank, d->grid_rows, d->grid_cols);
    TRY(comm_agree(comm, st));
    /* ascending: the k wanted are the last of those solved */
    gather_columns(comm, d, s.z, solved - k, k, vectors);
    if (inside) memcpy(values, s.w + solved - k, sizeof *values * (size_t)k);
    comm_bcast(comm, values, (int64_t)sizeof *values * k, 0);
    reverse_order(k, d->n, values, vectors);
    for (int i = 0; i < k; i++) fix_sign(vectors + i * d->n, d->n);
done:
    solver_free(&s);
    return st;
}
