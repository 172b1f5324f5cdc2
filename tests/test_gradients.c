/* Gradients of every kernel against central differences, in the double build.
 * plan: configs=double
 *
 * A case has inputs x_i with analytic gradients d_i of the number L = sum of outputs times fixed random
 * weights; the difference quotient of L along every coordinate tried must agree with d_i. */
#include "tests/kernel_check.h"

#include "kernel/kernel_list.h"

#ifndef CYTOMILL_DOUBLE
#error "build with CONFIG=double"
#endif

/* h = 1e-5: truncation about 1e-10, rounding about 1e-11 of L, relative to the largest gradient. */
#define STEP      1e-5
#define TOLERANCE 2e-7
enum { TRIED = 40, MAX_INPUTS = 6 };

struct input {
    const char *name;
    double *x, *d;
    int64_t count;
};

struct gradient_case {
    struct input inputs[MAX_INPUTS];
    int input_count;
    double *y, *weights; /* outputs and what they are multiplied by: also dy */
    int64_t y_count;
    void (*forward)(struct gradient_case *);
    const void *shape;
    double *kept; /* stat, state: what a backward pass needs */
};

static double *input(struct gradient_case *c, const char *name, int64_t count)
{
    int i = c->input_count++;
    c->inputs[i] = (struct input){name, test_doubles(count, 100 + i), test_doubles(count, 0), count};
    return c->inputs[i].x;
}

static void output(struct gradient_case *c, int64_t count)
{
    c->y = test_doubles(count, 0);
    c->weights = test_doubles(count, 55);
    c->y_count = count;
}

static double loss_of(struct gradient_case *c)
{
    double sum = 0;
    c->forward(c);
    for (int64_t i = 0; i < c->y_count; i++) sum += c->weights[i] * c->y[i];
    return sum;
}

static double difference(struct gradient_case *c, double *x)
{
    double at = *x;
    *x = at + STEP;
    double up = loss_of(c);
    *x = at - STEP;
    double down = loss_of(c);
    *x = at;
    return (up - down) / (2 * STEP);
}

static void check_case(struct gradient_case *c)
{
    struct rng r = rng_at(1, RNG_TEST, 1, 1);
    for (int i = 0; i < c->input_count; i++) {
        struct input *in = &c->inputs[i];
        double largest = 0;
        for (int64_t j = 0; j < in->count; j++) largest = fmax(largest, fabs(in->d[j]));
        assert_true(largest > 0);
        for (int k = 0; k < TRIED; k++) {
            int64_t j = (int64_t)rng_below(&r, (uint64_t)in->count);
            double want = difference(c, in->x + j);
            if (!(fabs(in->d[j] - want) <= TOLERANCE * largest))
                fail_msg("%s[%ld]: gradient %.9g, difference %.9g", in->name, (long)j, in->d[j], want);
        }
    }
    test_free_all();
}

/* ---- norm ---- */

enum { ROWS = 13, WIDTH = 24 };

static void norm_forward(struct gradient_case *c)
{
    norm_residual_forward(c->y, c->kept, c->inputs[0].x, c->inputs[1].x, c->inputs[2].x, c->inputs[3].x, c->shape);
}

static void norm_with(double p)
{
    struct gradient_case c = {.forward = norm_forward};
    int64_t cell[ROWS];
    int32_t position[ROWS];
    for (int r = 0; r < ROWS; r++) cell[r] = r / 4, position[r] = r % 4;
    struct norm_shape s = {.rows = ROWS,
                           .width = WIDTH,
                           .type = DTYPE_F64,
                           .lambda = 1.7,
                           .eps = 1e-7,
                           .drop = {.p = p, .seed = 1, .row_cell = cell, .row_position = position}};
    double *x = input(&c, "x", ROWS * WIDTH), *a = input(&c, "a", ROWS * WIDTH), *gamma = input(&c, "gamma", WIDTH);
    input(&c, "beta", WIDTH);
    output(&c, ROWS * WIDTH);
    c.shape = &s;
    c.kept = test_doubles(2 * ROWS, 0);
    norm_forward(&c);
    norm_residual_backward(c.inputs[0].d, c.inputs[1].d, c.inputs[2].d, c.inputs[3].d, c.weights, c.kept, x, a, gamma,
                           &s, test_doubles(norm_scratch_reals(ROWS, WIDTH), 0));
    check_case(&c);
}

static void norm(void **state)
{
    norm_with(0);
    norm_with(0.4);
}

/* ---- retention ---- */

enum { HEADS = 3, C = 4, D = HEADS * C };
static const int64_t offsets[] = {0, 5, ROWS};

static void retention_forward(struct gradient_case *c)
{
    memset(c->kept, 0, 2 * HEADS * C * C * sizeof *c->kept);
    retention_state_forward(c->kept, c->inputs[1].x, c->inputs[2].x, c->shape);
    retention_read_forward(c->y, c->inputs[0].x, c->inputs[3].x, c->kept, c->shape);
}

