/* The plan of a mixture of experts.
 * plan: ranks=1 limit=120 configs=release
 * Rows that travel to experts and back are those of formulas done by hand. In turns (mesh.turns) a step is what the table
 * with its exchanges says when it is played with the times of its parts; links hide their share, copies inside a node
 * nothing, an odd micro-batch neither; in a pipeline turns pay where there are many micro-batches. The search takes turns
 * where they pay and their memory is there, says so, and keeps what is asked for; it takes less than two seconds on
 * thousands of nodes. And the advice of README is what is planned. */
#include <time.h>

#include "plan_scene.h"

static int reset_mixture(void **state)
{
    set_scene();
    set_mixture();
    machine.latency_s = 0;
    return 0;
}

/* Rows of a step that a rank sends, its own included: of two chosen experts of 20 blocks, there and back, forward and
 * backward. */
static double rows_bytes(void) { return 20 * 4 * 4096.0 / 128 * 1501 * 2 * 1536 * 2; }

/* Rows of two chosen experts of 20 blocks go there and back, forward and backward; three of four leave the rank, all to
 * neighbours on the node if it has four ranks, and half of all to another node if it has two. */
static void rows_to_experts_are_the_formula(void **state)
{
    struct plan_layout layout = {32, 1, SCHEDULE_1F1B, 1, 4, false, 4, NULL, false};
    double bytes = rows_bytes(), on = machine.shared_bytes_per_s, off = machine.link_bytes_per_s;
    machine.nodes = 32, machine.ranks_per_node = 4;
    struct plan_estimate inside = estimate(layout);
    check_close(inside.traffic.rows, 0.75 * bytes, 1e-9);
    check_close(inside.time.experts, 0.75 * bytes * 4 / on, 1e-9);
    struct plan_estimate alone = estimate((struct plan_layout){128, 1, SCHEDULE_1F1B, 1, 4, false, 1, NULL, false});
    check_close(inside.time.forward, alone.time.forward, 1e-9); /* all the rest is as it was */
    check_close(inside.time.backward, alone.time.backward, 1e-9);
    machine.nodes = 64, machine.ranks_per_node = 2;
    struct plan_estimate across = estimate(layout);
    check_close(across.time.experts, 0.5 * bytes * 2 / off, 1e-9);
    assert_true(across.traffic.off_node > 2 * 0.5 * bytes);
    layout.recompute = true;
    check_close(estimate(layout).traffic.rows, 1.5 * 0.75 * bytes, 1e-9);
    layout.recompute = false;
    layout.pipe = 4, layout.data = 8;
    struct plan_estimate piped = estimate(layout);
    check_close(piped.traffic.rows, 0.75 * bytes, 1e-9); /* a fourth of the blocks, four times the cells */
    assert_true(piped.time.experts > 0 && piped.time.idle > 0);
}

/* ---- in turns ---- */

/* Half of the rows go over links, for each of two ranks of a node; a fourth are copied inside it. */
static double links_s(void) { return 0.5 * rows_bytes() * 2 / machine.link_bytes_per_s; }
static double copies_s(void) { return 0.25 * rows_bytes() * 2 / machine.shared_bytes_per_s; }

static struct plan_estimate estimate_turned(struct plan_layout layout)
{
    layout.in_turns = true;
    return estimate(layout);
}

/* Four expert ranks on two nodes, 8 micro-batches: links hide their share, and what ranks copy stays. With an odd number of
 * micro-batches the last has nobody to take turns with. */
static void turns_hide_what_links_carry(void **state)
{
    struct plan_layout layout = {32, 1, SCHEDULE_1F1B, 1, 4, false, 4, NULL, false};
    double own_s = copies_s() + (1 - PLAN_HIDDEN_SHARE) * links_s();
    struct plan_estimate plain = estimate(layout), turned = estimate_turned(layout);
    assert_int_equal(turned.micros, 8);
    check_close(plain.time.experts, links_s(), 1e-9);
    check_close(turned.time.experts, own_s, 1e-6);
    check_close(turned.step_s, plain.step_s - links_s() + own_s, 1e-9);
    check_close(turned.time.forward, plain.time.forward, 1e-9);
    assert_true(turned.time.idle == 0);
    assert_true(turned.traffic.rows == plain.traffic.rows && turned.traffic.off_node == plain.traffic.off_node);
    layout.micro_batch = 11;
    struct plan_estimate odd = estimate_turned(layout);
    assert_int_equal(odd.micros, 3);
    check_close(odd.time.experts, own_s + links_s() / 3, 1e-6);
    layout.recompute = true;
    check_close(estimate_turned(layout).time.experts, 1.5 * (own_s + links_s() / 3), 1e-6);
}

