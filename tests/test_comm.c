/* What ranks do together: agreement, sums in a fixed order, exchange of unequal parts, gathering.
 * plan: ranks=1,2,3 limit=60
 * Everything is repeated with pieces of 64 bytes, so that the path of transfers above 2 GiB is the one tested;
 * some ranks have nothing to give; the worst status wins on every rank and one rank prints one line. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* cmocka has one too */

#include "base/rng.h"
#include "base/text.h"
#include "mpi/comm.h"

static struct comm world;

/* ---- agreement ---- */

/* Run comm_agree with stderr caught in a file; returns what this rank printed (caller frees). */
static char *agree_caught(enum status local, enum status *agreed)
{
    char path[] = "/tmp/cytomill-agree-XXXXXX", *text = NULL;
    size_t length;
    int file = mkstemp(path), kept = dup(STDERR_FILENO);
    fflush(stderr);
    dup2(file, STDERR_FILENO);
    *agreed = comm_agree(&world, local);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(file);
    assert_int_equal(text_read_file(path, &text, &length), ST_OK);
    unlink(path);
    return text;
}

static void worst_status_wins(void **state)
{
    /* what rank r brings: statuses[r % 3] */
    static const struct {
        enum status statuses[3];
    } rows[] = {{{ST_OK, ST_OK, ST_OK}},         {{ST_OK, ST_OK, ST_INPUT}},      {{ST_REQUEUE, ST_OK, ST_OK}},
                {{ST_REQUEUE, ST_INPUT, ST_OK}}, {{ST_CONFIG, ST_OUTPUT, ST_OK}}, {{ST_OK, ST_REQUEUE, ST_USAGE}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum status expected = ST_OK, agreed;
        int speaker = -1;
        for (int r = 0; r < world.size; r++) {
            enum status st = rows[i].statuses[r % 3];
            bool error = st != ST_OK && st != ST_REQUEUE;
            bool before = expected != ST_OK && expected != ST_REQUEUE;
            if ((error && (!before || st > expected)) || (!before && st == ST_REQUEUE)) expected = st;
        }
        for (int r = world.size - 1; r >= 0; r--)
            if (expected != ST_OK && expected != ST_REQUEUE && rows[i].statuses[r % 3] == expected) speaker = r;
        enum status mine = rows[i].statuses[world.rank % 3];
        if (mine != ST_OK) (void)fail(mine, "row %zu of rank %d", i, world.rank);
        char *printed = agree_caught(mine, &agreed), line[256];
        assert_int_equal(agreed, expected);
        snprintf(line, sizeof line, "test: error[%d %s]: rank %d of %d on %s: row %zu of rank %d\n", (int)expected,
                 status_word(expected), world.rank, world.size, world.host, i, world.rank);
        assert_string_equal(printed, world.rank == speaker ? line : "");
        assert_string_equal(status_message(), "");
        free(printed);
    }
}

static void differing_blocks_are_found(void **state)
{
    char block[200];
    memset(block, 'x', sizeof block);
    assert_int_equal(comm_same(&world, block, sizeof block, "the block"), ST_OK);
    assert_int_equal(comm_same(&world, block, 0, "nothing"), ST_OK);
    if (world.size == 1) return;
    if (world.rank == world.size - 1) block[150] = 'y';
    assert_int_equal(comm_same(&world, block, sizeof block, "the block"), ST_COMM);
    size_t length = world.rank == 0 ? sizeof block : 10;
    assert_int_equal(comm_same(&world, block, length, "the length"), ST_COMM);
}

/* ---- sums ---- */

static void sums_have_a_fixed_order(void **state)
{
    enum { N = 5000 };
    double *x = malloc(N * sizeof *x), *expected = calloc(N, sizeof *expected);
    float *y = malloc(N * sizeof *y), *expected_f = calloc(N, sizeof *expected_f);
    for (int r = 0; r < world.size; r++) {
        struct rng random = rng_at(1, RNG_TEST, (uint64_t)r, 0);
        for (int i = 0; i < N; i++) {
            double v = rng_normal(&random) * pow(10, i % 17 - 8);
            expected[i] += v;
            expected_f[i] += (float)v;
            if (r == world.rank) x[i] = v;
            if (r == world.rank) y[i] = (float)v;
        }
    }
    comm_sum_f64(&world, x, N);
    comm_sum_f32(&world, y, N);
    assert_memory_equal(x, expected, N * sizeof *x);
    assert_memory_equal(y, expected_f, N * sizeof *y);
    comm_sum_f64(&world, x, 0);
    comm_sum_f32(&world, y, 1);
    free(x);
    free(y);
    free(expected);
    free(expected_f);
}

static void whole_numbers_are_summed_and_compared(void **state)
{
    int64_t x[20], y[20];
    for (int i = 0; i < 20; i++) {
        x[i] = ((int64_t)1 << 40) + i + world.rank;
        y[i] = i % world.size == world.rank ? i : -i;
    }
    comm_sum_i64(&world, x, 20);
    comm_max_i64(&world, y, 20);
    int64_t ranks = world.size;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(x[i], ranks * (((int64_t)1 << 40) + i) + ranks * (ranks - 1) / 2);
        assert_int_equal(y[i], i);
    }
    assert_int_equal(comm_prefix_i64(&world, world.rank + 1), (int64_t)world.rank * (world.rank + 1) / 2);
}

/* ---- moving data ---- */

/* The byte that rank `from` sends to rank `to` at place i, and how many it sends: rank 1 sends nothing. */
static char byte_of(int from, int to, int64_t i) { return (char)(31 * from + 17 * to + 7 * i); }
static int64_t bytes_of(int from, int to) { return from == 1 ? 0 : 100 * from + 37 * to + (from == to ? 0 : 5); }

