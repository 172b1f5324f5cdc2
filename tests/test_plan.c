/* The plan of a training.
 * plan: ranks=1 limit=60 configs=release
 * Memory is what measure mode says of the ranks that would be; times, traffic and idle shares are those of formulas done
 * by hand; long pipelines are extrapolated to 1 %; more memory never makes a plan slower; what fits nowhere is told
 * with the fewest nodes that would do; a search over thousands of nodes takes less than two seconds; and the advice of
 * README is what is planned. */
#include <math.h>
#include <time.h>

#include "kernel_check.h"

#include "golden.h"
#include "mpi/plan.h"
#include "mpi/reduce.h"

#define OK(call) \
    do { \
        enum status status_ = (call); \
        if (status_ != ST_OK) print_error("%s\n", status_message()); \
        assert_int_equal(status_, ST_OK); \
    } while (0)

/* ---- a model and a machine ---- */

static struct config *config;
static struct vocab *vocab;
static struct plan_job job;
static struct plan_machine machine;

static void set(const char *assignment) { OK(config_set(config, assignment, "test")); }

/* CellFM-800M's shape, and 200 nodes of two sockets. */
static void set_scene(void)
{
    static const char *const keys[] = {"model.layers=40", "model.width=1536", "model.heads=48"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) set(keys[i]);
    job = (struct plan_job){.config = config,
                            .vocab = vocab,
                            .bf16 = true,
                            .batch = 4096,
                            .steps = 10000,
                            .max_genes = 2048,
                            .genes = 1500};
    machine = (struct plan_machine){.nodes = 64,
                                    .ranks_per_node = 2,
                                    .threads = 56,
                                    .node_bytes = 512e9,
                                    .process_bytes = 2e8,
                                    .flops_per_s = 50e12,
                                    .block_share = 0.8,
                                    .first_share = 0.7,
                                    .last_share = 0.6,
                                    .pass_s = 1e-4,
                                    .forward_part = 0.32,
                                    .weights_part = 0.36,
                                    .memory_bytes_per_s = 1e11,
                                    .update_share = 0.6,
                                    .shared_bytes_per_s = 4e10,
                                    .link_bytes_per_s = 12.5e9,
                                    .latency_s = 2e-6,
                                    .disk_bytes_per_s = 5e9,
                                    .node_mtbf_s = 3e7};
}

static int open_scene(void **state)
{
    OK(config_create(&config));
    vocab = golden_vocab(24000);
    return 0;
}
static int reset_scene(void **state) { return set_scene(), 0; }
static int close_scene(void **state)
{
    vocab_destroy(&vocab);
    config_destroy(&config);
    return 0;
}

static struct plan_estimate estimate(struct plan_layout layout)
{
    struct plan *plan;
    struct plan_estimate e;
    OK(plan_open(&job, &machine, &plan));
    OK(plan_estimate(plan, &layout, &e));
    plan_close(&plan);
    return e;
}

static struct plan_found search(void)
{
    struct plan *plan;
    struct plan_found found;
    OK(plan_open(&job, &machine, &plan));
    OK(plan_search(plan, &(struct plan_wanted){0}, &found));
    plan_close(&plan);
    return found;
}

static void check_close(double value, double want, double relative)
{
    if (fabs(value - want) > relative * fabs(want)) print_error("%.9g instead of %.9g\n", value, want);
    assert_true(fabs(value - want) <= relative * fabs(want));
}

/* ---- memory ---- */

/* The rank that holds `hold`, measured as the training itself would. */
static struct plan_memory measured(struct model_hold hold, int data, int micro_batch, int slots, bool splits, int edges)
{
    struct model *model;
    struct model_cost cost;
    struct model_limits limits = {.cells = micro_batch,
                                  .tokens = micro_batch * 2049,
                                  .train = true,
                                  .threads = machine.threads,
                                  .bf16 = true,
                                  .slots = slots,
                                  .splits = splits};
    OK(model_create(config, vocab, &hold, &model));
    OK(model_measure(model, &limits, NULL, &cost));
    struct plan_memory m = {(double)cost.weight_bytes,
                            (double)cost.packed_bytes,
                            (double)cost.gradient_bytes,
                            (double)cost.moment_bytes / data,
                            (double)cost.activation_bytes,
                            (double)reducer_bytes(model_params(model), data, false),
                            6.0 * edges * (double)cost.message_bytes,
                            machine.process_bytes};
    model_destroy(&model);
    return m;
}

static void check_memory(const struct plan_estimate *e, struct plan_memory want)
{
    const double *have = (const double *)&e->memory, *wanted = (const double *)&want;
    double sum = 0;
    for (size_t i = 0; i < sizeof want / sizeof *wanted; i++) {
        check_close(have[i], wanted[i], 0);
        sum += have[i];
    }
    check_close(e->rank_bytes, sum, 1e-12);
    check_close(e->node_bytes, machine.ranks_per_node * sum, 1e-12);
}

