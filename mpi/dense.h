/* Dense symmetric matrices spread over ranks: ScaLAPACK behind a few functions.
 *
 * The matrix lies in ScaLAPACK's two-dimensional block-cyclic form on a near-square grid of ranks;
 * nobody ever holds it whole. A Gram matrix G = sum over cells (x - c)(x - c)' is accumulated straight
 * into that form: each rank brings some rows (cells), sends every grid process the columns (genes) it
 * needs, and each process updates only its own blocks, lower triangle, by fp32 products over tiles of
 * DENSE_TILE cells that are added in fp64. Centring happens before the product, so large means cost
 * no digits. ScaLAPACK Users' Guide (SIAM, 1997), chapters 4 and 6.
 *
 *     TRY(dense_create(comm, n, &g));
 *     while (rows_left_anywhere) TRY(dense_add_gram(comm, g, &rows, centre));
 *     dense_scale(g, 1.0 / (cells - 1));
 *     TRY(dense_eigen(comm, g, k, values, vectors));     the k largest
 *     dense_destroy(comm, &g); */
#ifndef CYTOMILL_MPI_DENSE_H
#define CYTOMILL_MPI_DENSE_H

#include <stddef.h>
#include <stdint.h>

#include "mpi/comm.h"

/* Cells of one fp32 product; sums over more cells are in fp64. */
enum { DENSE_TILE = 256 };

struct dense {
    int64_t n;   /* order of the matrix */
    int block;   /* side of a block of the cyclic distribution */
    int context; /* BLACS grid, -1 on ranks outside it */
    int grid_rows, grid_cols;
    int grid_row, grid_col; /* this rank's place, -1 outside */
    int64_t local_rows, local_cols;
    double *values; /* [local_cols][local_rows], column-major; lower triangle of G valid */
};

/* Sparse rows that a rank brings. Borrowed. */
struct dense_rows {
    int64_t count;
    const int64_t *start;  /* [count+1] first entry of each row */
    const int32_t *column; /* [start[count]] 0 .. n-1, no repeats within a row */
    const float *value;
};

/* Grid of at most `ranks` processes: the largest rows x cols with rows <= cols <= 2 rows, so that a
 * prime number leaves a few ranks out instead of making a 1 x p strip. Local. */
void dense_grid_shape(int ranks, int *rows, int *cols);

/* Bytes the busiest rank needs for a matrix of order n and its eigenvectors. Local. */
double dense_bytes(int ranks, int64_t n);

/* A zero matrix of order n. ST_MEMORY if it does not fit in memory or a rank's part has more than
 * 2^31 - 1 entries (ScaLAPACK counts in 32 bits); the message says how many ranks are needed. Collective. */
MUST_CHECK enum status dense_create(struct comm *comm, int64_t n, struct dense **out);
/* Collective (the grid is given back by all its ranks); NULL is fine. */
void dense_destroy(struct comm *comm, struct dense **dense);

/* G += sum over the rows of all ranks of (x - centre)(x - centre)'. centre[n] is the same on all ranks.
 * A rank with no rows still calls. Keep calls to a few thousand rows per rank: they are buffered. ST_MEMORY.
 * Cost: n^2 flops per row over all ranks; an entry travels to rows + cols - 1 processes. Collective. */
MUST_CHECK enum status dense_add_gram(struct comm *comm, struct dense *dense, const struct dense_rows *rows,
                                      const double *centre);

void dense_scale(struct dense *dense, double factor); /* local */
/* Sum of the diagonal. Collective. */
double dense_trace(struct comm *comm, const struct dense *dense);
/* Copy of the whole symmetric matrix [n, n] on every rank: for tests and small n. Collective. */
MUST_CHECK enum status dense_gather(struct comm *comm, const struct dense *dense, double *whole);

/* The k largest eigenvalues, descending, and their vectors: vectors[k, n], one per row, unit length,
 * the entry of largest magnitude positive (the first of equals). All ranks get them. The matrix is
 * destroyed. ST_NUMERIC: NaN in the matrix, or the solver failed. Collective. */
MUST_CHECK enum status dense_eigen(struct comm *comm, struct dense *dense, int k, double *values, double *vectors);

/* Threads of BLAS inside a rank. Local. */
void dense_set_threads(int threads);

#endif
