/* plan: ranks=1 limit=30
 * Perturbed token lists, scores on hand-computed cases, percentiles, and the k best against a sort. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours records a status */

#include "base/rng.h"
#include "screen/edit.h"
#include "screen/score.h"
#include "screen/tally.h"
#include "screen/top.h"

/* ---- perturbation ---- */

static const int32_t genes[5] = {3, 7, 8, 20, 41};
static const float values[5] = {1.5f, 0.25f, 2.0f, 0.5f, 3.0f};
static const int32_t drawn[5] = {4, 0, 3, 1, 2}; /* gene 3 was drawn last, then 8, 41, 20, 7 */
static const struct token_list cell = {5, genes, values, drawn};

static void expect_tokens(const struct edit *p, int count, const int32_t *gene, const float *value)
{
    int32_t gene_out[9];
    float value_out[9];
    assert_int_equal(edit_apply(&cell, p, gene_out, value_out), count);
    assert_memory_equal(gene_out, gene, sizeof *gene * (size_t)count);
    assert_memory_equal(value_out, value, sizeof *value * (size_t)count);
}

static void knock_out_removes_only_the_set(void **state)
{
    struct edit p = {.mode = EDIT_KNOCK_OUT, .size = 2, .gene = (int32_t[]){7, 41}};
    expect_tokens(&p, 3, (int32_t[]){3, 8, 20}, (float[]){1.5f, 2.0f, 0.5f});
    assert_true(token_list_has_all(&cell, p.gene, 2));
}

static void cell_without_the_gene_is_untouched(void **state)
{
    struct edit p = {.mode = EDIT_KNOCK_OUT, .size = 1, .gene = (int32_t[]){9}};
    expect_tokens(&p, 5, genes, values);
    assert_false(token_list_has_all(&cell, (int32_t[]){7, 9}, 2));
}

static void over_expression_raises_and_never_lowers(void **state)
{
    struct edit p = {.mode = EDIT_OVER_EXPRESS,
                     .size = 2,
                     .gene = (int32_t[]){7, 8},
                     .raised = (float[]){1.0f, 1.0f},
                     .max_tokens = 5};
    expect_tokens(&p, 5, genes, (float[]){1.5f, 1.0f, 2.0f, 0.5f, 3.0f});
}

static void over_expression_inserts_in_place(void **state)
{
    struct edit p = {.mode = EDIT_OVER_EXPRESS,
                     .size = 3,
                     .gene = (int32_t[]){1, 9, 50},
                     .raised = (float[]){1.0f, 1.25f, 1.75f},
                     .max_tokens = 8};
    expect_tokens(&p, 8, (int32_t[]){1, 3, 7, 8, 9, 20, 41, 50},
                  (float[]){1.0f, 1.5f, 0.25f, 2.0f, 1.25f, 0.5f, 3.0f, 1.75f});
}

static void over_expression_at_the_cap_replaces_the_last_drawn(void **state)
{
    struct edit one = {
        .mode = EDIT_OVER_EXPRESS, .size = 1, .gene = (int32_t[]){9}, .raised = (float[]){1.0f}, .max_tokens = 5};
    expect_tokens(&one, 5, (int32_t[]){7, 8, 9, 20, 41}, (float[]){0.25f, 2.0f, 1.0f, 0.5f, 3.0f});
    /* gene 3, drawn last, is itself in the set: the one before it goes */
    struct edit two = {.mode = EDIT_OVER_EXPRESS,
                       .size = 2,
                       .gene = (int32_t[]){3, 9},
                       .raised = (float[]){1.75f, 1.0f},
                       .max_tokens = 5};
    expect_tokens(&two, 5, (int32_t[]){3, 7, 9, 20, 41}, (float[]){1.75f, 0.25f, 1.0f, 0.5f, 3.0f});
}

static void appended_cell_is_an_embedding_cell(void **state)
{
    struct batch batch;
    assert_int_equal(batch_create(2, 16, &batch), ST_OK);
    edit_append(&batch, genes, values, 5, 77);
    edit_append(&batch, genes, values, 2, 78);
    assert_int_equal(batch.cell_count, 2);
    assert_int_equal(batch.token_count, 9);
    assert_int_equal(batch.offsets[1], 6);
    assert_int_equal(batch.offsets[2], 9);
    assert_int_equal(batch.role[6], TOKEN_CLS);
    assert_int_equal(batch.visible[6], 0);
    assert_int_equal(batch.visible[7], 1);
    assert_int_equal(batch.feature[8], 7);
    assert_int_equal(batch.position[8], 2);
    assert_int_equal(batch.cell_id[1], 78);
    batch_destroy(&batch);
}

/* ---- scores ---- */

