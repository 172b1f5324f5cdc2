/* A mixture of experts shared out among ranks is the mixture on one rank, bit for bit.
 * plan: ranks=1,2,3,4 limit=60
 * Every rank has rows of its own; they travel to the ranks that hold their experts (mpi/expert_exchange.h), in a round
 * or several, and the three steps of model/ffn_moe.h run around the exchange: results, gradients of rows, router and
 * shared expert are those of the rank alone; an expert's weight gradient is that of one rank which takes the rows of
 * source after source. */
#include "tests/expert_scene.h"

#include "mpi/expert_exchange.h"

enum { E = 12, AMPLE = 1024, TIGHT = 60 };
static const char keys[] = "model.experts=12 model.shared_expert=true";

static struct comm world;
static struct scene s, reference;

static int64_t rows_of(int rank) { return rank == 1 ? 0 : 40 + 30 * rank; }

static void load_rows(struct scene *scene, int rank)
{
    struct rng r = rng_at(9, RNG_TEST, (uint64_t)rank, 0);
    scene->rows = rows_of(rank);
    for (int64_t i = 0; i < scene->rows * WIDTH; i++) {
        scene->x[i] = bf16_to_float(bf16_from_float((float)rng_normal(&r)));
        scene->weights[i] = bf16_to_float(bf16_from_float((float)rng_normal(&r)));
    }
}

static struct tensor *begin(struct scene *scene, struct tape *tape, enum tape_mode mode, struct pass *pass)
{
    tape_begin(tape, mode);
    *pass = (struct pass){.tape = tape, .params = &scene->part.params, .type = scene->type};
    tape_segment(tape, "rows", 0, NULL);
    struct tensor *x = tape_tensor(tape, scene->type, scene->rows, WIDTH);
    x->wants_gradient = true;
    return x;
}

static void copy_out(real *to, const void *from, const struct tensor *x)
{
    for (int64_t i = 0; i < x->rows * x->cols; i++) to[i] = (real)dtype_load(from, i, x->type);
}

static void start_with(const struct scene *scene, struct tape *tape, struct tensor *y)
{
    void *start = tape_start_gradient(tape, y);
    for (int64_t i = 0; i < scene->rows * WIDTH; i++) dtype_store(start, i, scene->weights[i], y->type);
}

/* One rank with all experts, on the rows of one source: results into y, dx; gradients are added. */
static void run_alone(struct scene *scene, int source)
{
    load_rows(scene, source);
    struct tensor *x = begin(scene, scene->tape, TAPE_TRAIN, &scene->pass);
    for (int64_t i = 0; i < scene->rows * WIDTH; i++) dtype_store(x->data, i, scene->x[i], x->type);
    struct tensor *y = scene->ffn->kind->run(scene->ffn, &scene->pass, x);
    copy_out(scene->y, y->data, y);
    start_with(scene, scene->tape, y);
    tape_backward_segment(scene->tape, 0);
    copy_out(scene->dx, x->gradient, x);
    tape_drain_segment(scene->tape, 0);
}

/* ---- the same with experts elsewhere ---- */

struct away {
    struct arena memory;
    struct tape *tape;
    struct expert_exchange *exchange;
    int64_t capacity, row_bytes;
    int rounds;
};

/* The rows of a round through the experts here. All are held here; those that are ours are used. */
static struct tensor *away_experts(struct away *a, struct tensor *rows, struct pass *pass, int round)
{
    int count = expert_exchange_run_count(a->exchange);
    struct expert_run *list = tape_take(a->tape, (size_t)count * sizeof *list);
    expert_exchange_runs(a->exchange, round, list);
    for (int i = 0; i < count; i++) list[i].expert += world.rank * expert_exchange_held(a->exchange);
    return moe_experts(s.ffn, pass, rows, (struct expert_runs){count, list});
}

static struct tensor *away_rows(struct away *a, enum tape_mode mode, struct pass *pass, int round,
                                const struct tensor *home)
{
    int64_t own = s.rows;
    s.rows = a->capacity;
    struct tensor *rows = begin(&s, a->tape, mode, pass);
    s.rows = own;
    expert_exchange_send(&world, a->exchange, round, home->data, rows->data, a->row_bytes);
    expert_exchange_finish(&world, a->exchange);
    return rows;
}

static void forward_away(struct away *a, const struct tensor *rows, struct tensor *results)
{
    struct pass pass;
    for (int round = 0; round < a->rounds; round++) {
        struct tensor *in = away_rows(a, TAPE_INFER, &pass, round, rows);
        struct tensor *out = away_experts(a, in, &pass, round);
        expert_exchange_return(&world, a->exchange, round, out->data, results->data, a->row_bytes);
        expert_exchange_finish(&world, a->exchange);
    }
}

