/* The plan of a training.
 * plan: ranks=1 limit=120 configs=release
 * Memory is what measure mode says of the ranks that would be, also of those that share out experts; times, traffic and
 * idle shares are those of formulas done by hand; a cut by hand is kept; long pipelines are extrapolated to 1 %; more
 * memory never makes a plan slower; what fits nowhere is told with the fewest nodes that would do; a search over thousands
 * of nodes takes less than two seconds; and the advice of README is what is planned. Rows to experts: test_plan_experts. */
#include <math.h>
#include <time.h>

#include "plan_scene.h"

#include "mpi/hand_out.h"
#include "mpi/reduce.h"

/* ---- memory ---- */

/* The rank that holds `hold`, measured as the training itself would. */
static struct plan_memory measured(struct model_hold hold, int data, int micro_batch, int slots, bool splits, int edges)
{
    struct model *model;
    int wide = hold.expert_ranks > 1 ? data * hold.expert_ranks : data;
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
    double all = (double)cost.weight_bytes, routed = (double)cost.routed_bytes;
    double own = (all - routed) / wide + routed / data;
    struct plan_memory m = {(double)param_split_bytes(model_params(model), wide, data),
                            (double)cost.packed_bytes,
                            (double)cost.gradient_bytes,
                            2 * own,
                            (double)cost.activation_bytes,
                            (double)(reducer_bytes(model_params(model), wide, false) +
                                     hand_out_bytes(model_params(model), wide, data, 1, true)),
                            6.0 * edges * (double)cost.message_bytes,
                            0,
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
    struct plan_estimate e = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false, 1, NULL, false});
    check_memory(&e, measured(model_hold_all(40), 128, 4, 1, false, 0));
}

/* Stage 0 keeps most micro-batches and the gene table; it hands activations on and takes gradients back. */
static void memory_of_a_stage_is_what_is_measured(void **state)
{
    struct plan *plan;
    struct plan_layout layout = {32, 4, SCHEDULE_1F1B, 1, 2, false, 1, NULL, false};
    struct plan_estimate e = estimate(layout);
    int first[5];
    OK(plan_open(&job, &machine, &plan));
    OK(plan_share_layers(plan, &layout, first));
    plan_close(&plan);
    struct model_hold hold = {.count = 1, .part = {{0, first[1]}}};
    struct plan_memory want = measured(hold, 32, 2, 4, false, 1);
    check_memory(&e, want);
}

/* With a copy for checkpoints: twelve bytes of every parameter that the rank looks after. */
static void memory_of_expert_ranks_is_what_is_measured(void **state)
{
    set_mixture();
    struct plan_layout layout = {32, 1, SCHEDULE_1F1B, 1, 4, false, 4, NULL, false}, turned = layout;
    struct plan_estimate e = estimate(layout);
    struct model_hold hold = model_hold_all(40);
    hold.expert_ranks = 4;
    struct plan_memory want = measured(hold, 32, 4, 1, false, 0);
    check_memory(&e, want);
    turned.in_turns = true;
    struct plan_estimate two = estimate(turned);
    check_memory(&two, measured(hold, 32, 4, 2, false, 0));
    job.copies = true;
    struct plan_estimate copied = estimate(layout);
    check_close(copied.memory.checkpoint, 1.5 * want.moments, 1e-3);
    struct plan_estimate alone = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false, 1, NULL, false});
    double experts = 20.0 * 8 * 3 * 1536 * 1536, rest = alone.checkpoint_bytes / 12 - experts;
    double packed =
        ((40 * 5 + 20 * 3 + 2) * 1536.0 + 20 * 8) * 1536 + 1536.0 * (double)config_int(config, "model.value_width");
    check_close(alone.memory.weights, 4 * (rest - packed + (packed + experts) / 128), 1e-3);
    check_close(e.memory.weights, 4 * (rest - packed + packed / 128 + experts / 4 / 32), 1e-3);
    check_close(e.memory.moments, 8 * (rest / 128 + experts / 4 / 32), 1e-3);
}