static void unequal_parts_are_exchanged(void **state)
{
    int64_t *send_bytes = calloc((size_t)world.size, sizeof *send_bytes),
            *recv_bytes = calloc((size_t)world.size, sizeof *recv_bytes);
    struct text send = {0};
    text_add_bytes(&send, "", 0);
    for (int r = 0; r < world.size; r++) {
        send_bytes[r] = bytes_of(world.rank, r);
        for (int64_t i = 0; i < send_bytes[r]; i++) text_add_bytes(&send, (char[]){byte_of(world.rank, r, i)}, 1);
    }
    char *received = NULL;
    assert_int_equal(comm_exchange(&world, send.data, send_bytes, (void **)&received, recv_bytes), ST_OK);
    const char *at = received;
    for (int r = 0; r < world.size; r++) {
        assert_int_equal(recv_bytes[r], bytes_of(r, world.rank));
        for (int64_t i = 0; i < recv_bytes[r]; i++) assert_int_equal(*at++, byte_of(r, world.rank, i));
    }
    free(received);
    free(send_bytes);
    free(recv_bytes);
    text_free(&send);
}

static void parts_are_gathered_in_rank_order(void **state)
{
    int64_t bytes = 0, *offsets = calloc((size_t)world.size + 1, sizeof *offsets);
    char mine[512], *all = NULL;
    int64_t count = world.rank == 0 && world.size > 1 ? 0 : 100 + world.rank;
    for (int64_t i = 0; i < count; i++) mine[i] = byte_of(world.rank, 0, i);
    assert_int_equal(comm_gather_all(&world, mine, count, (void **)&all, &bytes, offsets), ST_OK);
    assert_int_equal(offsets[world.size], bytes);
    for (int r = 0; r < world.size; r++) {
        assert_int_equal(offsets[r + 1] - offsets[r], r == 0 && world.size > 1 ? 0 : 100 + r);
        for (int64_t i = offsets[r]; i < offsets[r + 1]; i++) assert_int_equal(all[i], byte_of(r, 0, i - offsets[r]));
    }
    assert_int_equal(all[bytes], '\0');
    free(all);
    free(offsets);
}

static void blocks_and_texts_are_broadcast(void **state)
{
    char block[1000], *text = NULL, *none = NULL;
    int root = world.size - 1;
    for (int i = 0; i < 1000; i++) block[i] = world.rank == root ? byte_of(root, 0, i) : 0;
    comm_bcast(&world, block, sizeof block, root);
    for (int i = 0; i < 1000; i++) assert_int_equal(block[i], byte_of(root, 0, i));
    if (world.rank == root)
        text = text_copy("a text longer than the sixty-four bytes of the small pieces of this test");
    comm_bcast_text(&world, &text, root);
    assert_int_equal(strlen(text), 72);
    comm_bcast_text(&world, &none, 0);
    assert_null(none);
    free(text);
}

static void neighbours_talk(void **state)
{
    char out[300], in[300];
    int next = (world.rank + 1) % world.size, previous = (world.rank + world.size - 1) % world.size;
    if (world.size == 1) return;
    for (int i = 0; i < 300; i++) out[i] = byte_of(world.rank, next, i);
    if (world.rank % 2 == 0) comm_send(&world, out, sizeof out, next, 3);
    comm_receive(&world, in, sizeof in, previous, 3);
    if (world.rank % 2 == 1) comm_send(&world, out, sizeof out, next, 3);
    for (int i = 0; i < 300; i++) assert_int_equal(in[i], byte_of(previous, world.rank, i));
}

static void worlds_are_split(void **state)
{
    struct comm half;
    assert_int_equal(comm_split(&world, world.rank % 2, &half), ST_OK);
    assert_int_equal(half.size, (world.size + 1 - world.rank % 2) / 2);
    assert_int_equal(half.rank, world.rank / 2);
    int64_t sum = world.rank;
    comm_sum_i64(&half, &sum, 1);
    int64_t expected = 0;
    for (int r = world.rank % 2; r < world.size; r += 2) expected += r;
    assert_int_equal(sum, expected);
    comm_free(&half);
    assert_int_equal(half.size, 0);
    comm_free(&half);
}

static void shares_cover_everything_once(void **state)
{
    for (int64_t n = 0; n < 20; n++) {
        int64_t first, count;
        comm_share(&world, n, &first, &count);
        assert_int_equal(first, comm_prefix_i64(&world, count));
        assert_true(count >= n / world.size && count <= n / world.size + 1);
        comm_sum_i64(&world, &count, 1);
        assert_int_equal(count, n);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(worst_status_wins),
                                       cmocka_unit_test(differing_blocks_are_found),
                                       cmocka_unit_test(sums_have_a_fixed_order),
                                       cmocka_unit_test(whole_numbers_are_summed_and_compared),
                                       cmocka_unit_test(unequal_parts_are_exchanged),
                                       cmocka_unit_test(parts_are_gathered_in_rank_order),
                                       cmocka_unit_test(blocks_and_texts_are_broadcast),
                                       cmocka_unit_test(neighbours_talk),
                                       cmocka_unit_test(worlds_are_split),
                                       cmocka_unit_test(shares_cover_everything_once)};
    comm_set_program("test");
    if (comm_open(&argc, &argv, &world) != ST_OK) return 1;
    int failed = cmocka_run_group_tests_name("whole", tests, NULL, NULL);
    comm_set_piece(64);
    failed += cmocka_run_group_tests_name("in pieces", tests, NULL, NULL);
    comm_close(&world);
    return failed != 0;
}
