/* Pipelines over real ranks.
 * plan: ranks=1,2,3,4,11 limit=60
 * A small model, y = a x + b per part with sizes that differ by micro-batch, gives under every schedule the gradients
 * that plain loops give on one rank, bit for bit; a stage that fails in any place leaves nobody waiting, and the next
 * step is whole again; a step allocates nothing. On 11 ranks only the interleaved pipeline that needs a third buffer. */
#include "kernel_check.h"
#include "mpi/pipeline.h"

enum { MOST = 5000, MICROS = 9, LONG = 11, LONG_MICROS = 2 * LONG, PARTS = 2 * LONG };
static struct comm world;

static int size_of(int micro) { return MOST - 700 * (micro % 4); }
static double input(int micro, int i) { return micro + 0.001 * i; }
static double factor(int part) { return 1 + 0.01 * part; }

/* What a stage keeps: the inputs of its parts, the sums of da and db. */
struct toy {
    const struct schedule_spec *spec;
    int stage, fail_at, calls;
    double x[PARTS][LONG_MICROS][MOST], d[PARTS][LONG_MICROS][MOST], da[PARTS], db[PARTS]; /* by chunk */
};

static enum status call(struct toy *t)
{
    if (++t->calls != t->fail_at) return ST_OK;
    return status_fail(ST_NUMERIC, __FILE__, __LINE__, "toy failure");
}

static bool is_last(const struct toy *t, int part) { return part == schedule_parts(t->spec) - 1; }

static enum status forward(void *context, const struct instruction *piece, const void *in, void *out)
{
    struct toy *t = context;
    int micro = piece->micro, chunk = piece->chunk;
    int part = schedule_part(t->spec, t->stage, chunk), n = size_of(micro);
    assert_true((in == NULL) == (part == 0) && (out == NULL) == is_last(t, part));
    for (int i = 0; i < n; i++) t->x[chunk][micro][i] = in ? ((const double *)in)[i] : input(micro, i);
    if (out)
        for (int i = 0; i < n; i++) ((double *)out)[i] = factor(part) * t->x[chunk][micro][i] + part;
    return call(t);
}

/* The loss is half the sum of squares of the last part's result. */
static enum status backward(void *context, const struct instruction *piece, const void *d_out, void *d_in)
{
    struct toy *t = context;
    int micro = piece->micro, chunk = piece->chunk;
    int part = schedule_part(t->spec, t->stage, chunk), n = size_of(micro);
    for (int i = 0; i < n; i++)
        t->d[chunk][micro][i] = d_out ? ((const double *)d_out)[i] : factor(part) * t->x[chunk][micro][i] + part;
    if (d_in)
        for (int i = 0; i < n; i++) ((double *)d_in)[i] = factor(part) * t->d[chunk][micro][i];
    return call(t);
}

static enum status weights(void *context, int micro, int chunk)
{
    struct toy *t = context;
    for (int i = 0; i < size_of(micro); i++) {
        t->da[chunk] += t->d[chunk][micro][i] * t->x[chunk][micro][i];
        t->db[chunk] += t->d[chunk][micro][i];
    }
    return call(t);
}

static int64_t message_bytes(void *context, int micro) { return (int64_t)sizeof(double) * size_of(micro); }

/* da, db of every part by plain loops, micro-batches in order. */
static void reference(int parts, int micros, double *da, double *db)
{
    static double x[PARTS + 1][MOST];
    memset(da, 0, sizeof(double) * (size_t)parts), memset(db, 0, sizeof(double) * (size_t)parts);
    for (int micro = 0; micro < micros; micro++)
        for (int i = 0; i < size_of(micro); i++) {
            x[0][i] = input(micro, i);
            for (int p = 0; p < parts; p++) x[p + 1][i] = factor(p) * x[p][i] + p;
            double d = x[parts][i];
            for (int p = parts - 1; p >= 0; p--) da[p] += d * x[p][i], db[p] += d, d *= factor(p);
        }
}

static struct toy toy;

