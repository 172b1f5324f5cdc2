/* Checks of sparse rows, against the plain definition entry by entry.
 * plan: ranks=1 limit=30
 * Random matrices with empty rows at the ends and in the middle, longer than the check's block, right and with
 * one fault each: an index too large, negative, repeated, falling; a value 0, NaN or infinite; starts that fall. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "base/rng.h"
#include "cell/csr.h"

enum { FEATURES = 900, ROWS = 400, MOST = ROWS * FEATURES };

struct matrix {
    int64_t start[ROWS + 1];
    int32_t feature[MOST];
    float value[MOST];
};
static struct matrix m;

/* Rows with a share of all features, every seventh empty, and the first and last ones too. */
static void fill(struct rng *r, double share)
{
    int64_t n = 0;
    for (int row = 0; row < ROWS; row++) {
        m.start[row] = n;
        if (row < 2 || row >= ROWS - 2 || row % 7 == 3) continue;
        for (int32_t f = 0; f < FEATURES; f++)
            if (rng_uniform(r) < share) {
                m.feature[n] = f;
                m.value[n++] = (float)rng_normal(r) + 10;
            }
    }
    m.start[ROWS] = n;
}

static enum status check(void)
{
    status_clear();
    enum status st = csr_check_starts(m.start, ROWS, m.start[ROWS]);
    return st == ST_OK ? csr_check_rows(m.start, ROWS, m.feature, m.value, FEATURES) : st;
}

static void right_ones_pass(void **state)
{
    struct rng r = rng_at(1, RNG_TEST, 0, 0);
    static const double shares[] = {0, 0.001, 0.05, 0.9, 1};
    for (size_t k = 0; k < sizeof shares / sizeof *shares; k++) {
        fill(&r, shares[k]);
        assert_int_equal(check(), ST_OK);
    }
    /* a single entry, and rows that are a slice of larger arrays */
    assert_int_equal(csr_check_rows((int64_t[]){7, 8}, 1, (int32_t[]){3}, (float[]){1}, 4), ST_OK);
    assert_int_equal(csr_check_rows((int64_t[]){7, 7, 9}, 2, (int32_t[]){0, 3}, (float[]){1, -1}, 4), ST_OK);
}

/* A place inside a row with at least two entries, not its first. */
static int64_t some_entry(struct rng *r)
{
    for (;;) {
        int row = (int)rng_below(r, ROWS);
        int64_t n = m.start[row + 1] - m.start[row];
        if (n >= 2) return m.start[row] + 1 + (int64_t)rng_below(r, (uint64_t)(n - 1));
    }
}

static void each_fault_is_found(void **state)
{
    struct rng r = rng_at(2, RNG_TEST, 0, 0);
    fill(&r, 0.5);
    for (int round = 0; round < 40; round++) {
        int64_t at = some_entry(&r);
        int32_t feature = m.feature[at];
        float value = m.value[at];
        const int32_t bad_features[] = {FEATURES, INT32_MAX, -1, INT32_MIN, m.feature[at - 1]};
        const float bad_values[] = {0, -0.0f, NAN, INFINITY, -INFINITY};
        for (int k = 0; k < 5; k++) {
            m.feature[at] = bad_features[k];
            assert_int_equal(check(), ST_INPUT);
            m.feature[at] = feature;
            m.value[at] = bad_values[k];
            assert_int_equal(check(), ST_INPUT);
            m.value[at] = value;
        }
        m.feature[at - 1] = feature; /* two alike, from the other side */
        m.feature[at] = feature > 0 ? feature - 1 : 0;
        assert_int_equal(check(), ST_INPUT);
        fill(&r, 0.5);
    }
    assert_int_equal(check(), ST_OK);
}

static void starts_must_rise(void **state)
{
    assert_int_equal(csr_check_starts((int64_t[]){0, 3, 3, 9}, 3, 9), ST_OK);
    assert_int_equal(csr_check_starts((int64_t[]){0, 3, 2, 9}, 3, 9), ST_INPUT);
    assert_int_equal(csr_check_starts((int64_t[]){0, 3, 3, 10}, 3, 9), ST_INPUT);
    assert_int_equal(csr_check_starts((int64_t[]){-1, 3, 3, 9}, 3, 9), ST_INPUT);
    assert_int_equal(csr_check_starts((int64_t[]){0, INT64_MIN, 3, 9}, 3, 9), ST_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(right_ones_pass), cmocka_unit_test(each_fault_is_found),
                                       cmocka_unit_test(starts_must_rise)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
