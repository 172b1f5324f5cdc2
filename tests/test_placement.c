/* Placement: ranks times threads must fit the cores of their host, unless the user allows more; a thread beside those that
 * compute goes where they are not.
 * plan: ranks=1,3 limit=30
 * All ranks keep to the same two cores (one, where there is one), and OpenMP binds their first threads to the first of
 * them, as in jobs/batch.sh: a rank has both cores all the same. */
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* cmocka has one too */

#include "mpi/placement.h"

static struct comm world;
static cpu_set_t own; /* before OpenMP took one of them */
static int cores, core;

/* OpenMP looks at the cores when a program begins, so it begins again. */
static void begin_on_two_cores(char **argv)
{
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&own);
    for (int c = 0; c < CPU_SETSIZE && CPU_COUNT(&own) < 2; c++)
        if (CPU_ISSET(c, &all)) CPU_SET(c, &own);
    assert_int_equal(sched_setaffinity(0, sizeof own, &own), 0);
    setenv("OMP_PROC_BIND", "close", 1);
    setenv("OMP_PLACES", "threads", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    execv("/proc/self/exe", argv);
}

static void find_own(void)
{
    for (int place = 0; place < omp_get_num_places(); place++) {
        int id;
        assert_int_equal(omp_get_place_num_procs(place), 1);
        omp_get_place_proc_ids(place, &id);
        CPU_SET(id, &own);
    }
    cores = CPU_COUNT(&own);
    while (!CPU_ISSET(core, &own)) core++;
}

static void placement_is_what_the_host_gives(void **state)
{
    struct placement p;
    assert_int_equal(placement_find(&world, 1, true, &p), ST_OK);
    assert_int_equal(p.threads, 1);
    assert_int_equal(p.cores_allowed, cores);
    assert_int_equal(p.first_core, core);
    assert_int_equal(p.node_cores, cores);
    assert_in_range(p.node_numa_nodes, 1, cores);
    assert_int_equal(atoi(p.cores), core);
    assert_true((strpbrk(p.cores, "-,") != NULL) == (cores > 1));
    assert_int_equal(p.node_threads, world.size);
    assert_int_equal(placement_print(&world, &p), ST_OK);
}

static void oversubscription_is_refused(void **state)
{
    struct placement p;
    assert_int_equal(placement_find(&world, 3, false, &p), ST_USAGE);
    assert_int_equal(placement_find(&world, 3, true, &p), ST_OK);
    assert_int_equal(p.node_threads, 3 * world.size);
    assert_int_equal(placement_find(&world, 1, false, &p), world.size <= cores ? ST_OK : ST_USAGE);
}

static void threads_follow_the_environment(void **state)
{
    struct placement p;
    setenv("OMP_NUM_THREADS", "5", 1);
    assert_int_equal(placement_find(&world, 0, true, &p), ST_OK);
    assert_int_equal(p.threads, 5);
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(placement_find(&world, 0, true, &p), ST_OK);
    assert_int_equal(p.threads, world.size == 1 ? cores : 1); /* shared */
}

struct seen {
    cpu_set_t cores;
    sigset_t blocked;
};

static void *look(void *seen)
{
    struct seen *s = seen;
    sched_getaffinity(0, sizeof s->cores, &s->cores);
    pthread_sigmask(SIG_SETMASK, NULL, &s->blocked);
    return NULL;
}

static struct seen look_beside(int threads)
{
    struct seen seen;
    pthread_t thread;
    omp_set_num_threads(threads);
    assert_true(placement_start_thread(&thread, look, &seen));
    pthread_join(thread, NULL);
    assert_true(sigismember(&seen.blocked, SIGUSR1));
    return seen;
}

static void a_thread_goes_where_none_computes(void **state)
{
    cpu_set_t mine;
    struct seen beside_one = look_beside(1), beside_two = look_beside(2);
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    assert_int_equal(CPU_COUNT(&mine), 1);
    assert_int_equal(CPU_COUNT(&beside_one.cores), 1);
    assert_int_equal(CPU_EQUAL(&beside_one.cores, &mine), cores == 1);
    assert_true(CPU_EQUAL(&beside_two.cores, &own));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placement_is_what_the_host_gives), cmocka_unit_test(oversubscription_is_refused),
        cmocka_unit_test(threads_follow_the_environment), cmocka_unit_test(a_thread_goes_where_none_computes)};
    if (!getenv("OMP_PLACES") || strcmp(getenv("OMP_PLACES"), "threads") != 0) begin_on_two_cores(argv);
    find_own();
    if (comm_open(&argc, &argv, &world) != ST_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed != 0;
}
