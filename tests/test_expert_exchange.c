/* Rows to the ranks that hold their experts and back.
 * plan: ranks=1,2,3,4 limit=90
 * For every pattern (even, one hot expert, one hot rank, experts and ranks without rows, ragged sources, no row at
 * all), room from ample to one row, whole transfers and small pieces: each row comes back with what one rank computes;
 * runs are by expert and source, within the room, and never split where they fit; what an expert sums run after run is
 * the same bits in ample and tight room; two exchanges at once; nothing allocates; ranks that do not divide the experts
 * are refused; on two ranks more than 2^31 bytes go from one to the other. */
#include "kernel_check.h"

#include <stdio.h>

#include "mpi/expert_exchange.h"

enum { E = 12, WIDTH = 5, MOST = 400, MOST_RUNS = E * 4 };
#define OK(call) assert_int_equal((call), ST_OK)

static struct comm world;

/* ---- patterns: rows of a source for an expert, known to every rank ---- */

typedef int64_t pattern_fn(int source, int expert);
static int64_t even(int source, int expert) { return 8; }
static int64_t hot_expert(int source, int expert) { return expert == 7 ? 90 : 1; }
static int64_t hot_rank(int source, int expert) { return expert < E / world.size ? 30 : 0; }
static int64_t empty_expert(int source, int expert) { return expert % 3 == 1 ? 0 : 5 + expert; }
static int64_t ragged(int source, int expert) { return source == 0 ? 0 : (source * 7 + expert * 5) % 23; }
static int64_t one_source(int source, int expert) { return source == world.size - 1 ? 20 + expert : 0; }
static int64_t one_row(int source, int expert) { return source == world.size - 1 && expert == E - 1; }
static int64_t nothing(int source, int expert) { return 0; }

static const struct {
    const char *name;
    pattern_fn *rows;
} patterns[] = {{"even", even},     {"hot expert", hot_expert}, {"hot rank", hot_rank}, {"empty expert", empty_expert},
                {"ragged", ragged}, {"one source", one_source}, {"one row", one_row},   {"nothing", nothing}};
enum { PATTERNS = sizeof patterns / sizeof *patterns };

static float value(int source, int64_t row, int column)
{
    return (float)sin(source * 1000.0 + (double)row * 7 + column);
}
static float expert_of(int expert, float x) { return x * (1.1f + (float)expert) + 0.3f * (float)expert; }

static int64_t fill(pattern_fn *pattern, int source, int64_t *counts, float *home)
{
    int64_t rows = 0;
    for (int e = 0; e < E; e++) rows += counts[e] = pattern(source, e);
    assert_true(rows <= MOST);
    for (int64_t i = 0; i < rows * WIDTH; i++) home[i] = value(source, i / WIDTH, (int)(i % WIDTH));
    return rows;
}

/* ---- one whole trip ---- */

/* What an expert adds up, run after run: a sum of each run, then that onto the whole, as buckets of rows are. */
static float sums[E];

static void compute(const struct expert_run *runs, int count, int64_t capacity, const float *away, float *results)
{
    int64_t rows = 0;
    int held = E / world.size;
    for (int i = 0; i < count; i++) {
        const struct expert_run *r = &runs[i];
        assert_int_equal(r->expert, i / world.size);
        assert_true(r->rows >= 0 && r->first >= 0 && r->first + r->rows <= capacity);
        rows += r->rows;
        int expert = world.rank * held + r->expert;
        float sum = 0;
        for (int64_t k = r->first * WIDTH; k < (r->first + r->rows) * WIDTH; k++) {
            sum += away[k];
            results[k] = expert_of(expert, away[k]);
        }
        if (r->rows) sums[expert] += sum;
    }
    assert_true(rows <= capacity);
}

