/* Schedules, clipping and Adam over a parameter table.
 * plan: ranks=1 limit=30
 * Ten steps against the formula written out in double for every clip kind and both kinds of decay, with a
 * frozen row, a row without decay, one that is not clipped and one with its own rate; rates of each schedule at
 * their corners. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "base/rng.h"
#include "optim/optimiser.h"

enum { ROWS = 4, STEPS = 10 };

static struct config *config_of(const char *const *assignments)
{
    struct config *c;
    assert_int_equal(config_create(&c), ST_OK);
    for (; *assignments; assignments++) assert_int_equal(config_set(c, *assignments, "test"), ST_OK);
    return c;
}

static struct param_table small_table(void)
{
    struct param_table t = {0};
    for (int i = 0; i < ROWS; i++) {
        struct param row = {.rows = 3 + i,
                            .cols = 37,
                            .shape_rank = 2,
                            .shape = {3 + i, 37},
                            .init = INIT_NORMAL,
                            .init_scale = 1,
                            .trainable = i != 2,
                            .decay = i != 1,
                            .clip = i != 0,
                            .rate_scale = i == 3 ? 0.5 : 1};
        snprintf(row.name, sizeof row.name, "tensor%d", i);
        assert_int_equal(param_add(&t, &row, NULL), ST_OK);
    }
    assert_int_equal(param_allocate(&t, true), ST_OK);
    param_initialise(&t, 3);
    return t;
}

static void random_gradient(struct param_table *t, int step)
{
    struct rng r = rng_at(1, RNG_TEST, 0, (uint64_t)step);
    for (int i = 0; i < t->count; i++)
        for (int64_t k = 0; k < t->rows[i].rows * t->rows[i].cols; k++)
            param_gradient(t, i)[k] = (real)(0.3 * (i + 1) * rng_normal(&r));
}

/* The update written out, in double, one entry at a time. */
static void plain_step(struct param_table *t, double *w, double *m, double *v, const char *clip, double at,
                       bool decoupled, double rate, int step)
{
    double all = 0;
    for (int i = 0; i < t->count; i++)
        for (int64_t k = 0; k < t->rows[i].rows * t->rows[i].cols && t->rows[i].trainable; k++) {
            double g = param_gradient(t, i)[k];
            all += g * g;
        }
    for (int i = 0; i < t->count; i++) {
        const struct param *p = &t->rows[i];
        if (!p->trainable) continue;
        double own = 0, decay = p->decay ? 0.1 : 0, lr = rate * p->rate_scale, scale = 1;
        for (int64_t k = 0; k < p->rows * p->cols; k++) own += pow(param_gradient(t, i)[k], 2);
        if (p->clip && strcmp(clip, "tensor") == 0 && sqrt(own) > at) scale = at / sqrt(own);
        if (p->clip && strcmp(clip, "global") == 0 && sqrt(all) > at) scale = at / sqrt(all);
        for (int64_t k = 0; k < p->rows * p->cols; k++) {
            int64_t e = p->offset + k;
            double g = param_gradient(t, i)[k] * scale, before = w[e];
            if (p->clip && strcmp(clip, "value") == 0) g = fmax(-at, fmin(at, g));
            if (!decoupled) g += decay * w[e];
            m[e] = 0.9 * m[e] + 0.1 * g;
            v[e] = 0.95 * v[e] + 0.05 * g * g;
            w[e] -= lr * sqrt(1 - pow(0.95, step + 1)) / (1 - pow(0.9, step + 1)) * m[e] / (sqrt(v[e]) + 1e-8);
            if (decoupled) w[e] -= lr * decay * before;
        }
    }
}

