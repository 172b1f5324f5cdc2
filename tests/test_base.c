/* Base parts: statuses and their messages, arenas, text as users write it.
 * plan: ranks=1 limit=60
 * The first failure is kept and later ones dropped; a prefix goes in front; measure and run agree in an arena;
 * 1e6 is a million and 12x nothing; UTF-8 is told from Latin-1 and from surrogates; gzip with several members
 * is read, a damaged one refused; two writers of a file leave one version, whole; folders are made like mkdir -p. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* cmocka has one too */
#include <libdeflate.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/progress.h"
#include "base/text.h"

/* ---- status ---- */

static void first_failure_is_kept(void **state)
{
    status_clear();
    assert_string_equal(status_message(), "");
    assert_int_equal(fail(ST_INPUT, "%s: no cells", "a.h5ad"), ST_INPUT);
    assert_int_equal(fail(ST_MEMORY, "a consequence"), ST_MEMORY);
    assert_string_equal(status_message(), "a.h5ad: no cells");
    assert_non_null(strstr(status_where(), "test_base.c:"));
    status_prefix("shard %d: ", 7);
    assert_string_equal(status_message(), "shard 7: a.h5ad: no cells");
    status_clear();
    assert_string_equal(status_message(), "");
}

static void messages_stay_on_one_line(void **state)
{
    status_clear();
    (void)fail(ST_INPUT, "two\nlines\r");
    assert_null(strpbrk(status_message(), "\r\n"));
    status_clear();
    char *line = malloc(5000);
    memset(line, 'x', 4999);
    line[4999] = '\0';
    (void)fail(ST_INPUT, "%s", line);
    status_prefix("%s", line);
    assert_true(strlen(status_message()) > 1000);
    status_clear();
    free(line);
}

static void every_status_has_a_word(void **state)
{
    assert_string_equal(status_word(ST_OK), "ok");
    assert_string_equal(status_word(ST_CONFIG), "configuration");
    assert_string_equal(status_word(ST_REQUEUE), "stopped early");
    assert_string_equal(status_word((enum status)42), "unknown");
    assert_int_equal(ST_REQUEUE, 75);
}

/* ---- arena ---- */

static size_t plan(struct arena *a, float **first)
{
    *first = arena_take(a, 1000 * sizeof(float));
    size_t mark = arena_mark(a);
    arena_take(a, 1 << 20);
    arena_reset(a, mark);
    char *last = arena_take(a, 3);
    if (last) assert_true(last > (char *)*first);
    return a->high_bytes;
}

static void measured_bytes_suffice(void **state)
{
    struct arena measure = {0}, real = {0};
    float *x = NULL;
    size_t bytes = plan(&measure, &x);
    assert_null(x);
    assert_true(bytes >= 4000 + (1 << 20));
    assert_int_equal(arena_create(&real, bytes), ST_OK);
    assert_int_equal(plan(&real, &x), bytes);
    assert_int_equal((uintptr_t)x % ARENA_ALIGN, 0);
    for (int i = 0; i < 1000; i++) assert_true(x[i] == 0);
    arena_destroy(&real);
    assert_null(real.base);
}

static void impossible_arena_is_refused(void **state)
{
    struct arena a = {0};
    status_clear();
    assert_int_equal(arena_create(&a, (size_t)1 << 62), ST_MEMORY);
    assert_non_null(strstr(status_message(), "GiB"));
    status_clear();
}

/* ---- numbers and names ---- */

