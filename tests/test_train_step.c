/* The step of training, with a real model on meshes.
 * plan: ranks=1,2,3,4 limit=120
 * Gradients of one global batch of uneven cells agree with those one rank computes alone, 2e-6 of a tensor's
 * largest entry in fp32 exchange and 4e-3 in bf16; per-rank ratios are what CellFM takes; ranks stay bit-equal
 * over steps; a failed rank, an asked stop and a loss that is not finite are everybody's; a NaN of one rank or a spike
 * is skipped by all without a trace, or ends the run; a flipped bit of one replica is found by all; a step allocates
 * nothing. Pipelines under every schedule, with and without recomputation, have the weights of one rank after some
 * steps, bit for bit, and losses without gradients are the same; data x pipe agrees with one rank as data alone does. */
#include "train_scene.h"

static bool owns(const struct param_table *t, int tensor, int64_t k)
{
    const struct piece *p = &t->shard.piece[t->shard.first[tensor]];
    while (k >= (p->first + p->rows) * t->rows[tensor].cols) p++;
    return shard_owns(&t->shard, p);
}

/* Largest |a - b| of a tensor over its largest entry, the worst of all tensors: a is whole, b where this rank owns it. */
static double worst_difference(struct param_table *a, struct param_table *b)
{
    double worst = 0;
    for (int i = 0; i < a->count; i++) {
        double largest = 0, difference = 0;
        if (a->rows[i].elsewhere || b->rows[i].elsewhere) continue;
        for (int64_t k = 0; k < a->rows[i].rows * a->rows[i].cols; k++) {
            largest = fmax(largest, fabs(param_gradient(a, i)[k]));
            if (owns(b, i, k)) difference = fmax(difference, fabs(param_gradient(a, i)[k] - param_gradient(b, i)[k]));
        }
        if (largest > 0) worst = fmax(worst, difference / largest);
    }
    return worst;
}

static void gradients_agree(const char *exchange, double tolerance)
{
    struct fixture together, single;
    open_fixture(&together, &world, exchange);
    open_fixture(&single, &alone, exchange);
    struct step_result a = step_ok(&together, 0), b = step_ok(&single, 0);
    assert_true(a.cells == BATCH && b.cells == BATCH && a.loss.weight == b.loss.weight && a.tokens == b.tokens);
    assert_true(fabs(a.loss.genewise - b.loss.genewise) < 1e-5 * b.loss.genewise);
    assert_true(fabs(a.gradient_norm - b.gradient_norm) < 1e-3 * b.gradient_norm);
    assert_true(worst_difference(model_params(single.model), model_params(together.model)) <= tolerance);
    close_fixture(&together);
    close_fixture(&single);
}

static void gradients_agree_in_fp32(void **state) { gradients_agree("train.exchange=fp32", 2e-6); }
static void gradients_agree_in_bf16(void **state) { gradients_agree("train.exchange=bf16", 4e-3); }

/* CellFM's: the mean over ranks of per-rank ratios. */
static void per_rank_ratios_are_averaged(void **state)
{
    struct fixture ours, share;
    open_fixture(&ours, &world, "train.loss_over=rank");
    step_ok(&ours, 0);
    open_fixture(&share, &world, NULL);
    hand_out_finish(&share.mesh, share.trainer.hand_out);
    load(&share, 0);
    struct param_table *params = model_params(share.model);
    double weight = 0;
    for (int i = 0; i < share.count; i++) {
        reducer_touch(share.trainer.reducer, &share.micro[i]);
        for (int64_t t = 0; t < share.micro[i].token_count; t++) weight += share.micro[i].loss_weight[t];
    }
    struct loss_sum loss = {0};
    for (int i = 0; i < share.count; i++)
        assert_int_equal(model_gradient(share.model, &share.micro[i], 1 / weight, 0, &loss), ST_OK);
    for (int64_t k = 0; k < params->size; k++) params->gradient[k] /= (real)world.size;
    reducer_sum_gradients(&share.mesh, share.trainer.reducer);
    /* The scale enters before the products there, after them here, and the one entry of value_enc.a is a
     * sum of cancelling terms; the global ratio would differ by percents. */
    assert_true(worst_difference(params, model_params(ours.model)) <= 1e-3);
    close_fixture(&ours);
    close_fixture(&share);
}