/* Four ranks of a domain hold the same but for experts, which only every second of them has. */
static void ranks_of_a_domain_share_packed_weights(void **state)
{
    set_mixture();
    struct plan_layout layout = {64, 1, SCHEDULE_1F1B, 1, 4, false, 2, NULL, false};
    struct plan_estimate apart = estimate(layout);
    machine.sharing = 4;
    struct plan_estimate shared = estimate(layout);
    double matrices = 40 * 5 + 20 * 3 + 2, routed = 20 * 4 * 3; /* of D x D */
    double experts = apart.memory.packed * routed / (matrices + routed);
    check_close(shared.memory.packed, (apart.memory.packed - experts) / 4 + experts / 2, 1e-2);
    assert_true(shared.memory.exchange < apart.memory.exchange && shared.time.update < apart.time.update);
    assert_true(shared.time.exchange < apart.time.exchange && shared.memory.moments == apart.memory.moments);
    assert_int_equal(plan_sharers(&machine, 128, 1), 4);
    assert_int_equal(plan_sharers(&machine, 64, 2), 2);
    assert_int_equal(plan_sharers(&machine, 6, 1), 2); /* four, and two beside two of the next stage */
    assert_int_equal(plan_sharers(&machine, 3, 1), 1);
    assert_int_equal(plan_sharers(&machine, 64, 8), 1);
}

static void put_off_weights_and_recomputation_show(void **state)
{
    struct plan_layout l = {32, 4, SCHEDULE_1F1B, 1, 2, false, 1, NULL, false}, zb = l, again = l;
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
        struct schedule_spec spec = {
            .kind = kind, .stages = 4, .chunks = kind == SCHEDULE_INTERLEAVED ? 2 : 1, .micros = 32};
        struct plan_estimate e = estimate((struct plan_layout){32, 4, kind, spec.chunks, 4, false, 1, NULL, false});
        double block = 10.0 / spec.chunks;
        struct schedule schedule;
        struct schedule_found found = {0};
        OK(schedule_build(&spec, &schedule));
        OK(schedule_simulate(&schedule, &(struct schedule_times){block, block, block, 0, 0}, 2, &found));
        assert_int_equal(e.micros, 32);
        check_close(e.bubble, found.bubble, 1e-9);
        check_close(e.time.forward, 32 * 10, 1e-9);
        check_close(e.time.idle, found.step_s - 32 * 30, 1e-9);
        schedule_free(&schedule);
    }
}

static void extrapolate(bool uneven)
{
    static const struct schedule_times times[] = {{1, 1.1, 0.9, 0, 0}, {1, 1.3, 0.8, 0.1, 0}, {1, 2, 0.01, 0.3, 0}};
    for (int kind = SCHEDULE_GPIPE; kind <= SCHEDULE_ZB_H1; kind++)
        for (int p = 2; p <= 9; p += 3)
            for (int m = 1; m <= 150; m += 1 + m / 3)
                for (size_t t = 0; t < sizeof times / sizeof *times; t++) {
                    struct schedule_spec spec = {
                        .kind = kind, .stages = p, .chunks = kind == SCHEDULE_INTERLEAVED ? 3 : 1, .micros = m};
                    struct schedule schedule;
                    struct schedule_found whole = {0}, quick;
                    struct schedule_times part[27];
                    for (int i = 0; i < schedule_parts(&spec); i++) {
                        part[i] = times[t];
                        if (uneven) part[i].forward *= 1 + 0.1 * (i * 7 % 5), part[i].weights *= 1 + 0.2 * (i % 3);
                    }
                    OK(schedule_build(&spec, &schedule));
                    OK(schedule_simulate_parts(&schedule, part, 2, &whole));
                    OK(plan_play(&spec, part, &quick));
                    check_close(quick.step_s, whole.step_s, 0.01);
                    assert_true(fabs(quick.bubble - whole.bubble) < 0.01);
                    schedule_free(&schedule);
                }
}

static void long_pipelines_are_extrapolated(void **state)
{
    extrapolate(false);
    extrapolate(true);
}

/* One stage has 13 blocks, the others 9: it computes for longest, and the step is its work and what it waits. */
static void a_cut_by_hand_is_kept(void **state)
{
    static const int blocks[] = {9, 9, 13, 9}, few[] = {9, 9, 9, 9};
    struct plan_layout layout = {32, 4, SCHEDULE_1F1B, 1, 4, false, 1, blocks, false};
    struct plan *plan;
    int first[5];
    OK(plan_open(&job, &machine, &plan));
    OK(plan_share_layers(plan, &layout, first));
    for (int i = 0; i < 4; i++) assert_int_equal(first[i + 1] - first[i], blocks[i]);
    struct plan_found found;
    OK(plan_search(plan, &(struct plan_wanted){.pipe = 4, .chunks = 1, .blocks = blocks, .parts = 4}, &found));
    assert_int_equal(found.best[0].layout.pipe, 4);
    assert_ptr_equal(found.best[0].layout.blocks, blocks);
    layout.blocks = few;
    assert_int_equal(plan_share_layers(plan, &layout, first), ST_CONFIG);
    status_clear();
    plan_close(&plan);
    layout.blocks = blocks;
    struct plan_estimate cut = estimate(layout);
    layout.blocks = NULL;
    struct plan_estimate even = estimate(layout);
    assert_true(cut.step_s > 1.1 * even.step_s && cut.time.forward > 1.1 * even.time.forward);
    assert_true(cut.bubble > even.bubble + 0.05);
}