static void retention(void **state)
{
    static const uint8_t mask[ROWS] = {1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1};
    static const float scale[2] = {0.5f, 0.35f};
    struct retention_shape s = {.cells = 2,
                                .offsets = offsets,
                                .heads = HEADS,
                                .head_width = C,
                                .stride = D,
                                .type = DTYPE_F64,
                                .feature_scale = 0.5,
                                .value_scale = scale,
                                .key_mask = mask};
    struct gradient_case c = {.forward = retention_forward, .shape = &s, .kept = test_doubles(2 * HEADS * C * C, 0)};
    double *q = input(&c, "q", ROWS * D), *k = input(&c, "k", ROWS * D), *v = input(&c, "v", ROWS * D);
    double *u = input(&c, "u", ROWS * D), *dstate = test_doubles(2 * HEADS * C * C, 0);
    output(&c, ROWS * D);
    retention_forward(&c);
    retention_read_backward(c.inputs[0].d, c.inputs[3].d, dstate, c.weights, q, u, c.kept, &s);
    retention_state_backward(c.inputs[1].d, c.inputs[2].d, dstate, k, v, &s);
    check_case(&c);
}

/* ---- gates ---- */

static void gate_forward(struct gradient_case *c)
{
    gate_product_forward(c->y, c->inputs[0].x, c->inputs[1].x, c->shape);
}

static void gate(void **state)
{
    struct gate_shape s = {.rows = ROWS, .width = WIDTH, .stride = WIDTH, .type = DTYPE_F64};
    struct gradient_case c = {.forward = gate_forward, .shape = &s};
    double *u = input(&c, "u", ROWS * WIDTH), *v = input(&c, "v", ROWS * WIDTH);
    output(&c, ROWS * WIDTH);
    gate_product_backward(c.inputs[0].d, c.inputs[1].d, c.weights, u, v, &s);
    check_case(&c);
}

/* ---- value encoder: w1, W3, a to the softmax ---- */

static void value_forward(struct gradient_case *c)
{
    value_vector_forward(c->kept, c->inputs[0].x, c->inputs[1].x, c->inputs[2].x, 0.2, WIDTH);
    value_softmax_forward(c->y, c->shape, c->kept, ROWS, WIDTH, DTYPE_F64);
}

static void value(void **state)
{
    float x[ROWS];
    for (int i = 0; i < ROWS; i++) x[i] = 0.3f * (float)i;
    struct gradient_case c = {.forward = value_forward, .shape = x, .kept = test_doubles(WIDTH, 0)};
    double *w1 = input(&c, "w1", WIDTH), *w3 = input(&c, "w3", WIDTH * WIDTH), *a = input(&c, "a", 1);
    for (int i = 0; i < WIDTH * WIDTH; i++) w3[i] *= 0.2;
    output(&c, ROWS * WIDTH);
    value_forward(&c);
    double *du = test_doubles(WIDTH, 0), *scratch = test_doubles(value_scratch_reals(ROWS, WIDTH) + WIDTH, 0);
    value_softmax_backward(du, c.weights, c.y, x, ROWS, WIDTH, DTYPE_F64, scratch);
    value_vector_backward(c.inputs[0].d, c.inputs[1].d, c.inputs[2].d, du, w1, w3, a, 0.2, WIDTH, scratch);
    check_case(&c);
}

/* ---- embedding ---- */

enum { GENES = 9, LEVELS = 5 };

static void embed_case(struct gradient_case *c)
{
    embed_forward(c->y, c->inputs[0].x, c->inputs[1].x, c->inputs[2].x, c->inputs[3].x, c->shape);
}

static void embed(void **state)
{
    static const int32_t feature[ROWS] = {0, 3, 4, 8, 3, 0, 1, 8, 3, 2, 5, 6, 7},
                         level[ROWS] = {-1, 0, 1, -1, 2, -1, 3, 4, -1, 3, 3, 1, 0};
    struct embed_shape s = {.rows = ROWS, .width = WIDTH, .type = DTYPE_F64, .feature = feature, .level = level};
    struct arena arena = {0};
    struct row_groups by_feature, by_level;
    for (int pass = 0; pass < 2; pass++) {
        row_groups_take(&by_feature, &arena, ROWS, GENES);
        row_groups_take(&by_level, &arena, ROWS, LEVELS);
        if (pass == 0) assert_int_equal(arena_create(&arena, arena.high_bytes), ST_OK);
    }
    row_groups_build(&by_feature, feature, ROWS, 1);
    row_groups_build(&by_level, level, ROWS, 0);
    struct gradient_case c = {.forward = embed_case, .shape = &s};
    input(&c, "gene", GENES * WIDTH), input(&c, "e", LEVELS * WIDTH), input(&c, "mask", WIDTH), input(&c, "cls", WIDTH);
    output(&c, ROWS * WIDTH);
    embed_backward(c.inputs[0].d, c.inputs[1].d, c.inputs[2].d, c.inputs[3].d, c.weights, &by_feature, &by_level, &s);
    check_case(&c);
    arena_destroy(&arena);
}

