/* Gates, value encoder, embedding, row choice, experts, decoders, loss, Adam and vectors against their plain versions.
 * plan: ranks=1 limit=60 configs=release,sanitize,double
 * Each kernel over shapes that do and do not fill vectors; the same bytes for 1, 2, 3 threads; the
 * value encoder's levels against the published form per token; grouping of rows; instruction sets that
 * are refused. */
#include "tests/kernel_check.h"

#include <omp.h>

#include "kernel/kernel_list.h"

/* Of the largest entry. fp32: roundings of sums over up to 1536; bf16: the stored result has 8 bits. */
static const struct tolerance tolerances[] = {{DTYPE_F32, 4e-6}, {DTYPE_BF16, 4e-3}, {DTYPE_F64, 1e-12}};

enum { ROWS = 133, WIDTH = 200, CELLS = 3, GENES = 40, LEVELS = 17 };
static const int64_t offsets[] = {0, 50, 51, ROWS};

/* Outputs of one run of every kernel, in the order they are made. */
struct output {
    const char *name;
    void *data;
    int64_t count;
    enum dtype type;
};
struct outputs {
    struct output list[64];
    int count;
};

static void *out(struct outputs *o, const char *name, int64_t count, int seed, enum dtype type)
{
    void *data = test_values(count, seed, type);
    o->list[o->count++] = (struct output){name, data, count, type};
    return data;
}

/* Call the public kernel or its plain version. */
#define CALL(f, ...) (plain ? f##_ref(__VA_ARGS__) : f(__VA_ARGS__))

static void run_gates(struct outputs *o, enum dtype type, bool plain)
{
    struct gate_shape s = {.rows = ROWS, .width = WIDTH, .stride = 2 * WIDTH, .type = type};
    char *uv = test_values(ROWS * 2 * WIDTH, 1, type), *v = dtype_at(uv, WIDTH, type);
    void *dy = test_values(ROWS * WIDTH, 2, type);
    CALL(gate_product_forward, out(o, "gate", ROWS * WIDTH, 0, type), uv, v, &s);
    char *duv = out(o, "gate gradient", ROWS * 2 * WIDTH, 0, type);
    CALL(gate_product_backward, duv, dtype_at(duv, WIDTH, type), dy, uv, v, &s);
}

static void run_value(struct outputs *o, enum dtype type, bool plain)
{
    float *x = test_floats(ROWS, 3);
    real *u = test_reals(WIDTH, 4), *scratch = test_reals(value_scratch_reals(ROWS, WIDTH), 0);
    for (int i = 0; i < ROWS; i++) x[i] = i == 5 ? 0 : 8 * x[i] * x[i] - (i % 9 == 0);
    void *p = out(o, "softmax", ROWS * WIDTH, 0, type), *dp = test_values(ROWS * WIDTH, 5, type);
    CALL(value_softmax_forward, p, x, u, ROWS, WIDTH, type);
    value_softmax_forward_ref(p, x, u, ROWS, WIDTH, type); /* the same p for both gradients */
    CALL(value_softmax_backward, out(o, "softmax gradient", WIDTH, 6, DTYPE_REAL), dp, p, x, ROWS, WIDTH, type,
         scratch);
}

static void run_softmax_forward(struct outputs *o, enum dtype type, bool plain)
{
    float *x = test_floats(ROWS, 3);
    real *u = test_reals(WIDTH, 4);
    for (int i = 0; i < ROWS; i++) x[i] = i == 5 ? 0 : 8 * x[i] * x[i] - (i % 9 == 0);
    CALL(value_softmax_forward, out(o, "softmax", ROWS * WIDTH, 0, type), x, u, ROWS, WIDTH, type);
}