static void a_step_is_the_sum_of_its_parts(void **state)
{
    struct plan_estimate e = estimate((struct plan_layout){32, 4, SCHEDULE_1F1B, 1, 2, false, 1, NULL, false});
    const struct plan_time *t = &e.time;
    check_close(e.step_s,
                t->forward + t->backward + t->weights + t->experts + t->idle + t->spread + t->exchange + t->tied +
                    t->update,
                1e-12);
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
    struct plan_estimate e = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false, 1, NULL, false});
    check_close(e.time.forward + e.time.backward + e.time.weights, want, 1e-3);
    check_close(e.time.forward, want * machine.forward_part, 1e-3);
}

/* ---- traffic ---- */

/* 8 D^2 of a block and 2 D^2 of the heads come back as bf16. */
#define PACKED ((40 * 8 + 2) * 1536.0 * 1536)

static void exchange_is_the_formula(void **state)
{
    machine.latency_s = 0;
    machine.memory_bytes_per_s = 1e30;
    machine.nodes = 1;
    machine.ranks_per_node = 2;
    check_close(plan_exchange_s(&machine, 1e9, 2e9, 2, 1), 1e9 * 2 / machine.shared_bytes_per_s, 1e-9);
    machine.nodes = 4; /* of 7 other ranks 1 is near: 6/8 of the wire leaves, times two ranks a link */
    check_close(plan_exchange_s(&machine, 1e9, 2e9, 8, 1),
                2 * (2e9 * 6 / 8 / machine.link_bytes_per_s + 2e9 / 8 / machine.shared_bytes_per_s), 1e-9);
    assert_true(plan_exchange_s(&machine, 1e9, 2e9, 1, 1) == 0);
    /* every other rank: none of them is near */
    check_close(plan_exchange_s(&machine, 1e9, 2e9, 4, 2), 2 * 2e9 * 3 / 4 / machine.link_bytes_per_s, 1e-9);
    machine.latency_s = 1;
    check_close(plan_exchange_s(&machine, 4.0 * (1 << 22), 0, 3, 1), 2 * 2.0 / 3 * 16, 1e-9); /* pieces of 1 MiB */
}

static void traffic_is_the_formula(void **state)
{
    struct plan_estimate e = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false, 1, NULL, false});
    double rows = 1500 * sqrt(4096.0), table = 1536.0 * (24008 < rows ? 24008 : rows);
    double dense = e.checkpoint_bytes / 12 - 1536.0 * 24008;
    double up = 127.0 / 128 * 4 * (dense + table), down = 127.0 / 128 * (4 * (dense + 1536.0 * 24008) - 2 * PACKED);
    check_close(e.traffic.gradients, up + down, 1e-9);
    assert_true(e.traffic.messages == 0 && e.traffic.tied == 0);
    check_close(e.traffic.off_node, 2 * 126.0 / 127 * e.traffic.gradients, 1e-9); /* 1 of 127 others is near */
    job.exchange_bf16 = true;
    struct plan_estimate half = estimate(e.layout);
    check_close(half.traffic.gradients, 0.5 * up + down, 1e-9);
    /* a stage between two others sends activations on and gradients back */
    struct plan_estimate p = estimate((struct plan_layout){32, 4, SCHEDULE_1F1B, 1, 4, false, 1, NULL, false});
    check_close(p.traffic.messages, 2 * 128 * 1501 * 1536 * 2.0, 1e-9);
    check_close(p.traffic.tied, 4 * table, 1e-9);
}

