/* CellFM's tokens and the masking of its pre-training task, exactly.
 * plan: ranks=1 limit=30
 * Values against a hand-computed cell; 20 % selected of which 80 % hidden for every size; fewer than five
 * genes; the cap of totals; weighted sampling against the probabilities of drawing one by one; the
 * embedding sample depends on the cell alone; the order of a file's features does not matter. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "cell/tokenize.h"

static const struct token_rules published = {.max_genes = 2048,
                                             .min_genes = 1,
                                             .drop_long_cells = true,
                                             .scale = 1e4,
                                             .cap_total = 1e5,
                                             .select_fraction = 0.2,
                                             .hide_fraction = 0.8};

/* A cell of n genes: gene i+1 has count 1 + i % 3. */
static void make_cell(struct token_cell *cell, int n)
{
    assert_int_equal(token_cell_reserve(cell, 5000), ST_OK);
    cell->count = n;
    cell->total = 0;
    for (int i = 0; i < n; i++) {
        cell->gene[i] = i + 1;
        cell->counts[i] = (float)(1 + i % 3);
        cell->total += cell->counts[i];
    }
}

static void reads_what_the_vocabulary_knows(void **state)
{
    int64_t id[] = {40, 41}, start[] = {0, 1, 5};
    int32_t feature[] = {0, 0, 1, 2, 3}, lookup[] = {7, 0, 3, 5};
    float value[] = {9, 4, 100, 1, 5};
    struct cells cells = {.count = 2, .id = id, .start = start, .feature = feature, .value = value};
    struct token_cell cell = {0};
    assert_int_equal(token_cell_reserve(&cell, 8), ST_OK);
    token_cell_read(&cells, 1, lookup, &published, true, &cell);
    int32_t genes[] = {3, 5, 7};
    float counts[] = {1, 5, 4};
    assert_int_equal(cell.count, 3);
    assert_memory_equal(cell.gene, genes, sizeof genes);
    assert_memory_equal(cell.counts, counts, sizeof counts);
    assert_true(cell.total == 10); /* the feature outside the vocabulary does not count */

    struct batch batch;
    assert_int_equal(batch_create(2, 16, &batch), ST_OK);
    batch_clear(&batch);
    assert_true(token_append_embed(&batch, &cell, &published, 41));
    batch_find_levels(&batch);
    assert_int_equal(batch.token_count, 4);
    assert_int_equal(batch.role[0], TOKEN_CLS);
    assert_int_equal(batch.cell_id[0], 41);
    float expected[] = {0, (float)log(1 + 1e3), (float)log(1 + 5e3), (float)log(1 + 4e3)};
    for (int t = 0; t < 4; t++) {
        assert_true(fabsf(batch.value[t] - expected[t]) <= 1e-6f * expected[t]);
        assert_true(batch.target[t] == batch.value[t] && batch.loss_weight[t] == 0);
        assert_int_equal(batch.position[t], t);
    }
    int32_t level[] = {-1, 0, 2, 1};
    assert_memory_equal(batch.level, level, sizeof level);
    assert_int_equal(batch.level_count, 3);
    cell.count = 0;
    assert_false(token_append_embed(&batch, &cell, &published, 41));
    batch_destroy(&batch);
    token_cell_free(&cell);
}

static void caps_large_totals_and_drops_what_rounds_to_zero(void **state)
{
    int64_t id[] = {0}, start[] = {0, 4};
    int32_t feature[] = {0, 1, 2, 3}, lookup[] = {1, 2, 3, 0};
    float value[] = {150000, 1, 3, 49996}; /* 200,000 in all features: halved, half to even */
    struct cells cells = {.count = 1, .id = id, .start = start, .feature = feature, .value = value};
    struct token_cell cell = {0};
    assert_int_equal(token_cell_reserve(&cell, 4), ST_OK);
    token_cell_read(&cells, 0, lookup, &published, true, &cell);
    assert_int_equal(cell.count, 2);
    assert_true(cell.counts[0] == 75000 && cell.counts[1] == 2 && cell.total == 75002);
    token_cell_read(&cells, 0, lookup, &published, false, &cell);
    assert_true(cell.count == 3 && cell.total == 150004);
    token_cell_free(&cell);
}

static void selects_cells_by_their_vocabulary_genes(void **state)
{
    struct token_rules rules = published;
    struct token_cell cell = {.count = 2049};
    rules.min_genes = 200;
    assert_false(token_cell_selected(&cell, &rules));
    rules.drop_long_cells = false;
    assert_true(token_cell_selected(&cell, &rules));
    cell.count = 199;
    assert_false(token_cell_selected(&cell, &rules));
}

static void hides_sixteen_of_hundred(void **state)
{
    struct token_cell cell = {0};
    struct batch batch;
    assert_int_equal(batch_create(1, 2100, &batch), ST_OK);
    for (int n = 1; n <= 2048; n += n < 40 ? 1 : 97) {
        make_cell(&cell, n);
        batch_clear(&batch);
        token_append_train(&batch, &cell, &published, 3, 1, 2);
        int in_loss = 0, hidden = 0;
        for (int64_t t = 1; t < batch.token_count; t++) {
            in_loss += batch.loss_weight[t] == 1;
            hidden += !batch.visible[t];
            if (batch.visible[t]) assert_true(batch.value[t] == batch.target[t] && batch.value[t] > 0);
            else assert_true(batch.value[t] == 0 && batch.target[t] > 0 && batch.loss_weight[t] == 1);
        }
        int selected = n / 5; /* floor(0.2 n) */
        assert_int_equal(in_loss, selected ? selected : n);
        assert_int_equal(hidden, selected * 4 / 5);
    }
    batch_destroy(&batch);
    token_cell_free(&cell);
}

