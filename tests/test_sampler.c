/* Which cells a batch holds.
 * plan: ranks=1 limit=30
 * An epoch is a permutation for every size and block; 1, 2 and 3 ranks draw the same global order and a
 * run resumes from its position; a window touches no more blocks than it should; the next epoch and
 * another seed differ; weighted draws follow the weights; shares of a batch are the batch, and even. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "cell/sampler.h"

enum { MOST = 2000 };

static void an_epoch_visits_every_cell_once(void **state)
{
    static const int64_t sizes[] = {1, 2, 15, 16, 17, 100, 1023, 1999};
    static const int64_t blocks[] = {1, 7, 16, 64};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
            for (int64_t epoch = 0; epoch < 2; epoch++) {
                struct sampler s = {.seed = 5, .count = sizes[n], .block = blocks[b], .window = 4};
                char seen[MOST] = {0};
                for (int64_t i = 0; i < s.count; i++) {
                    struct sample_member m;
                    sampler_draw(&s, epoch * s.count + i, 1, &m);
                    assert_true(m.item >= 0 && m.item < s.count && !seen[m.item]);
                    seen[m.item] = 1;
                }
            }
}

/* The draws of steps [from, to), global batch 10, as `ranks` ranks make them. */
static void draw_steps(const struct sampler *s, int ranks, int64_t from, int64_t to, struct sample_member *out)
{
    for (int64_t step = from; step < to; step++)
        for (int r = 0; r < ranks; r++) {
            int64_t first = 10 * r / ranks, last = 10 * (r + 1) / ranks;
            sampler_draw(s, step * 10 + first, last - first, out + step * 10 + first);
        }
}

static void order_does_not_depend_on_ranks_and_resumes(void **state)
{
    struct sample_member one[300], other[300];
    struct sampler s = {.seed = 2, .count = 117, .block = 16, .window = 2};
    memset(one, 0, sizeof one);
    draw_steps(&s, 1, 0, 30, one);
    for (int ranks = 1; ranks <= 3; ranks++) {
        memset(other, 0, sizeof other);
        draw_steps(&s, ranks, 0, 13, other);
        draw_steps(&s, ranks, 13, 30, other);
        assert_memory_equal(one, other, sizeof one);
    }
}

static void windows_stay_local(void **state)
{
    struct sampler s = {.seed = 3, .count = 1600, .block = 16, .window = 5};
    struct sample_member m[80];
    for (int64_t window = 0; window < 20; window++) {
        int blocks = 0, runs = 0;
        char seen[100] = {0};
        sampler_draw(&s, window * 80, 80, m);
        for (int i = 0; i < 80; i++) {
            blocks += !seen[m[i].item / 16];
            seen[m[i].item / 16] = 1;
            runs += i > 0 && m[i].item == m[i - 1].item + 1;
        }
        assert_int_equal(blocks, 5);
        assert_true(runs < 10); /* neighbours in the file do not follow one another */
    }
}

static void epochs_and_seeds_differ(void **state)
{
    struct sampler s = {.seed = 4, .count = 500, .block = 16, .window = 8}, t = s;
    struct sample_member a[500], b[500], c[500];
    t.seed = 5;
    sampler_draw(&s, 0, 500, a);
    sampler_draw(&s, 500, 500, b);
    sampler_draw(&t, 0, 500, c);
    int same_next = 0, same_seed = 0;
    for (int i = 0; i < 500; i++) {
        same_next += a[i].item == b[i].item;
        same_seed += a[i].item == c[i].item;
    }
    assert_true(same_next < 20 && same_seed < 20);
}

static void weighted_draws_follow_the_weights(void **state)
{
    enum { DRAWS = 40000 };
    double weights[] = {1, 0, 5, 2, 0}, running[5];
    int drawn[5] = {0};
    memcpy(running, weights, sizeof weights);
    assert_int_equal(sampler_accumulate(running, 5), ST_OK);
    struct sampler s = {.kind = SAMPLE_WEIGHTED, .seed = 1, .count = 5, .running = running};
    for (int64_t i = 0; i < DRAWS; i++) {
        struct sample_member m;
        sampler_draw(&s, i, 1, &m);
        drawn[m.item]++;
    }
    for (int i = 0; i < 5; i++) {
        double p = weights[i] / 8;
        assert_true(fabs(drawn[i] - DRAWS * p) <= 5 * sqrt(DRAWS * p * (1 - p)));
    }
    double negative[] = {1, -1}, nothing[] = {0, 0}, endless[] = {1, INFINITY};
    assert_int_equal(sampler_accumulate(negative, 2), ST_INPUT);
    assert_int_equal(sampler_accumulate(nothing, 2), ST_INPUT);
    assert_int_equal(sampler_accumulate(endless, 2), ST_INPUT);
}

/* 64 samples whose work varies as cells do; the same whatever order they come in. */
static void shares_are_the_batch_and_even(void **state)
{
    enum { N = 64 };
    for (int ranks = 1; ranks <= 5; ranks++) {
        int64_t most = 0, total = 0, held = 0;
        char seen[N] = {0};
        for (int rank = 0; rank < ranks; rank++) {
            struct sample_work batch[N], again[N];
            int64_t sum = 0;
            for (int i = 0; i < N; i++) batch[i] = (struct sample_work){100 + i, 200 + (i * 7919 % 61) * 20};
            for (int i = 0; i < N; i++) again[i] = batch[N - 1 - i];
            int64_t n = sampler_share(batch, N, rank, ranks);
            assert_int_equal(n, sampler_share(again, N, rank, ranks));
            assert_memory_equal(batch, again, (size_t)n * sizeof *batch);
            assert_true(n == N / ranks || n == (N + ranks - 1) / ranks);
            for (int64_t i = 0; i < n; i++) {
                assert_true(i == 0 || batch[i - 1].sample < batch[i].sample);
                assert_false(seen[batch[i].sample - 100]++);
                sum += batch[i].work;
            }
            held += n, total += sum;
            most = sum > most ? sum : most;
        }
        assert_int_equal(held, N);
        /* one more sample than the others is as even as it can be */
        assert_true((double)most < 1.02 * (double)total / ranks + (N % ranks ? (double)total / N : 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_visits_every_cell_once), cmocka_unit_test(order_does_not_depend_on_ranks_and_resumes),
        cmocka_unit_test(shares_are_the_batch_and_even),   cmocka_unit_test(windows_stay_local),
        cmocka_unit_test(epochs_and_seeds_differ),         cmocka_unit_test(weighted_draws_follow_the_weights),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