/* Over links the last backward pass hides its share, at most itself; ranks of one node wait for all of it. */
static void links_work_while_the_backward_pass_goes_on(void **state)
{
    struct plan_layout layout = {128, 1, SCHEDULE_1F1B, 1, 4, false, 1, NULL, false};
    struct plan_estimate e = estimate(layout); /* 8 micro-batches */
    double rows = 1500 * sqrt(4096.0), table = 1536.0 * (24008 < rows ? 24008 : rows);
    double dense = e.checkpoint_bytes / 12 - 1536.0 * 24008, gradients = 4 * (dense + table);
    double weights = 4 * (dense + 1536.0 * 24008) - 2 * PACKED;
    double up = plan_exchange_s(&machine, gradients, gradients, 128, 1);
    double down = plan_exchange_s(&machine, 0, weights, 128, 1);
    double backward = (e.time.backward + e.time.weights) / 8;
    check_close(e.time.exchange, (1 - PLAN_HIDDEN_SHARE) * up + down, 1e-9);
    machine.link_bytes_per_s /= 100;
    struct plan_estimate slow = estimate(layout);
    up = plan_exchange_s(&machine, gradients, gradients, 128, 1);
    down = plan_exchange_s(&machine, 0, weights, 128, 1);
    assert_true(PLAN_HIDDEN_SHARE * up > backward);
    check_close(slow.time.exchange, up + down - backward, 1e-9);
    machine.nodes = 1, machine.ranks_per_node = 128;
    struct plan_estimate inside = estimate(layout);
    up = plan_exchange_s(&machine, gradients, gradients, 128, 1);
    down = plan_exchange_s(&machine, 0, weights, 128, 1);
    check_close(inside.time.exchange, up + down, 1e-9);
}

static void chance_and_checkpoints(void **state)
{
    assert_true(plan_longest(1) == 0);
    check_close(plan_longest(2), 0.564, 0.06); /* expected largest of n, from tables */
    check_close(plan_longest(10), 1.539, 0.01);
    check_close(plan_longest(1000), 3.241, 0.01);
    check_close(plan_interval_s(8, 7 * 86400), sqrt(2 * 8 * 7 * 86400), 0.01);
    check_close(plan_interval_s(100, 40), 40, 0);
    struct plan_estimate e = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false, 1, NULL, false});
    check_close(e.checkpoint_s, e.checkpoint_bytes / machine.disk_bytes_per_s, 1e-12);
    check_close(e.stall_s, e.checkpoint_s, 0);
    job.copies = true;
    struct plan_estimate beside = estimate(e.layout);
    double copy_s = 2 * e.checkpoint_bytes / 128 / machine.memory_bytes_per_s;
    check_close(beside.stall_s, copy_s + PLAN_STALL_SHARE * e.checkpoint_s, 1e-12);
    assert_true(beside.run_s < e.run_s && beside.interval_s >= beside.checkpoint_s);
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
    struct plan_found found = search_for((struct plan_wanted){
        .pipe = 8, .most_micro = 2, .has_schedule = true, .schedule = SCHEDULE_GPIPE, .has_recompute = true});
    assert_int_equal(found.count, 1);
    assert_int_equal(found.best[0].layout.pipe, 8);
    assert_true(found.best[0].layout.micro_batch <= 2);
    assert_int_equal(found.best[0].layout.schedule, SCHEDULE_GPIPE);
    assert_false(found.best[0].layout.recompute);
    assert_non_null(strstr(found.best[0].reason, "the configuration asks for 8 stages"));
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
                                       cmocka_unit_test_setup(memory_of_expert_ranks_is_what_is_measured, reset_scene),
                                       cmocka_unit_test_setup(ranks_of_a_domain_share_packed_weights, reset_scene),
                                       cmocka_unit_test_setup(put_off_weights_and_recomputation_show, reset_scene),
                                       cmocka_unit_test_setup(idle_shares_are_those_of_the_schedules, reset_scene),
                                       cmocka_unit_test(long_pipelines_are_extrapolated),
                                       cmocka_unit_test_setup(a_cut_by_hand_is_kept, reset_scene),
                                       cmocka_unit_test_setup(a_step_is_the_sum_of_its_parts, reset_scene),
                                       cmocka_unit_test_setup(compute_is_work_over_rate, reset_scene),
                                       cmocka_unit_test_setup(exchange_is_the_formula, reset_scene),
                                       cmocka_unit_test_setup(traffic_is_the_formula, reset_scene),
                                       cmocka_unit_test_setup(links_work_while_the_backward_pass_goes_on, reset_scene),
                                       cmocka_unit_test_setup(chance_and_checkpoints, reset_scene),
                                       cmocka_unit_test_setup(more_memory_is_never_slower, reset_scene),
                                       cmocka_unit_test_setup(what_fits_nowhere_is_told, reset_scene),
                                       cmocka_unit_test_setup(thousands_of_nodes_take_no_time, reset_scene),
                                       cmocka_unit_test_setup(what_is_wanted_is_kept, reset_scene),
                                       cmocka_unit_test_setup(three_typical_cases, reset_scene)};
    return cmocka_run_group_tests(tests, open_scene, close_scene);
}