static void ranks_stay_equal_with(const char *extra)
{
    struct fixture f;
    open_fixture(&f, &world, extra);
    double first = 0, last = 0;
    for (int64_t step = 0; step < 12; step++) {
        struct step_result r = step_ok(&f, step);
        if (step == 0) first = r.loss.genewise / r.loss.weight;
        last = r.loss.genewise / r.loss.weight;
    }
    uint64_t hash = hash_used(&f);
    assert_int_equal(comm_same(&world, &hash, sizeof hash, "the weights"), ST_OK);
    assert_true(last < 0.9 * first);
    close_fixture(&f);
}

static void ranks_stay_equal_and_learn(void **state)
{
    ranks_stay_equal_with(NULL);
    ranks_stay_equal_with(EXPERTS "model.expert_balance=bias");
    ranks_stay_equal_with(EXPERTS "model.expert_balance=loss");
}

/* The load that is evened out is that of the global batch: the same biases, however many ranks share the batch. */
static void biases_do_not_depend_on_ranks(void **state)
{
    struct fixture together, single;
    open_fixture(&together, &world, EXPERTS "model.expert_balance=bias model.dropout=0");
    open_fixture(&single, &alone, EXPERTS "model.expert_balance=bias model.dropout=0");
    struct step_result a = step_ok(&together, 0), b = step_ok(&single, 0);
    assert_true(a.expert_imbalance == b.expert_imbalance && a.expert_imbalance > 1 && a.expert_imbalance <= 4);
    int moved = 0;
    for (int l = 0; l < 2; l++) {
        char name[64];
        snprintf(name, sizeof name, "encoder.%d.ffn.router.bias", l);
        const real *ours = param_weight(model_params(together.model), param_find(model_params(together.model), name));
        const real *its = param_weight(model_params(single.model), param_find(model_params(single.model), name));
        for (int e = 0; e < 4; e++) {
            assert_true(ours[e] == its[e] && fabs(ours[e]) <= (real)1e-3);
            moved += ours[e] != 0;
        }
    }
    assert_true(moved >= 4);
    close_fixture(&together);
    close_fixture(&single);
}

/* A target that gives a loss which is not finite. */
static void spoil(struct fixture *f)
{
    f->micro[0].target[2] = INFINITY;
    f->micro[0].loss_weight[2] = 1;
}

static void trouble_of_one_rank_is_everybodys(void **state)
{
    struct fixture f;
    struct step_result result;
    bool last = world.rank == world.size - 1;
    open_fixture(&f, &world, NULL);
    uint64_t before = hash_all(&f);
    load(&f, 0);
    struct train_asked asked = {.stop = last};
    assert_int_equal(train_step(&f.mesh, &f.trainer, f.micro, f.count, ST_OK, asked, 0, &result), ST_OK);
    assert_true(result.asked.stop && !result.asked.finish);
    enum status loaded = last ? status_fail(ST_INPUT, __FILE__, __LINE__, "test of a damaged shard") : ST_OK;
    assert_int_equal(train_step(&f.mesh, &f.trainer, f.micro, f.count, loaded, (struct train_asked){0}, 0, &result),
                     ST_INPUT);
    if (last) spoil(&f);
    assert_int_equal(train_step(&f.mesh, &f.trainer, f.micro, f.count, ST_OK, (struct train_asked){0}, 0, &result),
                     ST_NUMERIC);
    assert_int_equal(result.verdict.act, GUARD_STOP);
    assert_true(isfinite(result.own_loss) == !last && !isfinite(result.loss.genewise));
    assert_true(hash_all(&f) == before);
    close_fixture(&f);
}

/* Trains a bad step in the place of step 1; the same as `calm`, which never had it, before and after. */
static void skip_leaves_no_trace(struct layout l, const char *extra, bool spike)
{
    struct fixture f, calm;
    struct step_result result;
    open_layout(&f, &world, extra, l);
    open_layout(&calm, &world, extra, l);
    step_ok(&f, 0), step_ok(&calm, 0);
    f.trainer.guard = (struct guard_rules){.skip_nan = !spike, .skip_spike = spike, .spike_factor = 5, .max_skips = 1};
    if (spike) f.guard_state = (struct guard_state){.accepted = GUARD_LEAST}; /* of norm 0 */
    load(&f, 1);
    if (!spike && f.mesh.dense.rank == f.mesh.dense.size - 1) spoil(&f);
    for (int time = 0; time < 2; time++) { /* the second one in a row is too much */
        enum status st = train_step(&f.mesh, &f.trainer, f.micro, f.count, ST_OK, (struct train_asked){0}, 1, &result);
        assert_int_equal(st, time == 0 ? ST_OK : ST_NUMERIC);
        assert_int_equal(result.verdict.act, time == 0 ? GUARD_SKIP : GUARD_STOP);
        assert_int_equal(result.verdict.reason, spike ? GUARD_SPIKE : GUARD_NAN);
        assert_true(hash_all(&f) == hash_all(&calm));
    }
    assert_true(spike == (bool)isfinite(result.loss.genewise));
    f.trainer.guard.spike_factor = 0;
    step_ok(&f, 2), step_ok(&calm, 2);
    assert_true(hash_all(&f) == hash_all(&calm));
    assert_int_equal(f.guard_state.skipped, 1);
    close_fixture(&f);
    close_fixture(&calm);
}