static void run_embed(struct outputs *o, enum dtype type, bool plain)
{
    struct arena arena = {0};
    struct row_groups by_feature, by_level;
    for (int pass = 0; pass < 2; pass++) {
        row_groups_take(&by_feature, &arena, ROWS, GENES);
        row_groups_take(&by_level, &arena, ROWS, LEVELS);
        if (pass == 0) assert_int_equal(arena_create(&arena, arena.high_bytes), ST_OK);
    }
    int32_t *feature = test_block(ROWS * 4), *level = test_block(ROWS * 4);
    for (int r = 0; r < ROWS; r++) {
        feature[r] = r % 50 == 0 ? 0 : 1 + r * 7 % (GENES - 1);
        level[r] = r % 6 == 1 || feature[r] == 0 ? -1 : r * 5 % LEVELS;
    }
    row_groups_build(&by_feature, feature, ROWS, 1);
    row_groups_build(&by_level, level, ROWS, 0);
    struct embed_shape s = {.rows = ROWS, .width = WIDTH, .type = type, .feature = feature, .level = level};
    real *gene = test_reals(GENES * WIDTH, 1), *mask = test_reals(WIDTH, 2), *cls = test_reals(WIDTH, 3);
    void *e = test_values(LEVELS * WIDTH, 4, type), *dh = test_values(ROWS * WIDTH, 5, type);
    CALL(embed_forward, out(o, "tokens", ROWS * WIDTH, 0, type), gene, e, mask, cls, &s);
    real *dgene = out(o, "d gene", GENES * WIDTH, 6, DTYPE_REAL), *dmask = out(o, "d mask", WIDTH, 7, DTYPE_REAL);
    real *dcls = out(o, "d cls", WIDTH, 8, DTYPE_REAL);
    CALL(embed_backward, dgene, out(o, "d levels", LEVELS * WIDTH, 0, type), dmask, dcls, dh, &by_feature, &by_level,
         &s);
    CALL(table_gather, out(o, "table rows", ROWS * WIDTH, 0, type), gene, feature, ROWS, WIDTH, type);
    CALL(table_add, out(o, "d table", GENES * WIDTH, 9, DTYPE_REAL), dh, &by_feature, WIDTH, type);
    arena_destroy(&arena);
}

static void run_rows(struct outputs *o, enum dtype type, bool plain)
{
    enum { CHOSEN = 4 };
    static const int64_t index[CHOSEN] = {0, 3, 4, ROWS - 2};
    void *x = test_values(ROWS * WIDTH, 1, type), *y = test_values(CHOSEN * WIDTH, 2, type);
    CALL(rows_gather, out(o, "gathered", CHOSEN * WIDTH, 0, type), x, index, CHOSEN, WIDTH, type);
    CALL(rows_scatter, out(o, "scattered", ROWS * WIDTH, 3, type), y, index, CHOSEN, ROWS, WIDTH, type);
    CALL(rows_add, out(o, "added", ROWS * WIDTH, 4, type), y, index, CHOSEN, WIDTH, type);
}

static struct expert_order order_of(const int32_t *choice, int chosen, int experts)
{
    struct expert_order order = {test_block((size_t)(experts + 1) * 8), test_block((size_t)(ROWS * chosen) * 8),
                                 test_block((size_t)(ROWS * chosen) * 8)};
    expert_sort(&order, choice, ROWS, chosen, experts);
    return order;
}

static void run_experts(struct outputs *o, enum dtype type, bool plain)
{
    for (int variant = 0; variant < 4; variant++) {
        int experts = variant == 3 ? 1 : 11, chosen = variant == 2 ? 11 : variant == 3 ? 1 : 3;
        struct route_shape s = {ROWS, experts, chosen, variant == 1 ? ROUTE_TOPK_SOFTMAX : ROUTE_SOFTMAX_TOPK};
        real *logits = test_reals(ROWS * experts, 1), *bias = variant == 0 ? NULL : test_reals(experts, 2);
        real *dweight = test_reals(ROWS * chosen, 3), *balance = variant == 0 ? test_reals(experts, 4) : NULL;
        real *weight = out(o, "route weight", ROWS * chosen, 0, DTYPE_REAL);
        real *probability = out(o, "route probability", ROWS * experts, 0, DTYPE_REAL);
        int32_t *choice = test_block((size_t)(ROWS * chosen) * 4);
        CALL(route_forward, weight, choice, probability, logits, bias, &s);
        real *chosen_by = out(o, "route choice", ROWS * chosen, 0, DTYPE_REAL);
        for (int i = 0; i < ROWS * chosen; i++) chosen_by[i] = (real)choice[i];
        CALL(route_backward, out(o, "d logits", ROWS * experts, 5, DTYPE_REAL), dweight, balance, choice, weight,
             probability, &s);

        struct expert_order order = order_of(choice, chosen, experts);
        struct expert_shape e = {ROWS, WIDTH, chosen, type};
        void *results = test_values(ROWS * chosen * WIDTH, 6, type), *dy = test_values(ROWS * WIDTH, 7, type);
        void *base = variant == 1 ? test_values(ROWS * WIDTH, 8, type) : NULL;
        const real *w = variant == 2 ? NULL : weight;
        CALL(expert_combine, out(o, "combined", ROWS * WIDTH, 9, type), results, base, w, order.place, &e);
        void *dresults = out(o, "d results", ROWS * chosen * WIDTH, 10, type);
        CALL(expert_combine_backward, dresults, out(o, "d weight", ROWS * chosen, 11, DTYPE_REAL), dy, results, weight,
             order.place, &e);
    }
}

