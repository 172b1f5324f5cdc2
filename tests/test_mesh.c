/* The mesh of ranks.
 * plan: ranks=1,2,3,4,6,8 limit=60
 * Every shape that multiplies to the ranks opens: each rank is once in every place, and sums along an axis meet exactly
 * the ranks of that axis; other shapes are refused on all ranks. Layers are shared as evenly as can be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#undef fail

#include "mpi/mesh.h"

static struct comm world;

/* `mine` is made of this rank's places on the two other axes: all ranks of an axis have the same. */
static void check_axis(struct comm *axis, int64_t mine, int size)
{
    int64_t x[2] = {1, mine};
    assert_int_equal(axis->size, size);
    comm_sum_i64(axis, x, 2);
    assert_int_equal(x[0], size);
    assert_int_equal(x[1], mine * size); /* all of them have the same places on the other axes */
}

static void check_shape(struct mesh_shape shape)
{
    struct mesh m;
    assert_int_equal(mesh_open(&world, shape, &m), ST_OK);
    int d = m.data.rank, p = m.pipe.rank, e = m.expert.rank;
    assert_int_equal((p * shape.data + d) * shape.expert + e, world.rank);
    check_axis(&m.data, p * 100 + e, shape.data);
    check_axis(&m.pipe, d * 100 + e, shape.pipe);
    check_axis(&m.expert, d * 100 + p, shape.expert);
    assert_int_equal(m.world.size, world.size);
    mesh_close(&m);
}

static void every_shape_opens(void **state)
{
    for (int pipe = 1; pipe <= world.size; pipe++)
        for (int expert = 1; pipe * expert <= world.size; expert++)
            if (world.size % (pipe * expert) == 0)
                check_shape((struct mesh_shape){world.size / (pipe * expert), pipe, expert});
}

static void data_takes_the_rest(void **state)
{
    struct mesh m;
    assert_int_equal(mesh_open(&world, (struct mesh_shape){0, 1, 1}, &m), ST_OK);
    assert_int_equal(m.data.size, world.size);
    mesh_close(&m);
}

static void other_shapes_are_refused(void **state)
{
    const struct mesh_shape shapes[] = {
        {world.size + 1, 1, 1}, {0, world.size + 1, 1}, {1, world.size, 2}, {0, 0, 1}, {-1, 1, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct mesh m;
        assert_int_equal(mesh_open(&world, shapes[i], &m), ST_USAGE);
        assert_int_equal(m.world.size, 0);
    }
}

/* Cost of the dearest part. */
static double dearest(const int *first, int parts, double before, double after)
{
    double most = 0;
    for (int p = 0; p < parts; p++) {
        double cost = first[p + 1] - first[p] + (p == 0 ? before : 0) + (p == parts - 1 ? after : 0);
        if (cost > most) most = cost;
    }
    return most;
}

/* The best of all ways to cut, tried one by one. */
static double best_of_all(int layers, int parts, int part, double before, double after)
{
    double extra = (part == 0 ? before : 0) + (part == parts - 1 ? after : 0), best = 1e30;
    if (part == parts - 1) return layers + extra;
    for (int mine = 1; mine <= layers - (parts - 1 - part); mine++) {
        double rest = best_of_all(layers - mine, parts, part + 1, before, after), here = mine + extra;
        double most = here > rest ? here : rest;
        if (most < best) best = most;
    }
    return best;
}

static void layers_are_shared_evenly(void **state)
{
    static const double extra[][2] = {{0, 0}, {0.3, 1.1}, {2.5, 0}, {0, 4.2}};
    for (int layers = 1; layers <= 13; layers++)
        for (int parts = 1; parts <= layers && parts <= 5; parts++)
            for (size_t k = 0; k < sizeof extra / sizeof *extra; k++) {
                int first[6];
                assert_int_equal(mesh_share_layers(layers, parts, extra[k][0], extra[k][1], first), ST_OK);
                assert_int_equal(first[0], 0);
                assert_int_equal(first[parts], layers);
                for (int p = 0; p < parts; p++) assert_true(first[p + 1] > first[p]);
                assert_true(dearest(first, parts, extra[k][0], extra[k][1]) <=
                            best_of_all(layers, parts, 0, extra[k][0], extra[k][1]) + 1e-12);
            }
    int first[4];
    assert_int_equal(mesh_share_layers(2, 3, 0, 0, first), ST_CONFIG);
    status_clear();
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_shape_opens), cmocka_unit_test(data_takes_the_rest),
                                       cmocka_unit_test(other_shapes_are_refused),
                                       cmocka_unit_test(layers_are_shared_evenly)};
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