#define BIASED EXPERTS "model.expert_balance=bias"
static void bad_steps_leave_no_trace(void **state)
{
    struct layout data = {.kind = SCHEDULE_1F1B}, pipe = {.kind = SCHEDULE_1F1B, .stages = world.size},
                  both = {.kind = SCHEDULE_ZB_H1, .stages = 2};
    skip_leaves_no_trace(data, NULL, false);
    skip_leaves_no_trace(data, BIASED, false);
    skip_leaves_no_trace(data, BIASED, true);
    skip_leaves_no_trace(pipe, "model.layers=4", false);
    skip_leaves_no_trace(pipe, "model.layers=4", true);
    skip_leaves_no_trace((struct layout){.kind = SCHEDULE_1F1B, .experts = world.size}, ROUTED, false);
    if (world.size % 2 || brief) return;
    skip_leaves_no_trace(both, "model.layers=3", false);
    skip_leaves_no_trace(both, "model.layers=3 train.exchange=bf16", true);
}

/* In one replica of one stage; all ranks hear of it. */
static void a_flipped_bit_is_found(void **state)
{
    struct fixture f;
    open_layout(&f, &world, "model.layers=3",
                (struct layout){.kind = SCHEDULE_1F1B, .stages = world.size == 4 ? 2 : 1});
    step_ok(&f, 0);
    assert_int_equal(comm_agree(&world, train_check_replicas(&f.mesh, &f.trainer)), ST_OK);
    if (world.rank == world.size - 1) ((unsigned char *)model_params(f.model)->weight)[1001] ^= 4;
    assert_int_equal(comm_agree(&world, train_check_replicas(&f.mesh, &f.trainer)),
                     world.size > 1 ? ST_NUMERIC : ST_OK);
    close_fixture(&f);
}

static void a_step_allocates_nothing(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(CYTOMILL_DOUBLE)
    skip(); /* nothing to count with; OpenBLAS takes memory of its own */
#endif
    struct fixture f;
    struct step_result result;
    open_fixture(&f, &world, EXPERTS "model.expert_balance=bias");
    step_ok(&f, 0);
    load(&f, 1);
    allocations_begin();
    enum status st = train_step(&f.mesh, &f.trainer, f.micro, f.count, ST_OK, (struct train_asked){0}, 1, &result);
    struct allocations seen = allocations_end(); /* Open MPI's own count as the library's */
    assert_int_equal(st, ST_OK);
    assert_int_equal(seen.ours, 0);
    close_fixture(&f);
}

/* ---- pipelines ---- */

/* Rows that lie here hold what one rank has, bit for bit. */
static void same_as_alone(struct fixture *alone_one, struct fixture *f)
{
    struct param_table *a = model_params(alone_one->model), *b = model_params(f->model);
    for (int i = 0; i < a->count; i++) {
        if (b->rows[i].elsewhere) continue;
        size_t bytes = sizeof(real) * (size_t)param_reals(&a->rows[i]);
        if (memcmp(param_gradient(a, i), param_gradient(b, i), bytes)) print_error("gradient of %s\n", a->rows[i].name);
        assert_memory_equal(param_gradient(a, i), param_gradient(b, i), bytes);
        assert_memory_equal(param_weight(a, i), param_weight(b, i), bytes);
    }
}

