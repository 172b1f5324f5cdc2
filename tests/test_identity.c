/* plan: ranks=1 limit=60
 * Gene identity by rule on a small HGNC table made here and on the one we ship; the vocabulary's
 * parser and lookup. Each rule has a case that only that rule decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail

#include "base/text.h"
#include "cell/identity.h"
#include "cell/vocab.h"
#include "jobs/data_path.h"

/* Say what was found and fail the test. */
#define FAIL_WITH(...) (print_error(__VA_ARGS__), _fail(__FILE__, __LINE__))

static const char table_text[] =
    "hgnc_id\tsymbol\tlocus_group\tstatus\tlocation\talias_symbol\tprev_symbol\tensembl_gene_id\n"
    "HGNC:1\tAAA\tprotein-coding gene\tApproved\t1p1\tALA|SHARED\tOLDA\tENSG00000000001\n"
    "HGNC:2\tBBB\tprotein-coding gene\tApproved\tXq2\t\"SHARED\"\tOLDB|OLDB2\tENSG00000000002\n"
    "HGNC:3\tCCC\tprotein-coding gene\tApproved\tmitochondria\tALC\tOLDBOTH\tENSG00000000003\r\n"
    "HGNC:4\tDDD\tnon-coding RNA\tApproved\t22q\tAAA\tOLDBOTH\t\n"
    "HGNC:5\tEEE~withdrawn\twithdrawn\tEntry Withdrawn\t\t\t\tENSG00000000005\n";