static void memory_is_what_is_measured(void **state)
{
    struct plan_estimate e = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false});
    check_memory(&e, measured(model_hold_all(40), 128, 4, 1, false, 0));
}

/* Stage 0 keeps most micro-batches and the gene table; it hands activations on and takes gradients back. */
static void memory_of_a_stage_is_what_is_measured(void **state)
{
    struct plan *plan;
    struct plan_layout layout = {32, 4, SCHEDULE_1F1B, 1, 2, false};
    struct plan_estimate e = estimate(layout);
    int first[5];
    OK(plan_open(&job, &machine, &plan));
    OK(plan_share_layers(plan, &layout, first));
    plan_close(&plan);
    struct model_hold hold = {.count = 1, .part = {{0, first[1]}}};
    struct plan_memory want = measured(hold, 32, 2, 4, false, 1);
    check_memory(&e, want);
}

static void put_off_weights_and_recomputation_show(void **state)
{
    struct plan_layout l = {32, 4, SCHEDULE_1F1B, 1, 2, false}, zb = l, again = l;
    zb.schedule = SCHEDULE_ZB_H1;
    again.recompute = true;
    struct plan_estimate plain = estimate(l), late = estimate(zb), less = estimate(again);
    assert_true(less.memory.activations < 0.5 * plain.memory.activations);
    check_close(less.time.backward, plain.time.backward + plain.time.weights + plain.time.forward, 1e-9);
    assert_true(less.time.weights == 0);
    assert_true(late.step_s < plain.step_s && late.memory.activations >= plain.memory.activations);
}

/* ---- times ---- */

/* Blocks all cost the same and messages nothing: the idle share is the schedule's. */
static void idle_shares_are_those_of_the_schedules(void **state)
{
    machine.flops_per_s = 1e30;
    machine.pass_s = 1;
    machine.latency_s = 0;
    machine.link_bytes_per_s = machine.shared_bytes_per_s = 1e30;
    for (int kind = SCHEDULE_GPIPE; kind <= SCHEDULE_ZB_H1; kind++) {
        struct schedule_spec spec = {kind, 4, kind == SCHEDULE_INTERLEAVED ? 2 : 1, 32};
        struct plan_estimate e = estimate((struct plan_layout){32, 4, kind, spec.chunks, 4, false});
        double block = 10.0 / spec.chunks;
        struct schedule schedule;
        struct schedule_found found = {0};
        OK(schedule_build(&spec, &schedule));
        OK(schedule_simulate(&schedule, &(struct schedule_times){block, block, block, 0}, 2, &found));
        assert_int_equal(e.micros, 32);
        check_close(e.bubble, found.bubble, 1e-9);
        check_close(e.time.forward, 32 * 10, 1e-9);
        check_close(e.time.idle, found.step_s - 32 * 30, 1e-9);
        schedule_free(&schedule);
    }
}

static void long_pipelines_are_extrapolated(void **state)
{
    static const struct schedule_times times[] = {{1, 1.1, 0.9, 0}, {1, 1.3, 0.8, 0.1}, {1, 2, 0.01, 0.3}};
    for (int kind = SCHEDULE_GPIPE; kind <= SCHEDULE_ZB_H1; kind++)
        for (int p = 2; p <= 9; p += 3)
            for (int m = 1; m <= 150; m += 1 + m / 3)
                for (size_t t = 0; t < sizeof times / sizeof *times; t++) {
                    struct schedule_spec spec = {kind, p, kind == SCHEDULE_INTERLEAVED ? 3 : 1, m};
                    struct schedule schedule;
                    struct schedule_found whole = {0}, quick;
                    OK(schedule_build(&spec, &schedule));
                    OK(schedule_simulate(&schedule, &times[t], 2, &whole));
                    OK(plan_play(&spec, &times[t], &quick));
                    check_close(quick.step_s, whole.step_s, 0.01);
                    assert_true(fabs(quick.bubble - whole.bubble) < 0.01);
                    schedule_free(&schedule);
                }
}

static void a_step_is_the_sum_of_its_parts(void **state)
{
    struct plan_estimate e = estimate((struct plan_layout){32, 4, SCHEDULE_1F1B, 1, 2, false});
    const struct plan_time *t = &e.time;
    check_close(e.step_s,
                t->forward + t->backward + t->weights + t->idle + t->spread + t->exchange + t->tied + t->update, 1e-12);
    assert_true(t->spread == 0 && t->idle > 0 && t->exchange > 0 && t->tied > 0 && t->update > 0);
    job.genes_sd = 500;
    struct plan_estimate spread = estimate(e.layout);
    check_close(spread.time.spread,
                (t->forward + t->backward + t->weights + t->idle) * plan_longest(32) * 500 / (1501 * sqrt(4096.0 / 32)),
                1e-9);
}