/* Rows come once more, so that no round's activations need be kept. */
static void backward_away(struct away *a, const struct tensor *rows, const void *dresults, void *drows)
{
    struct pass pass;
    for (int round = 0; round < a->rounds; round++) {
        struct tensor *in = away_rows(a, TAPE_TRAIN, &pass, round, rows);
        struct tensor *out = away_experts(a, in, &pass, round);
        void *start = tape_start_gradient(a->tape, out);
        expert_exchange_send(&world, a->exchange, round, dresults, start, a->row_bytes);
        expert_exchange_finish(&world, a->exchange);
        tape_backward_segment(a->tape, 0);
        expert_exchange_return(&world, a->exchange, round, in->gradient, drows, a->row_bytes);
        expert_exchange_finish(&world, a->exchange);
        tape_drain_segment(a->tape, 0);
    }
}

static void run_shared(struct away *a)
{
    struct routing routing;
    int64_t counts[E];
    load_rows(&s, world.rank);
    struct tensor *x = begin(&s, s.tape, TAPE_TRAIN, &s.pass);
    for (int64_t i = 0; i < s.rows * WIDTH; i++) dtype_store(x->data, i, s.x[i], x->type);
    struct tensor *rows = moe_route(s.ffn, &s.pass, x, &routing);
    for (int e = 0; e < E; e++) counts[e] = routing.order.first[e + 1] - routing.order.first[e];
    for (int e = 0; e < E; e++) assert_true(counts[e] <= TIGHT);
    expert_exchange_count(&world, a->exchange, counts);
    a->rounds = expert_exchange_rounds(&world, a->exchange);

    struct tensor *results = tape_tensor(s.tape, s.type, rows->rows, WIDTH);
    results->wants_gradient = true;
    forward_away(a, rows, results);
    tape_segment(s.tape, "combine", 0, results);
    struct tensor *y = moe_combine(s.ffn, &s.pass, results, &routing, x);
    copy_out(s.y, y->data, y);

    start_with(&s, s.tape, y);
    tape_backward_segment(s.tape, 1); /* what it leaves stays until it is drained, at the end */
    backward_away(a, rows, results->gradient, tape_start_gradient(s.tape, rows));
    tape_backward_segment(s.tape, 0);
    copy_out(s.dx, x->gradient, x);
    for (int i = 1; i >= 0; i--) tape_drain_segment(s.tape, i);
}

static void same_gradient(const char *what, int tensor)
{
    const struct param *p = &s.part.params.rows[tensor];
    size_t bytes = (size_t)(p->rows * p->cols) * sizeof(real);
    if (memcmp(param_gradient(&s.part.params, tensor), param_gradient(&reference.part.params, tensor), bytes) != 0)
        fail_msg("%s of %s differs", what, p->name);
}

static bool is_expert(const struct param *p, int *expert) { return sscanf(p->name, "ffn.experts.%d.", expert) == 1; }

static void check(enum dtype type, int64_t capacity)
{
    struct away a = {.capacity = capacity, .row_bytes = WIDTH * (int64_t)dtype_bytes(type)};
    int expert, held = E / world.size;
    open_scene(&s, keys, 0, type);
    open_scene(&reference, keys, 0, type);
    memset(weight_of(&s, "ffn.router.bias"), 0, sizeof(real) * E); /* no expert gets more of a source than TIGHT rows */
    memset(weight_of(&reference, "ffn.router.bias"), 0, sizeof(real) * E);
    OK(arena_create(&a.memory, 16 << 20));
    OK(tape_create(&a.memory, 64, &a.tape));
    OK(expert_exchange_create(&world, E, capacity, a.row_bytes, 0, &a.exchange));
    run_shared(&a);
    if (capacity == AMPLE) assert_int_equal(a.rounds, 1);
    else assert_true(a.rounds > 1 || world.size == 2);

    run_alone(&reference, world.rank);
    assert_memory_equal(s.y, reference.y, sizeof(real) * (size_t)(s.rows * WIDTH));
    assert_memory_equal(s.dx, reference.dx, sizeof(real) * (size_t)(s.rows * WIDTH));
    for (int t = 0; t < s.part.params.count; t++)
        if (!is_expert(&s.part.params.rows[t], &expert)) same_gradient("the gradient", t);

    memset(reference.part.params.gradient, 0, sizeof(real) * (size_t)reference.part.params.size);
    for (int source = 0; source < world.size; source++) run_alone(&reference, source);
    for (int t = 0; t < s.part.params.count; t++)
        if (is_expert(&s.part.params.rows[t], &expert) && expert / held == world.rank)
            same_gradient("the summed gradient", t);
    expert_exchange_destroy(&a.exchange);
    tape_destroy(&a.tape);
    arena_destroy(&a.memory);
    close_scene(&s);
    close_scene(&reference);
}

static void shared_out_is_alone(void **state)
{
    for (int t = 0; t < test_type_count; t++) {
        check(test_types[t], AMPLE);
        check(test_types[t], TIGHT);
    }
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared_out_is_alone)};
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