/* Four expert ranks on a node copy all rows themselves; what they wait for a message to begin is hidden. */
static void turns_hide_no_copies(void **state)
{
    struct plan_layout layout = {32, 1, SCHEDULE_1F1B, 1, 4, false, 4, NULL, false};
    machine.nodes = 32, machine.ranks_per_node = 4;
    check_close(estimate_turned(layout).time.experts, estimate(layout).time.experts, 1e-6);
    machine.latency_s = 1e-4;
    double starts_s = 8 * 20 * 4 * 3 * machine.latency_s;
    check_close(estimate(layout).time.experts - estimate_turned(layout).time.experts, starts_s, 1e-6);
}

/* Links so slow that nothing is long enough to hide them: the step is what the table says. */
static void slow_links_are_played(void **state)
{
    static const int trips[] = {20};
    struct plan_layout layout = {32, 1, SCHEDULE_1F1B, 1, 4, false, 4, NULL, true};
    machine.link_bytes_per_s /= 20;
    struct plan_estimate e = estimate(layout);
    const struct plan_time *t = &e.time;
    double own_s =
        (copies_s() + (1 - PLAN_HIDDEN_SHARE) * links_s()) / 2 / e.micros; /* forward, and as much backward */
    struct schedule_spec spec = {
        .kind = SCHEDULE_1F1B, .stages = 1, .chunks = 1, .micros = e.micros, .trips = trips, .in_turns = true};
    struct schedule_times times = {.forward = t->forward / e.micros + own_s,
                                   .backward = t->backward / e.micros + own_s,
                                   .weights = t->weights / e.micros,
                                   .exchange = links_s() / 80 / e.micros};
    struct schedule schedule;
    struct schedule_found found = {0};
    OK(schedule_build(&spec, &schedule));
    OK(schedule_simulate(&schedule, &times, schedule_buffers(&spec), &found));
    schedule_free(&schedule);
    check_close(t->forward + t->backward + t->weights + t->experts, found.step_s, 1e-9);
    check_close(t->experts, 2 * own_s * e.micros + found.exchange_s, 1e-9);
    assert_true(found.exchange_s > 0 && t->experts < links_s() * (2 - PLAN_HIDDEN_SHARE));
}

/* Every block has experts and computes for 3 s a micro-batch; a trip takes as long. Stages of ten blocks. */
static void a_pipeline_in_turns_is_played(void **state)
{
    static const int trips[] = {10, 10, 10, 10};
    set("model.expert_every=1");
    machine.flops_per_s = 1e30, machine.pass_s = 1;
    machine.ranks_per_node = 1, machine.nodes = 128; /* half of the rows leave a rank, over its link */
    machine.link_bytes_per_s = 4 * 1501 * 2 * 1536 * 2 / 2;
    struct plan_layout layout = {16, 4, SCHEDULE_1F1B, 1, 4, false, 2, NULL, true};
    struct plan_estimate e = estimate(layout);
    struct schedule_spec spec = {
        .kind = SCHEDULE_1F1B, .stages = 4, .chunks = 1, .micros = 32, .trips = trips, .in_turns = true};
    double own_s = 20 * (1 - PLAN_HIDDEN_SHARE), message_s = 4 * 1501 * 1536 * 2 / machine.link_bytes_per_s;
    struct schedule schedule;
    struct schedule_found found = {0};
    OK(schedule_build(&spec, &schedule));
    OK(schedule_simulate(&schedule, &(struct schedule_times){10 + own_s, 10 + own_s, 10, message_s, 1}, 2, &found));
    schedule_free(&schedule);
    assert_int_equal(e.micros, 32);
    check_close(e.time.forward, 320, 1e-9);
    check_close(e.time.experts, 32 * 2 * own_s + found.exchange_s / 4, 1e-9);
    check_close(e.time.forward + e.time.backward + e.time.weights + e.time.experts + e.time.idle, found.step_s, 1e-9);
    check_close(e.bubble, found.bubble - found.exchange_s / 4 / found.step_s, 1e-9); /* rows are told apart */
    assert_true(e.step_s <
                0.95 * estimate((struct plan_layout){16, 4, SCHEDULE_1F1B, 1, 4, false, 2, NULL, false}).step_s);
}

