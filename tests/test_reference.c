/* The three references of the masked task.
 * plan: ranks=1 limit=30
 * A case computed by hand (two training cells, one held-out cell), the Poisson expectation against a plain
 * sum and at extreme means, and that visible genes alone set the cell's offset. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "metric/reference.h"

static struct token_cell cell_of(int count, int32_t *gene, float *counts)
{
    struct token_cell cell = {.count = count, .gene = gene, .counts = counts};
    for (int i = 0; i < count; i++) cell.total += counts[i];
    return cell;
}

/* A batch of one cell whose gene at index `hidden` is hidden. */
static void hide_one(struct batch *b, struct token_cell *cell, int hidden)
{
    struct token_rules rules = {.max_genes = 100, .scale = 1e4};
    batch_clear(b);
    assert_true(token_append_embed(b, cell, &rules, 0));
    b->visible[hidden + 1] = 0;
    b->value[hidden + 1] = 0;
    b->loss_weight[hidden + 1] = 1;
}

static void add_training_cells(struct reference *r)
{
    struct token_cell first = cell_of(2, (int32_t[]){1, 2}, (float[]){1, 3});  /* T = 4 */
    struct token_cell second = cell_of(2, (int32_t[]){1, 3}, (float[]){2, 8}); /* T = 10 */
    reference_add(r, &first);
    reference_add(r, &second);
    reference_fit(r);
}

/* E[ln(1 + 1e4 c / T) | c >= 1] by the plain sum over counts. */
static double plain_expectation(double lambda, double total)
{
    double p = exp(-lambda), sum = 0, weight = 0;
    for (int c = 1; c < 2000; c++) {
        p *= lambda / c;
        weight += p;
        sum += p * log1p(1e4 * c / total);
    }
    return sum / weight;
}

static void matches_a_case_by_hand(void **state)
{
    struct reference *r;
    struct batch b;
    assert_int_equal(batch_create(1, 8, &b), ST_OK);
    assert_int_equal(reference_create(4, 1e4, &r), ST_OK);
    add_training_cells(r);
    struct token_cell held = cell_of(3, (int32_t[]){1, 2, 3}, (float[]){1, 1, 3}); /* T = 5, gene 1 hidden */
    hide_one(&b, &held, 0);
    struct reference_score score = {0};
    reference_score(r, &b, &held.total, &score);

    double y = log1p(1e4 / 5), mu1 = (log1p(1e4 / 4) + log1p(2e4 / 10)) / 2;
    double offset = (log1p(1e4 / 5) - log1p(3e4 / 4) + log1p(3e4 / 5) - log1p(8e4 / 10)) / 2;
    double poisson = plain_expectation(3.0 / 14 * 5, 5); /* 3 of the 14 training counts are gene 1's */
    double expected[] = {mu1 - y, mu1 + offset - y, poisson - y};
    for (int k = 0; k < REFERENCE_COUNT; k++) {
        double error = expected[k] * expected[k];
        assert_true(fabs(score.error[k] - error) < 1e-5 * error + 1e-9);
    }
    assert_true(score.hidden == 1);
    reference_destroy(&r);
    batch_destroy(&b);
}

static void the_hidden_value_moves_no_prediction(void **state)
{
    struct reference *r;
    struct batch b;
    assert_int_equal(batch_create(1, 8, &b), ST_OK);
    assert_int_equal(reference_create(4, 1e4, &r), ST_OK);
    add_training_cells(r);
    struct token_cell held = cell_of(3, (int32_t[]){1, 2, 3}, (float[]){1, 1, 3});
    double predicted[2][REFERENCE_COUNT];
    for (int changed = 0; changed < 2; changed++) { /* predictions from two targets: error = (p - y)^2 twice gives p */
        struct reference_score score[2] = {0};
        for (int probe = 0; probe < 2; probe++) {
            hide_one(&b, &held, 0);
            b.target[1] = (float)(changed ? 3 : 5) + (float)probe;
            reference_score(r, &b, &held.total, &score[probe]);
        }
        for (int k = 0; k < REFERENCE_COUNT; k++) /* (p-y)^2 - (p-y-1)^2 = 2(p-y) - 1 */
            predicted[changed][k] = (score[0].error[k] - score[1].error[k] + 1) / 2 + (changed ? 3 : 5);
    }
    for (int k = 0; k < REFERENCE_COUNT; k++) assert_true(fabs(predicted[0][k] - predicted[1][k]) < 1e-4);
    reference_destroy(&r);
    batch_destroy(&b);
}

static void stays_finite_at_any_depth(void **state)
{
    struct reference *r;
    struct batch b;
    assert_int_equal(batch_create(1, 8, &b), ST_OK);
    assert_int_equal(reference_create(4, 1e4, &r), ST_OK);
    struct token_cell deep = cell_of(2, (int32_t[]){1, 2}, (float[]){5e6f, 1});
    reference_add(r, &deep);
    reference_fit(r);
    for (int hidden = 0; hidden < 3; hidden++) { /* gene 3 was never seen */
        struct token_cell held = cell_of(3, (int32_t[]){1, 2, 3}, (float[]){4e6f, 2, 1});
        struct reference_score score = {0};
        hide_one(&b, &held, hidden);
        reference_score(r, &b, &held.total, &score);
        for (int k = 0; k < REFERENCE_COUNT; k++) assert_true(isfinite(score.error[k]));
        if (hidden == 0) assert_true(score.error[REFERENCE_POISSON] < 1e-4);
    }
    reference_destroy(&r);
    batch_destroy(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_a_case_by_hand),
        cmocka_unit_test(the_hidden_value_moves_no_prediction),
        cmocka_unit_test(stays_finite_at_any_depth),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
