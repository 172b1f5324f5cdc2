/* Principal components of counts over ranks, and the moments beneath them.
 * plan: ranks=1,2,3 limit=60
 * Genes of largest variance are those a plain loop finds; explained variances equal those of LAPACK's
 * full SVD of the centred matrix to 1e-5, components up to sign to 1e-4, scores are the projections;
 * more components than cells, and a negative count, are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours records a status */

#include "base/rng.h"
#include "metric/expression.h"
#include "mpi/dense.h"
#include "mpi/pca.h"

enum { CELLS = 700, FEATURES = 160, GENES = 70, K = 12 };

extern void dgesvd_(const char *, const char *, const int *, const int *, double *, const int *, double *, double *,
                    const int *, double *, const int *, double *, const int *, int *);

static struct comm world;

/* Three kinds of cells, counts of skewed genes; feature 3 is constant zero, feature 4 constant after scaling. */
static float count_at(int64_t cell, int64_t feature)
{
    struct rng r = rng_at(11, RNG_TEST, (uint64_t)cell, (uint64_t)feature);
    double mean = 6.0 / (1 + (double)(feature % 37)) * ((cell + feature) % 3 == 0 ? 2.5 : 1);
    if (feature == 3) return 0;
    double u = rng_uniform(&r);
    return (float)floor(-mean * log(1 - u));
}

static enum status read_cells(void *context, int64_t first, int64_t count, struct cells *out)
{
    enum status st = cells_reserve(out, count, count * FEATURES);
    if (st != ST_OK) return st;
    int64_t at = 0;
    out->count = count;
    out->start[0] = 0;
    for (int64_t r = 0; r < count; r++) {
        out->id[r] = first + r;
        for (int32_t f = 0; f < FEATURES; f++) {
            float x = count_at(first + r, f);
            if (context && first + r == 5 && f == 9) x = -1;
            if (x == 0) continue;
            out->feature[at] = f;
            out->value[at++] = x;
        }
        out->start[r + 1] = at;
    }
    return ST_OK;
}

/* y[cell, feature] by the formula, and its mean and variance. */
static double *plain_log(double *mean, double *variance)
{
    double *y = calloc((size_t)CELLS * FEATURES, sizeof *y);
    for (int64_t c = 0; c < CELLS; c++) {
        double total = 0;
        for (int64_t f = 0; f < FEATURES; f++) total += count_at(c, f);
        for (int64_t f = 0; f < FEATURES; f++) y[c * FEATURES + f] = log(1 + 1e4 * count_at(c, f) / total);
    }
    for (int64_t f = 0; f < FEATURES; f++) {
        mean[f] = variance[f] = 0;
        for (int64_t c = 0; c < CELLS; c++) mean[f] += y[c * FEATURES + f] / CELLS;
        for (int64_t c = 0; c < CELLS; c++) variance[f] += pow(y[c * FEATURES + f] - mean[f], 2) / (CELLS - 1);
    }
    return y;
}

static void variances_equal_a_full_svd(void **state)
{
    double mean[FEATURES], variance[FEATURES], s[GENES], u[1], vt[GENES * GENES], work[20000], total = 0;
    double *y = plain_log(mean, variance), *x = malloc(sizeof *x * CELLS * GENES);
    struct pca_source source = {CELLS, FEATURES, read_cells, NULL};
    struct pca *p = NULL;
    assert_int_equal(pca_fit(&world, &source, GENES, K, &p), ST_OK);
    assert_int_equal(p->genes, GENES);
    double least = INFINITY;
    for (int g = 0; g < GENES; g++) {
        least = fmin(least, variance[p->gene[g]]);
        total += variance[p->gene[g]];
        assert_true(fabs(p->mean[g] - mean[p->gene[g]]) < 1e-7 * (1 + mean[p->gene[g]]));
        for (int c = 0; c < CELLS; c++) x[g * CELLS + c] = y[c * FEATURES + p->gene[g]] - mean[p->gene[g]];
    }
    for (int f = 0; f < FEATURES; f++)
        if (p->place[f] < 0) assert_true(variance[f] <= least * (1 + 1e-6));
    int m = CELLS, n = GENES, one = 1, lwork = 20000, info = 1;
    dgesvd_("N", "A", &m, &n, x, &m, s, u, &one, vt, &n, work, &lwork, &info);
    assert_int_equal(info, 0);
    assert_true(fabs(p->total_variance - total) < 1e-5 * total);
    for (int k = 0; k < K; k++) {
        double expected = s[k] * s[k] / (CELLS - 1), dot = 0;
        assert_true(fabs(p->variance[k] - expected) < 1e-5 * expected);
        for (int g = 0; g < GENES; g++) dot += vt[g * GENES + k] * p->vectors[k * GENES + g];
        assert_true(fabs(fabs(dot) - 1) < 1e-4);
    }
    pca_destroy(&p);
    free(x);
    free(y);
}

static void scores_are_projections(void **state)
{
    double mean[FEATURES], variance[FEATURES], *y = plain_log(mean, variance);
    struct pca_source source = {CELLS, FEATURES, read_cells, NULL};
    struct pca *p = NULL;
    struct cells block = {0};
    float scores[20 * K];
    assert_int_equal(pca_fit(&world, &source, 0, K, &p), ST_OK);
    assert_int_equal(p->genes, FEATURES - 1);
    assert_int_equal(read_cells(NULL, 30, 20, &block), ST_OK);
    pca_project(p, &block, scores);
    for (int r = 0; r < 20; r++)
        for (int k = 0; k < K; k++) {
            double expected = 0;
            for (int g = 0; g < p->genes; g++)
                expected += (y[(30 + r) * FEATURES + p->gene[g]] - p->mean[g]) * p->vectors[k * p->genes + g];
            assert_true(fabs(scores[r * K + k] - expected) < 1e-4);
        }
    cells_free(&block);
    pca_destroy(&p);
    free(y);
}

static void bad_requests_are_refused(void **state)
{
    struct pca_source source = {20, FEATURES, read_cells, NULL}, negative = {CELLS, FEATURES, read_cells, state};
    struct pca *p = NULL;
    comm_set_program("(expected) test_pca");
    assert_int_equal(pca_fit(&world, &source, 0, 20, &p), ST_CONFIG);
    assert_int_equal(pca_fit(&world, &negative, 0, 2, &p), ST_INPUT);
    assert_null(p);
}

static void moments_do_not_depend_on_order(void **state)
{
    struct moments whole = {0}, parts = {0};
    struct cells block = {0};
    assert_int_equal(moments_create(FEATURES, CELLS, &whole), ST_OK);
    assert_int_equal(moments_create(FEATURES, CELLS, &parts), ST_OK);
    assert_int_equal(read_cells(NULL, 0, CELLS, &block), ST_OK);
    assert_int_equal(moments_add(&whole, &block), ST_OK);
    for (int64_t first = CELLS - 70; first >= 0; first -= 70) {
        assert_int_equal(read_cells(NULL, first, 70, &block), ST_OK);
        assert_int_equal(moments_add(&parts, &block), ST_OK);
    }
    assert_memory_equal(whole.sum, parts.sum, sizeof *whole.sum * FEATURES);
    assert_memory_equal(whole.square, parts.square, sizeof *whole.square * FEATURES);
    moments_free(&whole);
    moments_free(&parts);
    cells_free(&block);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    dense_set_threads(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variances_equal_a_full_svd), cmocka_unit_test(scores_are_projections),
        cmocka_unit_test(bad_requests_are_refused), cmocka_unit_test(moments_do_not_depend_on_order)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
