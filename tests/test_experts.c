/* Blocks with a mixture of experts, on one rank.
 * plan: ranks=1 limit=90 configs=release,sanitize,double
 * Against plain loops over the chosen experts, for every pattern of load (even, one expert with all rows, one without,
 * K = 1, K = E, no row, one row), 1e-6 of the largest entry; every gradient against central differences in the double
 * build; the same bits for 1, 2, 3 threads; bf16 within its rounding; the loss term and the bias rule make a model that
 * trains use its experts evenly; slots by groups of cells; names, starts and refusals. */
#include "tests/expert_scene.h"

#include "cell_scene.h"
#include "model/expert_usage.h"
#include "optim/optimiser.h"

/* ---- one feed-forward by itself ---- */

/* Forward into y; returns sum of weights * y. */
static double run(struct scene *s, enum tape_mode mode, struct tensor **x, struct tensor **y)
{
    struct tensor *in, *out;
    double sum = 0;
    tape_begin(s->tape, mode);
    s->pass = (struct pass){.tape = s->tape, .params = &s->part.params, .type = s->type, .balance_scale = 1};
    tape_segment(s->tape, "test", 0, NULL);
    in = tape_tensor(s->tape, s->type, s->rows, WIDTH);
    in->wants_gradient = true;
    for (int64_t i = 0; i < s->rows * WIDTH; i++) dtype_store(in->data, i, s->x[i], s->type);
    out = s->ffn->kind->run(s->ffn, &s->pass, in);
    for (int64_t i = 0; i < s->rows * WIDTH; i++) {
        s->y[i] = (real)dtype_load(out->data, i, s->type);
        sum += (double)s->weights[i] * (double)s->y[i];
    }
    if (x) *x = in, *y = out;
    return sum;
}

/* Forward and backward; the gradient of x into dx. */
static void run_back(struct scene *s)
{
    struct tensor *x, *y;
    memset(s->part.params.gradient, 0, sizeof(real) * (size_t)s->part.params.size);
    run(s, TAPE_TRAIN, &x, &y);
    y->gradient = tape_take(s->tape, (size_t)(s->rows * WIDTH) * dtype_bytes(s->type));
    for (int64_t i = 0; i < s->rows * WIDTH; i++) dtype_store(y->gradient, i, s->weights[i], s->type);
    tape_backward_segment(s->tape, 0);
    for (int64_t i = 0; i < s->rows * WIDTH; i++) s->dx[i] = (real)dtype_load(x->gradient, i, s->type);
    tape_drain_segment(s->tape, 0);
}

/* ---- patterns ---- */

struct pattern {
    const char *name, *keys;
    int64_t rows;
    int hot, cold; /* an expert that gets a slot of every row, one that gets none; -1 */
};
static const struct pattern patterns[] = {
    {"even", "model.experts=4", 300, -1, -1},
    {"softmax over the chosen", "model.experts=6 model.experts_per_token=3 model.expert_gate=topk-softmax", 150, -1,
     -1},
    {"one expert has all rows", "model.experts=5 model.experts_per_token=1", 260, 3, -1},
    {"one expert has none", "model.experts=4", 140, -1, 1},
    {"hot and cold, shared", "model.experts=4 model.shared_expert=true", 140, 0, 3},
    {"K = E", "model.experts=3 model.experts_per_token=3", 130, -1, -1},
    {"E = 1", "model.experts=1 model.experts_per_token=1 model.expert_gate=topk-softmax", 20, -1, -1},
    {"one row", "model.experts=8", 1, -1, -1},
    {"no row", "model.experts=8 model.shared_expert=true", 0, -1, -1},
};
enum { PATTERNS = sizeof patterns / sizeof *patterns };

/* The bias on the choice makes the pattern. */
static void open_pattern(struct scene *s, const struct pattern *p, enum dtype type)
{
    open_scene(s, p->keys, p->rows, type);
    real *bias = weight_of(s, "ffn.router.bias");
    for (int e = 0; e < s->part.experts.experts; e++) bias[e] = e == p->hot ? 9 : e == p->cold ? -9 : 0;
}

static void add_product(double *y, const real *w, const double *x)
{
    for (int i = 0; i < WIDTH; i++)
        for (int j = 0; j < WIDTH; j++) y[i] += (double)w[i * WIDTH + j] * x[j];
}