/* ---- mixture of experts ---- */

enum { EXPERTS = 5, CHOSEN = 2 };

/* y = what rows get from places, weighted by the router; a term sum_e balance_e p_e of every row beside it. */
struct experts_case {
    struct route_shape route;
    struct expert_shape rows;
    struct expert_order order;
    double *bias, *balance, *p;
    int32_t *choice;
};

static void experts_forward(struct gradient_case *c)
{
    const struct experts_case *s = c->shape;
    double *w = c->kept;
    route_forward(w, s->choice, s->p, c->inputs[0].x, s->bias, &s->route);
    expert_sort(&s->order, s->choice, ROWS, CHOSEN, EXPERTS);
    expert_combine(c->y, c->inputs[1].x, c->inputs[2].x, w, s->order.place, &s->rows);
    c->y[ROWS * WIDTH] = 0;
    for (int i = 0; i < ROWS * EXPERTS; i++) c->y[ROWS * WIDTH] += s->balance[i % EXPERTS] * s->p[i];
}

static void experts_with(enum route_rule rule)
{
    struct experts_case s = {
        {ROWS, EXPERTS, CHOSEN, rule},
        {ROWS, WIDTH, CHOSEN, DTYPE_F64},
        {test_block(8 * (EXPERTS + 1)), test_block(8 * ROWS * CHOSEN), test_block(8 * ROWS * CHOSEN)},
        test_doubles(EXPERTS, 71),
        test_doubles(EXPERTS, 72),
        test_doubles(ROWS * EXPERTS, 0),
        test_block(4 * ROWS * CHOSEN)};
    struct gradient_case c = {.forward = experts_forward, .shape = &s, .kept = test_doubles(ROWS * CHOSEN, 0)};
    double *dw = test_doubles(ROWS * CHOSEN, 0);
    input(&c, "logits", ROWS * EXPERTS);
    double *e = input(&c, "results", ROWS * CHOSEN * WIDTH);
    input(&c, "base", ROWS * WIDTH);
    output(&c, ROWS * WIDTH + 1);
    c.weights[ROWS * WIDTH] = 1;
    experts_forward(&c);
    expert_combine_backward(c.inputs[1].d, dw, c.weights, e, c.kept, s.order.place, &s.rows);
    memcpy(c.inputs[2].d, c.weights, sizeof(double) * ROWS * WIDTH);
    route_backward(c.inputs[0].d, dw, s.balance, s.choice, c.kept, s.p, &s.route);
    check_case(&c);
}

static void experts(void **state)
{
    experts_with(ROUTE_SOFTMAX_TOPK);
    experts_with(ROUTE_TOPK_SOFTMAX);
}

/* ---- decoders and loss ---- */

static void decode_gene_case(struct gradient_case *c)
{
    decode_gene_forward(c->y, c->inputs[0].x, c->inputs[1].x, 0.2, ROWS, WIDTH, DTYPE_F64);
}

static void decode_gene(void **state)
{
    struct gradient_case c = {.forward = decode_gene_case};
    double *a = input(&c, "a", ROWS * WIDTH), *w2 = input(&c, "w2", WIDTH);
    output(&c, ROWS);
    decode_gene_backward(c.inputs[0].d, c.inputs[1].d, c.weights, a, w2, 0.2, ROWS, WIDTH, DTYPE_F64,
                         test_doubles(decode_scratch_reals(ROWS, WIDTH), 0));
    check_case(&c);
}

static void decode_cell_case(struct gradient_case *c)
{
    decode_cell_forward(c->y, c->inputs[0].x, c->inputs[1].x, offsets, 2, WIDTH, DTYPE_F64);
}

static void decode_cell(void **state)
{
    struct gradient_case c = {.forward = decode_cell_case};
    double *m = input(&c, "m", ROWS * WIDTH), *z = input(&c, "z", 2 * WIDTH);
    output(&c, ROWS);
    decode_cell_backward(c.inputs[0].d, c.inputs[1].d, c.weights, m, z, offsets, 2, WIDTH, DTYPE_F64);
    check_case(&c);
}

static void loss_case(struct gradient_case *c)
{
    const float *y = c->shape;
    double weight;
    loss_square_forward(c->y, &weight, c->inputs[0].x, y, y + ROWS, ROWS);
}

static void loss(void **state)
{
    float *y = test_floats(2 * ROWS, 3);
    struct gradient_case c = {.forward = loss_case, .shape = y};
    double *p = input(&c, "p", ROWS);
    output(&c, 1);
    loss_square_backward(c.inputs[0].d, c.weights[0], p, y, y + ROWS, ROWS);
    check_case(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm),        cmocka_unit_test(retention), cmocka_unit_test(gate),
        cmocka_unit_test(value),       cmocka_unit_test(embed),     cmocka_unit_test(decode_gene),
        cmocka_unit_test(decode_cell), cmocka_unit_test(loss),      cmocka_unit_test(experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
