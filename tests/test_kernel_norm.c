/* DeepNorm residual normalisation and dropout against their plain versions.
 * plan: ranks=1 limit=60 configs=release,sanitize,double
 * Widths that do and do not fill vectors, with and without `a`, dropout on and off, in place; the
 * same bytes for 1, 2, 3 threads; a row's result does not depend on the rows around it; Philox equals
 * Random123's; the mask has its share of zeros and its mean is 1. */
#include "tests/kernel_check.h"

#include <Random123/philox.h>
#include <omp.h>

#include "kernel/kernel_list.h"
#include "kernel/philox.h"

/* Of the largest entry. fp32: a few roundings of 6e-8 on sums over the width; bf16: the stored result has 8 bits. */
static const struct tolerance tolerances[] = {{DTYPE_F32, 3e-6}, {DTYPE_BF16, 4e-3}, {DTYPE_F64, 1e-13}};

struct problem {
    struct norm_shape shape;
    void *x, *a, *dy, *y, *dx, *da;
    real *gamma, *beta, *stat, *dgamma, *dbeta, *scratch;
    int64_t *cell;
    int32_t *position;
};

static struct problem problem_make(int64_t rows, int64_t width, enum dtype type, bool with_a, double p)
{
    struct problem q = {.shape = {.rows = rows, .width = width, .type = type, .lambda = 1.4142, .eps = 1e-7}};
    q.x = test_values(rows * width, 1, type);
    q.a = with_a ? test_values(rows * width, 2, type) : NULL;
    q.dy = test_values(rows * width, 3, type);
    q.y = test_values(rows * width, 0, type);
    q.dx = test_values(rows * width, 0, type);
    q.da = with_a ? test_values(rows * width, 0, type) : NULL;
    q.gamma = test_reals(width, 4), q.beta = test_reals(width, 5);
    q.stat = test_reals(2 * rows, 0), q.dgamma = test_reals(width, 6), q.dbeta = test_reals(width, 7);
    q.scratch = test_reals(norm_scratch_reals(rows, width), 0);
    q.cell = test_block((size_t)rows * sizeof *q.cell);
    q.position = test_block((size_t)rows * sizeof *q.position);
    for (int64_t r = 0; r < rows; r++) q.cell[r] = 1000 + r / 7, q.position[r] = (int32_t)(r % 7);
    q.shape.drop =
        (struct dropout){.p = p, .seed = 5, .step = 9, .site = 3, .row_cell = q.cell, .row_position = q.position};
    return q;
}

static void run(struct problem *q)
{
    norm_residual_forward(q->y, q->stat, q->x, q->a, q->gamma, q->beta, &q->shape);
    norm_residual_backward(q->dx, q->da, q->dgamma, q->dbeta, q->dy, q->stat, q->x, q->a, q->gamma, &q->shape,
                           q->scratch);
}

static void run_plain(struct problem *q)
{
    norm_residual_forward_ref(q->y, q->stat, q->x, q->a, q->gamma, q->beta, &q->shape);
    norm_residual_backward_ref(q->dx, q->da, q->dgamma, q->dbeta, q->dy, q->stat, q->x, q->a, q->gamma, &q->shape,
                               q->scratch);
}

static void matches_plain(int64_t rows, int64_t width, enum dtype type, bool with_a, double p)
{
    struct problem fast = problem_make(rows, width, type, with_a, p),
                   plain = problem_make(rows, width, type, with_a, p);
    run(&fast);
    run_plain(&plain);
    int64_t count = rows * width;
    check_near("y", fast.y, plain.y, count, type, tolerances);
    check_near("stat", fast.stat, plain.stat, 2 * rows, DTYPE_REAL, tolerances);
    check_near("dx", fast.dx, plain.dx, count, type, tolerances);
    if (with_a) check_near("da", fast.da, plain.da, count, type, tolerances);
    check_near("dgamma", fast.dgamma, plain.dgamma, width, DTYPE_REAL, tolerances);
    check_near("dbeta", fast.dbeta, plain.dbeta, width, DTYPE_REAL, tolerances);
    test_free_all();
}

