/* The tape: every op's gradient against central differences (in the double
 * build), values used twice, segments, weight gradients now and later, stopped gradients, taps, measuring.
 * plan: ranks=1 limit=60 configs=release,sanitize,double */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "base/rng.h"
#include "tape/op.h"

/* Central differences with step h: truncation h^2, rounding eps/h. In float they only catch gross
 * errors; the double build decides. */
#ifdef CYTOMILL_DOUBLE
static const double h = 1e-5, limit = 1e-7;
#else
static const double h = 4e-3, limit = 2e-2;
#endif

#define OK(call) assert_int_equal((call), ST_OK)

/* Numbers a case differentiates by: inputs, which become tensors, and parameters. */
enum { LEAVES = 4, LEAF_REALS = 512, EXPERTS = 4 };
struct leaf {
    int64_t rows, cols;
    bool input;
    real value[LEAF_REALS], gradient[LEAF_REALS];
    struct tensor *tensor;
};

struct scene {
    struct arena arena;
    struct tape *tape;
    struct leaf leaf[LEAVES];
    int leaves;
    real weights[LEAF_REALS]; /* of the sum that stands for everything after the op */
    struct linear map, expert[EXPERTS];
    struct product_weight packed, expert_packed[EXPERTS];
    void *scratch;
    struct op_route route;
    double error, weight_sum;
};

typedef struct tensor *build_fn(struct scene *s);

static struct leaf *add_leaf(struct scene *s, bool input, int64_t rows, int64_t cols)
{
    struct leaf *l = &s->leaf[s->leaves];
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)s->leaves++, 0);
    assert_true(rows * cols <= LEAF_REALS);
    l->rows = rows, l->cols = cols, l->input = input;
    for (int64_t i = 0; i < rows * cols; i++) l->value[i] = (real)rng_normal(&r);
    return l;
}

static struct tensor *in(struct scene *s, int i)
{
    struct leaf *l = &s->leaf[i];
    l->tensor = tape_tensor(s->tape, DTYPE_REAL, l->rows, l->cols);
    l->tensor->wants_gradient = true;
    memcpy(l->tensor->data, l->value, sizeof(real) * (size_t)(l->rows * l->cols));
    return l->tensor;
}

static struct weight parameter(struct scene *s, int i)
{
    return (struct weight){s->leaf[i].value, s->leaf[i].gradient, true};
}

/* sum of weights * out, or the error of an objective. */
static double run(struct scene *s, build_fn *build, struct tensor **out)
{
    double sum = 0;
    tape_begin(s->tape, TAPE_TRAIN);
    tape_segment(s->tape, "test", 0, NULL);
    struct tensor *y = build(s);
    if (out) *out = y;
    if (!y) return s->error;
    assert_true(y->rows * y->cols <= LEAF_REALS);
    for (int64_t i = 0; i < y->rows * y->cols; i++) sum += (double)s->weights[i] * (double)((real *)y->data)[i];
    return sum;
}

static void backward(struct scene *s, build_fn *build)
{
    struct tensor *out;
    for (int i = 0; i < s->leaves; i++) memset(s->leaf[i].gradient, 0, sizeof s->leaf[i].gradient);
    run(s, build, &out);
    if (out) out->gradient = s->weights;
    tape_backward(s->tape);
    for (int i = 0; i < s->leaves; i++) {
        struct leaf *l = &s->leaf[i];
        if (l->input && l->tensor->gradient)
            memcpy(l->gradient, l->tensor->gradient, sizeof(real) * (size_t)(l->rows * l->cols));
    }
}

static void open_scene(struct scene *s)
{
    *s = (struct scene){0};
    OK(arena_create(&s->arena, 1 << 20));
    OK(tape_create(&s->arena, 32, &s->tape));
    struct rng r = rng_at(2, RNG_TEST, 0, 0);
    for (int i = 0; i < LEAF_REALS; i++) s->weights[i] = (real)rng_normal(&r);
}