static int trip(struct expert_exchange *x, int64_t capacity, const int64_t *counts, const float *home, float *back)
{
    static float away[MOST * 4 * WIDTH], results[MOST * 4 * WIDTH];
    struct expert_run runs[MOST_RUNS];
    int64_t row_bytes = WIDTH * sizeof(float);
    memset(sums, 0, sizeof sums);
    expert_exchange_count(&world, x, counts);
    int rounds = expert_exchange_rounds(&world, x);
    for (int round = 0; round < rounds; round++) {
        expert_exchange_send(&world, x, round, home, away, row_bytes);
        while (!expert_exchange_poll(x)) continue;
        expert_exchange_finish(&world, x);
        expert_exchange_runs(x, round, runs);
        compute(runs, expert_exchange_run_count(x), capacity, away, results);
        expert_exchange_return(&world, x, round, results, back, row_bytes);
        expert_exchange_finish(&world, x);
    }
    return rounds;
}

static void check_back(const char *name, const int64_t *counts, const float *home, const float *back)
{
    int64_t row = 0;
    for (int e = 0; e < E; e++)
        for (int64_t n = 0; n < counts[e]; n++, row++)
            for (int c = 0; c < WIDTH; c++)
                if (back[row * WIDTH + c] != expert_of(e, home[row * WIDTH + c]))
                    fail_msg("%s: row %ld of expert %d is %.9g", name, (long)row, e, (double)back[row * WIDTH + c]);
}

/* The same sums by one rank: sources in order, each as one run. */
static void check_sums(const char *name, pattern_fn *pattern)
{
    int held = E / world.size;
    for (int e = world.rank * held; e < (world.rank + 1) * held; e++) {
        float want = 0;
        for (int s = 0; s < world.size; s++) {
            int64_t before = 0;
            float sum = 0;
            for (int i = 0; i < e; i++) before += pattern(s, i);
            for (int64_t k = before * WIDTH; k < (before + pattern(s, e)) * WIDTH; k++)
                sum += value(s, k / WIDTH, (int)(k % WIDTH));
            if (pattern(s, e)) want += sum;
        }
        if (sums[e] != want) fail_msg("%s: expert %d sums to %.9g, not %.9g", name, e, (double)sums[e], (double)want);
    }
}

static int64_t longest_run(pattern_fn *pattern)
{
    int64_t longest = 0;
    for (int s = 0; s < world.size; s++)
        for (int e = 0; e < E; e++)
            if (pattern(s, e) > longest) longest = pattern(s, e);
    return longest;
}

/* Rows of all sources for the busiest rank. */
static int64_t most_at_one(pattern_fn *pattern)
{
    int64_t at[4] = {0}, most = 0;
    for (int e = 0; e < E; e++)
        for (int s = 0; s < world.size; s++) at[e / (E / world.size)] += pattern(s, e);
    for (int r = 0; r < world.size; r++)
        if (at[r] > most) most = at[r];
    return most;
}

static void check_pattern(int p, int64_t capacity)
{
    static float home[MOST * WIDTH], back[MOST * WIDTH];
    int64_t counts[E], most = most_at_one(patterns[p].rows);
    struct expert_exchange *x;
    OK(expert_exchange_create(&world, E, capacity, WIDTH * sizeof(float), 0, &x));
    assert_int_equal(expert_exchange_held(x) * world.size, E);
    fill(patterns[p].rows, world.rank, counts, home);
    memset(back, 0xff, sizeof back);
    int rounds = trip(x, capacity, counts, home, back);
    check_back(patterns[p].name, counts, home, back);
    if (capacity >= longest_run(patterns[p].rows)) check_sums(patterns[p].name, patterns[p].rows);
    assert_true(rounds >= (most + capacity - 1) / capacity && rounds <= 2 * (most / capacity) + 1);
    assert_true(most > 0 || rounds == 0);
    if (most > 0 && capacity >= most) assert_int_equal(rounds, 1);
    expert_exchange_destroy(&x);
}

static void rows_come_back_from_their_experts(void **state)
{
    static const int64_t capacities[] = {4 * MOST, 97, 40, 8, 1};
    for (int small = 0; small < 2; small++) {
        comm_set_piece(small ? 24 : 1 << 30);
        for (int p = 0; p < PATTERNS; p++)
            for (size_t c = 0; c < sizeof capacities / sizeof *capacities; c++)
                if (capacities[c] > 1 || p % 2) check_pattern(p, capacities[c]);
    }
    comm_set_piece(1 << 30);
}

