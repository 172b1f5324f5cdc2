/* Placement: ranks times threads must fit the cores of their host, unless the user allows more.
 * plan: ranks=1,3 limit=30
 * All ranks bind themselves to one core, so that any machine gives the same answers. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* cmocka has one too */

#include "mpi/placement.h"

static struct comm world;
static int core;

static void bind_to_one_core(void)
{
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET(core, &all)) core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
}

static void placement_is_what_the_host_gives(void **state)
{
    struct placement p;
    assert_int_equal(placement_find(&world, 1, true, &p), ST_OK);
    assert_int_equal(p.threads, 1);
    assert_int_equal(p.cores_allowed, 1);
    assert_int_equal(p.first_core, core);
    assert_int_equal(p.node_cores, 1);
    assert_int_equal(p.node_numa_nodes, 1);
    assert_int_equal(atoi(p.cores), core);
    assert_null(strpbrk(p.cores, "-,"));
    assert_int_equal(p.node_threads, world.size);
    assert_int_equal(placement_print(&world, &p), ST_OK);
}

static void oversubscription_is_refused(void **state)
{
    struct placement p;
    assert_int_equal(placement_find(&world, 2, false, &p), ST_USAGE);
    assert_int_equal(placement_find(&world, 2, true, &p), ST_OK);
    assert_int_equal(p.node_threads, 2 * world.size);
    assert_int_equal(placement_find(&world, 1, false, &p), world.size == 1 ? ST_OK : ST_USAGE);
}

static void threads_follow_the_environment(void **state)
{
    struct placement p;
    setenv("OMP_NUM_THREADS", "5", 1);
    assert_int_equal(placement_find(&world, 0, true, &p), ST_OK);
    assert_int_equal(p.threads, 5);
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(placement_find(&world, 0, true, &p), ST_OK);
    assert_int_equal(p.threads, 1); /* one core, shared */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(placement_is_what_the_host_gives),
                                       cmocka_unit_test(oversubscription_is_refused),
                                       cmocka_unit_test(threads_follow_the_environment)};
    if (comm_open(&argc, &argv, &world) != ST_OK) return 1;
    bind_to_one_core();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed != 0;
}