static void scores_of_a_hand_computed_case(void **state)
{
    const float z[2] = {1, 0}, a[2] = {1, 1}, b[2] = {0, 1}, both[2] = {-1, 0}, goal[2] = {0, 2};
    double scratch[2];
    struct score_rule shift = {.width = 2}, towards = {.width = 2, .goal = goal};
    assert_float_equal(score_effect(&shift, z, a), 1 - sqrt(0.5), 1e-12);
    assert_float_equal(score_effect(&shift, z, both), 2, 1e-12);
    assert_float_equal(score_effect(&towards, z, a), sqrt(0.5), 1e-12);
    /* z + (a - z) + (b - z) = (0, 2): at a right angle to z, and along the goal */
    assert_float_equal(score_expected(&shift, z, (const float *[]){a, b}, 2, scratch), 1, 1e-12);
    assert_float_equal(score_expected(&towards, z, (const float *[]){a, b}, 2, scratch), 1, 1e-12);
    assert_true(score_expected(&shift, z, (const float *[]){a}, 1, scratch) == score_effect(&shift, z, a));
}

static void sums_give_mean_and_error(void **state)
{
    struct score_sum sum = {0}, half = {0};
    const double effects[4] = {0.1, 0.4, 0.2, 0.7}, expected[4] = {0.1, 0.1, 0.3, 0.1};
    for (int c = 0; c < 4; c++) score_sum_add(c < 2 ? &sum : &half, effects[c], expected[c]);
    score_sum_add(&half, NAN, 0.5);
    score_sum_merge(&sum, &half);
    assert_int_equal(sum.cells, 4);
    assert_int_equal(sum.not_finite, 1);
    struct estimate e = estimate_from(sum.effect, sum.effect_squared, sum.cells);
    assert_float_equal(e.mean, 0.35, 1e-12);
    assert_float_equal(e.error, sqrt((0.0625 + 0.0025 + 0.0225 + 0.1225) / 3 / 4), 1e-12);
    struct estimate i = estimate_from(sum.interaction, sum.interaction_squared, sum.cells);
    assert_float_equal(i.mean, 0.2, 1e-12); /* of 0, 0.3, -0.1, 0.6 */
    assert_float_equal(i.error, sqrt((0.04 + 0.01 + 0.09 + 0.16) / 3 / 4), 1e-12);
    assert_true(isnan(estimate_from(0, 0, 0).mean) && isnan(estimate_from(1, 1, 1).error));
}

static void undefined_scores_are_counted_not_added(void **state)
{
    const float z[2] = {0, 0}, a[2] = {1, 1};
    struct score_rule shift = {.width = 2};
    assert_true(isnan(score_effect(&shift, z, a)));
    assert_true(isnan(score_effect(&shift, (float[]){NAN, 1}, a)));
}

/* ---- percentiles ---- */

static void percentiles_are_exact(void **state)
{
    struct tally tally = {0};
    for (int i = 0; i < 20000; i++) { /* gene 5 gets 1..200 a hundred times each, shuffled; gene 9 once */
        int64_t j = (int64_t)perm_apply(1, 2, 20000, (uint64_t)i);
        assert_int_equal(tally_add(&tally, 5, (float)(j % 200 + 1), 1), ST_OK);
    }
    assert_int_equal(tally_add(&tally, 9, 4, 1), ST_OK);
    tally_compress(&tally);
    assert_int_equal(tally.size, 201);
    assert_int_equal(tally_times(&tally, 5), 20000);
    assert_true(tally_percentile(&tally, 5, 0.99) == 198);
    assert_true(tally_percentile(&tally, 5, 1) == 200);
    assert_true(tally_percentile(&tally, 9, 0.99) == 4);
    assert_true(tally_percentile(&tally, 7, 0.99) == 0);
    tally_free(&tally);
}

/* ---- the k best ---- */

static int by_key_then_number(const void *a, const void *b)
{
    const struct hit *x = a, *y = b;
    if (x->key != y->key) return x->key > y->key ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

static void k_best_equal_a_sort(void **state)
{
    enum { N = 3000 };
    struct hit all[N];
    struct rng r = rng_at(3, RNG_TEST, 0, 0);
    for (int i = 0; i < N; i++) all[i] = (struct hit){(double)rng_below(&r, 50), i}; /* many ties */
    for (int64_t k = 0; k <= 4000; k = 3 * k + 1) {
        struct top top;
        top_create(k, &top);
        for (int i = 0; i < N; i++) assert_int_equal(top_offer(&top, all[perm_apply(5, 6, N, (uint64_t)i)]), ST_OK);
        top_sort(&top);
        struct hit sorted[N];
        memcpy(sorted, all, sizeof all);
        qsort(sorted, N, sizeof *sorted, by_key_then_number);
        assert_int_equal(top.count, k < N ? k : N);
        for (int64_t i = 0; i < top.count; i++) assert_int_equal(top.hits[i].number, sorted[i].number);
        top_free(&top);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(knock_out_removes_only_the_set),
                                       cmocka_unit_test(cell_without_the_gene_is_untouched),
                                       cmocka_unit_test(over_expression_raises_and_never_lowers),
                                       cmocka_unit_test(over_expression_inserts_in_place),
                                       cmocka_unit_test(over_expression_at_the_cap_replaces_the_last_drawn),
                                       cmocka_unit_test(appended_cell_is_an_embedding_cell),
                                       cmocka_unit_test(scores_of_a_hand_computed_case),
                                       cmocka_unit_test(sums_give_mean_and_error),
                                       cmocka_unit_test(undefined_scores_are_counted_not_added),
                                       cmocka_unit_test(percentiles_are_exact),
                                       cmocka_unit_test(k_best_equal_a_sort)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