/* It fills and empties in pairs: with as many micro-batches as stages that costs more than rows do. */
static void few_micro_batches_take_no_turns(void **state)
{
    struct plan_layout layout = {8, 4, SCHEDULE_1F1B, 1, 4, false, 4, NULL, false};
    assert_true(estimate_turned(layout).step_s < estimate(layout).step_s);
    layout.micro_batch = 32;
    struct plan_estimate plain = estimate(layout), turned = estimate_turned(layout);
    assert_int_equal(plain.micros, 4);
    assert_true(turned.step_s > plain.step_s && turned.time.idle > plain.time.idle);
}

static void long_pipelines_in_turns_are_extrapolated(void **state)
{
    static const int trips[] = {1, 0, 2, 1, 1, 0, 1, 2, 1};
    for (int kind = SCHEDULE_GPIPE; kind <= SCHEDULE_ZB_H1; kind++)
        for (int p = kind == SCHEDULE_INTERLEAVED ? 2 : 1; p <= 3; p++)
            for (int m = 2; m <= 120; m += 1 + m / 3) {
                struct schedule_spec spec = {.kind = kind,
                                             .stages = p,
                                             .chunks = kind == SCHEDULE_INTERLEAVED ? 3 : 1,
                                             .micros = m,
                                             .trips = trips,
                                             .in_turns = true};
                struct schedule schedule;
                struct schedule_found whole = {0}, quick;
                struct schedule_times part[9];
                for (int i = 0; i < 9; i++)
                    part[i] = (struct schedule_times){1 + 0.1 * (i * 7 % 5), 1.3, 0.8 * (1 + 0.2 * (i % 3)), 0.1, 0.4};
                OK(schedule_build(&spec, &schedule));
                OK(schedule_simulate_parts(&schedule, part, schedule_buffers(&spec), &whole));
                OK(plan_play(&spec, part, &quick));
                check_close(quick.step_s, whole.step_s, 0.01);
                assert_true(fabs(quick.bubble - whole.bubble) < 0.01);
                assert_true(fabs(quick.exchange_s - whole.exchange_s) <= 0.01 * p * whole.step_s);
                schedule_free(&schedule);
            }
}

/* ---- search ---- */

static bool says(const struct plan_found *found, const char *words)
{
    if (!strstr(found->best[0].reason, words)) print_error("'%s' lacks '%s'\n", found->best[0].reason, words);
    return strstr(found->best[0].reason, words);
}

/* Eight expert ranks on four nodes: turns are taken where their memory is, and said; asked for or not. */
static void turns_are_searched_for(void **state)
{
    struct plan_wanted wanted = {.pipe = 1, .expert = 8, .has_recompute = true}, never = wanted, always = wanted;
    struct plan_found open = search_for(wanted);
    assert_true(open.best[0].layout.in_turns);
    assert_true(says(&open, "two micro-batches take turns at exchanges (mesh.turns): that hides "));
    never.has_turns = always.has_turns = always.turns = true;
    struct plan_found plain = search_for(never);
    assert_false(plain.best[0].layout.in_turns);
    assert_true(says(&plain, "no turns at exchanges, as asked (mesh.turns): that would hide "));
    assert_true(plain.best[0].step_s > open.best[0].step_s);
    wanted.most_micro = never.most_micro = always.most_micro = 1;
    double without = search_for(never).best[0].node_bytes, with = search_for(always).best[0].node_bytes;
    assert_true(with > 1.01 * without);
    machine.node_bytes = (without + with) / 2 / PLAN_MEMORY_SHARE;
    struct plan_found narrow = search_for(wanted);
    assert_false(narrow.best[0].layout.in_turns);
    assert_true(says(&narrow, "no turns at exchanges, as memory is short (mesh.turns): that would hide "));
}

/* Asked for expert ranks, what a pipeline is compared with is replicas that share out experts likewise. */
static void a_pipeline_of_expert_ranks_has_its_reason(void **state)
{
    machine.node_bytes = 26e9;
    struct plan_found found = search_for((struct plan_wanted){.expert = 8, .has_recompute = true});
    assert_true(found.best[0].layout.pipe > 1);
    assert_true(says(&found, "replicas of all blocks would take "));
    const struct plan_estimate *last = &found.best[found.count - 1];
    assert_true(!last->fits && last->layout.pipe == 1 && last->layout.expert == 8);
}