static void close_scene(struct scene *s)
{
    tape_destroy(&s->tape);
    product_destroy(&s->map.product);
    free(s->packed.forward);
    for (int e = 0; e < EXPERTS; e++) free(s->expert_packed[e].forward);
    free(s->scratch);
    arena_destroy(&s->arena);
}

/* Every element of every leaf. */
static void check_differences(struct scene *s, build_fn *build, const char *name)
{
    int failed = 0;
    backward(s, build);
    for (int i = 0; i < s->leaves; i++) {
        struct leaf *l = &s->leaf[i];
        double size = 0, worst = 0;
        for (int64_t k = 0; k < l->rows * l->cols; k++) {
            real kept = l->value[k];
            l->value[k] = (real)(kept + h);
            double high = run(s, build, NULL), up = l->value[k];
            l->value[k] = (real)(kept - h);
            double difference = (high - run(s, build, NULL)) / (up - l->value[k]);
            l->value[k] = kept;
            worst = fmax(worst, fabs(difference - l->gradient[k]));
            size = fmax(size, fabs(difference));
        }
        assert_true(size > 0);
        if (worst > limit * size) print_error("%s, leaf %d: off by %.3g of %.3g\n", name, i, worst, size), failed++;
    }
    assert_int_equal(failed, 0);
}

/* ---- one case per op ---- */

static const int64_t offsets[] = {0, 3, 7}; /* two cells, seven rows */
static const uint8_t key_mask[] = {1, 0, 1, 1, 1, 0, 1};
static const float value_scale[] = {0.7f, 0.5f};
static const int64_t row_cell[] = {5, 5, 5, 9, 9, 9, 9};
static const int32_t row_position[] = {0, 1, 2, 0, 1, 2, 3}, feature[] = {0, 3, 1, 0, 3, 2, 1};
static const int32_t level[] = {-1, 0, 1, -1, 2, -1, 2};
static const float numbers[] = {0.2f, 1.1f, 2.5f, 0.4f, -1, 3, 0.5f}, loss_weights[] = {0, 1, 1, 0, 1, 0, 1};

static struct tensor *build_linear_op(struct scene *s)
{
    for (int i = 0; i < 2; i++) s->map.master[i] = s->leaf[1 + i].value, s->map.gradient[i] = s->leaf[1 + i].gradient;
    product_pack(s->map.product, &s->packed, s->map.master);
    s->map.packed = s->packed;
    return op_linear(s->tape, &s->map, in(s, 0));
}

static struct product_weight weight_memory(const struct product *product)
{
    struct arena measured = {0};
    product_weight_take(product, &measured);
    struct arena memory = {.base = aligned_alloc(64, (measured.used_bytes + 63) / 64 * 64),
                           .size_bytes = measured.used_bytes};
    return product_weight_take(product, &memory);
}

/* A map of this shape with its product, scratch and packed weight. */
static void make_map(struct scene *s, int64_t width, int64_t out, int parts)
{
    struct product_spec spec = {
        .in = width, .out = out, .parts = parts, .type = DTYPE_REAL, .backward = true, .threads = 1};
    s->map = (struct linear){.in = width, .out = out, .parts = parts, .learns = true};
    OK(product_create(&spec, &s->map.product));
    s->packed = weight_memory(s->map.product);
    s->scratch = aligned_alloc(64, (product_scratch_bytes(s->map.product) + 127) / 64 * 64);
    product_set_scratch(s->map.product, s->scratch);
}

static void case_linear(struct scene *s)
{
    enum { IN = 16, OUT = 8 };
    add_leaf(s, true, 7, IN);
    for (int i = 0; i < 2; i++) add_leaf(s, false, OUT, IN);
    make_map(s, IN, 2 * OUT, 2);
}

