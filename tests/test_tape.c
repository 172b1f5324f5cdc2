/* The tape: values used twice, segments, weight gradients now and later, stopped gradients, measuring.
 * plan: ranks=1 limit=60 configs=release,sanitize,double */
#include "tests/tape_scene.h"

/* x is used three times by ops that cannot add, once by one that can: the tape must sum. */
static struct tensor *build_used_often(struct scene *s)
{
    static const int64_t index[] = {0, 1, 2, 3, 4};
    struct op_norm how = {parameter(s, 1), parameter(s, 2), 0.9, 1e-7, {.p = 0}};
    struct tensor *x = in(s, 0);
    struct tensor *a = op_gate_product(s->tape, x), *b = op_gate_product(s->tape, x);
    struct tensor *c = op_gate_product(s->tape, op_rows(s->tape, x, index, 5));
    return op_norm_residual(s->tape, op_norm_residual(s->tape, a, b, &how), c, &how);
}

static void test_values_used_twice(void **state)
{
    struct scene s;
    open_scene(&s);
    add_leaf(&s, true, 5, 32);
    add_leaf(&s, false, 1, 16);
    add_leaf(&s, false, 1, 16);
    check_differences(&s, build_used_often, "a value used often");
    close_scene(&s);
}

static int segment_count;
static struct tensor *build_chain(struct scene *s)
{
    struct op_norm how = {parameter(s, 1), parameter(s, 2), 0.9, 1e-7, {.p = 0}};
    struct tensor *x = in(s, 0);
    for (int i = 0; i < 4; i++) {
        if (i < segment_count) x = tape_segment(s->tape, "part", i, x);
        struct tensor *y = op_norm_residual(s->tape, x, x, &how);
        x = op_norm_residual(s->tape, y, x, &how);
    }
    return x;
}

static void test_segments_change_nothing(void **state)
{
    struct scene s;
    real whole[LEAVES][LEAF_REALS];
    size_t whole_bytes = 0;
    open_scene(&s);
    add_leaf(&s, false, 5, 16)->input = true;
    add_leaf(&s, false, 1, 16);
    add_leaf(&s, false, 1, 16);
    for (segment_count = 0; segment_count <= 4; segment_count++) {
        s.arena.high_bytes = 0;
        backward(&s, build_chain);
        for (int i = 1; i < s.leaves; i++) { /* the input's gradient has moved with its segment */
            if (segment_count == 0) memcpy(whole[i], s.leaf[i].gradient, sizeof whole[i]);
            assert_memory_equal(whole[i], s.leaf[i].gradient, sizeof whole[i]);
        }
        if (segment_count == 0) whole_bytes = s.arena.high_bytes;
        else assert_true(s.arena.high_bytes <= whole_bytes);
    }
    close_scene(&s);
}

/* One linear map of 16 to 16 in each of three segments. */
enum { LINKS = 3 };
static struct tensor *build_links(struct scene *s)
{
    for (int i = 0; i < 2; i++) s->map.gradient[i] = s->leaf[1 + i].gradient;
    product_pack(s->map.product, &s->packed, (const real *const[]){s->leaf[1].value, s->leaf[2].value});
    s->map.packed = s->packed;
    struct tensor *x = in(s, 0);
    for (int i = 0; i < LINKS; i++) x = op_linear(s->tape, &s->map, i ? tape_segment(s->tape, "link", i, x) : x);
    return x;
}

