/* The perturbation record.
 * plan: ranks=1 limit=30
 * Labels as they are written in the field, with the genes and control flag they mean; the five obs columns
 * from columns with repeats, missing labels, unknown modes and doses as text. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */
#define FAILED(...) (print_error(__VA_ARGS__), _fail(__FILE__, __LINE__))

#include "cell/perturbation.h"

static void labels_are_read(void **state)
{
    static const struct {
        const char *label, *key;
        int genes;
    } cases[] = {{"KLF1", "KLF1", 1},
                 {"KLF1+ctrl", "KLF1", 1},
                 {"ctrl+KLF1", "KLF1", 1},
                 {"TBX3+TBX2", "TBX2+TBX3", 2},
                 {"A+B+C", "A+B+C", 3},
                 {"C|A;B", "A+B+C", 3},
                 {"A+A", "A", 1},
                 {" A + B ", "A+B", 2},
                 {"ctrl", "", 0},
                 {"control", "", 0},
                 {"Non-Targeting", "", 0},
                 {"non_targeting_00012", "", 0},
                 {"NT", "", 0},
                 {"ctrl+ctrl", "", 0},
                 {"safe-targeting", "", 0},
                 {"NTC", "", 0},
                 {"DMSO", "", 0},
                 {"NTRK1", "NTRK1", 1},
                 {"HLA-DRB1+control", "HLA-DRB1", 1},
                 {"WT1", "WT1", 1}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct perturbation p;
        assert_int_equal(perturbation_parse(cases[c].label, &p), ST_OK);
        char *key = perturbation_key(&p);
        if (strcmp(key, cases[c].key) != 0 || p.gene_count != cases[c].genes || p.is_control != (cases[c].genes == 0))
            FAILED("'%s' is read as %d genes, '%s'", cases[c].label, p.gene_count, key);
        assert_true(isnan(p.dose) && p.mode == PERTURB_UNKNOWN);
        free(key);
        perturbation_free(&p);
    }
}

static void wrong_labels_are_refused(void **state)
{
    static const char *const labels[] = {"", "+", "A+", "+A", "A++B", "A+B+C+D+E+F+G+H+I"};
    for (size_t c = 0; c < sizeof labels / sizeof *labels; c++) {
        struct perturbation p;
        status_clear();
        if (perturbation_parse(labels[c], &p) != ST_INPUT) FAILED("'%s' is taken", labels[c]);
    }
}

static void modes_are_read(void **state)
{
    static const struct {
        const char *word;
        enum perturb_mode mode;
    } cases[] = {{"CRISPRi", PERTURB_INTERFERENCE}, {"CRISPRa", PERTURB_ACTIVATION}, {"KO", PERTURB_KNOCK_OUT},
                 {"knock_out", PERTURB_KNOCK_OUT},  {"drug", PERTURB_DRUG},          {"shRNA", PERTURB_INTERFERENCE}};
    enum perturb_mode mode;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        assert_true(perturb_mode_parse(cases[c].word, &mode) && mode == cases[c].mode);
    assert_false(perturb_mode_parse("yoga", &mode));
}

enum { N = 6 };

/* The record of `label` (rows of one slice) against what it should say. */
static void expect_record(const struct column *label, const char *const expected[N][PERTURB_COLUMN_COUNT])
{
    char *words[N] = {"CRISPRi", "CRISPRi", NULL, "yoga", "KO", "KO"};
    char *doses[N] = {"1.5", "x", "3", NULL, "2+2", "0"}, *guides[N] = {"g1", "g2", "g1", NULL, "g3", "g1"};
    struct column mode = {.type = COLUMN_TEXT, .count = N, .text = words},
                  dose = {.type = COLUMN_TEXT, .count = N, .text = doses},
                  guide = {.type = COLUMN_TEXT, .count = N, .text = guides}, out[PERTURB_COLUMN_COUNT];
    struct perturbation_columns from = {.label = label, .mode = &mode, .dose = &dose, .guide = &guide};
    struct perturbation_plan plan;
    assert_int_equal(perturbation_plan_create(&from, &plan), ST_OK);
    assert_int_equal(perturbation_build(&plan, &from, out), ST_OK);
    for (int k = 0; k < PERTURB_COLUMN_COUNT; k++) {
        struct column named = out[k];
        named.category = plan.prototype[k].category;
        for (int row = 0; row < N; row++) {
            char buffer[32];
            assert_string_equal(column_as_text(&named, row, buffer), expected[row][k]);
        }
        column_free(&out[k]);
    }
    perturbation_plan_free(&plan);
}

static void columns_are_built(void **state)
{
    static const char *const expected[N][PERTURB_COLUMN_COUNT] = {{"A+B", "interference", "False", "1.5", "g1"},
                                                                  {"control", "interference", "True", "", "g2"},
                                                                  {"", "", "", "", "g1"},
                                                                  {"A", "unknown", "False", "", ""},
                                                                  {"A+B", "knock-out", "False", "2", "g3"},
                                                                  {"control", "knock-out", "True", "0", "g1"}};
    char *labels[] = {"B+A", "control", "A+ctrl", "A+B", ""},
         *texts[N] = {"B+A", "control", NULL, "A+ctrl", "A+B", "control"};
    int32_t codes[N] = {0, 1, -1, 2, 3, 1};
    struct column category = {
        .type = COLUMN_CATEGORY, .count = N, .code = codes, .category = labels, .category_count = 5};
    struct column text = {.type = COLUMN_TEXT, .count = N, .text = texts};
    expect_record(&category, expected);
    expect_record(&text, expected);
}

static void unreadable_labels_are_named(void **state)
{
    char *labels[] = {"A", "A+"}, *texts[2] = {"A", "B+"};
    int32_t codes[2] = {0, 1};
    struct column category = {
        .type = COLUMN_CATEGORY, .count = 2, .code = codes, .category = labels, .category_count = 2};
    struct column text = {.type = COLUMN_TEXT, .count = 2, .text = texts}, out[PERTURB_COLUMN_COUNT];
    struct perturbation_columns from = {.label = &category};
    struct perturbation_plan plan;
    status_clear();
    assert_int_equal(perturbation_plan_create(&from, &plan), ST_INPUT);
    assert_non_null(strstr(status_message(), "'A+'"));
    from.label = &text;
    status_clear();
    assert_int_equal(perturbation_plan_create(&from, &plan), ST_OK);
    assert_false(plan.has[PERTURB_DOSE]);
    assert_int_equal(perturbation_build(&plan, &from, out), ST_INPUT);
    assert_non_null(strstr(status_message(), "row 1: the perturbation 'B+'"));
    perturbation_plan_free(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(labels_are_read), cmocka_unit_test(wrong_labels_are_refused),
                                       cmocka_unit_test(modes_are_read), cmocka_unit_test(columns_are_built),
                                       cmocka_unit_test(unreadable_labels_are_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