static struct tensor *build_norm(struct scene *s)
{
    struct op_norm how = {
        parameter(s, 2),
        parameter(s, 3),
        1.7,
        1e-7,
        {.p = 0.3, .seed = 4, .step = 2, .site = 1, .row_cell = row_cell, .row_position = row_position}};
    struct tensor *x = in(s, 0);
    return op_norm_residual(s->tape, x, in(s, 1), &how);
}

static void case_norm(struct scene *s)
{
    for (int i = 0; i < 4; i++) add_leaf(s, i < 2, i < 2 ? 7 : 1, 16);
}

static struct tensor *build_gate(struct scene *s) { return op_gate_product(s->tape, in(s, 0)); }
static void case_gate(struct scene *s) { add_leaf(s, true, 5, 32); }

static struct op_retention retention(void)
{
    return (struct op_retention){{2, offsets}, 2, 0.35, value_scale, key_mask};
}

static struct tensor *build_state(struct scene *s)
{
    struct op_retention how = retention();
    return op_retention_state(s->tape, in(s, 0), NULL, &how);
}
static void case_state(struct scene *s) { add_leaf(s, true, 7, 32); }

static struct tensor *build_read(struct scene *s)
{
    struct op_retention how = retention();
    struct tensor *qu = in(s, 0);
    return op_retention_read(s->tape, qu, in(s, 1), &how);
}
static void case_read(struct scene *s)
{
    add_leaf(s, true, 7, 32);
    add_leaf(s, true, 2 * 16, 8);
}

static struct tensor *build_softmax(struct scene *s)
{
    return op_value_softmax(s->tape, numbers, 4, parameter(s, 0), 16);
}
static void case_softmax(struct scene *s) { add_leaf(s, false, 1, 16); }

static struct tensor *build_embed(struct scene *s)
{
    struct op_embed how = {DTYPE_REAL, parameter(s, 1), parameter(s, 2), parameter(s, 3), 8, 7, feature, level};
    return op_embed(s->tape, in(s, 0), &how);
}
static void case_embed(struct scene *s)
{
    add_leaf(s, true, 3, 16);
    add_leaf(s, false, 8, 16);
    add_leaf(s, false, 1, 16);
    add_leaf(s, false, 1, 16);
}

static struct tensor *build_table(struct scene *s)
{
    static const int32_t id[] = {3, 1, 3, 2};
    return op_table_rows(s->tape, parameter(s, 0), 8, 16, id, 4, DTYPE_REAL);
}
static void case_table(struct scene *s) { add_leaf(s, false, 8, 16); }

static struct tensor *build_rows(struct scene *s)
{
    static const int64_t index[] = {0, 2, 3, 6};
    return op_rows(s->tape, in(s, 0), index, 4);
}
static void case_rows(struct scene *s) { add_leaf(s, true, 7, 16); }

static struct tensor *build_decode_gene(struct scene *s)
{
    return op_decode_gene(s->tape, in(s, 0), parameter(s, 1), 0.2);
}
static void case_decode_gene(struct scene *s)
{
    add_leaf(s, true, 7, 16);
    add_leaf(s, false, 1, 16);
}

static struct tensor *build_decode_cell(struct scene *s)
{
    struct tensor *m = in(s, 0);
    return op_decode_cell(s->tape, m, in(s, 1), (struct ragged){2, offsets});
}
static void case_decode_cell(struct scene *s)
{
    add_leaf(s, true, 7, 16);
    add_leaf(s, true, 2, 16);
}

static struct tensor *build_loss(struct scene *s)
{
    struct op_square_loss how = {numbers, loss_weights, 1, &s->error, &s->weight_sum};
    op_square_loss(s->tape, in(s, 0), &how);
    return NULL;
}
static void case_loss(struct scene *s) { add_leaf(s, true, 7, 1); }

/* ---- mixture of experts: seven rows, two of four experts each ---- */

static void set_route(struct scene *s) { s->route = (struct op_route){.chosen = 2, .rule = ROUTE_SOFTMAX_TOPK}; }