static void add_sglu(struct scene *s, double *y, const char *prefix, const double *x, double factor)
{
    static const char *const names[] = {"u", "v", "o"};
    const real *w[3];
    double u[WIDTH] = {0}, v[WIDTH] = {0}, o[WIDTH] = {0};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "ffn.%s.%s_proj.weight", prefix, names[i]);
        w[i] = weight_of(s, name);
    }
    add_product(u, w[0], x);
    add_product(v, w[1], x);
    for (int i = 0; i < WIDTH; i++) u[i] *= v[i];
    add_product(o, w[2], u);
    for (int i = 0; i < WIDTH; i++) y[i] += factor * o[i];
}

static void dense_row(struct scene *s, const real *x_row, double *y, int64_t *load)
{
    int experts = s->part.experts.experts, chosen = (int)config_int(s->part.config, "model.experts_per_token");
    bool among = config_word_is(s->part.config, "model.expert_gate", "topk-softmax"), taken[16] = {false};
    const real *router = weight_of(s, "ffn.router.weight"), *bias = weight_of(s, "ffn.router.bias");
    double x[WIDTH], p[16] = {0}, all = 0, sum = 0;
    int pick[16];
    for (int i = 0; i < WIDTH; i++) x[i] = x_row[i];
    for (int e = 0; e < experts; e++) {
        for (int i = 0; i < WIDTH; i++) p[e] += (double)router[e * WIDTH + i] * x[i];
        all += p[e] = exp(p[e]);
    }
    for (int k = 0; k < chosen; k++) {
        int best = -1;
        for (int e = 0; e < experts; e++)
            if (!taken[e] && (best < 0 || p[e] / all + bias[e] > p[best] / all + bias[best])) best = e;
        pick[k] = best, taken[best] = true, sum += p[best], load[best]++;
    }
    for (int k = 0; k < chosen; k++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "experts.%d", pick[k]);
        add_sglu(s, y, prefix, x, p[pick[k]] / (among ? sum : all));
    }
    if (config_bool(s->part.config, "model.shared_expert")) add_sglu(s, y, "shared", x, 1);
}

static struct scene s, other;

/* fp32: products of 48 terms, rounded three times; double likewise. */
static void test_dense_oracle(void **state)
{
    static real want[MOST_ROWS * WIDTH];
    for (int i = 0; i < PATTERNS; i++) {
        const struct pattern *p = &patterns[i];
        int64_t load[16] = {0};
        open_pattern(&s, p, DTYPE_REAL);
        experts_begin_step(&s.part.experts, 1);
        run(&s, TAPE_TRAIN, NULL, NULL);
        for (int64_t r = 0; r < p->rows; r++) {
            double y[WIDTH] = {0};
            dense_row(&s, s.x + r * WIDTH, y, load);
            for (int k = 0; k < WIDTH; k++) want[r * WIDTH + k] = (real)y[k];
        }
        check_near_within(p->name, s.y, want, p->rows * WIDTH, DTYPE_REAL, 1e-6);
        assert_memory_equal(s.part.experts.load, load, sizeof *load * (size_t)s.part.experts.experts);
        if (p->hot >= 0) assert_int_equal(load[p->hot], p->rows);
        if (p->cold >= 0) assert_int_equal(load[p->cold], 0);
        memcpy(want, s.y, sizeof(real) * (size_t)(p->rows * WIDTH));
        run(&s, TAPE_INFER, NULL, NULL); /* inference is the same, and not counted */
        assert_memory_equal(want, s.y, sizeof(real) * (size_t)(p->rows * WIDTH));
        assert_memory_equal(s.part.experts.load, load, sizeof *load * (size_t)s.part.experts.experts);
        close_scene(&s);
    }
}

/* ---- gradients ---- */

#ifdef CYTOMILL_DOUBLE
/* Truncation 1e-10 and rounding 1e-11 of the sum, relative to the largest entry; a choice that flips would be off by
 * far more, and with these numbers none does. */
static void check_difference(const char *pattern, const char *name, double *x, double gradient, double largest)
{
    const double h = 1e-5, at = *x;
    *x = at + h;
    linears_pack(&s.part.linears, &s.part.params);
    double up = run(&s, TAPE_INFER, NULL, NULL);
    *x = at - h;
    linears_pack(&s.part.linears, &s.part.params);
    double difference = (up - run(&s, TAPE_INFER, NULL, NULL)) / (2 * h);
    *x = at;
    if (!(fabs(gradient - difference) <= 2e-7 * largest))
        fail_msg("%s, %s: gradient %.9g, difference %.9g", pattern, name, gradient, difference);
}

static double largest_of(const double *x, int64_t count)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(x[i]));
    return largest;
}
#endif