/* One exchange is used again with other counts; another is on its way at the same time. */
static void two_at_once(void **state)
{
    static float home[2][MOST * WIDTH], away[2][4 * MOST * WIDTH], back[2][MOST * WIDTH];
    int64_t counts[2][E], row_bytes = WIDTH * sizeof(float);
    struct expert_exchange *x[2];
    for (int i = 0; i < 2; i++) OK(expert_exchange_create(&world, E, 4 * MOST, row_bytes, i, &x[i]));
    for (int again = 0; again < 3; again++) {
        for (int i = 0; i < 2; i++) {
            fill(patterns[(again + i) % PATTERNS].rows, world.rank, counts[i], home[i]);
            expert_exchange_count(&world, x[i], counts[i]);
        }
        for (int i = 0; i < 2; i++) assert_int_equal(expert_exchange_rounds(&world, x[i]), 1);
        for (int i = 0; i < 2; i++) expert_exchange_send(&world, x[i], 0, home[i], away[i], row_bytes);
        for (int i = 1; i >= 0; i--) expert_exchange_finish(&world, x[i]);
        for (int i = 0; i < 2; i++) expert_exchange_return(&world, x[i], 0, away[i], back[i], row_bytes);
        for (int i = 1; i >= 0; i--) expert_exchange_finish(&world, x[i]);
        for (int i = 0; i < 2; i++)
            for (int64_t k = 0, n = 0; k < E; n += counts[i][k++])
                assert_memory_equal(back[i] + n * WIDTH, home[i] + n * WIDTH, (size_t)(counts[i][k] * row_bytes));
    }
    for (int i = 0; i < 2; i++) expert_exchange_destroy(&x[i]);
}

static void a_trip_allocates_nothing(void **state)
{
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* nothing to count with */
#endif
    static float home[MOST * WIDTH], back[MOST * WIDTH];
    int64_t counts[E];
    struct expert_exchange *x;
    OK(expert_exchange_create(&world, E, 40, WIDTH * sizeof(float), 0, &x));
    fill(ragged, world.rank, counts, home);
    trip(x, 40, counts, home, back);
    allocations_begin();
    trip(x, 40, counts, home, back);
    assert_int_equal(allocations_end().ours, 0);
    expert_exchange_destroy(&x);
}

static void ranks_must_divide_experts(void **state)
{
    struct expert_exchange *x;
    if (world.size == 1) return;
    assert_int_equal(expert_exchange_create(&world, E + 1, 8, 8, 0, &x), ST_CONFIG);
    assert_null(x);
}

/* ---- more than 2^31 bytes ---- */

static int64_t memory_available(void)
{
    long long kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lld kB", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}

static uint64_t word(int64_t i) { return (uint64_t)i * 0x9e3779b97f4a7c15u; }

static void large_transfer(void **state)
{
    enum { ROW = 1 << 20, ROWS = 2065 }; /* 2.17e9 bytes */
    int64_t words = (int64_t)ROWS * (ROW / 8), wrong = 0, lacks = memory_available() < 3LL * ROWS * ROW;
    if (world.size != 2) skip();
    comm_max_i64(&world, &lacks, 1);
    if (lacks) skip();
    int64_t counts[2] = {0, world.rank == 0 ? ROWS : 0};
    struct expert_exchange *x;
    uint64_t *rows = malloc((size_t)words * 8);
    assert_non_null(rows);
    OK(expert_exchange_create(&world, 2, ROWS, ROW, 0, &x));
    for (int64_t i = 0; i < words; i++) rows[i] = world.rank == 0 ? word(i) : 0;
    expert_exchange_count(&world, x, counts);
    assert_int_equal(expert_exchange_rounds(&world, x), 1);
    expert_exchange_send(&world, x, 0, rows, rows, ROW); /* rank 0 receives nothing, rank 1 sends nothing */
    expert_exchange_finish(&world, x);
    for (int64_t i = 0; i < words; i++) wrong += rows[i] != word(i);
    assert_int_equal(wrong, 0);
    expert_exchange_destroy(&x);
    free(rows);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back_from_their_experts),
        cmocka_unit_test(two_at_once),
        cmocka_unit_test(a_trip_allocates_nothing),
        cmocka_unit_test(ranks_must_divide_experts),
        cmocka_unit_test(large_transfer),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
