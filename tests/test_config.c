/* Configuration: every wrong value is refused with file, line, column, what was found and what is allowed.
 * plan: ranks=1 limit=60
 * Later files win, --set wins over files; what config_yaml writes is read back to the same values; the
 * reference names every key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* cmocka has one too */

#include "base/config.h"
#include "base/text.h"

static char folder[] = "/tmp/cytomill-config-XXXXXX";
static int make_folder(void **state) { return mkdtemp(folder) ? 0 : -1; }
static int remove_folder(void **state)
{
    char *command = text_format("rm -rf %s", folder);
    int rc = system(command);
    free(command);
    return rc;
}

static char *put(const char *name, const char *text)
{
    char *path = text_format("%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

static void wrong_files_are_refused(void **state)
{
    static const struct {
        const char *yaml, *expected; /* what the message must contain */
    } rows[] = {
        {"train:\n  stpes: 10\n", ":2:3: unknown key 'train.stpes'; did you mean 'train.steps'?"},
        {"trian:\n  steps: 10\n", ":2:3: unknown key 'trian.steps'; did you mean 'train.steps'?"},
        {"train:\n  zebra: 1\n", ":2:3: unknown key 'train.zebra'; configs/README.md"},
        {"train:\n  steps: 12x\n",
         ":2:10: train.steps is '12x'; allowed is a whole number from 1 to 1000000000000 steps"},
        {"train:\n  steps: 1.5\n", ":2:10: train.steps is '1.5'; allowed is a whole number"},
        {"train:\n  steps: 0\n", ":2:10: train.steps is '0'; allowed"},
        {"train:\n  steps:\n", "train.steps is ''; allowed"},
        {"train:\n  beta1: nan\n", ":2:10: train.beta1 is 'nan'; allowed is a number from 0 to 1"},
        {"train:\n  beta1: 1.5\n", ":2:10: train.beta1 is '1.5'; allowed is a number from 0 to 1"},
        {"run:\n  fresh: yes\n", ":2:10: run.fresh is 'yes'; allowed are true and false"},
        {"run:\n  isa: avx\n", ":2:8: run.isa is 'avx'; allowed is one of auto|generic|avx2|avx512"},
        {"run:\n  isa: ''\n", ":2:8: run.isa is ''; allowed is one of"},
        {"train:\n  steps: [1, 2]\n", ":2:10: train.steps holds a list where a plain value is needed"},
        {"train:\n  steps: {a: 1}\n", ":2:10: train.steps holds a map"},
        {"run:\n  input: [[a]]\n", ":2:10: a list may hold only plain values"},
        {"run:\n  input: {a: b}\n", ":2:10: run.input holds a map"},
        {"steps: 10\n", ":1:1: 'steps' must be a section"},
        {"- a\n", ":1:1: the file must hold sections"},
        {"train:\n  steps: 'a\n", ": not YAML: "},
        {"train:\n\tsteps: 1\n", ":2:1: not YAML: "},
        {"train:\n  ? [a]\n  : 1\n", ":2:5: a key must be a word"},
        {"train:\n  steps: *none\n", ":2:10: not YAML: "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct config *config = NULL;
        char *path = put("wrong.yaml", rows[i].yaml);
        assert_int_equal(config_create(&config), ST_OK);
        status_clear();
        enum status st = config_read(config, path);
        if (st != ST_CONFIG || !strstr(status_message(), rows[i].expected) || !strstr(status_message(), "wrong.yaml"))
            print_error("%s gave '%s', expected '%s'\n", rows[i].yaml, status_message(), rows[i].expected);
        assert_int_equal(st, ST_CONFIG);
        assert_non_null(strstr(status_message(), "wrong.yaml"));
        assert_non_null(strstr(status_message(), rows[i].expected));
        status_clear();
        config_destroy(&config);
        free(path);
    }
}

static void files_that_cannot_be_read_are_refused(void **state)
{
    struct config *config = NULL;
    assert_int_equal(config_create(&config), ST_OK);
    status_clear();
    assert_int_equal(config_read(config, "/nowhere/x.yaml"), ST_CONFIG);
    assert_non_null(strstr(status_message(), "/nowhere/x.yaml: cannot be opened"));
    status_clear();
    assert_int_equal(config_read(config, folder), ST_CONFIG);
    assert_non_null(strstr(status_message(), folder));
    status_clear();
    char *path = put("latin1.yaml", "run:\n  out: Zell\xfc\n");
    assert_int_equal(config_read(config, path), ST_CONFIG);
    assert_non_null(strstr(status_message(), "latin1.yaml"));
    status_clear();
    free(path);
    config_destroy(&config);
}

static void later_values_win(void **state)
{
    struct config *config = NULL;
    char *first = put("first.yaml", "train: {steps: 1e6, rate: 3e-4}\nrun: {input: [a.h5ad, 'b, c.h5ad'], out: x}\n");
    char *second = put("second.yaml", "# only one value\ntrain:\n  steps: 2_000\n");
    assert_int_equal(config_create(&config), ST_OK);
    assert_int_equal(config_int(config, "train.steps"), 1000);
    assert_false(config_is_given(config, "train.steps"));
    assert_int_equal(config_read(config, first), ST_OK);
    assert_int_equal(config_int(config, "train.steps"), 1000000);
    assert_int_equal(config_read(config, second), ST_OK);
    assert_int_equal(config_int(config, "train.steps"), 2000);
    assert_true(config_real(config, "train.rate") == 3e-4);
    assert_true(config_is_given(config, "train.steps"));
    int count;
    const char *const *input = config_list(config, "run.input", &count);
    assert_int_equal(count, 2);
    assert_string_equal(input[1], "b, c.h5ad");
    assert_int_equal(config_set(config, "train.steps=30", "--set"), ST_OK);
    assert_int_equal(config_set(config, "run.input=p, q ,r", "--set"), ST_OK);
    assert_int_equal(config_set(config, "run.out=a=b", "--set"), ST_OK);
    input = config_list(config, "run.input", &count);
    assert_int_equal(count, 3);
    assert_string_equal(input[1], "q");
    assert_int_equal(config_int(config, "train.steps"), 30);
    assert_string_equal(config_text(config, "run.out"), "a=b");
    config_destroy(&config);
    free(first);
    free(second);
}

static void wrong_assignments_are_refused(void **state)
{
    static const char *const rows[][2] = {{"train.steps", "--set: 'train.steps' has no '='"},
                                          {"steps=3", "--set: unknown key 'steps'"},
                                          {"=3", "--set: unknown key ''"},
                                          {"train.steps=", "--set: train.steps is ''"},
                                          {"train.steps=-1", "--set: train.steps is '-1'"}};
    struct config *config = NULL;
    assert_int_equal(config_create(&config), ST_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        status_clear();
        assert_int_equal(config_set(config, rows[i][0], "--set"), ST_CONFIG);
        assert_non_null(strstr(status_message(), rows[i][1]));
    }
    status_clear();
    assert_int_equal(config_int(config, "train.steps"), 1000);
    /* a check the table cannot express says where the value came from */
    assert_int_equal(config_set(config, "model.heads=7", "--set"), ST_OK);
    assert_int_equal(config_fail(config, "model.heads", "must divide %d", 1536), ST_CONFIG);
    assert_string_equal(status_message(), "--set: model.heads is '7'; must divide 1536");
    status_clear();
    config_destroy(&config);
}

static void what_is_written_is_read_back(void **state)
{
    struct config *config = NULL, *again = NULL;
    assert_int_equal(config_create(&config), ST_OK);
    assert_int_equal(config_create(&again), ST_OK);
    assert_int_equal(config_set(config, "run.cells=cell_type == 'B' and not x: #1", "--set"), ST_OK);
    assert_int_equal(config_set(config, "run.input=it's.h5ad,- b", "--set"), ST_OK);
    assert_int_equal(config_set(config, "train.steps=1e6", "--set"), ST_OK);
    char *first = config_yaml(config, NULL), *path = put("written.yaml", first);
    assert_int_equal(config_read(again, path), ST_OK);
    char *second = config_yaml(again, NULL);
    assert_string_equal(first, second);
    assert_string_equal(config_text(again, "run.cells"), "cell_type == 'B' and not x: #1");
    free(first);
    free(second);
    free(path);
    config_destroy(&config);
    config_destroy(&again);
}

/* Defaults are in range, words are among their words, names are section.key and unique. */
static void table_is_sound(void **state)
{
    struct config *config = NULL;
    assert_int_equal(config_create(&config), ST_OK);
    for (int k = 0; k < config_key_count; k++) {
        const struct config_key *key = &config_keys[k];
        const char *dot = strchr(key->name, '.');
        assert_true(dot && dot > key->name && dot[1] && !strchr(dot + 1, '.'));
        assert_true(*key->help && key->help[strlen(key->help) - 1] == '.');
        for (int j = 0; j < k; j++) assert_string_not_equal(key->name, config_keys[j].name);
        const char *text;
        assert_int_equal(config_written(config, key->name, &text), ST_OK);
        assert_string_equal(text, key->fallback);
    }
    config_destroy(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(wrong_files_are_refused),
                                       cmocka_unit_test(files_that_cannot_be_read_are_refused),
                                       cmocka_unit_test(later_values_win),
                                       cmocka_unit_test(wrong_assignments_are_refused),
                                       cmocka_unit_test(what_is_written_is_read_back),
                                       cmocka_unit_test(table_is_sound)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