static struct tensor *build_route(struct scene *s) { return op_route(s->tape, in(s, 0), &s->route).weight; }
static void case_route(struct scene *s)
{
    add_leaf(s, true, 7, EXPERTS);
    set_route(s);
}

/* Its input is used twice: the first to go backward writes the gradient, the second adds. */
static struct tensor *build_dispatch(struct scene *s)
{
    static real logits[7 * EXPERTS];
    for (int i = 0; i < 7 * EXPERTS; i++) logits[i] = (real)sin(1.7 * i);
    struct op_norm how = {parameter(s, 1), parameter(s, 2), 0.7, 1e-7, {.p = 0}};
    struct tensor *x = in(s, 0);
    struct routing routing = op_route(s->tape, tape_wrap(s->tape, logits, DTYPE_REAL, 7, EXPERTS), &s->route);
    struct tensor *once = op_dispatch(s->tape, x, &routing), *twice = op_dispatch(s->tape, x, &routing);
    return op_norm_residual(s->tape, once, twice, &how);
}
static void case_dispatch(struct scene *s)
{
    add_leaf(s, true, 7, 16);
    for (int i = 0; i < 2; i++) add_leaf(s, false, 1, 16);
    set_route(s);
}

static struct tensor *build_combine(struct scene *s)
{
    struct tensor *results = in(s, 0), *base = in(s, 2);
    struct routing routing = op_route(s->tape, in(s, 1), &s->route);
    return op_combine(s->tape, results, &routing, base);
}
static void case_combine(struct scene *s)
{
    add_leaf(s, true, 14, 16);
    add_leaf(s, true, 7, EXPERTS);
    add_leaf(s, true, 7, 16);
    set_route(s);
}

/* Expert 1 has two runs, not in the order of its rows, expert 2 an empty one, expert 3 none. */
static const struct expert_run expert_runs[] = {{0, 0, 3}, {1, 5, 1}, {1, 3, 2}, {2, 6, 0}};
static struct tensor *build_expert_linear(struct scene *s)
{
    static const struct linear *maps[EXPERTS];
    for (int e = 0; e < EXPERTS; e++) {
        struct leaf *leaf = &s->leaf[1 + e % 2];
        s->expert[e] = s->map;
        s->expert[e].master[0] = leaf->value;
        s->expert[e].gradient[0] = leaf->gradient;
        if (!s->expert_packed[e].forward) s->expert_packed[e] = weight_memory(s->map.product);
        product_pack(s->map.product, &s->expert_packed[e], s->expert[e].master);
        s->expert[e].packed = s->expert_packed[e];
        maps[e] = &s->expert[e];
    }
    return op_expert_linear(s->tape, maps, in(s, 0), (struct expert_runs){4, expert_runs});
}
static void case_expert_linear(struct scene *s)
{
    add_leaf(s, true, 6, 16);
    for (int e = 0; e < 2; e++) add_leaf(s, false, 8, 16);
    make_map(s, 16, 8, 1);
}

static const struct {
    const char *op;
    void (*prepare)(struct scene *s);
    build_fn *build;
} cases[] = {
    {"linear", case_linear, build_linear_op},
    {"norm_residual", case_norm, build_norm},
    {"gate_product", case_gate, build_gate},
    {"retention_state", case_state, build_state},
    {"retention_read", case_read, build_read},
    {"value_softmax", case_softmax, build_softmax},
    {"embed", case_embed, build_embed},
    {"table_rows", case_table, build_table},
    {"rows", case_rows, build_rows},
    {"decode_gene", case_decode_gene, build_decode_gene},
    {"decode_cell", case_decode_cell, build_decode_cell},
    {"square_loss", case_loss, build_loss},
    {"route", case_route, build_route},
    {"dispatch", case_dispatch, build_dispatch},
    {"combine", case_combine, build_combine},
    {"expert_linear", case_expert_linear, build_expert_linear},
    {"convert", NULL, NULL}, /* rounds: test_conversion */
};
enum { CASES = sizeof cases / sizeof *cases };

