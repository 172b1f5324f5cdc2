/* The expression of --cells.
 * plan: ranks=1 limit=30
 * A table of expressions with the rows they select; a table of wrong ones with a piece of the message. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */
#define FAILED(...) (print_error(__VA_ARGS__), _fail(__FILE__, __LINE__))

#include "cell/select.h"

enum { ROWS = 5 };

/*        row:       0        1        2       3      4
 * type              B        NK       -       B      CD4 T
 * total             10       200      3000    -      -5
 * share             0.5      1e-3     nan     2      1e6
 * good              true     false    true    -      false
 * name              a'b      x        -       10     é
 * a/b (odd name)    1        2        3       4      5 */
static char *types[] = {"B", "NK", "CD4 T"};
static int32_t type_codes[ROWS] = {0, 1, -1, 0, 2};
static int64_t totals[ROWS] = {10, 200, 3000, INT64_MIN, -5}, goods[ROWS] = {1, 0, 1, INT64_MIN, 0},
               odd[ROWS] = {1, 2, 3, 4, 5};
static double shares[ROWS] = {0.5, 1e-3, NAN, 2, 1e6};
static char *names[ROWS] = {"a'b", "x", NULL, "10", "é"};
static const struct column all[] = {{.name = "type",
                                     .type = COLUMN_CATEGORY,
                                     .count = ROWS,
                                     .code = type_codes,
                                     .category = types,
                                     .category_count = 3},
                                    {.name = "total", .type = COLUMN_INT, .count = ROWS, .i = totals},
                                    {.name = "share", .type = COLUMN_REAL, .count = ROWS, .r = shares},
                                    {.name = "good", .type = COLUMN_BOOL, .count = ROWS, .i = goods},
                                    {.name = "name", .type = COLUMN_TEXT, .count = ROWS, .text = names},
                                    {.name = "a/b", .type = COLUMN_INT, .count = ROWS, .i = odd}};
enum { COLUMNS = sizeof all / sizeof *all };

static enum status run(const char *expression, uint8_t keep[ROWS])
{
    enum status st = ST_OK;
    struct select *select = NULL;
    struct column chosen[COLUMNS];
    const char *column_names[COLUMNS];
    for (int k = 0; k < COLUMNS; k++) column_names[k] = all[k].name;
    TRY(select_parse(expression, &select));
    TRY(select_check_names(select, column_names, COLUMNS));
    for (int k = 0; k < select_column_count(select); k++)
        for (int j = 0; j < COLUMNS; j++)
            if (strcmp(all[j].name, select_column_name(select, k)) == 0) chosen[k] = all[j];
    TRY(select_evaluate(select, chosen, ROWS, keep));
done:
    select_destroy(&select);
    return st;
}

static void expressions_select_their_rows(void **state)
{
    static const struct {
        const char *text, *rows;
    } cases[] = {{"", "11111"},
                 {"   ", "11111"},
                 {"type == 'B'", "10010"},
                 {"type != 'B'", "01001"},
                 {"not type == 'B'", "01101"},
                 {"type in ('B', 'CD4 T')", "10011"},
                 {"type in (\"NK\")", "01000"},
                 {"type == 'never'", "00000"},
                 {"total > 9", "11100"},
                 {"total >= 10", "11100"},
                 {"total < 200", "10001"},
                 {"total <= 2e2", "11001"},
                 {"total == -5", "00001"},
                 {"total != 10", "01101"},
                 {"total in (10, 3000)", "10100"},
                 {"total > -1e9", "11101"},
                 {"share > 0.4", "10011"},
                 {"share == 1e-3", "01000"},
                 {"share < +1", "11000"},
                 {"share <= .5", "11000"},
                 {"good", "10100"},
                 {"not good", "01011"},
                 {"good == true", "10100"},
                 {"good == false", "01001"},
                 {"good != true", "01001"},
                 {"name == \"a'b\"", "10000"},
                 {"name != 'x'", "10011"},
                 {"name == 10", "00010"},
                 {"name in ('é', 'x')", "01001"},
                 {"`a/b` >= 4", "00011"},
                 {"type == 'B' and total > 1", "10000"},
                 {"type == 'B' or total > 1", "11110"},
                 {"good or type == 'B' and total > 100", "10100"},
                 {"(good or type == 'B') and total > 100", "00100"},
                 {"not (good or type == 'B')", "01001"},
                 {"not not good", "10100"},
                 {"((((total>9))))and(share<1)", "11000"}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint8_t keep[ROWS];
        char got[ROWS + 1] = "";
        status_clear();
        if (run(cases[c].text, keep) != ST_OK) FAILED("'%s': %s", cases[c].text, status_message());
        for (int i = 0; i < ROWS; i++) got[i] = keep[i] ? '1' : '0';
        if (strcmp(got, cases[c].rows) != 0) FAILED("'%s' selects %s, not %s", cases[c].text, got, cases[c].rows);
    }
}

static void wrong_expressions_say_where(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {{"typ == 'B'", "no obs column 'typ' (character 1); did you mean 'type'?"},
                 {"total > 1 and zebra < 3", "no obs column 'zebra' (character 15)"},
                 {"type == B", "found 'B' at character 9 where a value"},
                 {"type ==", "ends where a value"},
                 {"type == 'B", "quote at character 9 is not closed"},
                 {"(total > 1", "ends where 'and', 'or' or ')'"},
                 {"total > 1)", "found ')' at character 10 where 'and' or 'or'"},
                 {"total = 1", "found '=' at character 7"},
                 {"total > 12x", "found '12x' at character 9 where a number"},
                 {"and", "no obs column 'and'"},
                 {"total in 3", "found '3' at character 10 where '('"},
                 {"total in (1 2)", "found '2' at character 13 where ',' or ')'"},
                 {"not", "ends where a column"},
                 {"total > 1 good", "found 'good' at character 11"},
                 {"&", "found '&'"},
                 {"type > 'A'", "holds text, which has no order"},
                 {"name < 3", "holds text"},
                 {"good > 1", "is boolean"},
                 {"good == 1", "compare it with true or false"},
                 {"total == 'ten'", "compare it with a number"},
                 {"total == true", "compare it with a number"},
                 {"total", "must be a boolean column"}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint8_t keep[ROWS];
        status_clear();
        enum status st = run(cases[c].text, keep);
        if (st != ST_CONFIG || !strstr(status_message(), cases[c].message))
            FAILED("'%s': status %d, '%s' instead of '%s'", cases[c].text, st, status_message(), cases[c].message);
    }
    char deep[5001];
    memset(deep, '(', 5000);
    deep[5000] = '\0';
    uint8_t keep[ROWS];
    status_clear();
    assert_int_equal(run(deep, keep), ST_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(expressions_select_their_rows),
                                       cmocka_unit_test(wrong_expressions_say_where)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