static void numbers_are_read_as_users_write_them(void **state)
{
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } rows[] = {{"1200", true, 1200},
                {"1e6", true, 1000000},
                {"2.5e3", true, 2500},
                {"1_000", true, 1000},
                {"-3", true, -3},
                {"12x", false, 0},
                {"1.5", false, 0},
                {"", false, 0},
                {" 7", false, 0},
                {"7 ", false, 0},
                {"1e400", false, 0},
                {"0x10", false, 0},
                {"nan", false, 0},
                {"1e", false, 0},
                {"99999999999999999999", false, 0},
                {"9007199254740993", true, 9007199254740993},
                {"1e17", false, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t value = 0;
        bool good = text_to_int(rows[i].text, &value);
        if (good != rows[i].good) print_error("text_to_int(\"%s\")\n", rows[i].text);
        assert_true(good == rows[i].good);
        if (rows[i].good) assert_int_equal(value, rows[i].value);
    }
    double x;
    assert_true(text_to_real("1e-7", &x) && x == 1e-7);
    assert_true(text_to_real(".5", &x) && x == 0.5);
    const char *const wrong[] = {"", "1.0x", "nan", "inf", "1,5", "--1", "1e999", "0x1p3", " 1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_false(text_to_real(wrong[i], &x));
}

static void nearest_name_is_near(void **state)
{
    const char *const names[] = {"train.steps", "train.batch", "model.layers"};
    assert_int_equal(text_nearest("train.stpes", names, 3), 0);
    assert_int_equal(text_nearest("TRAIN.BATCH", names, 3), 1);
    assert_int_equal(text_nearest("zebra", names, 3), -1);
    assert_int_equal(text_nearest("", names, 3), -1);
    assert_int_equal(text_nearest("x", names, 0), -1);
}

static void utf8_is_told_from_other_bytes(void **state)
{
    assert_true(text_is_utf8("CD8 \xce\xb1\xce\xb2", 8));
    assert_true(text_is_utf8("\xf0\x9f\xa7\xac", 4));
    assert_true(text_is_utf8("", 0));
    assert_false(text_is_utf8("Zell\xfc", 5));         /* Latin-1 */
    assert_false(text_is_utf8("\xce", 1));             /* cut */
    assert_false(text_is_utf8("\xc0\x80", 2));         /* overlong */
    assert_false(text_is_utf8("\xed\xa0\x80", 3));     /* surrogate */
    assert_false(text_is_utf8("\xf4\x90\x80\x80", 4)); /* above U+10FFFF */
    assert_false(text_is_utf8("\x80", 1));             /* lone continuation */
}

static void sizes_are_for_people(void **state)
{
    char out[32];
    assert_string_equal(text_duration(12.2, out), "12s");
    assert_string_equal(text_duration(245, out), "4m05s");
    assert_string_equal(text_duration(11520, out), "3h12m");
    assert_string_equal(text_duration(47 * 3600 + 59 * 60, out), "47h59m");
    assert_string_equal(text_duration(48 * 3600, out), "2d00h");
    assert_string_equal(text_duration(729.96 * 86400, out), "729d23h");
    assert_string_equal(text_duration(730 * 86400, out), "2 years");
    assert_string_equal(text_duration(4e8, out), "12 years");
    assert_string_equal(text_duration(1e12, out), "31,709 years");
    assert_string_equal(text_duration(1e9 * 365 * 86400, out), "1,000,000,000 years");
    assert_string_equal(text_duration(-1, out), "?");
    assert_string_equal(text_duration(NAN, out), "?");
    assert_string_equal(text_duration(INFINITY, out), "?");
    assert_string_equal(text_bytes(1536, out), "1.5 KiB");
    assert_string_equal(text_bytes(17, out), "17 B");
    assert_string_equal(text_count(12345678, out), "12,345,678");
    assert_string_equal(text_count(-1234, out), "-1,234");
    assert_string_equal(text_count(999, out), "999");
}

/* ---- files ---- */

static char folder[] = "/tmp/cytomill-base-XXXXXX";
static int make_folder(void **state) { return mkdtemp(folder) ? 0 : -1; }
static int remove_folder(void **state)
{
    char *command = text_format("rm -rf %s", folder);
    int rc = system(command);
    free(command);
    return rc;
}

static char *put(const char *name, const void *data, size_t bytes)
{
    char *path = text_format("%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
    return path;
}

static size_t gzip(const char *text, unsigned char *out, size_t capacity)
{
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
    size_t bytes = libdeflate_gzip_compress(c, text, strlen(text), out, capacity);
    libdeflate_free_compressor(c);
    return bytes;
}

static void files_are_read_plain_and_gzipped(void **state)
{
    unsigned char packed[512];
    size_t one = gzip("first\n", packed, sizeof packed), length = 0;
    size_t two = one + gzip("second\n", packed + one, sizeof packed - one);
    const struct {
        const char *name;
        const void *data;
        size_t bytes;
        const char *expected; /* NULL: refused */
    } rows[] = {{"plain", "a\0b", 3, "a"},
                {"empty", "", 0, ""},
                {"gz", packed, one, "first\n"},
                {"members.gz", packed, two, "first\nsecond\n"},
                {"cut.gz", packed, two - 5, NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *path = put(rows[i].name, rows[i].data, rows[i].bytes), *text = NULL;
        status_clear();
        enum status st = text_read_file(path, &text, &length);
        assert_int_equal(st, rows[i].expected ? ST_OK : ST_INPUT);
        if (rows[i].expected) assert_string_equal(text, rows[i].expected);
        else assert_non_null(strstr(status_message(), "cut.gz"));
        free(text);
        free(path);
    }
    char *text;
    status_clear();
    assert_int_equal(text_read_file("/nowhere/at/all", &text, &length), ST_INPUT);
    status_clear();
    assert_int_equal(text_read_file(folder, &text, &length), ST_INPUT);
    status_clear();
}

/* Two processes write the same file at the same time, as jobs of an array do: neither fails, each version is whole. */
static void files_are_written_whole(void **state)
{
    enum { ROUNDS = 200 };
    const char *versions[2] = {"first version\n", "the second one, longer\n"};
    char *path = text_format("%s/shared", folder), *text;
    size_t length;
    pid_t writers[2];
    for (int w = 0; w < 2; w++) {
        writers[w] = fork();
        if (writers[w] != 0) continue;
        for (int i = 0; i < ROUNDS; i++)
            if (text_write_file(path, versions[w], strlen(versions[w])) != ST_OK) _exit(1);
        _exit(0);
    }
    for (int w = 0; w < 2; w++) {
        int how;
        assert_int_equal(waitpid(writers[w], &how, 0), writers[w]);
        assert_int_equal(how, 0);
    }
    assert_int_equal(text_read_file(path, &text, &length), ST_OK);
    assert_true(strcmp(text, versions[0]) == 0 || strcmp(text, versions[1]) == 0);
    free(text);
    char *command = text_format("! ls %s | grep -q partial", folder), *nowhere = text_format("%s/no/such", folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(text_write_file(nowhere, "x", 1), ST_OUTPUT);
    assert_non_null(strstr(status_message(), nowhere));
    status_clear();
    free(command);
    free(nowhere);
    free(path);
}

static void folders_are_made(void **state)
{
    struct stat info;
    char *deep = text_format("%s/a/b/c", folder), *file = put("file", "x", 1), *under = text_format("%s/d", file);
    assert_int_equal(text_make_folder(deep), ST_OK);
    assert_int_equal(text_make_folder(deep), ST_OK);
    assert_true(stat(deep, &info) == 0 && S_ISDIR(info.st_mode));
    status_clear();
    assert_int_equal(text_make_folder(under), ST_OUTPUT);
    assert_non_null(strstr(status_message(), file));
    status_clear();
    assert_int_equal(text_make_folder(file), ST_OUTPUT);
    status_clear();
    free(deep);
    free(file);
    free(under);
}

static void hash_is_sha256(void **state)
{
    char hex[SHA256_HEX], same[SHA256_HEX], *path = put("abc", "abc", 3);
    hash_sha256("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(hash_sha256_file(path, same), ST_OK);
    assert_string_equal(hex, same);
    assert_true(hash_block("abc", 3, 0) != hash_block("abc", 3, 1));
    free(path);
}

/* From any place to any place, and not a byte beyond. */
static void hash_copy_copies(void **state)
{
    enum { ROOM = 4200 };
    static char from[ROOM], to[ROOM], expected[ROOM];
    static const size_t lengths[] = {0, 1, 15, 16, 17, 63, 200, 4096};
    for (size_t i = 0; i < sizeof from; i++) from[i] = (char)(i * 37 % 251);
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (size_t at = 0; at < 40; at += 3) {
            size_t target = 5 * at % 48;
            memset(to, 'x', ROOM);
            memset(expected, 'x', ROOM);
            memcpy(expected + target, from + at, lengths[l]);
            assert_true(hash_copy(to + target, from + at, lengths[l], 3) == hash_block(from + at, lengths[l], 3));
            assert_memory_equal(to, expected, ROOM);
        }
}

/* What a lost run wrote after its last checkpoint is cut; a half-written line goes too. */
static void metrics_resume_where_the_checkpoint_is(void **state)
{
    struct metrics_file m = {0};
    char *path = text_format("%s/metrics.jsonl", folder), *text = NULL;
    size_t length;
    assert_int_equal(metrics_open(&m, path, "step", -1), ST_OK);
    for (int step = 1; step <= 4; step++) {
        struct metric row[] = {{"step", step}, {"loss", 1.0 / step}};
        assert_int_equal(metrics_add(&m, "train", row, 2), ST_OK);
    }
    fputs("{\"kind\":\"train\",\"step\":2,\"lo", m.file);
    metrics_close(&m);
    assert_int_equal(metrics_open(&m, path, "step", 2), ST_OK);
    struct metric row[] = {{"step", 3}, {"loss", 0.0 / 0.0}};
    assert_int_equal(metrics_add(&m, "train", row, 2), ST_OK);
    metrics_close(&m);
    assert_int_equal(text_read_file(path, &text, &length), ST_OK);
    int lines = 0;
    for (const char *c = text; *c; c++) lines += *c == '\n';
    assert_int_equal(lines, 3);
    assert_null(strstr(text, "\"step\":4"));
    assert_non_null(strstr(text, "\"loss\":null"));
    free(text);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(first_failure_is_kept),
                                       cmocka_unit_test(messages_stay_on_one_line),
                                       cmocka_unit_test(every_status_has_a_word),
                                       cmocka_unit_test(measured_bytes_suffice),
                                       cmocka_unit_test(impossible_arena_is_refused),
                                       cmocka_unit_test(numbers_are_read_as_users_write_them),
                                       cmocka_unit_test(nearest_name_is_near),
                                       cmocka_unit_test(utf8_is_told_from_other_bytes),
                                       cmocka_unit_test(sizes_are_for_people),
                                       cmocka_unit_test(files_are_read_plain_and_gzipped),
                                       cmocka_unit_test(files_are_written_whole),
                                       cmocka_unit_test(folders_are_made),
                                       cmocka_unit_test(hash_is_sha256),
                                       cmocka_unit_test(hash_copy_copies),
                                       cmocka_unit_test(metrics_resume_where_the_checkpoint_is)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