static void check_pipeline(struct layout l, const char *extra)
{
    struct fixture single, f;
    open_layout(&single, &alone, extra, (struct layout){.kind = SCHEDULE_1F1B});
    l.stages = world.size;
    open_layout(&f, &world, extra, l);
    for (int64_t step = 0; step < 2; step++) {
        struct step_result a = step_ok(&single, step), b = step_ok(&f, step);
        assert_true(a.loss.genewise == b.loss.genewise && a.loss.hidden == b.loss.hidden);
        assert_true(a.gradient_norm == b.gradient_norm && a.cells == b.cells && a.tokens == b.tokens);
        assert_true(a.expert_imbalance == b.expert_imbalance);
        same_as_alone(&single, &f);
    }
    struct loss_sum one = {0}, all = {0};
    hand_out_finish(&f.mesh, f.trainer.hand_out);
    assert_int_equal(stage_loss(&single.mesh.pipe, single.trainer.stage, single.micro, single.count, &one), ST_OK);
    assert_int_equal(stage_loss(&f.mesh.pipe, f.trainer.stage, f.micro, f.count - 1, &all), ST_OK);
    all = (struct loss_sum){0};
    assert_int_equal(stage_loss(&f.mesh.pipe, f.trainer.stage, f.micro, f.count, &all), ST_OK);
    if (world.rank == world.size - 1) assert_true(one.genewise == all.genewise && one.cellwise == all.cellwise);
    else assert_true(all.weight == 0);
    close_fixture(&single);
    close_fixture(&f);
}

static void pipelines_have_the_weights_of_one_rank(void **state)
{
    check_pipeline((struct layout){.kind = SCHEDULE_1F1B, .recompute = true}, DEEP);
    check_pipeline((struct layout){.kind = SCHEDULE_ZB_H1}, DEEP);
    if (brief) return;
    check_pipeline((struct layout){.kind = SCHEDULE_GPIPE}, DEEP);
    check_pipeline((struct layout){.kind = SCHEDULE_1F1B}, DEEP);
    if (world.size > 1) check_pipeline((struct layout){.kind = SCHEDULE_INTERLEAVED, .chunks = 2}, DEEP);
}

static void experts_go_through_pipelines(void **state)
{
    const char *extra = DEEP EXPERTS "model.expert_balance=bias model.expert_every=2";
    check_pipeline((struct layout){.kind = SCHEDULE_1F1B, .recompute = true}, extra);
    if (brief) return;
    check_pipeline((struct layout){.kind = SCHEDULE_ZB_H1}, extra);
    check_pipeline((struct layout){.kind = SCHEDULE_1F1B}, DEEP EXPERTS "model.expert_balance=loss");
}

/* ---- experts on several ranks ---- */

/* Rows go to other ranks and come back: outputs are the same bits, sums over cells agree to rounding. */
static void check_experts(struct layout l, int divide)
{
    struct fixture apart, together;
    l.experts = world.size / divide;
    l.whole = true;
    open_layout(&apart, &world, ROUTED, l);
    open_layout(&together, &world, ROUTED, (struct layout){.kind = SCHEDULE_1F1B, .stages = l.stages, .whole = true});
    for (int64_t step = 0; step < 2; step++) {
        struct step_result a = step_ok(&apart, step), b = step_ok(&together, step);
        if (step == 0) assert_true(a.loss.genewise == b.loss.genewise && a.loss.cellwise == b.loss.cellwise);
        assert_true(fabs(a.loss.genewise - b.loss.genewise) <= 1e-5 * b.loss.genewise);
        assert_true(fabs(a.gradient_norm - b.gradient_norm) <= 1e-4 * b.gradient_norm);
        assert_true(step > 0 || a.expert_imbalance == b.expert_imbalance);
    }
    struct param_table *t = model_params(apart.model), *u = model_params(together.model);
    int elsewhere = 0;
    hand_out_finish(&apart.mesh, apart.trainer.hand_out);
    hand_out_finish(&together.mesh, together.trainer.hand_out);
    for (int i = 0; i < t->count; i++) {
        elsewhere += t->rows[i].routed && t->rows[i].elsewhere && !u->rows[i].elsewhere;
        for (int64_t k = 0; !t->rows[i].elsewhere && k < param_reals(&t->rows[i]); k++)
            assert_true(fabs(param_weight(t, i)[k] - param_weight(u, i)[k]) < 2e-4);
    }
    assert_true((elsewhere > 0) == (l.experts > 1));
    close_fixture(&apart);
    close_fixture(&together);
}

static void experts_may_lie_on_several_ranks(void **state)
{
    check_experts((struct layout){.kind = SCHEDULE_1F1B, .tight = true}, 1);
    if (brief) return;
    check_experts((struct layout){.kind = SCHEDULE_1F1B}, 1);
    check_experts((struct layout){.kind = SCHEDULE_1F1B, .recompute = true, .tight = true}, 1);
    check_experts((struct layout){.kind = SCHEDULE_GPIPE}, 1);
    if (world.size % 2) return;
    check_experts((struct layout){.kind = SCHEDULE_1F1B}, 2);
    check_experts((struct layout){.kind = SCHEDULE_ZB_H1, .stages = 2, .tight = true}, 2);
}