/* FLOPs over rate and share, when all shares are alike. */
static void compute_is_work_over_rate(void **state)
{
    struct plan *plan;
    machine.block_share = machine.first_share = machine.last_share = 0.5;
    machine.pass_s = 0;
    OK(plan_open(&job, &machine, &plan));
    double want = plan_cell_flops(plan) * 4096 / 128 / (0.5 * machine.flops_per_s);
    plan_close(&plan);
    struct plan_estimate e = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false});
    check_close(e.time.forward + e.time.backward + e.time.weights, want, 1e-3);
    check_close(e.time.forward, want * machine.forward_part, 1e-3);
}

/* ---- traffic ---- */

static void exchange_is_the_formula(void **state)
{
    machine.latency_s = 0;
    machine.memory_bytes_per_s = 1e30;
    machine.nodes = 1;
    machine.ranks_per_node = 2;
    check_close(plan_exchange_s(&machine, 1e9, 2e9, 2), 1e9 * 2 / machine.shared_bytes_per_s, 1e-9);
    machine.nodes = 4; /* of 7 other ranks 1 is near: 6/8 of the wire leaves, times two ranks a link */
    check_close(plan_exchange_s(&machine, 1e9, 2e9, 8),
                2 * (2e9 * 6 / 8 / machine.link_bytes_per_s + 2e9 / 8 / machine.shared_bytes_per_s), 1e-9);
    assert_true(plan_exchange_s(&machine, 1e9, 2e9, 1) == 0);
    machine.latency_s = 1;
    check_close(plan_exchange_s(&machine, 4.0 * (1 << 22), 0, 3), 2 * 2.0 / 3 * 16, 1e-9); /* pieces of 1 MiB */
}

static void traffic_is_the_formula(void **state)
{
    struct plan_estimate e = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false});
    double rows = 1500 * sqrt(4096.0), table = 1536.0 * (24008 < rows ? 24008 : rows);
    double dense = e.checkpoint_bytes / 12 - 1536.0 * 24008;
    double up = 127.0 / 128 * 4 * (dense + table), down = 127.0 / 128 * 4 * (dense + 1536.0 * 24008);
    check_close(e.traffic.gradients, up + down, 1e-9);
    assert_true(e.traffic.messages == 0 && e.traffic.tied == 0);
    check_close(e.traffic.off_node, 2 * 126.0 / 127 * e.traffic.gradients, 1e-9);
    job.exchange_bf16 = true;
    struct plan_estimate half = estimate(e.layout);
    check_close(half.traffic.gradients, 0.5 * up + down, 1e-9);
    /* a stage between two others sends activations on and gradients back */
    struct plan_estimate p = estimate((struct plan_layout){32, 4, SCHEDULE_1F1B, 1, 4, false});
    check_close(p.traffic.messages, 2 * 128 * 1501 * 1536 * 2.0, 1e-9);
    check_close(p.traffic.tied, 4 * table, 1e-9);
}

static void chance_and_checkpoints(void **state)
{
    assert_true(plan_longest(1) == 0);
    check_close(plan_longest(2), 0.564, 0.06); /* expected largest of n, from tables */
    check_close(plan_longest(10), 1.539, 0.01);
    check_close(plan_longest(1000), 3.241, 0.01);
    check_close(plan_interval_s(8, 7 * 86400), sqrt(2 * 8 * 7 * 86400), 0.01);
    check_close(plan_interval_s(100, 40), 40, 0);
    struct plan_estimate e = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false});
    check_close(e.checkpoint_s, e.checkpoint_bytes / machine.disk_bytes_per_s, 1e-12);
    assert_true(e.run_s > e.step_s * (double)job.steps && e.run_s < 1.05 * e.step_s * (double)job.steps);
}

/* ---- search ---- */

static void more_memory_is_never_slower(void **state)
{
    double before = INFINITY;
    for (double gb = 32; gb <= 2048; gb *= 2) {
        machine.node_bytes = gb * 1e9;
        struct plan_found found = search();
        double quickest = INFINITY;
        for (int i = 0; i < found.count; i++)
            if (found.best[i].fits && found.best[i].step_s < quickest) quickest = found.best[i].step_s;
        assert_true(found.best[0].fits && found.best[0].node_bytes <= PLAN_MEMORY_SHARE * machine.node_bytes);
        assert_true(found.best[0].step_s <= PLAN_SIMPLER * quickest);
        if (quickest > before) print_error("%g GB: %g s, with half %g s\n", gb, quickest, before);
        assert_true(quickest <= before);
        before = quickest;
    }
}

