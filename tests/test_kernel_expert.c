/* What routing means, on numbers small enough to follow.
 * plan: ranks=1 limit=60 configs=release,sanitize,double
 * Both rules against sums by hand; ties, biases, NaN; the sort is stable and complete for every pattern of load; slots
 * by groups of cells; gathering, weighting and adding up is the dense sum over the chosen experts. */
#include "tests/kernel_check.h"

#include "kernel/kernel_list.h"

enum { E = 4, K = 2 };

/* Sums of two exponentials: a few roundings of `real`. */
static const double exact = sizeof(real) == 4 ? 2e-6 : 1e-14;

static void check_real(real got, double want)
{
    if (!(fabs(got - want) <= exact * fmax(1, fabs(want)))) fail_msg("%.9g, not %.9g", (double)got, want);
}

static void both_rules(void **state)
{
    static const real logits[2 * E] = {1, 3, 0, 2, -1, -1, -1, -1};
    real w[2 * K], p[2 * E];
    int32_t choice[2 * K];
    double all = exp(1) + exp(3) + exp(0) + exp(2);
    struct route_shape s = {2, E, K, ROUTE_SOFTMAX_TOPK};
    route_forward(w, choice, p, logits, NULL, &s);
    static const int32_t want[2 * K] = {1, 3, 0, 1}; /* largest first; of equals the lower */
    assert_memory_equal(choice, want, sizeof want);
    check_real(w[0], exp(3) / all), check_real(w[1], exp(2) / all), check_real(w[2], 0.25), check_real(w[3], 0.25);
    for (int e = 0; e < E; e++) check_real(p[e], exp(logits[e]) / all), check_real(p[E + e], 0.25);

    s.rule = ROUTE_TOPK_SOFTMAX;
    route_forward(w, choice, p, logits, NULL, &s);
    assert_memory_equal(choice, want, sizeof want);
    check_real(w[0], exp(3) / (exp(3) + exp(2))), check_real(w[1], exp(2) / (exp(3) + exp(2)));
    check_real(w[2], 0.5), check_real(w[3], 0.5);
    for (int e = 0; e < E; e++) check_real(p[e], exp(logits[e]) / all);
}

/* The bias moves the choice; weights are those of the scores without it. */
static void bias_moves_the_choice_alone(void **state)
{
    static const real logits[E] = {1, 3, 0, 2}, bias[E] = {0, 0, 2, 0};
    real w[K], p[E];
    int32_t choice[K];
    double all = exp(1) + exp(3) + exp(0) + exp(2);
    struct route_shape s = {1, E, K, ROUTE_SOFTMAX_TOPK};
    route_forward(w, choice, p, logits, bias, &s);
    assert_true(choice[0] == 2 && choice[1] == 1);
    check_real(w[0], exp(0) / all), check_real(w[1], exp(3) / all);
    s.rule = ROUTE_TOPK_SOFTMAX;
    route_forward(w, choice, p, logits, bias, &s);
    assert_true(choice[0] == 2 && choice[1] == 1);
    check_real(w[0], exp(0) / (exp(0) + exp(3))), check_real(w[1], exp(3) / (exp(0) + exp(3)));
}

static void no_number_is_still_an_expert(void **state)
{
    real logits[2 * E] = {NAN, NAN, NAN, NAN, 1, NAN, 0, 2}, w[2 * E], p[2 * E];
    int32_t choice[2 * E];
    struct route_shape s = {2, E, E, ROUTE_TOPK_SOFTMAX};
    route_forward(w, choice, p, logits, NULL, &s);
    for (int r = 0; r < 2; r++) {
        int seen = 0;
        for (int k = 0; k < E; k++)
            assert_true(choice[r * E + k] >= 0 && choice[r * E + k] < E), seen |= 1 << choice[r * E + k];
        assert_int_equal(seen, (1 << E) - 1);
    }
    assert_true(isnan(w[0]) && isnan(w[E]));
}

static void check_sort(const int32_t *choice, int64_t rows, int chosen, int experts)
{
    int64_t slots = rows * chosen, *first = test_block((size_t)(experts + 1) * 8);
    struct expert_order o = {first, test_block((size_t)slots * 8 + 8), test_block((size_t)slots * 8 + 8)};
    expert_sort(&o, choice, rows, chosen, experts);
    assert_int_equal(first[0], 0);
    assert_int_equal(first[experts], slots);
    int64_t place = 0;
    for (int e = 0; e < experts; e++) { /* by expert, then by slot */
        assert_int_equal(first[e], place);
        for (int64_t s = 0; s < slots; s++) {
            if (choice[s] != e) continue;
            assert_int_equal(o.place[s], place);
            assert_int_equal(o.row[place++], s / chosen);
        }
    }
    test_free_all();
}

