/* The hand-out of weights, and ranks that keep only those they own.
 * plan: ranks=1,2,3,4 limit=120
 * Such ranks take the same steps as ranks that keep all, bit for bit, in fp32 and bf16, with recomputation, experts here and
 * on several ranks, pipelines of several chunks, also when one of them is late in handing its own out; they have no more
 * weights than they own and tensors read as they lie. What they compute with after a step is what one rank would pack from
 * the same weights. A replica that has packed others is found. All this holds of ranks that share one packed copy, or keep
 * one each, or share it in groups that differ; those that share it do have one copy. */
#include "train_scene.h"

#include <time.h>
#include <unistd.h>

/* Between two steps one rank is late, another one each time: its pieces are, and so is what it takes. */
static void lag(void *step)
{
    if (world.rank == *(int *)step % world.size) usleep(30000);
}

/* The pieces that this rank owns, which are the same ones in both. */
static void same_own_weights(struct fixture *a, struct fixture *b)
{
    struct param_table *t = model_params(a->model), *u = model_params(b->model);
    for (int64_t i = 0; i < t->shard.count; i++) {
        const struct piece *p = &t->shard.piece[i], *q = &u->shard.piece[i];
        if (!shard_owns(&t->shard, p)) continue;
        assert_memory_equal(param_piece_weight(t, p), param_piece_weight(u, q), sizeof(real) * (size_t)p->reals);
    }
}

/* What a rank keeps of a split tensor is what it owns, and nobody can read the rest. */
static void others_weights_are_gone(const struct param_table *t)
{
    int64_t kept = 0, own = 0, whole = 0;
    for (int64_t i = 0; i < t->shard.count; i++) {
        const struct piece *p = &t->shard.piece[i];
        if (!t->rows[p->tensor].split) continue;
        assert_true(shard_owns(&t->shard, p) == (p->weight >= 0) && !param_weight(t, p->tensor));
        if (p->weight >= 0) own += (p->reals + 15) / 16 * 16;
        whole += p->reals;
    }
    for (int i = 0; i < t->count; i++)
        if (!t->rows[i].elsewhere && !t->rows[i].split) kept += param_room(&t->rows[i]);
    assert_int_equal(t->weight_size, kept + own);
    if (t->shard.ranks > 1) assert_true(whole > 0 && own < whole && t->weight_size < t->size);
}

static void check_split(struct layout l, const char *extra)
{
    struct fixture split, whole;
    int at = 0;
    open_layout(&split, &world, extra, l);
    l.whole = true;
    l.domains = PACK_ALONE;
    open_layout(&whole, &world, extra, l);
    others_weights_are_gone(model_params(split.model));
    split.trainer.before_update = lag;
    split.trainer.held = &at;
    for (; at < 3; at++) {
        struct step_result a = step_ok(&split, at), b = step_ok(&whole, at);
        assert_true(a.loss.genewise == b.loss.genewise && a.loss.cellwise == b.loss.cellwise);
        assert_true(a.gradient_norm == b.gradient_norm);
        same_own_weights(&split, &whole);
    }
    hand_out_finish(&split.mesh, split.trainer.hand_out);
    assert_int_equal(comm_agree(&world, train_check_replicas(&split.mesh, &split.trainer)), ST_OK);
    close_fixture(&split);
    close_fixture(&whole);
}

static void split_weights_change_nothing(void **state)
{
    check_split((struct layout){.kind = SCHEDULE_1F1B, .bf16 = true}, DEEP);
    check_split((struct layout){.kind = SCHEDULE_1F1B, .experts = world.size}, ROUTED);
    check_split((struct layout){.kind = SCHEDULE_1F1B, .bf16 = true, .domains = 2}, DEEP);
    if (brief) return;
    check_split((struct layout){.kind = SCHEDULE_1F1B, .recompute = true, .domains = PACK_ALONE}, NULL);
    if (world.size % 2) return;
    check_split((struct layout){.kind = SCHEDULE_1F1B, .experts = world.size / 2, .bf16 = true, .in_turns = true},
                ROUTED);
    check_split((struct layout){.kind = SCHEDULE_INTERLEAVED, .stages = 2, .chunks = 2, .bf16 = true}, DEEP);
}