static void run_decoders(struct outputs *o, enum dtype type, bool plain)
{
    void *a = test_values(ROWS * WIDTH, 1, type), *z = test_values(CELLS * WIDTH, 2, type);
    real *w2 = test_reals(WIDTH, 3), *dp = test_reals(ROWS, 4),
         *scratch = test_reals(decode_scratch_reals(ROWS, WIDTH), 0);
    CALL(decode_gene_forward, out(o, "gene-wise", ROWS, 0, DTYPE_REAL), a, w2, 0.2, ROWS, WIDTH, type);
    void *da = out(o, "d a", ROWS * WIDTH, 0, type);
    CALL(decode_gene_backward, da, out(o, "d w2", WIDTH, 5, DTYPE_REAL), dp, a, w2, 0.2, ROWS, WIDTH, type, scratch);
    CALL(decode_cell_forward, out(o, "cell-wise", ROWS, 0, DTYPE_REAL), a, z, offsets, CELLS, WIDTH, type);
    void *dm = out(o, "d m", ROWS * WIDTH, 0, type);
    CALL(decode_cell_backward, dm, out(o, "d z", CELLS * WIDTH, 0, type), dp, a, z, offsets, CELLS, WIDTH, type);
}

static void run_loss_and_vectors(struct outputs *o, enum dtype type, bool plain)
{
    enum { N = 5003 };
    real *p = test_reals(N, 1), *x = test_reals(N, 2);
    float *y = test_floats(N, 3), *w = test_floats(N, 4);
    for (int i = 0; i < N; i++) w[i] = i % 5 == 0;
    double *sums = out(o, "loss", 3, 0, DTYPE_F64);
    CALL(loss_square_forward, sums, sums + 1, p, y, w, N);
    CALL(vector_square_sum, sums + 2, x, N);
    CALL(loss_square_backward, out(o, "d loss", N, 0, DTYPE_REAL), 0.37, p, y, w, N);
    CALL(vector_round_bf16, out(o, "rounded", N, 7, DTYPE_REAL), N);
    CALL(vector_add, out(o, "sum", N, 8, type), test_values(N, 9, type), N, type);
    CALL(vector_convert, out(o, "to real", N, 0, DTYPE_REAL), DTYPE_REAL, test_values(N, 9, type), type, N);
    CALL(vector_convert, out(o, "from real", N, 0, type), type, x, DTYPE_REAL, N);
}

static void run_transpose(struct outputs *o, enum dtype type, bool plain)
{
    enum { COLUMNS = 83, X_STRIDE = 90, Y_STRIDE = ROWS + 5 };
    void *x = test_values(ROWS * X_STRIDE, 1, type);
    CALL(vector_transpose, out(o, "turned", COLUMNS * Y_STRIDE, 0, type), type, x, type, ROWS, COLUMNS, X_STRIDE,
         Y_STRIDE);
    CALL(vector_transpose, out(o, "turned to real", COLUMNS * Y_STRIDE, 0, DTYPE_REAL), DTYPE_REAL, x, type, ROWS,
         COLUMNS, X_STRIDE, Y_STRIDE);
    CALL(vector_transpose, out(o, "turned from real", COLUMNS * Y_STRIDE, 0, type), type,
         test_reals(ROWS * X_STRIDE, 2), DTYPE_REAL, ROWS, COLUMNS, X_STRIDE, Y_STRIDE);
}

static void run_adam(struct outputs *o, enum dtype type, bool plain)
{
    enum { N = 3001 };
    real *g = test_reals(N, 1);
    for (int kind = 0; kind < 3; kind++) {
        struct adam adam = {.rate = 1e-2,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .eps = 1e-8,
                            .decay = kind ? 0.1 : 0,
                            .decoupled = kind == 2,
                            .t = 3,
                            .scale = 0.7,
                            .clip = kind == 1 ? 0.5 : 0};
        real *w = out(o, "adam w", N, 2, DTYPE_REAL), *m = out(o, "adam m", N, 3, DTYPE_REAL);
        real *v = out(o, "adam v", N, 4, DTYPE_REAL);
        for (int i = 0; i < N; i++) v[i] = v[i] * v[i];
        CALL(adam_step, w, m, v, g, N, &adam);
    }
}

typedef void run_function(struct outputs *, enum dtype, bool plain);
static run_function *const runs[] = {run_gates,    run_softmax_forward,  run_value,     run_embed, run_rows,
                                     run_decoders, run_loss_and_vectors, run_transpose, run_adam,  run_experts};
enum { RUNS = sizeof runs / sizeof *runs };

static void kernels_match_plain(void **state)
{
    for (int t = 0; t < test_type_count; t++)
        for (int r = 0; r < RUNS; r++) {
            struct outputs fast = {0}, plain = {0};
            runs[r](&fast, test_types[t], false);
            runs[r](&plain, test_types[t], true);
            for (int i = 0; i < fast.count; i++) {
                struct output *f = &fast.list[i], *p = &plain.list[i];
                check_near(f->name, f->data, p->data, f->count, f->type, tolerances);
            }
            test_free_all();
        }
}

