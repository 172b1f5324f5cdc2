/* Dense algebra over ranks: block-cyclic Gram matrices and the distributed eigen-solver.
 * plan: ranks=1,2,3,4,5 limit=60
 * The accumulated matrix equals a plain double loop, for orders below, at and above one block and for
 * ranks that bring no rows; eigenpairs satisfy G v = lambda v, are orthonormal and descending; a prime
 * number of ranks caps the grid; NaN is refused. Tolerances: 5e-6 of the largest entry for fp32 tiles,
 * 1e-10 of the largest eigenvalue for residuals in fp64. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours records a status */

#include "base/rng.h"
#include "mpi/dense.h"

static struct comm world;

/* Sparse rows that depend on their global number alone; a third of the columns are filled. */
struct sample {
    int64_t rows, n;
    int64_t *start;
    int32_t *column;
    float *value;
};

static struct sample sample_create(int64_t first, int64_t rows, int64_t n)
{
    struct sample s = {.rows = rows, .n = n};
    s.start = calloc((size_t)rows + 1, sizeof *s.start);
    s.column = malloc(sizeof *s.column * (size_t)(rows * n + 1));
    s.value = malloc(sizeof *s.value * (size_t)(rows * n + 1));
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = s.start[r];
        struct rng random = rng_at(5, RNG_TEST, (uint64_t)(first + r), 0);
        for (int32_t c = 0; c < n; c++) {
            double u = rng_uniform(&random), v = 3 + rng_normal(&random) + (c % 7 == 0 ? 40 : 0);
            if (u > 0.34) continue;
            s.column[at] = c;
            s.value[at++] = (float)v;
        }
        s.start[r + 1] = at;
    }
    return s;
}

static void sample_free(struct sample *s)
{
    free(s->start);
    free(s->column);
    free(s->value);
}

static double *plain_gram(int64_t rows, int64_t n, const double *centre)
{
    struct sample s = sample_create(0, rows, n);
    double *g = calloc((size_t)(n * n), sizeof *g), *x = malloc(sizeof *x * (size_t)n);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < n; c++) x[c] = -centre[c];
        for (int64_t e = s.start[r]; e < s.start[r + 1]; e++) x[s.column[e]] += s.value[e];
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) g[i * n + j] += x[i] * x[j];
    }
    free(x);
    sample_free(&s);
    return g;
}

/* Each rank brings its share, rank 1 none, in two calls of unequal size. */
static struct dense *spread_gram(int64_t rows, int64_t n, const double *centre)
{
    struct dense *d = NULL;
    assert_int_equal(dense_create(&world, n, &d), ST_OK);
    int givers = world.size > 1 ? world.size - 1 : 1, place = world.rank > 1 ? world.rank - 1 : world.rank;
    int64_t first = rows * place / givers, end = rows * (place + 1) / givers;
    if (world.size > 1 && world.rank == 1) end = first;
    int64_t cut = first + (end - first) / 3;
    int64_t edges[3] = {first, cut, end};
    for (int part = 0; part < 2; part++) {
        struct sample s = sample_create(edges[part], edges[part + 1] - edges[part], n);
        struct dense_rows mine = {s.rows, s.start, s.column, s.value};
        assert_int_equal(dense_add_gram(&world, d, &mine, centre), ST_OK);
        sample_free(&s);
    }
    return d;
}

static double *centre_of(int64_t n)
{
    double *centre = malloc(sizeof *centre * (size_t)n);
    for (int64_t c = 0; c < n; c++) centre[c] = c % 7 == 0 ? 14.6 : 1.0;
    return centre;
}