static void test_gradients(void **state)
{
#ifndef CYTOMILL_DOUBLE
    skip(); /* differences say something in double alone */
#else
    for (int i = 0; i < PATTERNS; i++) {
        const struct pattern *p = &patterns[i];
        struct rng r = rng_at(4, RNG_TEST, (uint64_t)i, 0);
        open_pattern(&s, p, DTYPE_REAL);
        if (s.rows > 40) s.rows = 40;
        run_back(&s);
        double largest = largest_of(s.dx, s.rows * WIDTH);
        for (int k = 0; k < 12 && s.rows; k++) {
            int64_t at = (int64_t)rng_below(&r, (uint64_t)(s.rows * WIDTH));
            check_difference(p->name, "x", &s.x[at], s.dx[at], largest);
        }
        for (int t = 0; t < s.part.params.count; t++) {
            const struct param *row = &s.part.params.rows[t];
            const double *d = param_gradient(&s.part.params, t);
            double size = largest_of(d, row->rows * row->cols);
            if (!row->trainable) assert_true(size == 0);
            for (int k = 0; k < 6 && row->trainable; k++) {
                int64_t at = (int64_t)rng_below(&r, (uint64_t)(row->rows * row->cols));
                check_difference(p->name, row->name, param_weight(&s.part.params, t) + at, d[at],
                                 fmax(size, 1e-3 * largest));
            }
        }
        close_scene(&s);
    }
#endif
}

static void test_threads_change_nothing(void **state)
{
    for (int i = 0; i < PATTERNS; i++)
        for (int t = 0; t < test_type_count; t++) {
            open_pattern(&s, &patterns[i], test_types[t]);
            open_pattern(&other, &patterns[i], test_types[t]);
            run_back(&s);
            for (int threads = 2; threads <= 3; threads++) {
                prepare(&other, threads);
                run_back(&other);
                assert_memory_equal(s.y, other.y, sizeof s.y);
                assert_memory_equal(s.dx, other.dx, sizeof s.dx);
                assert_memory_equal(s.part.params.gradient, other.part.params.gradient,
                                    sizeof(real) * (size_t)s.part.params.size);
            }
            close_scene(&s);
            close_scene(&other);
        }
    omp_set_num_threads(1);
}

/* An expert's weight gradient is summed over its rows alone, in their order: without others' rows it is the same. */
static void test_weight_gradient_is_of_own_rows(void **state)
{
    enum { EXPERT = 2 };
    static const char keys[] = "model.experts=4 model.experts_per_token=1";
    static real kept[WIDTH * WIDTH];
    int64_t own = 0;
    open_pattern(&s, &(struct pattern){"", keys, 300, -1, -1}, DTYPE_REAL);
    run_back(&s);
    int weight = param_find(&s.part.params, "ffn.experts.2.o_proj.weight");
    memcpy(kept, param_gradient(&s.part.params, weight), sizeof kept);
    for (int64_t r = 0; r < s.rows; r++) {
        int64_t load[16] = {0};
        double y[WIDTH] = {0};
        dense_row(&s, s.x + r * WIDTH, y, load);
        if (!load[EXPERT]) continue;
        memmove(s.x + own * WIDTH, s.x + r * WIDTH, sizeof(real) * WIDTH);
        memmove(s.weights + own++ * WIDTH, s.weights + r * WIDTH, sizeof(real) * WIDTH);
    }
    assert_true(own > 20 && own < 200);
    s.rows = own;
    run_back(&s);
    assert_memory_equal(kept, param_gradient(&s.part.params, weight), sizeof kept);
    close_scene(&s);
}

#ifndef CYTOMILL_DOUBLE
/* Choices are made in fp32 from the same rows, so they agree; results and gradients are rounded to 8 bits a few times,
 * weights once: 3e-2 of the largest entry, measured 1.2e-2. */
static void test_bf16(void **state)
{
    for (int i = 0; i < PATTERNS; i++) {
        open_pattern(&s, &patterns[i], DTYPE_F32);
        open_pattern(&other, &patterns[i], DTYPE_BF16);
        run_back(&s);
        run_back(&other);
        int64_t count = s.rows * WIDTH;
        check_near_within("y", other.y, s.y, count, DTYPE_F32, 3e-2);
        check_near_within("dx", other.dx, s.dx, count, DTYPE_F32, 3e-2);
        for (int t = 0; t < s.part.params.count; t++)
            check_near_within(s.part.params.rows[t].name, param_gradient(&other.part.params, t),
                              param_gradient(&s.part.params, t),
                              s.part.params.rows[t].rows * s.part.params.rows[t].cols, DTYPE_F32, 3e-2);
        close_scene(&s);
        close_scene(&other);
    }
}
#endif