/* One micro-batch has nobody to take turns with, replicas alone have no exchanges, stages on one node's ranks copy. */
static void turns_need_somebody(void **state)
{
    job.batch = 128;
    struct plan_found one = search_for((struct plan_wanted){.pipe = 1, .expert = 8, .has_turns = true, .turns = true});
    assert_int_equal(one.best[0].micros, 1);
    assert_true(!one.best[0].layout.in_turns && !strstr(one.best[0].reason, "turns"));
    job.batch = 4096;
    struct plan_found alone = search_for((struct plan_wanted){.expert = 1, .has_turns = true, .turns = true});
    assert_true(!alone.best[0].layout.in_turns && !strstr(alone.best[0].reason, "turns"));
    struct plan_wanted inside = {.pipe = 4, .expert = 2};
    struct plan_found copied = search_for(inside);
    assert_false(copied.best[0].layout.in_turns);
    assert_true(says(&copied, "as ranks of a node copy rows themselves"));
    inside.has_turns = inside.turns = true;
    struct plan_found asked = search_for(inside);
    assert_true(asked.best[0].layout.in_turns && says(&asked, "take turns at exchanges, as asked (mesh.turns)"));
}

/* Interleaved pipelines of more than 46 stages have no buffers for turns. */
static void long_interleaved_pipelines_take_no_turns(void **state)
{
    set("model.layers=94");
    job.batch = 188;
    machine.nodes = 94;
    struct plan_found found = search_for((struct plan_wanted){
        .pipe = 47, .expert = 4, .chunks = 2, .most_micro = 1, .has_schedule = true, .schedule = SCHEDULE_INTERLEAVED});
    assert_int_equal(found.best[0].micros, 47);
    assert_true(!found.best[0].layout.in_turns && !strstr(found.best[0].reason, "turns"));
}

static void thousands_of_nodes_take_no_time(void **state)
{
    for (int nodes = 1024; nodes <= 4096; nodes *= 2) {
        machine.nodes = nodes;
        clock_t start = clock(); /* of the processor: others may be at work here */
        search();
        double took_s = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (took_s > 2) print_error("%d nodes: %.1f s\n", nodes, took_s);
        assert_true(took_s < 2);
    }
}

/* README, "How to choose a layout": experts on every rank while they fit; else shared out inside a node, replicas across;
 * over nodes only if those of one have no room. */
static void three_cases_with_experts(void **state)
{
    job.batch = 16384;
    machine.nodes = 16, machine.ranks_per_node = 4;
    struct plan_found roomy = search();
    assert_int_equal(roomy.best[0].layout.expert, 1);
    assert_true(says(&roomy, "room for all experts"));
    machine.node_bytes = 90e9;
    struct plan_found piped = search(); /* rows take longer than stages wait */
    assert_true(piped.best[0].layout.pipe > 1 && piped.best[0].layout.expert == 1);
    assert_true(says(&piped, "rows to experts elsewhere would take"));
    machine.node_bytes = 95e9;
    struct plan_found narrow = search_for((struct plan_wanted){.pipe = 1});
    assert_true(narrow.best[0].layout.expert > 1 && narrow.best[0].layout.expert <= 4);
    assert_true(says(&narrow, "inside a node, replicas across nodes"));
    struct plan_found found = search_for((struct plan_wanted){.expert = 8});
    assert_int_equal(found.best[0].layout.expert, 8);
    assert_true(says(&found, "asks for 8 expert ranks (mesh.expert), over several nodes"));
    assert_true(found.best[0].step_s > narrow.best[0].step_s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(rows_to_experts_are_the_formula, reset_mixture),
                                       cmocka_unit_test_setup(turns_hide_what_links_carry, reset_mixture),
                                       cmocka_unit_test_setup(turns_hide_no_copies, reset_mixture),
                                       cmocka_unit_test_setup(slow_links_are_played, reset_mixture),
                                       cmocka_unit_test_setup(a_pipeline_in_turns_is_played, reset_mixture),
                                       cmocka_unit_test_setup(few_micro_batches_take_no_turns, reset_mixture),
                                       cmocka_unit_test_setup(long_pipelines_in_turns_are_extrapolated, reset_mixture),
                                       cmocka_unit_test_setup(turns_are_searched_for, reset_mixture),
                                       cmocka_unit_test_setup(a_pipeline_of_expert_ranks_has_its_reason, reset_mixture),
                                       cmocka_unit_test_setup(turns_need_somebody, reset_mixture),
                                       cmocka_unit_test_setup(long_interleaved_pipelines_take_no_turns, reset_mixture),
                                       cmocka_unit_test_setup(thousands_of_nodes_take_no_time, reset_mixture),
                                       cmocka_unit_test_setup(three_cases_with_experts, reset_mixture)};
    return cmocka_run_group_tests(tests, open_scene, close_scene);
}
