/* What becomes of bad steps.
 * plan: limit=20 configs=release,double,sanitize
 * Good steps pass and are remembered, 64 of them; NaNs and infinities, in the loss or the norm, stop or are skipped; a norm
 * above the factor times the median is a spike, but not before 16 steps, and does not move the median; too many in a row
 * stop; a state copied as bytes judges as the one it was copied from; the words say what and which key. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "optim/guard.h"

static const struct guard_rules stops = {.max_skips = 3}, skips = {true, true, 5, 3};

/* `steps` good steps of norm 1, 2, 3, 1, 2, 3, …: median 2. */
static struct guard_state after(const struct guard_rules *rules, int steps)
{
    struct guard_state s = {0};
    for (int i = 0; i < steps; i++) assert_int_equal(guard_judge(rules, &s, 1, 1 + i % 3).act, GUARD_ACCEPT);
    return s;
}

static void defaults_stop_at_nan_alone(void **state)
{
    struct config *c;
    assert_int_equal(config_create(&c), ST_OK);
    struct guard_rules rules = guard_rules_from(c);
    assert_false(rules.skip_nan);
    assert_true(rules.skip_spike);
    assert_true(rules.spike_factor == 0);
    assert_int_equal(rules.max_skips, 10);
    struct guard_state s = after(&rules, 100);
    assert_int_equal(guard_judge(&rules, &s, 1, 1e30).act, GUARD_ACCEPT);
    assert_int_equal(guard_judge(&rules, &s, NAN, 1).act, GUARD_STOP);
    config_destroy(&c);
}

static void what_is_not_finite_is_found(void **state)
{
    static const double bad[][2] = {{NAN, 1}, {INFINITY, 1}, {1, NAN}, {1, INFINITY}, {-INFINITY, NAN}};
    for (int i = 0; i < 5; i++) {
        struct guard_state s = after(&stops, 20), t = s;
        struct guard_verdict v = guard_judge(&stops, &s, bad[i][0], bad[i][1]);
        assert_int_equal(v.act, GUARD_STOP);
        assert_int_equal(v.reason, GUARD_NAN);
        assert_int_equal(s.accepted, 20);
        assert_int_equal(guard_judge(&skips, &t, bad[i][0], bad[i][1]).act, GUARD_SKIP);
        assert_int_equal(t.skipped, 1);
        assert_true(guard_median(&t) == 2);
    }
}

static void spikes_are_held_against_the_median(void **state)
{
    struct guard_state s = after(&skips, GUARD_LEAST - 1);
    assert_true(isnan(guard_median(&s)));
    assert_int_equal(guard_judge(&skips, &s, 1, 1e6).act, GUARD_ACCEPT); /* too early to know */
    assert_true(guard_median(&s) == 2);
    assert_int_equal(guard_judge(&skips, &s, 1, 10).act, GUARD_ACCEPT); /* not above */
    struct guard_verdict v = guard_judge(&skips, &s, 1, 10.001);
    assert_int_equal(v.act, GUARD_SKIP);
    assert_int_equal(v.reason, GUARD_SPIKE);
    assert_true(v.median == 2 && guard_median(&s) == 2);
    struct guard_rules stop = skips;
    stop.skip_spike = false;
    assert_int_equal(guard_judge(&stop, &s, 1, 10.001).act, GUARD_STOP);
}

static void old_norms_are_forgotten(void **state)
{
    struct guard_state s = after(&skips, 200);
    for (int i = 0; i < GUARD_NORMS; i++) assert_int_equal(guard_judge(&skips, &s, 1, 0.5).act, GUARD_ACCEPT);
    assert_true(guard_median(&s) == 0.5);
    assert_int_equal(guard_judge(&skips, &s, 1, 3).act, GUARD_SKIP);
}

static void too_many_in_a_row_stop(void **state)
{
    struct guard_state s = after(&skips, 20);
    for (int round = 0; round < 2; round++) {
        for (int i = 1; i <= 3; i++) {
            struct guard_verdict v = guard_judge(&skips, &s, NAN, 1);
            assert_int_equal(v.act, GUARD_SKIP);
            assert_int_equal(v.skipped_in_a_row, i);
        }
        if (round == 0) assert_int_equal(guard_judge(&skips, &s, 1, 2).act, GUARD_ACCEPT); /* the row ends */
    }
    assert_int_equal(guard_judge(&skips, &s, 1, 1e9).act, GUARD_STOP);
    assert_int_equal(s.skipped, 6);
}

static void a_copied_state_judges_alike(void **state)
{
    struct guard_state s = after(&skips, 77), copy;
    memcpy(&copy, &s, sizeof copy);
    for (int i = 0; i < 300; i++) {
        double norm = i % 17 == 0 ? 1e3 : i % 29 == 0 ? NAN : 1 + i % 7;
        struct guard_verdict a = guard_judge(&skips, &s, 1, norm), b = guard_judge(&skips, &copy, 1, norm);
        assert_int_equal(a.act, b.act);
        assert_memory_equal(&s, &copy, sizeof s);
    }
}

static void expect_words(const struct guard_rules *rules, struct guard_verdict v, const char *words)
{
    status_clear();
    assert_int_equal(guard_fail(rules, &v, 41), ST_NUMERIC);
    if (!strstr(status_message(), words)) print_error("%s\n", status_message());
    assert_non_null(strstr(status_message(), words));
}

static void words_say_what_to_do(void **state)
{
    struct guard_state s = after(&stops, 20);
    expect_words(&stops, guard_judge(&stops, &s, NAN, 1), "step 41: the loss is ");
    expect_words(&stops, guard_judge(&stops, &s, 1, INFINITY), "the gradient norm is inf though the loss is 1;");
    expect_words(&stops, guard_judge(&stops, &s, 1, NAN), "or set train.on_nan to skip; the last checkpoint stays");
    struct guard_rules spike = {.spike_factor = 4, .max_skips = 3};
    expect_words(&spike, guard_judge(&spike, &s, 1, 20), "the gradient norm is 20, 10 times the median 2 of the steps");
    expect_words(&spike, guard_judge(&spike, &s, 1, 20), "or set train.on_spike to skip");
    for (int i = 0; i < 3; i++) assert_int_equal(guard_judge(&skips, &s, 1, 20).act, GUARD_SKIP);
    expect_words(&skips, guard_judge(&skips, &s, 1, 20), "after 3 skipped steps (train.max_skips); lower train.rate");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(defaults_stop_at_nan_alone),
                                       cmocka_unit_test(what_is_not_finite_is_found),
                                       cmocka_unit_test(spikes_are_held_against_the_median),
                                       cmocka_unit_test(old_norms_are_forgotten),
                                       cmocka_unit_test(too_many_in_a_row_stop),
                                       cmocka_unit_test(a_copied_state_judges_alike),
                                       cmocka_unit_test(words_say_what_to_do)};
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