static void threads_change_nothing(void **state)
{
    for (int t = 0; t < test_type_count; t++)
        for (int r = 0; r < RUNS; r++) {
            struct outputs one = {0}, more[2];
            memset(more, 0, sizeof more);
            omp_set_num_threads(1);
            runs[r](&one, test_types[t], false);
            for (int k = 0; k < 2; k++) {
                omp_set_num_threads(2 + k);
                runs[r](&more[k], test_types[t], false);
                for (int i = 0; i < one.count; i++)
                    assert_memory_equal(one.list[i].data, more[k].list[i].data,
                                        (size_t)one.list[i].count * dtype_bytes(one.list[i].type));
            }
            test_free_all();
        }
}

/* Levels through u and Table equal the published form token by token. */
static void value_encoder_equals_published_form(void **state)
{
    enum { B = 64, D = 48 };
    const double slope = 0.2;
    float *x = test_floats(LEVELS, 1);
    real *w1 = test_reals(B, 2), *w3 = test_reals(B * B, 3), *table = test_reals(D * B, 4), a = (real)0.3;
    real *u = test_reals(B, 0), *p = test_reals(LEVELS * B, 0), *e = test_reals(LEVELS * D, 0),
         *want = test_reals(LEVELS * D, 0);
    for (int i = 0; i < LEVELS; i++) x[i] = fabsf(x[i]);
    for (int i = 0; i < B * B; i++) w3[i] /= 8;
    value_vector_forward(u, w1, w3, &a, slope, B);
    value_softmax_forward_ref(p, x, u, LEVELS, B, DTYPE_REAL);
    for (int n = 0; n < LEVELS; n++)
        for (int d = 0; d < D; d++)
            for (int j = 0; j < B; j++) e[n * D + d] += p[n * B + j] * table[d * B + j];
    value_encoder_plain(want, x, w1, w3, &a, table, slope, LEVELS, B, D);
    check_near("encoded", e, want, LEVELS * D, DTYPE_REAL, tolerances);
    test_free_all();
}

static void groups_are_sorted_and_complete(void **state)
{
    static const int32_t key[] = {3, 0, 7, 3, -1, 7, 7, 2, 9};
    struct arena arena = {0};
    struct row_groups g;
    row_groups_take(&g, &arena, 9, 8);
    assert_int_equal(arena_create(&arena, arena.high_bytes), ST_OK);
    row_groups_take(&g, &arena, 9, 8);
    row_groups_build(&g, key, 9, 1);
    static const int32_t keys[] = {2, 3, 7};
    static const int64_t start[] = {0, 1, 3, 6}, order[] = {7, 0, 3, 2, 5, 6};
    assert_int_equal(g.count, 3);
    assert_memory_equal(g.key, keys, sizeof keys);
    assert_memory_equal(g.start, start, sizeof start);
    assert_memory_equal(g.order, order, sizeof order);
    arena_destroy(&arena);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    assert_int_equal(bf16_from_float(1.0f), 0x3f80);
    assert_int_equal(bf16_from_float(1.0f + 0x1p-8f), 0x3f80); /* a tie goes to the even number */
    assert_int_equal(bf16_from_float(1.0f + 3 * 0x1p-8f), 0x3f82);
    assert_int_equal(bf16_from_float(1.0f + 0x1.8p-8f), 0x3f81);
    assert_int_equal(bf16_from_float(-INFINITY), 0xff80);
    assert_int_equal(bf16_from_float(3.4e38f), 0x7f80);
    assert_true(isnan(bf16_to_float(bf16_from_float(NAN))));
}

#ifndef CYTOMILL_DOUBLE
/* Every set this processor has gives the plain results; one it lacks and one that is not are refused. */
static void instruction_sets(void **state)
{
    static const char *const names[] = {"generic", "avx2", "avx512"};
    for (int i = 0; i < 3; i++) {
        status_clear();
        if (kernel_select(names[i]) == ST_OK) {
            assert_string_equal(kernel_isa_name(), names[i]);
            kernels_match_plain(state);
        } else assert_non_null(strstr(status_message(), names[i]));
    }
    status_clear();
    assert_int_equal(kernel_select("sse9"), ST_CONFIG);
    assert_non_null(strstr(status_message(), "sse9"));
    status_clear();
    assert_int_equal(kernel_select("auto"), ST_OK);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kernels_match_plain),
                                       cmocka_unit_test(threads_change_nothing),
                                       cmocka_unit_test(value_encoder_equals_published_form),
                                       cmocka_unit_test(groups_are_sorted_and_complete),
#ifndef CYTOMILL_DOUBLE
                                       cmocka_unit_test(instruction_sets),
#endif
                                       cmocka_unit_test(bf16_rounds_to_nearest_even)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
