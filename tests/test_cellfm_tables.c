/* plan: ranks=1 limit=30 configs=release
 * CellFM's own gene tables, read as published from CYTOMILL_DATA, where they may lie (CC BY-NC-ND 4.0: never shipped):
 * sizes, check ids of both, and the published parameter counts of the two models built on them. Skipped without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail

#include "base/text.h"
#include "jobs/data_path.h"
#include "model/model.h"

static const struct {
    const char *symbol;
    int32_t small, large; /* ids in gene_info.csv and in expand_gene_info.csv; 0 = not there */
} checks[] = {{"A1BG", 1, 1},          {"ACTB", 207, 227},     {"CD14", 2572, 2949},     {"CD3D", 2560, 2937},
              {"GAPDH", 6235, 7125},   {"HLA-A", 0, 8330},     {"MALAT1", 11539, 13295}, {"MT-CO1", 0, 16133},
              {"PTPRC", 17362, 19906}, {"SPI1", 20305, 23455}, {"TP53", 21855, 25241},   {"XIST", 23196, 26835},
              {"ZZZ3", 24078, 27855}};

static struct vocab *read_table(const char *name)
{
    struct vocab *v = NULL;
    char *path = NULL;
    assert_int_equal(data_path_vocabulary(name, &path), ST_OK);
    if (vocab_read(path, &v) != ST_OK) print_error("%s\n", status_message());
    assert_non_null(v);
    free(path);
    return v;
}

static int64_t parameters_of(const char *configuration, const struct vocab *v)
{
    struct config *config = NULL;
    struct model *m = NULL;
    struct model_cost cost;
    struct model_limits limits = {.cells = 1, .tokens = 64, .threads = 1};
    assert_int_equal(config_create(&config), ST_OK);
    assert_int_equal(config_read(config, configuration), ST_OK);
    assert_int_equal(model_create(config, v, NULL, &m), ST_OK);
    assert_int_equal(model_measure(m, &limits, NULL, &cost), ST_OK);
    model_destroy(&m);
    config_destroy(&config);
    return cost.parameters;
}

/* One published model: its table, and what the weights of its configuration come to. */
struct published {
    const char *table, *sha256_begin, *configuration;
    int genes;
    int64_t parameters;
    bool large;
};

static void check_model(struct published p)
{
    struct vocab *v = read_table(p.table);
    assert_int_equal(v->count, p.genes);
    assert_memory_equal(v->sha256, p.sha256_begin, strlen(p.sha256_begin));
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        assert_int_equal(vocab_find(v, checks[i].symbol), p.large ? checks[i].large : checks[i].small);
    assert_int_equal(parameters_of(p.configuration, v), p.parameters);
    vocab_destroy(&v);
}

static void test_800m(void **state)
{
    check_model((struct published){"genes/cellfm/gene_info.csv.gz", "406c5df678f3ff17", "configs/cellfm-800m.yaml",
                                   24078, 797391105, false});
}

static void test_80m(void **state)
{
    check_model((struct published){"genes/cellfm/expand_gene_info.csv.gz", "b7aec69e8dc0cff9",
                                   "configs/cellfm-80m.yaml", 27855, 85731585, true});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_800m), cmocka_unit_test(test_80m)};
    const char *data = getenv("CYTOMILL_DATA");
    char *path = text_format("%s/genes/cellfm/gene_info.csv.gz", data ? data : "");
    bool there = access(path, R_OK) == 0;
    if (!there) printf("skipped: CellFM's tables are not there: no %s (CYTOMILL_DATA)\n", path);
    free(path);
    return there ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