/* The losses of one rank that was given all the weights that the ranks of a step own together, without a step of its own. */
static void check_against_one(bool bf16_products)
{
    struct fixture f, single;
    struct layout l = {.kind = SCHEDULE_1F1B, .bf16 = bf16_products};
    struct loss_sum ours = {0}, its = {0};
    open_layout(&f, &world, DEEP, l);
    open_layout(&single, &alone, DEEP, l);
    step_ok(&f, 0);
    struct param_table *t = model_params(f.model), *u = model_params(single.model);
    for (int64_t i = 0; i < t->shard.count; i++) {
        const struct piece *p = &t->shard.piece[i];
        real *whole = u->weight + u->rows[p->tensor].weight_at + p->first * u->rows[p->tensor].cols;
        if (shard_owns(&t->shard, p)) memcpy(whole, param_piece_weight(t, p), sizeof(real) * (size_t)p->reals);
        comm_bcast(&world, whole, (int64_t)sizeof(real) * p->reals, p->owner);
    }
    hand_out_start(&single.mesh, single.trainer.hand_out);
    hand_out_finish(&f.mesh, f.trainer.hand_out);
    load(&single, 1);
    assert_int_equal(model_loss(f.model, &single.micro[0], &ours), ST_OK);
    assert_int_equal(model_loss(single.model, &single.micro[0], &its), ST_OK);
    assert_true(ours.genewise == its.genewise && ours.cellwise == its.cellwise && ours.weight > 0);
    close_fixture(&f);
    close_fixture(&single);
}

static void the_weights_are_those_of_one_rank(void **state)
{
    check_against_one(false);
    check_against_one(true);
}

/* The last rank packs what is its to pack of module 1 anew: zeros. */
static void spoil_packed(struct fixture *f)
{
    const struct param_table *params = model_params(f->model);
    const void *other[256] = {0};
    real *zeros = calloc((size_t)params->size, sizeof *zeros);
    for (int i = 0; i < params->count; i++) other[i] = params->rows[i].split ? zeros : NULL;
    if (world.rank == world.size - 1 && world.size > 1) model_pack_module(f->model, 1, other);
    free(zeros);
    comm_barrier(&world);
}

/* A packed weight of one replica; all ranks hear of it. */
static void a_flipped_packed_bit_is_found(void **state)
{
    struct fixture f;
    open_layout(&f, &world, NULL, (struct layout){.kind = SCHEDULE_1F1B, .bf16 = true, .domains = PACK_ALONE});
    step_ok(&f, 0);
    assert_int_equal(comm_agree(&world, train_check_replicas(&f.mesh, &f.trainer)), ST_OK);
    spoil_packed(&f);
    assert_int_equal(comm_agree(&world, train_check_replicas(&f.mesh, &f.trainer)),
                     world.size > 1 ? ST_NUMERIC : ST_OK);
    close_fixture(&f);
}

/* What one packs all see: even ranks share with even ones, odd with odd. */
static void ranks_that_share_have_one_copy(void **state)
{
    struct fixture f;
    open_layout(&f, &world, NULL, (struct layout){.kind = SCHEDULE_1F1B, .bf16 = true, .domains = 2});
    step_ok(&f, 0);
    uint64_t before = hash_used(&f);
    comm_barrier(&world);
    spoil_packed(&f);
    bool shares = world.size > 1 && world.rank % 2 == (world.size - 1) % 2;
    assert_true((hash_used(&f) != before) == shares);
    comm_barrier(&world);
    close_fixture(&f);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1000000000 * (int64_t)t.tv_sec + t.tv_nsec;
}

/* While one rank still reads the old weights, the others do not pack new ones; nor do they read what it has not packed. */
static void ranks_that_share_wait_for_each_other(void **state)
{
    struct fixture f;
    struct pack_group *group;
    open_fixture(&f, &world, NULL);
    hand_out_finish(&f.mesh, f.trainer.hand_out);
    assert_int_equal(pack_group_create(&f.mesh, f.model, 0, &group), ST_OK);
    for (int turn = 0; turn < 3; turn++) {
        int64_t told[2] = {0}, waited[2];
        comm_barrier(&world);
        usleep(world.rank == turn % world.size ? 20000 : 0);
        told[0] = now_ns();
        pack_group_begin(group);
        pack_group_wait_begun(group);
        waited[0] = now_ns();
        usleep(world.rank == turn % world.size ? 20000 : 0);
        told[1] = now_ns();
        pack_group_tell(group, 1);
        pack_group_wait_packed(group, 1);
        waited[1] = now_ns();
        comm_max_i64(&world, told, 2);
        assert_true(waited[0] >= told[0] && waited[1] >= told[1]);
    }
    pack_group_destroy(&group);
    close_fixture(&f);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK || comm_split(&world, world.rank, &alone) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_weights_change_nothing),         cmocka_unit_test(the_weights_are_those_of_one_rank),
        cmocka_unit_test(a_flipped_packed_bit_is_found),        cmocka_unit_test(ranks_that_share_have_one_copy),
        cmocka_unit_test(ranks_that_share_wait_for_each_other),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_free(&alone);
    comm_close(&world);
    return failed;
}