/* ---- a model that trains ---- */

enum { GENES = 200, CELLS = 4, TOKENS = CELLS * 61 };

struct trained {
    struct config *config;
    struct vocab *vocab;
    struct model *model;
    struct batch batch;
    struct optimiser *optimiser;
};

static void open_trained(struct trained *t, const char *keys)
{
    *t = (struct trained){0};
    OK(config_create(&t->config));
    set(t->config, "model.layers=2 model.width=64 model.heads=2 model.value_width=32 model.feed_forward=moe "
                   "model.experts=4 model.experts_per_token=1 train.rate=2e-3 run.seed=8");
    set(t->config, keys);
    t->vocab = golden_vocab(GENES);
    OK(batch_create(CELLS, TOKENS, &t->batch));
    OK(model_create(t->config, t->vocab, NULL, &t->model));
    OK(param_allocate(model_params(t->model), true));
    param_initialise(model_params(t->model), 8);
    OK(model_prepare(t->model, &(struct model_limits){.cells = CELLS, .tokens = TOKENS, .train = true, .threads = 1}));
    OK(model_pack(t->model));
    OK(optimiser_create(t->config, model_params(t->model), &t->optimiser));
}

static void close_trained(struct trained *t)
{
    optimiser_destroy(&t->optimiser);
    model_destroy(&t->model);
    vocab_destroy(&t->vocab);
    config_destroy(&t->config);
    batch_destroy(&t->batch);
}

/* `steps` steps; the mean imbalance of the last ten. */
static double train(struct trained *t, int steps)
{
    struct param_table *params = model_params(t->model);
    struct expert_layers *experts = model_experts(t->model);
    double sum = 0;
    for (int step = 0; step < steps; step++) {
        struct loss_sum loss = {0};
        batch_clear(&t->batch);
        for (int c = 0; c < CELLS; c++) add_cell(&t->batch, step * CELLS + c, 60, GENES);
        batch_find_levels(&t->batch);
        memset(params->gradient, 0, sizeof(real) * (size_t)params->size);
        experts_begin_step(experts, (double)t->batch.token_count);
        OK(model_gradient(t->model, &t->batch, 1.0 / 60, (uint64_t)step, &loss));
        int64_t rows = t->batch.token_count + CELLS + (int64_t)loss.weight, slots = 0; /* the last layer: rows read */
        for (int64_t i = 0; i < experts_load_count(experts); i++) slots += experts->load[i];
        if (experts->count == 2) assert_int_equal(slots, rows);
        assert_true(isfinite(optimiser_measure(t->optimiser)));
        optimiser_step(t->optimiser, step);
        experts_end_step(experts, params);
        OK(model_pack(t->model));
        if (step >= steps - 10) sum += experts_imbalance(experts) / 10;
    }
    return sum;
}

static double imbalance_with(const char *keys)
{
    struct trained t;
    open_trained(&t, keys);
    double after = train(&t, 40);
    close_trained(&t);
    return after;
}

/* Of four experts, 1 is even and 4 is one that does all. */
static void test_balance(void **state)
{
    double none = imbalance_with("model.expert_balance=none");
    double loss = imbalance_with("model.expert_balance=loss model.expert_balance_weight=0.3");
    double bias = imbalance_with("model.expert_balance=bias model.expert_balance_rate=5e-3");
    if (getenv("VERBOSE")) print_message("imbalance: none %.3f, loss %.3f, bias %.3f\n", none, loss, bias);
    assert_true(none > 1.6);
    assert_true(loss < 1 + 0.6 * (none - 1));
    assert_true(bias < 1 + 0.6 * (none - 1));
}

/* ---- which cells an expert works for ---- */

static int64_t rows_of_cell(const struct batch *b, int cell, bool last_block)
{
    int64_t rows = 0;
    for (int64_t t = b->offsets[cell]; t < b->offsets[cell + 1]; t++)
        rows += !last_block || b->role[t] == TOKEN_CLS || b->loss_weight[t] != 0;
    return rows;
}

/* Cell 1 is of group 0, cell 2 of none, cell 3 of group 1, cell 0 is not listed: every row of a cell is counted K times
 * in its group, those that somebody reads in the last block, and without dropout as training routes them. */
