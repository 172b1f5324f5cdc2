/* Time of an exact PCA of made-up cells, for tests/bench_pca.sh:
 *   tool_pca_speed CELLS GENES COMPONENTS
 * Prints, on rank 0: seconds, seconds of the eigen-solver alone, and GFLOP/s of the whole (cells * genes^2 for the
 * lower triangle of the covariance, 4/3 genes^3 for the reduction). Cells come from memory: 2,048 random ones,
 * about 400 of the genes each, over and over. */
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "mpi/dense.h"
#include "mpi/pca.h"

enum { POOL = 2048, PER_CELL = 400 };

static struct cells pool;

static enum status make_pool(int64_t genes)
{
    enum status st = cells_reserve(&pool, POOL, (int64_t)POOL * PER_CELL * 2);
    int64_t at = 0;
    for (int64_t r = 0; st == ST_OK && r < POOL; r++) {
        struct rng random = rng_at(1, RNG_TEST, (uint64_t)r, 0);
        pool.start[r] = at;
        for (int32_t g = 0; g < genes && at < (r + 1) * 2 * PER_CELL; g++) {
            if (rng_uniform(&random) * (double)genes > PER_CELL) continue;
            pool.feature[at] = g;
            pool.value[at++] = (float)(1 + rng_below(&random, 20));
        }
    }
    pool.count = POOL;
    pool.start[POOL] = at;
    return st;
}

static enum status read_pool(void *context, int64_t first, int64_t count, struct cells *out)
{
    enum status st = cells_reserve(out, count, count * 2 * PER_CELL);
    int64_t at = 0;
    (void)context;
    out->count = count;
    for (int64_t r = 0; st == ST_OK && r < count; r++) {
        int64_t from = (first + r) % POOL;
        out->id[r] = first + r;
        out->start[r] = at;
        for (int64_t e = pool.start[from]; e < pool.start[from + 1]; e++, at++) {
            out->feature[at] = pool.feature[e];
            out->value[at] = pool.value[e];
        }
    }
    out->start[count] = at;
    return st;
}

/* Time of the eigen-solver on a matrix of that order. */
static enum status time_solver(struct comm *world, int64_t n, int components, double *seconds)
{
    enum status st = ST_OK;
    struct dense *d = NULL;
    double *values = malloc(sizeof *values * (size_t)components),
           *vectors = malloc(sizeof *vectors * (size_t)(components * n));
    TRY(dense_create(world, n, &d));
    for (int64_t c = 0; c < d->local_cols; c++)
        for (int64_t r = 0; r < d->local_rows; r++) {
            struct rng random = rng_at(2, RNG_TEST, (uint64_t)c, (uint64_t)r);
            d->values[c * d->local_rows + r] = rng_normal(&random);
        }
    comm_barrier(world);
    *seconds = -comm_now_s();
    TRY(dense_eigen(world, d, components, values, vectors));
    *seconds += comm_now_s();
done:
    dense_destroy(world, &d);
    free(values);
    free(vectors);
    return st;
}

int main(int argc, char **argv)
{
    enum status st = ST_OK;
    struct comm world;
    struct pca *p = NULL;
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    if (argc != 4) TRY(ST_USAGE);
    int64_t cells = atoll(argv[1]), genes = atoll(argv[2]);
    double solver = 0;
    dense_set_threads(1);
    TRY(comm_agree(&world, make_pool(genes)));
    struct pca_source source = {cells, genes, read_pool, NULL};
    comm_barrier(&world);
    double seconds = -comm_now_s();
    TRY(pca_fit(&world, &source, 0, atoi(argv[3]), &p));
    seconds += comm_now_s();
    TRY(time_solver(&world, genes, atoi(argv[3]), &solver));
    double n = (double)genes;
    comm_print(&world, "%.4f %.4f %.2f\n", seconds, solver, 1e-9 * ((double)cells + 4.0 / 3 * n) * n * n / seconds);
done:
    pca_destroy(&p);
    cells_free(&pool);
    comm_close(&world);
    return st;
}
