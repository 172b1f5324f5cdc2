/* plan: ranks=1,3 limit=60
 * With chunks of very uneven length every chunk is done exactly once, idle ranks take work from busy
 * ones, a stop ends all, and jobs of an array order one list so that each begins with its own share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours records a status */

#include "mpi/queue.h"

static struct comm world;

/* Chunks of rank 0's own share take 5 ms, with a poll every millisecond; the others none. */
static void work(struct queue *queue, int64_t chunk)
{
    if (chunk % world.size != 0) return;
    for (int ms = 0; ms < 5; ms++) {
        usleep(1000);
        queue_poll(queue);
    }
}

static void every_chunk_exactly_once(void **state)
{
    for (int64_t count = 0; count <= 200; count = 5 * count + 1) {
        int64_t chunks[200], done[200] = {0}, chunk, total[2] = {0};
        struct queue *queue;
        for (int64_t i = 0; i < count; i++) chunks[i] = i;
        assert_int_equal(queue_open(&world, chunks, count, &queue), ST_OK);
        while (queue_next(queue, &chunk)) {
            work(queue, chunk);
            done[chunk]++;
            total[0]++;
        }
        total[1] = queue_stolen(queue);
        assert_false(queue_stopped(queue));
        queue_close(&world, &queue);
        assert_null(queue);
        int64_t mine = total[0];
        comm_sum_i64(&world, done, 200);
        comm_sum_i64(&world, total, 2);
        for (int64_t i = 0; i < 200; i++) assert_int_equal(done[i], i < count);
        if (world.size > 1 && count > 100) {
            assert_true(total[1] > 0);
            if (world.rank == 0) assert_true(mine < count / world.size); /* the slow rank did less than its share */
        }
    }
}

static void a_stop_ends_all_ranks(void **state)
{
    enum { COUNT = 3000 };
    int64_t *chunks = calloc(COUNT, sizeof *chunks), chunk, done = 0;
    struct queue *queue;
    for (int64_t i = 0; i < COUNT; i++) chunks[i] = i;
    assert_int_equal(queue_open(&world, chunks, COUNT, &queue), ST_OK);
    while (queue_next(queue, &chunk)) {
        usleep(1000);
        if (++done == 5 && world.rank == world.size - 1) queue_stop(queue);
    }
    assert_true(queue_stopped(queue));
    queue_close(&world, &queue);
    comm_sum_i64(&world, &done, 1);
    assert_true(done < COUNT / 2);
    free(chunks);
}

/* A rank that stops at once and goes straight to close, while others ask it for work. */
static void an_early_leaver_hangs_nobody(void **state)
{
    int64_t chunks[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8}, chunk, done = 0;
    struct queue *queue;
    for (int round = 0; round < 20; round++) {
        assert_int_equal(queue_open(&world, chunks, 9, &queue), ST_OK);
        if (world.rank == round % world.size) queue_stop(queue);
        while (queue_next(queue, &chunk)) done++;
        queue_close(&world, &queue);
    }
    comm_sum_i64(&world, &done, 1);
    assert_true(done <= 20 * 9);
}

static void array_jobs_begin_with_their_own(void **state)
{
    int64_t chunks[7] = {0, 1, 2, 4, 5, 6, 9};
    static const int64_t expected[7] = {1, 4, 9, 6, 5, 2, 0}; /* wanted: chunk % 3 == 1 first */
    int64_t list[7];
    memcpy(list, chunks, sizeof list);
    assert_int_equal(queue_order_for_array(list, 7, 0, 1), ST_OK);
    assert_memory_equal(list, chunks, sizeof list);
    assert_int_equal(queue_order_for_array(list, 7, 1, 3), ST_OK);
    static const int64_t own[2] = {1, 4};
    assert_memory_equal(list, own, sizeof own);
    static const int64_t others[5] = {9, 6, 5, 2, 0};
    assert_memory_equal(list + 2, others, sizeof others);
    assert_memory_equal(list, expected, sizeof expected);
}

static void place_in_an_array_comes_from_slurm(void **state)
{
    int job, jobs;
    setenv("SLURM_ARRAY_TASK_ID", "14", 1);
    setenv("SLURM_ARRAY_TASK_MIN", "10", 1);
    setenv("SLURM_ARRAY_TASK_STEP", "2", 1);
    setenv("SLURM_ARRAY_TASK_COUNT", "4", 1);
    queue_array_place(&job, &jobs);
    assert_int_equal(job, 2);
    assert_int_equal(jobs, 4);
    unsetenv("SLURM_ARRAY_TASK_COUNT");
    queue_array_place(&job, &jobs);
    assert_int_equal(job, 0);
    assert_int_equal(jobs, 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_chunk_exactly_once), cmocka_unit_test(a_stop_ends_all_ranks),
        cmocka_unit_test(an_early_leaver_hangs_nobody), cmocka_unit_test(array_jobs_begin_with_their_own),
        cmocka_unit_test(place_in_an_array_comes_from_slurm)};
    if (comm_open(&argc, &argv, &world) != ST_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