static void test_usage(void **state)
{
    static const int64_t cell[] = {1, 2, 3};
    static const int32_t group[] = {0, -1, 1}, group_of_cell[CELLS] = {2, 0, 2, 1};
    enum { LAYERS = 3, GROUPS = 3, CHOSEN = 2 };
    struct trained t;
    struct expert_usage u;
    struct loss_sum loss = {0};
    open_trained(&t, "model.layers=3 model.expert_every=2 model.experts_per_token=2 model.dropout=0");
    struct expert_layers *experts = model_experts(t.model);
    for (int every = 2; every >= 1; every--) {
        for (int c = 0; c < CELLS; c++) add_cell(&t.batch, c, 60, GENES);
        batch_find_levels(&t.batch);
        OK(expert_usage_create(LAYERS, experts->experts, GROUPS, CELLS, &u));
        u.cell = cell, u.group = group, u.cells = 3;
        OK(model_loss(t.model, &t.batch, &loss)); /* not counted */
        experts->usage = &u;
        OK(model_loss(t.model, &t.batch, &loss));
        experts->usage = NULL;
        experts_begin_step(experts, (double)t.batch.token_count);
        OK(model_gradient(t.model, &t.batch, 1, 0, &loss));
        int64_t want[LAYERS * GROUPS] = {0};
        for (int block = every - 1; block < LAYERS; block += every)
            for (int c = 0; c < CELLS; c++)
                want[block * GROUPS + group_of_cell[c]] += CHOSEN * rows_of_cell(&t.batch, c, block == LAYERS - 1);
        for (int i = 0; i < LAYERS * GROUPS; i++)
            assert_int_equal(expert_usage_sum(&u, i / GROUPS, i % GROUPS), want[i]);
        for (int l = 0; l < experts->count; l++)
            for (int e = 0; e < experts->experts; e++) {
                int64_t sum = 0;
                for (int g = 0; g < GROUPS; g++) sum += expert_usage_slots(&u, experts->layer[l].block, e, g);
                assert_int_equal(sum, experts->load[l * experts->experts + e]);
            }
        expert_usage_free(&u);
        close_trained(&t);
        open_trained(&t, "model.layers=3 model.experts_per_token=2 model.dropout=0");
        experts = model_experts(t.model);
    }
    close_trained(&t);
}

/* ---- rows of the table and refusals ---- */

static void test_every_other_block(void **state)
{
    struct trained t;
    open_trained(&t, "model.layers=4 model.expert_every=2 model.shared_expert=true model.expert_balance=bias");
    const struct param_table *p = model_params(t.model);
    assert_int_equal(model_experts(t.model)->count, 2);
    assert_int_equal(model_experts(t.model)->layer[0].block, 1);
    assert_int_equal(model_experts(t.model)->layer[1].block, 3);
    assert_true(param_find(p, "encoder.0.ffn.u_proj.weight") >= 0 && param_find(p, "encoder.0.ffn.router.weight") < 0);
    assert_true(param_find(p, "encoder.1.ffn.u_proj.weight") < 0 &&
                param_find(p, "encoder.1.ffn.shared.u_proj.weight") >= 0);
    assert_true(param_find(p, "encoder.3.ffn.experts.3.o_proj.weight") >= 0);
    const struct param *bias = &p->rows[param_find(p, "encoder.3.ffn.router.bias")];
    assert_true(!bias->trainable && !bias->decay && bias->cols == 4);
    const struct param *dense = &p->rows[param_find(p, "encoder.0.ffn.o_proj.weight")],
                       *expert = &p->rows[param_find(p, "encoder.1.ffn.experts.2.o_proj.weight")];
    assert_true(expert->init_scale == dense->init_scale && expert->decay && expert->trainable);
    train(&t, 2);
    close_trained(&t);
    open_trained(&t, "model.feed_forward=sglu");
    assert_int_equal(model_experts(t.model)->count, 0);
    train(&t, 1);
    close_trained(&t);
}

static void refused(const char *keys, const char *word)
{
    struct config *config;
    struct model *model;
    struct vocab *vocab = golden_vocab(GENES);
    OK(config_create(&config));
    set(config, "model.layers=2 model.width=64 model.heads=2 model.feed_forward=moe");
    set(config, keys);
    assert_int_equal(model_create(config, vocab, NULL, &model), ST_CONFIG);
    assert_non_null(strstr(status_message(), word));
    assert_null(strchr(status_message(), '\n'));
    assert_null(model);
    status_clear();
    vocab_destroy(&vocab);
    config_destroy(&config);
}

static void test_refusals(void **state)
{
    refused("model.experts=4 model.experts_per_token=5", "model.experts_per_token is '5'");
    refused("model.expert_every=3", "model.expert_every is '3'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_oracle),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_weight_gradient_is_of_own_rows),
#ifndef CYTOMILL_DOUBLE
        cmocka_unit_test(test_bf16),
#endif
        cmocka_unit_test(test_balance),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_every_other_block),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