/* Every place is hidden equally often, and the draw depends on seed, cell and step only. */
static void mask_is_uniform_and_keyed(void **state)
{
    enum { GENES = 50, DRAWS = 4000 };
    struct token_cell cell = {0};
    struct batch batch, again;
    assert_int_equal(batch_create(1, 64, &batch), ST_OK);
    assert_int_equal(batch_create(1, 64, &again), ST_OK);
    int hidden[GENES] = {0};
    make_cell(&cell, GENES);
    for (int step = 0; step < DRAWS; step++) {
        batch_clear(&batch);
        token_append_train(&batch, &cell, &published, 3, 1, (uint64_t)step);
        for (int i = 0; i < GENES; i++) hidden[i] += !batch.visible[i + 1];
    }
    double expected = DRAWS * 8.0 / GENES, sd = sqrt(expected * (1 - 8.0 / GENES));
    for (int i = 0; i < GENES; i++) assert_true(fabs(hidden[i] - expected) < 5 * sd);
    uint64_t keys[][3] = {{3, 1, DRAWS - 1}, {4, 1, DRAWS - 1}, {3, 2, DRAWS - 1}, {3, 1, 0}};
    for (int k = 0; k < 4; k++) {
        batch_clear(&again);
        token_append_train(&again, &cell, &published, (int64_t)keys[k][0], keys[k][1], keys[k][2]);
        assert_int_equal(memcmp(again.visible, batch.visible, GENES + 1) == 0, k == 0);
    }
    batch_destroy(&batch);
    batch_destroy(&again);
    token_cell_free(&cell);
}

/* Two of three genes with weights w: P(pair without c) = sum over both orders of drawing one by one. */
static void samples_by_weight_without_replacement(void **state)
{
    enum { DRAWS = 20000 };
    static const float counts[3] = {1, 4, 30};
    struct token_rules rules = published;
    rules.max_genes = 2;
    struct token_cell cell = {0};
    struct batch batch;
    assert_int_equal(token_cell_reserve(&cell, 3), ST_OK);
    assert_int_equal(batch_create(1, 8, &batch), ST_OK);
    int left_out[3] = {0};
    for (int step = 0; step < DRAWS; step++) {
        for (int i = 0; i < 3; i++) {
            cell.gene[i] = i + 1;
            cell.counts[i] = counts[i];
        }
        cell.count = 3;
        cell.total = 35;
        batch_clear(&batch);
        token_append_train(&batch, &cell, &rules, 0, 9, (uint64_t)step);
        assert_int_equal(batch.token_count, 3);
        assert_true(batch.feature[1] < batch.feature[2]);
        assert_true(fabs(batch.target[1] - log1p(counts[batch.feature[1] - 1] / 35 * 1e4)) <
                    1e-5); /* T before sampling */
        left_out[6 - batch.feature[1] - batch.feature[2] - 1]++;
    }
    double w[3], sum = 0;
    for (int i = 0; i < 3; i++) sum += w[i] = log1p(counts[i]);
    for (int c = 0; c < 3; c++) {
        int a = (c + 1) % 3, b = (c + 2) % 3;
        double p = w[a] / sum * w[b] / (sum - w[a]) + w[b] / sum * w[a] / (sum - w[b]);
        assert_true(fabs(left_out[c] - DRAWS * p) < 5 * sqrt(DRAWS * p * (1 - p)));
    }
    batch_destroy(&batch);
    token_cell_free(&cell);
}

static void embedding_sample_depends_on_the_cell_alone(void **state)
{
    struct token_rules rules = published;
    rules.max_genes = 100;
    struct token_cell cell = {0};
    struct batch a, b;
    assert_int_equal(batch_create(1, 128, &a), ST_OK);
    assert_int_equal(batch_create(1, 128, &b), ST_OK);
    for (int changed = 0; changed < 2; changed++) {
        batch_clear(&a);
        batch_clear(&b);
        make_cell(&cell, 400);
        assert_true(token_append_embed(&a, &cell, &rules, 1));
        assert_int_equal(cell.count, 100);
        make_cell(&cell, 400);
        if (changed) cell.counts[399] += 1;
        assert_true(token_append_embed(&b, &cell, &rules, 2));
        assert_int_equal(memcmp(a.feature, b.feature, sizeof *a.feature * 101) == 0, !changed);
    }
    batch_destroy(&a);
    batch_destroy(&b);
    token_cell_free(&cell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_the_vocabulary_knows),
        cmocka_unit_test(caps_large_totals_and_drops_what_rounds_to_zero),
        cmocka_unit_test(selects_cells_by_their_vocabulary_genes),
        cmocka_unit_test(hides_sixteen_of_hundred),
        cmocka_unit_test(mask_is_uniform_and_keyed),
        cmocka_unit_test(samples_by_weight_without_replacement),
        cmocka_unit_test(embedding_sample_depends_on_the_cell_alone),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