/* Weight gradients computed late are the same bits; until then their segment's memory stays, then it is gone. */
static void test_weight_gradients_may_come_later(void **state)
{
    struct scene s;
    real at_once[2][LEAF_REALS], input[LEAF_REALS];
    struct tensor *out;
    open_scene(&s);
    add_leaf(&s, true, 7, 16);
    for (int i = 0; i < 2; i++) add_leaf(&s, false, 8, 16);
    make_map(&s, 16, 16, 2);
    backward(&s, build_links);
    for (int i = 0; i < 2; i++) memcpy(at_once[i], s.leaf[1 + i].gradient, sizeof at_once[i]);
    memcpy(input, s.leaf[0].gradient, sizeof input);
    size_t at_once_bytes = s.arena.used_bytes;

    for (int i = 0; i < s.leaves; i++) memset(s.leaf[i].gradient, 0, sizeof s.leaf[i].gradient);
    run(&s, build_links, &out);
    out->gradient = s.weights;
    assert_int_equal(tape_segment_count(s.tape), LINKS);
    size_t before = s.arena.used_bytes;
    for (int i = LINKS - 1; i >= 0; i--) tape_backward_segment(s.tape, i);
    for (int i = 0; i < 8 * 16; i++) assert_true(s.leaf[1].gradient[i] == 0 && s.leaf[2].gradient[i] == 0);
    for (int i = LINKS - 1; i >= 0; i--) {
        assert_true(s.arena.used_bytes > before);
        tape_drain_segment(s.tape, i);
    }
    for (int i = 0; i < 2; i++) assert_memory_equal(at_once[i], s.leaf[1 + i].gradient, sizeof at_once[i]);
    assert_memory_equal(input, s.leaf[0].tensor->gradient, sizeof(real) * 7 * 16);

    /* in between: the last two segments together, then the first alone, as a schedule may have it */
    for (int i = 0; i < s.leaves; i++) memset(s.leaf[i].gradient, 0, sizeof s.leaf[i].gradient);
    run(&s, build_links, &out);
    out->gradient = s.weights;
    tape_backward_segment(s.tape, 2);
    tape_backward_segment(s.tape, 1);
    tape_drain_segment(s.tape, 2);
    size_t held = s.arena.used_bytes;
    tape_drain_segment(s.tape, 1);
    assert_true(s.arena.used_bytes < held && s.arena.used_bytes < before);
    tape_backward_segment(s.tape, 0);
    tape_drain_segment(s.tape, 0);
    assert_int_equal(s.arena.used_bytes, at_once_bytes);
    for (int i = 0; i < 2; i++) assert_memory_equal(at_once[i], s.leaf[1 + i].gradient, sizeof at_once[i]);
    close_scene(&s);
}

static struct tensor *build_stopped(struct scene *s)
{
    struct tensor *x = in(s, 0);
    struct op_norm how = {parameter(s, 1), parameter(s, 2), 1, 1e-7, {.p = 0}};
    return op_norm_residual(s->tape, x, tape_stop(s->tape, in(s, 3)), &how);
}

static void test_gradients_stop(void **state)
{
    struct scene s;
    open_scene(&s);
    for (int i = 0; i < 4; i++) add_leaf(&s, i == 0 || i == 3, i == 0 || i == 3 ? 5 : 1, 16);
    backward(&s, build_stopped);
    assert_null(s.leaf[3].tensor->gradient);
    assert_non_null(s.leaf[0].tensor->gradient);
    close_scene(&s);
}

/* What a measuring pass finds is what the pass takes, to the byte. */
static void test_measure_is_exact(void **state)
{
    struct scene s;
    open_scene(&s);
    add_leaf(&s, true, 5, 32);
    add_leaf(&s, false, 1, 16);
    add_leaf(&s, false, 1, 16);
    s.arena.high_bytes = 0;
    backward(&s, build_used_often);
    struct arena nothing = {0};
    struct tape *measuring;
    OK(tape_create(&nothing, 32, &measuring));
    tape_begin(measuring, TAPE_TRAIN);
    tape_segment(measuring, "test", 0, NULL);
    struct tape *kept = s.tape;
    s.tape = measuring;
    struct tensor *x = tape_tensor(measuring, DTYPE_REAL, 5, 32);
    x->wants_gradient = true;
    static const int64_t index[] = {0, 1, 2, 3, 4};
    struct op_norm how = {parameter(&s, 1), parameter(&s, 2), 0.9, 1e-7, {.p = 0}};
    struct tensor *a = op_gate_product(measuring, x), *b = op_gate_product(measuring, x);
    struct tensor *c = op_gate_product(measuring, op_rows(measuring, x, index, 5));
    struct tensor *y = op_norm_residual(measuring, op_norm_residual(measuring, a, b, &how), c, &how);
    y->gradient = s.weights;
    tape_backward(measuring);
    s.tape = kept;
    assert_int_equal(nothing.high_bytes, s.arena.high_bytes);
    assert_true(tape_forward_flops(measuring) > 0 && tape_forward_flops(measuring) == tape_forward_flops(kept));
    assert_true(tape_backward_flops(measuring) > 0 && tape_backward_flops(measuring) == tape_backward_flops(kept));
    tape_destroy(&measuring);
    close_scene(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_used_twice),
        cmocka_unit_test(test_segments_change_nothing),
        cmocka_unit_test(test_gradients_stop),
        cmocka_unit_test(test_measure_is_exact),
        cmocka_unit_test(test_weight_gradients_may_come_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