static void test_gradients_of_all_ops(void **state)
{
    for (int i = 0; i < op_count; i++) {
        int found = -1;
        for (int c = 0; c < CASES; c++)
            if (strcmp(cases[c].op, op_table[i]->name) == 0) found = c;
        if (found < 0) print_error("op %s has no gradient test\n", op_table[i]->name);
        assert_true(found >= 0);
        if (!cases[found].build) continue;
        struct scene s;
        open_scene(&s);
        cases[found].prepare(&s);
        check_differences(&s, cases[found].build, cases[found].op);
        close_scene(&s);
    }
}

/* The gradient of the balance term against differences of the term itself, computed here; the load is counted. */
static void test_balance_term(void **state)
{
    struct scene s;
    struct tensor *weight;
    int64_t load[EXPERTS] = {0};
    real without[7 * EXPERTS];
    open_scene(&s);
    case_route(&s);
    backward(&s, build_route);
    memcpy(without, s.leaf[0].gradient, sizeof without);
    s.route.balance = 0.3;
    s.route.load = load;
    backward(&s, build_route);
    assert_int_equal(load[0] + load[1] + load[2] + load[3], 14);
    run(&s, build_route, &weight);
    double scale = 0;
    for (int i = 0; i < 7 * EXPERTS; i++) {
        double p[EXPERTS], all = 0, mean = 0, want = 0;
        for (int e = 0; e < EXPERTS; e++) all += p[e] = exp((double)s.leaf[0].value[i / EXPERTS * EXPERTS + e]);
        for (int e = 0; e < EXPERTS; e++) mean += (double)load[e] / 28 * p[e] / all; /* load counts two passes */
        want = 0.3 * EXPERTS / 7 * p[i % EXPERTS] / all * ((double)load[i % EXPERTS] / 28 - mean);
        scale = fmax(scale, fabs(want));
        assert_true(fabs(s.leaf[0].gradient[i] - without[i] - want) <= limit * 1e-3);
    }
    assert_true(scale > 1e-3);
    close_scene(&s);
}

/* To another type and back; gradients take the same way. */
static struct tensor *build_conversion(struct scene *s)
{
    struct tensor *x = in(s, 0);
    assert_ptr_equal(op_convert(s->tape, x, x->type), x);
    return op_convert(s->tape, op_convert(s->tape, x, DTYPE_BF16), DTYPE_REAL);
}

static void test_conversion(void **state)
{
    struct scene s;
    struct tensor *y;
    open_scene(&s);
    struct leaf *x = add_leaf(&s, true, 5, 16);
    backward(&s, build_conversion);
    run(&s, build_conversion, &y);
    for (int i = 0; i < 5 * 16; i++) {
        assert_true(((real *)y->data)[i] == bf16_to_float(bf16_from_float((float)x->value[i])));
        assert_true(x->gradient[i] == bf16_to_float(bf16_from_float((float)s.weights[i])));
    }
    close_scene(&s);
}

/* ---- the tape itself ---- */

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
    for (int i = 0; i < 2; i++) s->map.master[i] = s->leaf[1 + i].value, s->map.gradient[i] = s->leaf[1 + i].gradient;
    product_pack(s->map.product, &s->packed, s->map.master);
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
    case_linear(&s);
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
        cmocka_unit_test(test_gradients_of_all_ops),
        cmocka_unit_test(test_values_used_twice),
        cmocka_unit_test(test_balance_term),
        cmocka_unit_test(test_conversion),
        cmocka_unit_test(test_segments_change_nothing),
        cmocka_unit_test(test_gradients_stop),
        cmocka_unit_test(test_measure_is_exact),
        cmocka_unit_test(test_weight_gradients_may_come_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