static void compare_with_the_formula(const char *clip, double at, bool decoupled)
{
    char clip_set[64], at_set[64];
    snprintf(clip_set, sizeof clip_set, "train.clip=%s", clip);
    snprintf(at_set, sizeof at_set, "train.clip_at=%g", at);
    const char *sets[] = {clip_set,
                          at_set,
                          decoupled ? "train.decay_kind=decoupled" : "train.decay_kind=l2",
                          "train.rate=0.01",
                          "train.decay=0.1",
                          "train.warmup=4",
                          "train.steps=10",
                          "train.schedule=cosine",
                          NULL};
    struct config *config = config_of(sets);
    struct param_table t = small_table();
    struct optimiser *o;
    assert_int_equal(optimiser_create(config, &t, &o), ST_OK);
    double *w = calloc((size_t)t.size, sizeof *w), *m = calloc((size_t)t.size, sizeof *m),
           *v = calloc((size_t)t.size, sizeof *v);
    for (int64_t e = 0; e < t.size; e++) w[e] = t.weight[e];
    for (int step = 0; step < STEPS; step++) {
        random_gradient(&t, step);
        plain_step(&t, w, m, v, clip, at, decoupled, optimiser_rate(o, step), step);
        assert_true(isfinite(optimiser_measure(o)));
        optimiser_step(o, step);
    }
    double worst = 0, moved = 0;
    for (int64_t e = 0; e < t.size; e++) worst = fmax(worst, fabs(t.weight[e] - w[e]));
    for (int64_t k = 0; k < t.rows[2].rows * t.rows[2].cols; k++) moved += t.moment1[t.rows[2].offset + k] != 0;
    assert_true(worst < 2e-6); /* weights of about 1, ten roundings of 6e-8 */
    assert_true(moved == 0);
    free(w);
    free(m);
    free(v);
    optimiser_destroy(&o);
    param_free(&t);
    config_destroy(&config);
}

static void steps_match_the_formula(void **state)
{
    compare_with_the_formula("none", 1, false);
    compare_with_the_formula("value", 0.5, false);
    compare_with_the_formula("tensor", 1, false);
    compare_with_the_formula("global", 1, true);
}

static void measure_sees_one_bad_entry(void **state)
{
    const char *sets[] = {NULL};
    struct config *config = config_of(sets);
    struct param_table t = small_table();
    struct optimiser *o;
    assert_int_equal(optimiser_create(config, &t, &o), ST_OK);
    random_gradient(&t, 0);
    param_gradient(&t, 3)[17] = NAN;
    assert_false(isfinite(optimiser_measure(o)));
    param_gradient(&t, 3)[17] = INFINITY;
    assert_false(isfinite(optimiser_measure(o)));
    optimiser_destroy(&o);
    param_free(&t);
    config_destroy(&config);
}

static void near(double a, double b) { assert_true(fabs(a - b) <= 1e-12); }

static void rates_follow_the_schedule(void **state)
{
    struct rate_schedule s = {.kind = RATE_CONSTANT, .peak = 1, .end = 0.2, .warmup = 4, .steps = 105};
    near(rate_schedule_at(&s, 0), 0.2);
    near(rate_schedule_at(&s, 3), 0.8);
    near(rate_schedule_at(&s, 4), 1);
    near(rate_schedule_at(&s, 104), 1);
    s.kind = RATE_LINEAR;
    near(rate_schedule_at(&s, 4), 1);
    near(rate_schedule_at(&s, 54), 0.6);
    near(rate_schedule_at(&s, 104), 0.2);
    s.kind = RATE_COSINE;
    near(rate_schedule_at(&s, 4), 1);
    near(rate_schedule_at(&s, 54), 0.6);
    near(rate_schedule_at(&s, 29), 0.2 + 0.8 * (0.5 + sqrt(0.125)));
    near(rate_schedule_at(&s, 104), 0.2);
}

static void refuses_a_warmup_as_long_as_the_run(void **state)
{
    const char *sets[] = {"train.steps=10", "train.warmup=10", NULL};
    struct config *config = config_of(sets);
    struct param_table t = small_table();
    struct optimiser *o = NULL;
    assert_int_equal(optimiser_create(config, &t, &o), ST_CONFIG);
    status_clear();
    param_free(&t);
    config_destroy(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_match_the_formula),
        cmocka_unit_test(measure_sees_one_bad_entry),
        cmocka_unit_test(rates_follow_the_schedule),
        cmocka_unit_test(refuses_a_warmup_as_long_as_the_run),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