static void sort_is_stable_and_complete(void **state)
{
    static const int32_t balanced[] = {0, 1, 2, 3, 1, 0, 3, 2}, hot[] = {2, 2, 2, 2}, few[] = {3, 0, 3, 1, 0, 1};
    check_sort(balanced, 4, 2, 4);
    check_sort(hot, 4, 1, 4);
    check_sort(few, 3, 2, 5);
    check_sort(hot, 1, 1, 3);
    check_sort(hot, 0, 2, 3);
}

/* Cells of 2, 0 and 3 rows, of which the first and the last are alike. */
static void slots_are_counted_by_group(void **state)
{
    static const int32_t choice[5 * K] = {0, 1, 1, 0, 3, 1, 1, 3, 3, 0}, group[3] = {2, 0, 2};
    static const int64_t first[4] = {0, 2, 2, 5}, want[E * 3] = {0, 0, 3, 0, 0, 4, 0, 0, 0, 0, 7, 3};
    static const int32_t other[3] = {1, 2, 0};
    static const int64_t apart[E * 3] = {1, 2, 0, 2, 2, 0, 0, 0, 0, 3, 0, 0};
    int64_t slots[E * 3] = {[E * 3 - 2] = 7}; /* added to what lies there */
    expert_count(&(struct expert_count){slots, 3, 3, first, group}, choice, K);
    assert_memory_equal(slots, want, sizeof want);
    memset(slots, 0, sizeof slots);
    expert_count(&(struct expert_count){slots, 3, 3, first, other}, choice, K);
    assert_memory_equal(slots, apart, sizeof apart);
}

/* The dense oracle: every row through each of its experts by plain loops, an expert e being x -> (1 + e) x + e. */
static void combined_is_the_dense_sum(void **state)
{
    enum { ROWS = 29, WIDTH = 70 };
    struct route_shape s = {ROWS, E, K, ROUTE_SOFTMAX_TOPK};
    struct expert_shape shape = {ROWS, WIDTH, K, DTYPE_REAL};
    real *logits = test_reals(ROWS * E, 1), *x = test_reals(ROWS * WIDTH, 2), *base = test_reals(ROWS * WIDTH, 3);
    real *w = test_reals(ROWS * K, 0), *p = test_reals(ROWS * E, 0), *rows = test_reals(ROWS * K * WIDTH, 0);
    real *y = test_reals(ROWS * WIDTH, 0), *want = test_reals(ROWS * WIDTH, 0);
    int32_t *choice = test_block(ROWS * K * 4);
    struct expert_order o = {test_block((E + 1) * 8), test_block(ROWS * K * 8), test_block(ROWS * K * 8)};
    route_forward(w, choice, p, logits, NULL, &s);
    expert_sort(&o, choice, ROWS, K, E);
    rows_gather(rows, x, o.row, ROWS * K, WIDTH, DTYPE_REAL);
    for (int e = 0; e < E; e++)
        for (int64_t i = o.first[e] * WIDTH; i < o.first[e + 1] * WIDTH; i++)
            rows[i] = (real)(1 + e) * rows[i] + (real)e;
    expert_combine(y, rows, base, w, o.place, &shape);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        double sum = base[i];
        for (int k = 0; k < K; k++) {
            int slot = i / WIDTH * K + k;
            sum += (double)w[slot] * ((1 + choice[slot]) * (double)x[i] + choice[slot]);
        }
        want[i] = (real)sum;
    }
    check_near_within("combined", y, want, ROWS * WIDTH, DTYPE_REAL, 1e-6);

    /* back: with weights of 1 the combination adds up what a row sent out, K times itself, on top of what lies there */
    rows_gather(rows, x, o.row, ROWS * K, WIDTH, DTYPE_REAL);
    memcpy(y, base, sizeof(real) * ROWS * WIDTH);
    expert_combine(y, rows, y, NULL, o.place, &shape);
    for (int i = 0; i < ROWS * WIDTH; i++) want[i] = base[i] + K * x[i];
    check_near_within("gathered back", y, want, ROWS * WIDTH, DTYPE_REAL, 1e-6);
    test_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_rules),
        cmocka_unit_test(bias_moves_the_choice_alone),
        cmocka_unit_test(no_number_is_still_an_expert),
        cmocka_unit_test(sort_is_stable_and_complete),
        cmocka_unit_test(slots_are_counted_by_group),
        cmocka_unit_test(combined_is_the_dense_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