static void gram_equals_the_plain_loop(void **state)
{
    static const int64_t orders[] = {1, 5, 63, 64, 65, 300};
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        int64_t n = orders[o], rows = 1201;
        double *centre = centre_of(n), *plain = plain_gram(rows, n, centre);
        double *whole = malloc(sizeof *whole * (size_t)(n * n)), largest = 0, trace = 0;
        struct dense *d = spread_gram(rows, n, centre);
        assert_int_equal(dense_gather(&world, d, whole), ST_OK);
        for (int64_t i = 0; i < n * n; i++) largest = fmax(largest, fabs(plain[i]));
        for (int64_t i = 0; i < n * n; i++) assert_true(fabs(whole[i] - plain[i]) <= 5e-6 * largest);
        for (int64_t i = 0; i < n; i++) trace += plain[i * n + i];
        assert_true(fabs(dense_trace(&world, d) - trace) < 5e-6 * trace);
        dense_destroy(&world, &d);
        free(centre);
        free(plain);
        free(whole);
    }
}

static void check_pairs(const double *g, int64_t n, int k, const double *values, const double *vectors)
{
    for (int a = 0; a < k; a++) {
        const double *v = vectors + a * n;
        double top = 0;
        if (a > 0) assert_true(values[a] <= values[a - 1]);
        for (int64_t i = 0; i < n; i++) {
            double gv = 0;
            for (int64_t j = 0; j < n; j++) gv += g[i * n + j] * v[j];
            assert_true(fabs(gv - values[a] * v[i]) < 1e-10 * values[0]);
            if (fabs(v[i]) > fabs(top) * (1 + 1e-9)) top = v[i];
        }
        assert_true(top > 0);
        for (int b = 0; b <= a; b++) {
            double dot = 0;
            for (int64_t i = 0; i < n; i++) dot += v[i] * vectors[b * n + i];
            assert_true(fabs(dot - (a == b)) < 1e-10);
        }
    }
}

static void eigenpairs_hold(void **state)
{
    static const struct {
        int64_t n;
        int k;
    } cases[] = {{1, 1}, {5, 5}, {65, 3}, {200, 1}, {300, 50}, {130, 130}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int64_t n = cases[c].n;
        int k = cases[c].k;
        double *centre = centre_of(n), *g = malloc(sizeof *g * (size_t)(n * n));
        double *values = malloc(sizeof *values * (size_t)k), *vectors = malloc(sizeof *vectors * (size_t)(k * n));
        struct dense *d = spread_gram(2000, n, centre);
        dense_scale(d, 1.0 / 1999);
        assert_int_equal(dense_gather(&world, d, g), ST_OK);
        assert_int_equal(dense_eigen(&world, d, k, values, vectors), ST_OK);
        check_pairs(g, n, k, values, vectors);
        dense_destroy(&world, &d);
        free(centre);
        free(g);
        free(values);
        free(vectors);
    }
}

static void grid_is_near_square(void **state)
{
    static const int expected[][3] = {{1, 1, 1}, {2, 1, 2},  {3, 1, 2},  {4, 2, 2},  {5, 2, 2},   {6, 2, 3},
                                      {7, 2, 3}, {11, 3, 3}, {13, 3, 4}, {16, 4, 4}, {97, 8, 12}, {128, 8, 16}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int rows, cols;
        dense_grid_shape(expected[i][0], &rows, &cols);
        assert_true(rows * cols >= expected[i][1] * expected[i][2] && rows <= cols && cols <= 2 * rows);
        assert_true(rows * cols <= expected[i][0]);
    }
}

static void nan_is_refused(void **state)
{
    struct dense *d = NULL;
    double value, vector[40];
    assert_int_equal(dense_create(&world, 40, &d), ST_OK);
    if (d->grid_row == 0 && d->grid_col == 0) d->values[0] = NAN;
    comm_set_program("(expected) test_dense");
    assert_int_equal(dense_eigen(&world, d, 1, &value, vector), ST_NUMERIC);
    dense_destroy(&world, &d);
}

static void too_large_is_refused(void **state)
{
    struct dense *d = NULL;
    comm_set_program("(expected) test_dense");
    assert_int_equal(dense_create(&world, 4000000, &d), ST_MEMORY);
    assert_null(d);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    dense_set_threads(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(grid_is_near_square),
                                       cmocka_unit_test(gram_equals_the_plain_loop), cmocka_unit_test(eigenpairs_hold),
                                       cmocka_unit_test(nan_is_refused), cmocka_unit_test(too_large_is_refused)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