static char *write_table(void)
{
    static char path[64];
    strcpy(path, "/tmp/test_identity_2021-03-04_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, table_text, sizeof table_text - 1), sizeof table_text - 1);
    close(fd);
    return path;
}

static struct hgnc *small_table(void)
{
    struct hgnc *h = NULL;
    char *path = write_table();
    assert_int_equal(hgnc_read(path, &h), ST_OK);
    unlink(path);
    return h;
}

static void add(struct feature_table *t, const char *name, const char *id, const char *symbol)
{
    struct feature f = {.name = (char *)name, .id = (char *)id, .symbol = (char *)symbol, .start = -1, .end = -1};
    assert_int_equal(feature_table_add(t, &f), ST_OK);
}

static void expect(const struct feature *f, enum map_rule rule, const char *symbol, const char *id)
{
    if (f->rule != rule || strcmp(f->symbol, symbol) != 0 || strcmp(f->id, id) != 0)
        FAIL_WITH("feature '%s': %s '%s' %s, expected %s '%s' %s\n", f->name, map_rule_word(f->rule), f->symbol, f->id,
                  map_rule_word(rule), symbol, id);
}

static void test_hgnc(void **state)
{
    struct hgnc *h = small_table();
    assert_int_equal(h->count, 4);
    assert_string_equal(h->date, "2021-03-04");
    assert_string_equal(h->genes[0].chromosome, "1");
    assert_string_equal(h->genes[1].chromosome, "X");
    assert_string_equal(h->genes[2].chromosome, "MT");
    assert_int_equal(hgnc_find_alias(h, "SHARED"), HGNC_SEVERAL);
    assert_int_equal(hgnc_find_previous(h, "OLDBOTH"), HGNC_SEVERAL);
    assert_int_equal(hgnc_find_previous(h, "OLDB2"), 1);
    assert_int_equal(hgnc_find_id(h, "ENSG00000000005"), HGNC_NONE);
    assert_int_equal(hgnc_find_symbol(h, ""), HGNC_NONE);
    hgnc_destroy(&h);
}

static void test_rules(void **state)
{
    struct hgnc *h = small_table();
    struct feature_table t = {0};
    struct identity_report r = {0};
    add(&t, "WRONG", "ENSG00000000001.7", ""); /* 0 exact id, version cut */
    add(&t, "BBB", "", "");                    /* 1 exact symbol */
    add(&t, "OLDB", "", "");                   /* 2 its gene is in the file: not renamed */
    add(&t, "ALC", "", "");                    /* 3 alias */
    add(&t, "SHARED", "", "");                 /* 4 alias of several */
    add(&t, "OLDBOTH", "", "");                /* 5 earlier symbol of several */
    add(&t, "NOVEL", "", "");                  /* 6 unknown */
    add(&t, "AAA", "ENSMUSG00000000001", "");  /* 7 another species */
    add(&t, "DUP", "", "");                    /* 8, 9 repeated without ids */
    add(&t, "DUP", "", "");
    assert_int_equal(identity_assign(h, &t, &r), ST_OK);
    expect(&t.rows[0], MAP_ID, "AAA", "ENSG00000000001");
    expect(&t.rows[1], MAP_SYMBOL, "BBB", "ENSG00000000002");
    expect(&t.rows[2], MAP_NONE, "", "");
    expect(&t.rows[3], MAP_ALIAS, "CCC", "ENSG00000000003");
    expect(&t.rows[4], MAP_AMBIGUOUS, "", "");
    expect(&t.rows[5], MAP_AMBIGUOUS, "", "");
    expect(&t.rows[6], MAP_NONE, "", "");
    expect(&t.rows[7], MAP_NONE, "", "ENSMUSG00000000001");
    expect(&t.rows[8], MAP_NONE, "", "");
    assert_int_equal(r.by_rule[MAP_AMBIGUOUS], 2);
    assert_int_equal(r.repeated_count, 1);
    assert_non_null(strstr(r.repeated.data, "DUP\t2\tno ids"));
    identity_report_free(&r);
    feature_table_free(&t);
    hgnc_destroy(&h);
}

/* Two names of one gene may not both become it: that would be a sum in disguise. */
static void test_two_claims(void **state)
{
    struct hgnc *h = small_table();
    struct feature_table t = {0};
    struct identity_report r = {0};
    add(&t, "OLDB", "", "");
    add(&t, "OLDB2", "", "");
    add(&t, "OLDA", "", "");
    assert_int_equal(identity_assign(h, &t, &r), ST_OK);
    expect(&t.rows[0], MAP_AMBIGUOUS, "", "");
    expect(&t.rows[1], MAP_AMBIGUOUS, "", "");
    expect(&t.rows[2], MAP_PREVIOUS, "AAA", "ENSG00000000001");
    identity_report_free(&r);
    feature_table_free(&t);
    hgnc_destroy(&h);
}

static void test_conflict(void **state)
{
    struct hgnc *h = small_table();
    struct feature_table t = {0};
    struct identity_report r = {0};
    add(&t, "BBB", "ENSG00000000001", "");
    add(&t, "ENSG00000000003", "", "CCC"); /* the name is an id, the symbol stands beside it */
    assert_int_equal(identity_assign(h, &t, &r), ST_OK);
    expect(&t.rows[0], MAP_ID, "AAA", "ENSG00000000001");
    expect(&t.rows[1], MAP_ID, "CCC", "ENSG00000000003");
    assert_int_equal(r.conflict_count, 1);
    assert_non_null(strstr(r.conflicts.data, "BBB\tENSG00000000001\tAAA\tBBB\tENSG00000000002"));
    identity_report_free(&r);
    feature_table_free(&t);
    hgnc_destroy(&h);
}

static void test_repeated_ids(void **state)
{
    struct hgnc *h = small_table();
    struct feature_table t = {0};
    add(&t, "A", "ENSG00000000001.1", "");
    add(&t, "B", "ENSG00000000001.2", "");
    assert_int_equal(identity_assign(h, &t, NULL), ST_INPUT);
    assert_non_null(strstr(status_message(), "ENSG00000000001 stands twice"));
    status_clear();
    feature_table_free(&t);
    hgnc_destroy(&h);
}

static void test_shipped(void **state)
{
    struct hgnc *h = NULL;
    struct vocab *v = NULL;
    char *path = NULL;
    assert_int_equal(data_path_find("configs/genes/hgnc_complete_set_2020-05.tsv.gz", &path), ST_OK);
    assert_int_equal(hgnc_read(path, &h), ST_OK);
    free(path);
    assert_int_equal(data_path_find("configs/genes/vocabulary.tsv.gz", &path), ST_OK);
    assert_int_equal(vocab_read(path, &v), ST_OK);
    free(path);
    assert_int_equal(h->count, 42017);
    assert_string_equal(h->date, "2020-05");
    assert_true(v->count > 24000);
    int64_t previous = 0;
    for (int32_t i = 0; i < v->count; i++) {
        int64_t number = strtoll(v->genes[i].hgnc + 5, NULL, 10);
        assert_true(number > previous); /* by numeric HGNC id */
        previous = number;
    }
    const char *must[] = {"TP53", "ENSG00000141510",   "HGNC:11998", "MT-CO1", "MALAT1", "IGHM",
                          "TRAC", "ENSG00000141510.17"};
    for (size_t i = 0; i < sizeof must / sizeof *must; i++) assert_true(vocab_find(v, must[i]) > 0);
    assert_int_equal(vocab_find(v, "TP53"), vocab_find(v, "ENSG00000141510.17"));
    assert_int_equal(vocab_find(v, ""), 0);
    vocab_destroy(&v);
    hgnc_destroy(&h);
}

static void test_vocabulary(void **state)
{
    static const char text[] =
        "id\tsymbol\tensembl\thgnc\n1\tAAA\tENSG00000000001\tHGNC:1\n2\tBBB\t\tHGNC:2\n3\tCCC\t\t\n";
    struct vocab *v = NULL;
    struct feature_table t = {0};
    int32_t lookup[6];
    assert_int_equal(vocab_parse(text, sizeof text - 1, "here", &v), ST_OK);
    assert_int_equal(v->count, 3);
    add(&t, "x", "", "BBB");                /* by approved symbol */
    add(&t, "y", "ENSG00000000001", "");    /* by id */
    add(&t, "z", "ENSG00000000009", "AAA"); /* AAA is claimed by id already */
    add(&t, "CCC", "", "");                 /* by a unique bare name */
    add(&t, "BBB", "", "");                 /* repeated bare names are never mapped */
    add(&t, "BBB", "", "");
    assert_int_equal(vocab_map(v, &t, lookup), 3);
    const int32_t wanted[] = {2, 1, 0, 3, 0, 0};
    assert_memory_equal(lookup, wanted, sizeof wanted);
    feature_table_free(&t);
    vocab_destroy(&v);
}

#define CELLFM_HEADER \
    "HGNC_gene,h5_sample_frequency,biotype,gene_length,exon_count,exon_length_total,unique_exon_count," \
    "unique_exon_length_total,feature\n"

static void test_bad_vocabulary(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {{"symbol\tid\n", "first line"},
               {"id\tsymbol\tensembl\thgnc\n", "no gene"},
               {"id\tsymbol\tensembl\thgnc\n2\tA\t\t\n", "with id 1"},
               {"id\tsymbol\tensembl\thgnc\n1\tA\n", "four tab-separated"},
               {"id\tsymbol\tensembl\thgnc\n1\t\t\tHGNC:1\n", "neither a symbol"},
               {"id\tsymbol\tensembl\thgnc\n1\tA\xff\t\t\n", "not UTF-8"},
               {",idx\nA1BG,1\n", "CellFM's gene_info.csv"},
               {CELLFM_HEADER, "no gene"},
               {CELLFM_HEADER "A,1,,,,,,,\nB,1,,,\n", "line 3 has 5 comma-separated fields"},
               {CELLFM_HEADER "A,1,\"x,,,,,,\n", "line 2 has 3 comma-separated"},
               {CELLFM_HEADER "A,1,,,,,,,\nB,1,,,,,,,prot", "middle of line 3"},
               {CELLFM_HEADER "A,1,,,,,,,\nB,1,,,,,,,\nA,1,,,,,,,\n", "line 4 repeats the symbol 'A' of line 2"},
               {CELLFM_HEADER ",1,,,,,,,\n", "not a gene symbol"},
               {"HGNC_gene,feature\nA,b\n", "CellFM's gene_info.csv"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct vocab *v = NULL;
        assert_int_equal(vocab_parse(bad[i].text, strlen(bad[i].text), "here", &v), ST_INPUT);
        if (!strstr(status_message(), bad[i].says)) FAIL_WITH("said: %s\n", status_message());
        assert_null(v);
        status_clear();
    }
}

/* CellFM's form of table with genes of our own: ids are rows, commas inside quotes are none. */
static void test_cellfm_form(void **state)
{
    static const char text[] = CELLFM_HEADER "AAA,17,gene with protein product,83.0,2.0,9.0,2.0,8.0,protein coding\n"
                                             "AAA-AS1,16,\"RNA, long non-coding\",,,,,,lncRNA\n"
                                             "CCC,1,,,,,,,\r\n";
    struct vocab *v = NULL;
    struct feature_table t = {0};
    int32_t lookup[2];
    assert_int_equal(vocab_parse(text, sizeof text - 1, "here", &v), ST_OK);
    assert_int_equal(v->count, 3);
    assert_int_equal(vocab_find(v, "AAA"), 1);
    assert_int_equal(vocab_find(v, "AAA-AS1"), 2);
    assert_int_equal(vocab_find(v, "CCC"), 3);
    assert_int_equal(v->text_bytes, sizeof text - 1); /* what a checkpoint keeps is the file as it was */
    add(&t, "x", "ENSG00000000001", "AAA-AS1");
    add(&t, "CCC", "", "");
    assert_int_equal(vocab_map(v, &t, lookup), 2);
    assert_true(lookup[0] == 2 && lookup[1] == 3);
    feature_table_free(&t);
    vocab_destroy(&v);
}

/* A relative path that leads nowhere from here is looked for under CYTOMILL_DATA. */
static void test_vocabulary_path(void **state)
{
    char *path = NULL, *kept = getenv("CYTOMILL_DATA");
    char *table = write_table(), *name = strrchr(table, '/') + 1;
    if (kept) kept = text_copy(kept);
    setenv("CYTOMILL_DATA", "/tmp", 1);
    const char *given[][2] = {{name, table}, {"nowhere.csv", "nowhere.csv"}, {table, table}, {"Makefile", "Makefile"}};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        assert_int_equal(data_path_vocabulary(given[i][0], &path), ST_OK);
        assert_string_equal(path, given[i][1]);
        free(path);
    }
    assert_int_equal(data_path_vocabulary("", &path), ST_OK);
    assert_non_null(strstr(path, "configs/genes/vocabulary.tsv.gz"));
    free(path);
    if (kept) setenv("CYTOMILL_DATA", kept, 1);
    else unsetenv("CYTOMILL_DATA");
    free(kept);
    unlink(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hgnc),         cmocka_unit_test(test_rules),
                                       cmocka_unit_test(test_two_claims),   cmocka_unit_test(test_conflict),
                                       cmocka_unit_test(test_repeated_ids), cmocka_unit_test(test_shipped),
                                       cmocka_unit_test(test_vocabulary),   cmocka_unit_test(test_bad_vocabulary),
                                       cmocka_unit_test(test_cellfm_form),  cmocka_unit_test(test_vocabulary_path)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
