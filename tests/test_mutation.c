/* plan: ranks=1 limit=400 configs=release
 * Foreign HDF5 files with random damage: a few hundred mutations of small files of each layout. Opening,
 * scanning and reading one either works or says ST_INPUT; this process, which stands for a rank, must
 * neither die nor hang. (Without the probe HDF5 1.10.8 dies on several per hundred.) */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail

#include "base/progress.h"
#include "base/rng.h"
#include "base/text.h"
#include "io/source.h"

#define FAIL_WITH(...) (print_error(__VA_ARGS__), _fail(__FILE__, __LINE__))
enum { MUTATIONS = 100 }; /* of each file; an argument changes it */
static uint64_t mutations = MUTATIONS;
static const double most_seconds = 10; /* for one file; the probe's limit below is smaller */

static struct comm world;
static char folder[] = "/tmp/test_mutation_XXXXXX";

/* Change 1 to 16 bytes, or cut the file: all of it from (file, number). */
static size_t mutate(char *data, size_t bytes, uint64_t number)
{
    struct rng r = rng_at(7, RNG_TEST, number, 0);
    if (rng_below(&r, 20) == 0) return (size_t)rng_below(&r, bytes);
    int changes = 1 + (int)rng_below(&r, 16);
    for (int i = 0; i < changes; i++) {
        /* half of the damage in the first 4 KiB, where the structure of small files lies */
        size_t at = (size_t)rng_below(&r, rng_below(&r, 2) && bytes > 4096 ? 4096 : bytes);
        data[at] = (char)rng_u32(&r);
    }
    return bytes;
}

static void write_file(const char *path, const char *data, size_t bytes)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(file >= 0 && write(file, data, bytes) == (ssize_t)bytes);
    close(file);
}

/* Everything ingest does with a source. */
static enum status use_source(const char *path)
{
    enum status st = ST_OK;
    struct source_options options = source_options_default();
    struct source *s = NULL;
    struct cells cells = {0};
    struct column column = {0};
    options.probe_time_s = 5;
    options.spool = folder;
    TRY(source_open(&world, path, &options, &s));
    int64_t rows = source_row_count(s);
    TRY(source_scan(&world, s, 0, rows, NULL));
    for (int64_t at = 0, n; at < rows; at += n) {
        TRY(source_block(s, at, rows, &n));
        for (int m = 0; m < source_modality_count(s); m++) TRY(source_read(s, m, at, n, &cells));
    }
    TRY(source_names_read(s, 0, rows, &column));
    column_free(&column);
    for (int c = 0; c < source_obs_count(s); c++) {
        TRY(source_obs_read(s, c, 0, rows, &column));
        column_free(&column);
    }
done:
    column_free(&column);
    cells_free(&cells);
    source_close(&s);
    return st;
}

static void damage(const char *base)
{
    char *data, *copy, *path = text_format("%s/file", folder);
    size_t bytes, refused = 0;
    /* the file as it lies there: none of these is gzipped as a whole */
    assert_int_equal(text_read_file(base, &data, &bytes), ST_OK);
    copy = malloc(bytes);
    for (uint64_t number = 0; number < mutations; number++) {
        memcpy(copy, data, bytes);
        write_file(path, copy, mutate(copy, bytes, number));
        double start_s = clock_s();
        enum status st = use_source(path);
        status_clear();
        refused += st != ST_OK;
        if (clock_s() - start_s > most_seconds)
            FAIL_WITH("%s, mutation %d: %.0f s\n", base, (int)number, clock_s() - start_s);
        if (st != ST_OK && st != ST_INPUT && st != ST_CONFIG)
            FAIL_WITH("%s, mutation %d: status %d instead of 4\n", base, (int)number, (int)st);
    }
    assert_true(refused > mutations / 10); /* the damage is damage */
    unlink(path);
    free(path);
    free(data);
    free(copy);
}

static void test_current(void **state) { damage("tests/data/formats/pbmc_small.h5ad"); }
static void test_lzf(void **state) { damage("tests/data/formats/anndata_v0.7.0.h5ad"); }
static void test_10x(void **state) { damage("tests/data/formats/cellranger_3.0.0_filtered_feature_bc_matrix.h5"); }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_current), cmocka_unit_test(test_lzf),
                                       cmocka_unit_test(test_10x)};
    if (comm_open(&argc, &argv, &world) != ST_OK || !mkdtemp(folder)) return 1;
    if (argc > 1) mutations = strtoull(argv[1], NULL, 10);
    int silent = open("/dev/null", O_WRONLY); /* hundreds of error lines are expected */
    int kept = dup(2);
    if (!getenv("SHOW")) dup2(silent, 2);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    dup2(kept, 2);
    rmdir(folder);
    comm_close(&world);
    return rc;
}
