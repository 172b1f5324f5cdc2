/* Every op's gradient against central differences (in the double build); the balance term of a router; conversion.
 * plan: ranks=1 limit=60 configs=release,sanitize,double */
#include "tests/tape_scene.h"

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
    for (int i = 0; i < 2; i++) s->map.gradient[i] = s->leaf[1 + i].gradient;
    product_pack(s->map.product, &s->packed, (const real *const[]){s->leaf[1].value, s->leaf[2].value});
    s->map.packed = s->packed;
    return op_linear(s->tape, &s->map, in(s, 0));
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
static void set_experts(struct scene *s, const struct linear **maps)
{
    for (int e = 0; e < EXPERTS; e++) {
        struct leaf *leaf = &s->leaf[1 + e % 2];
        s->expert[e] = s->map;
        s->expert[e].gradient[0] = leaf->gradient;
        if (!s->expert_packed[e].forward) s->expert_packed[e] = weight_memory(s->map.product);
        product_pack(s->map.product, &s->expert_packed[e], (const real *const[]){leaf->value});
        s->expert[e].packed = s->expert_packed[e];
        maps[e] = &s->expert[e];
    }
}

static struct tensor *build_expert_linear(struct scene *s)
{
    static const struct linear *maps[EXPERTS];
    set_experts(s, maps);
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
    {"travel_out", NULL, NULL}, /* move rows, which test_travel does */
    {"travel_back", NULL, NULL},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_of_all_ops),
        cmocka_unit_test(test_balance_term),
        cmocka_unit_test(test_conversion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
