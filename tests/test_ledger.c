/* plan: ranks=1 limit=60
 * A writer is killed at random moments, again and again: every chunk the ledger calls done has its
 * bytes, nothing done is done again, and at most the chunk in flight is done twice. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours records a status */

#include "base/rng.h"
#include "base/text.h"
#include "io/ledger.h"
#include "io/place.h"

enum { CHUNKS = 60, CHUNK_BYTES = 5000 };
static char folder[64], data_path[96], ledger_path[96], starts_path[96];
static char key[SHA256_HEX], other_key[SHA256_HEX];

static void chunk_content(int64_t chunk, unsigned char *out)
{
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)chunk, 0);
    for (int i = 0; i < CHUNK_BYTES; i++) out[i] = (unsigned char)rng_u32(&r);
}

/* Do all chunks that are not done, in two writes each with a pause between; note every start. */
static enum status write_chunks(void)
{
    enum status st = ST_OK;
    struct ledger *ledger = NULL;
    unsigned char content[CHUNK_BYTES];
    int data = open(data_path, O_RDWR | O_CREAT, 0666), starts = open(starts_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    TRY(ledger_open(ledger_path, CHUNKS, key, &ledger));
    for (int64_t c = 0; c < CHUNKS; c++) {
        unsigned char number = (unsigned char)c;
        if (ledger_is_done(ledger, c)) continue;
        if (write(starts, &number, 1) != 1) abort();
        chunk_content(c, content);
        TRY(place_write(data, data_path, c * CHUNK_BYTES, content, CHUNK_BYTES / 2));
        usleep(200);
        TRY(place_write(data, data_path, c * CHUNK_BYTES + CHUNK_BYTES / 2, content + CHUNK_BYTES / 2,
                        CHUNK_BYTES / 2));
        TRY(ledger_mark(ledger, c, hash_block(content, CHUNK_BYTES, 0)));
    }
done:
    ledger_close(&ledger);
    close(data);
    close(starts);
    return st;
}

static void check_done_chunks(void)
{
    struct ledger *ledger;
    unsigned char content[CHUNK_BYTES], expected[CHUNK_BYTES];
    if (access(ledger_path, F_OK) != 0) return; /* killed before it appeared */
    assert_int_equal(ledger_open(ledger_path, CHUNKS, key, &ledger), ST_OK);
    int data = open(data_path, O_RDONLY);
    for (int64_t c = 0; c < CHUNKS; c++) {
        if (!ledger_is_done(ledger, c)) continue;
        assert_int_equal(place_read(data, data_path, c * CHUNK_BYTES, content, CHUNK_BYTES), ST_OK);
        chunk_content(c, expected);
        assert_memory_equal(content, expected, CHUNK_BYTES);
        assert_true(ledger_hash(ledger, c) == hash_block(content, CHUNK_BYTES, 0));
    }
    close(data);
    ledger_close(&ledger);
}

static void survives_kill_at_any_point(void **state)
{
    struct rng r = rng_at(2, RNG_TEST, 0, 0);
    int kills = 0, result = -1;
    for (;;) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) _exit(write_chunks());
        usleep(1000 + (useconds_t)rng_below(&r, 6000));
        if (kills < 40) kill(child, SIGKILL);
        waitpid(child, &result, 0);
        check_done_chunks();
        if (WIFEXITED(result)) break;
        kills++;
    }
    assert_int_equal(WEXITSTATUS(result), ST_OK);
    assert_true(kills > 3);
    char *starts;
    size_t count;
    assert_int_equal(text_read_file(starts_path, &starts, &count), ST_OK);
    assert_true(count >= CHUNKS && count <= CHUNKS + (size_t)kills);
    free(starts);
}

static void another_job_is_refused(void **state)
{
    struct ledger *ledger;
    assert_int_equal(ledger_open(ledger_path, CHUNKS, other_key, &ledger), ST_OUTPUT);
    assert_non_null(strstr(status_message(), "another model, input or option"));
    status_clear();
    assert_int_equal(ledger_open(ledger_path, CHUNKS + 1, key, &ledger), ST_OUTPUT);
    status_clear();
    assert_int_equal(ledger_open("/proc/no/ledger", CHUNKS, key, &ledger), ST_OUTPUT);
    status_clear();
}

static void damaged_records_are_not_done(void **state)
{
    struct ledger *ledger, *other;
    bool done;
    assert_int_equal(ledger_open(ledger_path, CHUNKS, key, &ledger), ST_OK);
    assert_int_equal(ledger_done_count(ledger), CHUNKS);
    int fd = open(ledger_path, O_RDWR);
    unsigned char byte = 0;
    int64_t at = 512 + 7 * 16 + 3;
    assert_int_equal(place_read(fd, ledger_path, at, &byte, 1), ST_OK);
    byte ^= 1;
    assert_int_equal(place_write(fd, ledger_path, at, &byte, 1), ST_OK);
    assert_int_equal(ledger_look(ledger, 7, &done), ST_OK);
    assert_false(done);
    assert_int_equal(ledger_open(ledger_path, CHUNKS, key, &other), ST_OK);
    assert_int_equal(ledger_mark(other, 7, 99), ST_OK);
    assert_int_equal(ledger_unmark(other, 8), ST_OK);
    assert_int_equal(ledger_refresh(ledger), ST_OK); /* what the other process did is seen */
    assert_true(ledger_is_done(ledger, 7) && !ledger_is_done(ledger, 8));
    close(fd);
    ledger_close(&other);
    ledger_close(&ledger);
}

static void first_to_publish_wins(void **state)
{
    char *path = text_format("%s/final", folder), *a = text_format("%s/a", folder), *b = text_format("%s/b", folder);
    bool mine;
    close(open(a, O_WRONLY | O_CREAT, 0666));
    close(open(b, O_WRONLY | O_CREAT, 0666));
    assert_int_equal(ledger_publish(a, path, &mine), ST_OK);
    assert_true(mine);
    assert_int_equal(ledger_publish(b, path, &mine), ST_OK);
    assert_false(mine);
    assert_true(access(a, F_OK) != 0 && access(b, F_OK) != 0 && access(path, F_OK) == 0);
    unlink(path);
    free(path);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survives_kill_at_any_point), cmocka_unit_test(another_job_is_refused),
        cmocka_unit_test(damaged_records_are_not_done), cmocka_unit_test(first_to_publish_wins)};
    strcpy(folder, "/tmp/cytomill-ledger-XXXXXX");
    if (!mkdtemp(folder)) return 1;
    snprintf(data_path, sizeof data_path, "%s/data", folder);
    snprintf(ledger_path, sizeof ledger_path, "%s/ledger", folder);
    snprintf(starts_path, sizeof starts_path, "%s/starts", folder);
    hash_sha256("job", 3, key);
    hash_sha256("other", 5, other_key);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(data_path);
    unlink(ledger_path);
    unlink(starts_path);
    char *left = text_format("rm -rf %s", folder); /* temporary files of killed writers */
    if (system(left) != 0) failed++;
    free(left);
    return failed;
}