static void shapes_match(void **state)
{
    static const int64_t widths[] = {8, 24, 100, 256, 1536};
    for (int t = 0; t < test_type_count; t++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (int mode = 0; mode < 3; mode++)
                matches_plain(67, widths[w], test_types[t], mode > 0, mode == 2 ? 0.3 : 0);
}

static void in_place_is_the_same(void **state)
{
    enum { ROWS = 5, WIDTH = 96 };
    for (int t = 0; t < test_type_count; t++) {
        enum dtype type = test_types[t];
        size_t bytes = ROWS * WIDTH * dtype_bytes(type);
        struct problem apart = problem_make(ROWS, WIDTH, type, true, 0.2),
                       same = problem_make(ROWS, WIDTH, type, true, 0.2);
        run(&apart);
        norm_residual_backward(same.dy, same.da, same.dgamma, same.dbeta, same.dy, apart.stat, same.x, same.a,
                               same.gamma, &same.shape, same.scratch);
        norm_residual_forward(same.x, same.stat, same.x, same.a, same.gamma, same.beta, &same.shape);
        assert_memory_equal(same.x, apart.y, bytes);
        assert_memory_equal(same.dy, apart.dx, bytes);
        test_free_all();
    }
}

static void threads_and_neighbours_change_nothing(void **state)
{
    enum { ROWS = 200, WIDTH = 200 };
    for (int t = 0; t < test_type_count; t++) {
        enum dtype type = test_types[t];
        size_t row = WIDTH * dtype_bytes(type);
        omp_set_num_threads(1);
        struct problem one = problem_make(ROWS, WIDTH, type, true, 0.1);
        run(&one);
        for (int threads = 2; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            struct problem more = problem_make(ROWS, WIDTH, type, true, 0.1);
            run(&more);
            assert_memory_equal(one.y, more.y, ROWS * row);
            assert_memory_equal(one.dx, more.dx, ROWS * row);
            assert_memory_equal(one.da, more.da, ROWS * row);
            assert_memory_equal(one.dgamma, more.dgamma, WIDTH * sizeof(real));
            assert_memory_equal(one.dbeta, more.dbeta, WIDTH * sizeof(real));
        }
        for (int64_t r = 0; r < ROWS; r += 31) {
            struct norm_shape alone = one.shape;
            alone.rows = 1;
            alone.drop.row_cell += r;
            alone.drop.row_position += r;
            real stat[2];
            norm_residual_forward(one.da, stat, dtype_at(one.x, r * WIDTH, type), dtype_at(one.a, r * WIDTH, type),
                                  one.gamma, one.beta, &alone);
            assert_memory_equal(one.da, dtype_at(one.y, r * WIDTH, type), row);
        }
        test_free_all();
    }
}

static void philox_is_random123(void **state)
{
    int64_t cell = 77;
    int32_t position = 0;
    struct dropout d = {.p = 0.5, .seed = 3, .step = 8, .site = 6, .row_cell = &cell, .row_position = &position};
    struct dropout_stream s = dropout_stream_at(&d, 0, 800);
    for (uint32_t j = 0; j < 100; j++) {
        philox4x32_ctr_t c = {{s.first + j, s.counter[0], s.counter[1], s.counter[2]}};
        philox4x32_key_t k = {{s.key[0], s.key[1]}};
        philox4x32_ctr_t want = philox4x32_R(DROPOUT_ROUNDS, c, k);
        uint32_t got[4];
        dropout_words(&s, j, got);
        assert_memory_equal(got, want.v, sizeof got);
    }
}

static void dropout_has_its_share(void **state)
{
    enum { ROWS = 400, WIDTH = 500 };
    struct problem q = problem_make(ROWS, WIDTH, test_types[0], true, 0.25);
    double zeros = 0, sum = 0, count = ROWS * WIDTH;
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t i = 0; i < WIDTH; i++) {
            double f = dropout_factor_ref(&q.shape.drop, r, i, WIDTH);
            zeros += f == 0;
            sum += f;
        }
    assert_true(fabs(zeros / count - 0.25) < 5 * sqrt(0.25 * 0.75 / count));
    assert_true(fabs(sum / count - 1) < 5 * sqrt(0.25 / 0.75 / count));
    struct dropout other = q.shape.drop;
    other.site++;
    int equal = 0;
    for (int64_t i = 0; i < WIDTH; i++)
        equal += dropout_factor_ref(&other, 0, i, WIDTH) == dropout_factor_ref(&q.shape.drop, 0, i, WIDTH);
    assert_true(equal < WIDTH * 0.75);
    test_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes_match), cmocka_unit_test(in_place_is_the_same),
                                       cmocka_unit_test(threads_and_neighbours_change_nothing),
                                       cmocka_unit_test(philox_is_random123), cmocka_unit_test(dropout_has_its_share)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