/* Taking turns changes no bit of weights, losses and norms, whatever else the layout has. */
static void check_turns(struct layout l, int divide)
{
    struct fixture turns, plain;
    struct loss_sum a = {0}, b = {0};
    l.experts = world.size / divide;
    open_layout(&plain, &world, ROUTED, l);
    l.in_turns = true;
    open_layout(&turns, &world, ROUTED, l);
    for (int64_t step = 0; step < 3; step++) {
        struct step_result one = step_ok(&plain, step), two = step_ok(&turns, step);
        assert_true(one.loss.genewise == two.loss.genewise && one.gradient_norm == two.gradient_norm);
        assert_true(hash_all(&plain) == hash_all(&turns));
    }
    hand_out_finish(&plain.mesh, plain.trainer.hand_out);
    hand_out_finish(&turns.mesh, turns.trainer.hand_out);
    assert_int_equal(stage_loss(&plain.mesh.pipe, plain.trainer.stage, plain.micro, plain.count, &a), ST_OK);
    assert_int_equal(stage_loss(&turns.mesh.pipe, turns.trainer.stage, turns.micro, turns.count, &b), ST_OK);
    assert_true(a.genewise == b.genewise && a.cellwise == b.cellwise && a.weight == b.weight);
    close_fixture(&plain);
    close_fixture(&turns);
}

static void taking_turns_changes_nothing(void **state)
{
    check_turns((struct layout){.kind = SCHEDULE_1F1B, .tight = true}, 1);
    if (brief) return;
    check_turns((struct layout){.kind = SCHEDULE_1F1B}, 1);
    check_turns((struct layout){.kind = SCHEDULE_1F1B, .recompute = true, .tight = true}, 1);
    check_turns((struct layout){.kind = SCHEDULE_GPIPE, .recompute = true}, 1);
    if (world.size % 2) return;
    check_turns((struct layout){.kind = SCHEDULE_1F1B}, 2);
    check_turns((struct layout){.kind = SCHEDULE_1F1B, .stages = 2, .tight = true}, 2);
    check_turns((struct layout){.kind = SCHEDULE_ZB_H1, .stages = 2}, 2);
    check_turns((struct layout){.kind = SCHEDULE_INTERLEAVED, .stages = 2, .chunks = 2}, 2);
}

static void data_and_pipe_agree_with_one_rank(void **state)
{
    if (world.size % 2) skip();
    struct fixture single, f;
    open_layout(&single, &alone, "model.layers=3", (struct layout){.kind = SCHEDULE_1F1B});
    open_layout(&f, &world, "model.layers=3", (struct layout){.kind = SCHEDULE_1F1B, .stages = 2});
    struct step_result a = step_ok(&single, 0), b = step_ok(&f, 0);
    assert_true(a.cells == b.cells && a.tokens == b.tokens && a.loss.weight == b.loss.weight);
    assert_true(fabs(a.loss.genewise - b.loss.genewise) < 1e-5 * a.loss.genewise);
    assert_true(worst_difference(model_params(single.model), model_params(f.model)) <= 2e-6);
    close_fixture(&single);
    close_fixture(&f);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK || comm_split(&world, world.rank, &alone) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_agree_in_fp32),          cmocka_unit_test(gradients_agree_in_bf16),
        cmocka_unit_test(per_rank_ratios_are_averaged),     cmocka_unit_test(ranks_stay_equal_and_learn),
        cmocka_unit_test(biases_do_not_depend_on_ranks),    cmocka_unit_test(trouble_of_one_rank_is_everybodys),
        cmocka_unit_test(bad_steps_leave_no_trace),         cmocka_unit_test(a_flipped_bit_is_found),
        cmocka_unit_test(a_step_allocates_nothing),         cmocka_unit_test(pipelines_have_the_weights_of_one_rank),
        cmocka_unit_test(experts_go_through_pipelines),     cmocka_unit_test(data_and_pipe_agree_with_one_rank),
        cmocka_unit_test(experts_may_lie_on_several_ranks), cmocka_unit_test(taking_turns_changes_nothing),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_free(&alone);
    comm_close(&world);
    return failed;
}