static enum status run(struct pipeline *p, const struct schedule *s, int fail_at)
{
    memset(toy.da, 0, sizeof toy.da), memset(toy.db, 0, sizeof toy.db);
    toy.spec = &s->spec, toy.stage = world.rank, toy.fail_at = fail_at, toy.calls = 0;
    struct pipeline_stage stage = {&toy, forward, backward, weights, message_bytes, NULL, NULL, NULL};
    return pipeline_run(&world, p, &stage);
}

static void check_gradients(const struct schedule *s)
{
    double da[PARTS], db[PARTS];
    reference(schedule_parts(&s->spec), s->spec.micros, da, db);
    for (int c = 0; c < s->spec.chunks; c++) {
        int part = schedule_part(&s->spec, world.rank, c);
        assert_memory_equal(&toy.da[c], &da[part], sizeof(double));
        assert_memory_equal(&toy.db[c], &db[part], sizeof(double));
    }
}

static void with_schedule(struct schedule_spec spec, void (*check)(struct pipeline *, const struct schedule *))
{
    struct schedule s;
    struct pipeline *p;
    assert_int_equal(schedule_build(&spec, &s), ST_OK);
    assert_int_equal(pipeline_create(&world, &s, sizeof(double) * MOST, &p), ST_OK);
    check(p, &s);
    pipeline_destroy(&p);
    schedule_free(&s);
}

static void for_all_schedules(void (*check)(struct pipeline *, const struct schedule *))
{
    for (int kind = SCHEDULE_GPIPE; kind <= SCHEDULE_ZB_H1; kind++) {
        bool interleaved = kind == SCHEDULE_INTERLEAVED;
        if (interleaved && world.size == 1) continue;
        for (int chunks = 1; chunks <= (interleaved ? 3 : 1); chunks++)
            for (int micros = 1; micros <= MICROS; micros += 4)
                with_schedule((struct schedule_spec){kind, world.size, chunks, micros, NULL, false, false}, check);
    }
}

static void check_step(struct pipeline *p, const struct schedule *s)
{
    for (int step = 0; step < 2; step++) {
        assert_int_equal(run(p, s, 0), ST_OK);
        check_gradients(s);
    }
}
static void gradients_are_those_of_one_rank(void **state) { for_all_schedules(check_step); }

static void a_long_interleaved_pipeline_has_its_buffers(void **state)
{
    struct schedule_spec spec = {.kind = SCHEDULE_INTERLEAVED, .stages = LONG, .chunks = 2, .micros = LONG_MICROS};
    assert_int_equal(schedule_buffers(&spec), 3);
    with_schedule(spec, check_step);
}

static void check_failure(struct pipeline *p, const struct schedule *s)
{
    int work = 3 * s->spec.micros * s->spec.chunks;
    for (int stage = 0; stage < world.size; stage++)
        for (int at = 1; at <= work; at += 4) {
            enum status st = run(p, s, world.rank == stage ? at : 0);
            assert_int_equal(st, world.rank == stage ? ST_NUMERIC : ST_OK);
            status_clear();
        }
    check_step(p, s);
}
static void a_failing_stage_holds_nobody_up(void **state) { for_all_schedules(check_failure); }

static void a_step_allocates_nothing(void **state)
{
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* nothing to count with */
#endif
    struct schedule s;
    struct pipeline *p;
    assert_int_equal(
        schedule_build(
            &(struct schedule_spec){.kind = SCHEDULE_ZB_H1, .stages = world.size, .chunks = 1, .micros = MICROS}, &s),
        ST_OK);
    assert_int_equal(pipeline_create(&world, &s, sizeof(double) * MOST, &p), ST_OK);
    assert_int_equal(run(p, &s, 0), ST_OK);
    allocations_begin();
    enum status st = run(p, &s, 0);
    struct allocations seen = allocations_end(); /* Open MPI's own count as the library's */
    assert_int_equal(st, ST_OK);
    assert_int_equal(seen.ours, 0);
    pipeline_destroy(&p);
    schedule_free(&s);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_are_those_of_one_rank),
                                       cmocka_unit_test(a_failing_stage_holds_nobody_up),
                                       cmocka_unit_test(a_step_allocates_nothing)};
    const struct CMUnitTest longer[] = {cmocka_unit_test(a_long_interleaved_pipeline_has_its_buffers)};
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed =
        world.size == LONG ? cmocka_run_group_tests(longer, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