static void what_fits_nowhere_is_told(void **state)
{
    struct plan *plan;
    struct plan_found found;
    int nodes;
    machine.nodes = 1;
    machine.node_bytes = 8e9;
    OK(plan_open(&job, &machine, &plan));
    OK(plan_least_nodes(plan, &nodes));
    assert_true(nodes > 1);
    assert_int_equal(plan_search(plan, &(struct plan_wanted){0}, &found), ST_CONFIG);
    char want[64];
    snprintf(want, sizeof want, "%d such nodes are the least", nodes);
    assert_non_null(strstr(status_message(), want));
    status_clear();
    plan_close(&plan);
    machine.nodes = nodes;
    search();
    machine.node_bytes = 1e9; /* not one block */
    OK(plan_open(&job, &machine, &plan));
    OK(plan_least_nodes(plan, &nodes));
    assert_int_equal(nodes, 0);
    assert_int_equal(plan_search(plan, &(struct plan_wanted){0}, &found), ST_CONFIG);
    status_clear();
    plan_close(&plan);
}

static void thousands_of_nodes_take_no_time(void **state)
{
    for (int nodes = 1024; nodes <= 4096; nodes *= 2) {
        machine.nodes = nodes;
        clock_t start = clock(); /* of the processor: others may be at work here */
        struct plan_found found = search();
        double took_s = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (took_s > 2) print_error("%d nodes: %.1f s\n", nodes, took_s);
        assert_true(took_s < 2);
        assert_int_equal(found.best[0].layout.data * found.best[0].layout.pipe, 2 * nodes);
    }
}

static void what_is_wanted_is_kept(void **state)
{
    struct plan *plan;
    struct plan_found found;
    struct plan_wanted wanted = {
        .pipe = 8, .most_micro = 2, .has_schedule = true, .schedule = SCHEDULE_GPIPE, .has_recompute = true};
    OK(plan_open(&job, &machine, &plan));
    OK(plan_search(plan, &wanted, &found));
    assert_int_equal(found.count, 1);
    assert_int_equal(found.best[0].layout.pipe, 8);
    assert_true(found.best[0].layout.micro_batch <= 2);
    assert_int_equal(found.best[0].layout.schedule, SCHEDULE_GPIPE);
    assert_false(found.best[0].layout.recompute);
    plan_close(&plan);
}

/* README, "How to choose a layout": replicas while model and batch allow; a pipeline where memory forces it; and where
 * the batch does. */
static void three_typical_cases(void **state)
{
    job.batch = 16384;
    struct plan_found roomy = search();
    assert_int_equal(roomy.best[0].layout.pipe, 1);
    machine.node_bytes = 12e9;
    machine.ranks_per_node = 1;
    struct plan_found narrow = search();
    assert_true(narrow.best[0].layout.pipe > 1);
    assert_non_null(strstr(narrow.best[0].reason, "a rank"));
    assert_false(narrow.best[narrow.count - 1].fits);
    set_scene();
    job.batch = 32;
    machine.nodes = 128;
    struct plan_found starved = search();
    assert_true(starved.best[0].layout.pipe >= 8);
    assert_non_null(strstr(starved.best[0].reason, "feeds no more than 32 replicas"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(memory_is_what_is_measured, reset_scene),
                                       cmocka_unit_test_setup(memory_of_a_stage_is_what_is_measured, reset_scene),
                                       cmocka_unit_test_setup(put_off_weights_and_recomputation_show, reset_scene),
                                       cmocka_unit_test_setup(idle_shares_are_those_of_the_schedules, reset_scene),
                                       cmocka_unit_test(long_pipelines_are_extrapolated),
                                       cmocka_unit_test_setup(a_step_is_the_sum_of_its_parts, reset_scene),
                                       cmocka_unit_test_setup(compute_is_work_over_rate, reset_scene),
                                       cmocka_unit_test_setup(exchange_is_the_formula, reset_scene),
                                       cmocka_unit_test_setup(traffic_is_the_formula, reset_scene),
                                       cmocka_unit_test_setup(chance_and_checkpoints, reset_scene),
                                       cmocka_unit_test_setup(more_memory_is_never_slower, reset_scene),
                                       cmocka_unit_test_setup(what_fits_nowhere_is_told, reset_scene),
                                       cmocka_unit_test_setup(thousands_of_nodes_take_no_time, reset_scene),
                                       cmocka_unit_test_setup(what_is_wanted_is_kept, reset_scene),
                                       cmocka_unit_test_setup(three_typical_cases, reset_scene)};
    return cmocka_run_group_tests(tests, open_scene, close_scene);
}
