/* The model's promises: published sizes and starts; an embedding depends on its cell alone; gradients
 * do not depend on threads, add up over cells, and are those of the loss; a mixer's step equals full;
 * dropout is keyed by cell and step; nothing allocates in a step; bad configurations are refused.
 * plan: ranks=1 limit=120 */
#include "kernel_check.h"

#include <omp.h>

#include "base/rng.h"
#include "cell_scene.h"
#include "golden.h"
#include "model/mixer.h"

#define OK(call) assert_int_equal((call), ST_OK)

/* ---- a model and cells of unequal length ---- */

enum { GENES = 400, CELLS = 7, TOKENS = 1024 };
static const int lengths[CELLS] = {130, 1, 57, 300, 4, 129, 255};

struct fixture {
    struct config *config;
    struct vocab *vocab;
    struct model *model;
    struct batch batch;
    int64_t width;
};

static void set(struct config *config, const char *assignment) { OK(config_set(config, assignment, "test")); }

/* Several assignments, with blanks between; NULL for none. */
static void set_all(struct config *config, const char *assignments)
{
    char text[512], *rest = text;
    snprintf(text, sizeof text, "%s", assignments ? assignments : "");
    for (char *one; (one = strtok_r(rest, " ", &rest)) != NULL;) set(config, one);
}

/* What must hold for every feed-forward: SGLU, and experts in every other block. */
static const char *const kinds[] = {"model.feed_forward=sglu",
                                    "model.layers=4 model.feed_forward=moe model.experts=5 model.expert_every=2 "
                                    "model.expert_balance=bias model.shared_expert=true"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void prepare(struct fixture *f, int threads, bool low)
{
    omp_set_num_threads(threads);
    OK(model_prepare(f->model, &(struct model_limits){
                                   .cells = CELLS, .tokens = TOKENS, .train = true, .threads = threads, .bf16 = low}));
    OK(model_pack(f->model));
}

static void open_model(struct fixture *f, const char *extra)
{
    static const char *const keys[] = {"model.layers=3",       "model.width=96",  "model.heads=3",
                                       "model.value_width=32", "model.dropout=0", "run.seed=3"};
    *f = (struct fixture){.width = 96};
    OK(config_create(&f->config));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) set(f->config, keys[i]);
    set_all(f->config, extra);
    f->vocab = golden_vocab(GENES);
    OK(batch_create(CELLS, TOKENS, &f->batch));
    OK(model_create(f->config, f->vocab, NULL, &f->model));
    OK(param_allocate(model_params(f->model), true));
    golden_weights(model_params(f->model), 0);
}

static void open_kind(struct fixture *f, int kind, const char *extra)
{
    char text[512];
    snprintf(text, sizeof text, "%s %s", kinds[kind], extra ? extra : "");
    open_model(f, text);
}

static void close_model(struct fixture *f)
{
    model_destroy(&f->model);
    vocab_destroy(&f->vocab);
    config_destroy(&f->config);
    batch_destroy(&f->batch);
}

static void fill(struct batch *b, const int *which, int count)
{
    batch_clear(b);
    for (int i = 0; i < count; i++) add_cell(b, 70 + which[i], lengths[which[i]], GENES);
    batch_find_levels(b);
}

static const int all[CELLS] = {0, 1, 2, 3, 4, 5, 6};

/* ---- sizes and start ---- */

static void check_parameters(int layers, int genes, int64_t expected, double gene_sd, double beta_sd)
{
    struct config *config;
    struct vocab *vocab = golden_vocab(genes);
    struct model *model;
    struct model_cost cost;
    OK(config_create(&config));
    golden_set(config, "model.layers", layers);
    OK(model_create(config, vocab, NULL, &model));
    OK(model_measure(model, &(struct model_limits){.cells = 4, .tokens = 4 * 2049, .train = true, .threads = 1}, NULL,
                     &cost));
    assert_int_equal(cost.parameters, expected);
    const struct param_table *t = model_params(model);
    const struct param *gene = &t->rows[param_find(t, "gene_emb")],
                       *v = &t->rows[param_find(t, "encoder.0.attn.v_proj.weight")];
    assert_int_equal(gene->rows % 8, 0);
    assert_true(gene->rows > genes && gene->sparse_rows && !gene->decay);
    assert_true(fabs(gene->init_scale - gene_sd) < 1e-6 && fabs(v->init_scale - beta_sd) < 1e-6);
    assert_true(t->rows[param_find(t, "cls_token")].decay &&
                t->rows[param_find(t, "encoder.0.post_norm1.gamma")].decay);
    /* eight products of D x D a layer, of which the last layer runs six on few rows */
    double block = 16.0 * 1536 * 1536, all_layers = layers * block;
    assert_true(cost.forward_flops_per_token < all_layers && cost.forward_flops_per_token > all_layers - 0.8 * block);
    assert_true(cost.train_flops_per_token > 2.5 * cost.forward_flops_per_token);
    model_destroy(&model);
    vocab_destroy(&vocab);
    config_destroy(&config);
}

static void test_published_models(void **state)
{
    check_parameters(40, 24078, 797391105, 0.004418, 0.236435 * 0.025516);
    check_parameters(2, 27855, 85731585, 0.004124, 0.5 * 0.025516);
}

static void test_pad_row_is_zero(void **state)
{
    struct fixture f;
    open_model(&f, NULL);
    struct param_table *t = model_params(f.model);
    param_initialise(t, 1);
    int gene = param_find(t, "gene_emb");
    for (int k = 0; k < f.width; k++) assert_true(param_weight(t, gene)[k] == 0);
    assert_true(param_weight(t, gene)[f.width] != 0);
    close_model(&f);
}

/* ---- an embedding depends on its cell alone ---- */

static void check_embedding_alone(int kind, bool low)
{
    static const int order[CELLS] = {5, 3, 0, 6, 1, 4, 2};
    struct fixture f;
    static float together[CELLS * 96], shuffled[CELLS * 96], alone[96];
    open_kind(&f, kind, NULL);
    prepare(&f, 1, low);
    fill(&f.batch, all, CELLS);
    OK(model_embed(f.model, &f.batch, together));
    size_t bytes = (size_t)f.width * sizeof(float);
    for (int threads = 1; threads <= 3; threads++) {
        prepare(&f, threads, low);
        fill(&f.batch, order, CELLS);
        OK(model_embed(f.model, &f.batch, shuffled));
        for (int i = 0; i < CELLS; i++)
            assert_memory_equal(shuffled + i * f.width, together + order[i] * f.width, bytes);
        for (int i = 0; i < CELLS; i++) {
            fill(&f.batch, &all[i], 1);
            OK(model_embed(f.model, &f.batch, alone));
            assert_memory_equal(alone, together + i * f.width, bytes);
        }
    }
    for (int i = 0; i < CELLS * f.width; i++) assert_true(isfinite(together[i]));
    assert_true(memcmp(together, together + f.width, bytes) != 0);
    close_model(&f);
}

static void test_embedding_depends_on_its_cell_alone(void **state)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (int low = 0; low <= (sizeof(real) == 4); low++) check_embedding_alone(kind, low);
}

/* ---- gradients ---- */

static void gradient_of(struct fixture *f, double scale, uint64_t step, struct loss_sum *loss)
{
    struct param_table *t = model_params(f->model);
    memset(t->gradient, 0, (size_t)t->size * sizeof(real));
    *loss = (struct loss_sum){0};
    OK(model_gradient(f->model, &f->batch, scale, step, loss));
}

static real *copy_gradient(struct fixture *f)
{
    const struct param_table *t = model_params(f->model);
    real *copy = malloc((size_t)t->size * sizeof(real));
    memcpy(copy, t->gradient, (size_t)t->size * sizeof(real));
    return copy;
}

static void check_gradient_ignores_threads(int kind)
{
    struct fixture f;
    struct loss_sum loss, first;
    open_kind(&f, kind, "model.dropout=0.3");
    for (int low = 0; low <= (sizeof(real) == 4); low++) {
        prepare(&f, 1, low);
        fill(&f.batch, all, CELLS);
        gradient_of(&f, 0.01, 4, &first);
        real *one = copy_gradient(&f);
        for (int threads = 2; threads <= 3; threads++) {
            prepare(&f, threads, low);
            gradient_of(&f, 0.01, 4, &loss);
            assert_memory_equal(one, model_params(f.model)->gradient,
                                (size_t)model_params(f.model)->size * sizeof(real));
            assert_memory_equal(&loss, &first, sizeof loss);
        }
        free(one);
    }
    close_model(&f);
}

static void test_gradient_ignores_threads(void **state)
{
    for (int kind = 0; kind < KINDS; kind++) check_gradient_ignores_threads(kind);
}

/* Largest difference of two gradients over the largest entry of that tensor. */
static double worst_difference(const struct param_table *t, const real *a, const real *b)
{
    double worst = 0;
    for (int i = 0; i < t->count; i++) {
        double difference = 0, size = 0;
        for (int64_t k = t->rows[i].offset; k < t->rows[i].offset + t->rows[i].rows * t->rows[i].cols; k++) {
            difference = fmax(difference, fabs((double)a[k] - (double)b[k]));
            size = fmax(size, fabs((double)a[k]));
        }
        if (size > 0) worst = fmax(worst, difference / size);
    }
    return worst;
}

/* The first layer: nothing is dropped where dropout grows with the layer, something where it is constant. */
static void test_dropout_by_layer(void **state)
{
    for (int constant = 0; constant < 2; constant++) {
        struct fixture f;
        struct loss_sum dropped = {0}, still;
        open_model(&f, NULL);
        set(f.config, "model.layers=1");
        set(f.config, "model.dropout=0.3");
        if (constant) set(f.config, "model.dropout_by_layer=constant");
        model_destroy(&f.model);
        OK(model_create(f.config, f.vocab, NULL, &f.model));
        OK(param_allocate(model_params(f.model), true));
        golden_weights(model_params(f.model), 0);
        prepare(&f, 1, false);
        fill(&f.batch, all, CELLS);
        OK(model_gradient(f.model, &f.batch, 1, 5, &dropped));
        OK(model_loss(f.model, &f.batch, &still));
        assert_true((fabs(dropped.genewise / still.genewise - 1) > 1e-4) == constant);
        close_model(&f);
    }
}

/* With dropout too: masks are keyed by cell, so a cell's gradient is the same in any batch. */
static void check_gradients_add_up(int kind)
{
    struct fixture f;
    struct loss_sum whole, parts = {0};
    open_kind(&f, kind, "model.dropout=0.3");
    prepare(&f, 1, false);
    struct param_table *t = model_params(f.model);
    fill(&f.batch, all, CELLS);
    gradient_of(&f, 0.02, 9, &whole);
    real *together = copy_gradient(&f);
    memset(t->gradient, 0, (size_t)t->size * sizeof(real));
    for (int i = 0; i < CELLS; i += 3) {
        fill(&f.batch, all + i, CELLS - i < 3 ? CELLS - i : 3);
        OK(model_gradient(f.model, &f.batch, 0.02, 9, &parts));
    }
    assert_true(worst_difference(t, together, t->gradient) < 2e-6);
    assert_true(fabs(parts.genewise / whole.genewise - 1) < 1e-6 && fabs(parts.cellwise / whole.cellwise - 1) < 1e-6);
    assert_true(parts.weight == whole.weight && parts.hidden == whole.hidden);
    free(together);
    close_model(&f);
}

static void test_gradients_add_up_over_cells(void **state)
{
    for (int kind = 0; kind < KINDS; kind++) check_gradients_add_up(kind);
}

static void test_dropout_is_keyed_by_step(void **state)
{
    struct fixture f;
    struct loss_sum loss;
    open_model(&f, "model.dropout=0.3");
    prepare(&f, 1, false);
    const struct param_table *t = model_params(f.model);
    fill(&f.batch, all, CELLS);
    gradient_of(&f, 0.02, 9, &loss);
    real *first = copy_gradient(&f);
    gradient_of(&f, 0.02, 9, &loss);
    assert_true(worst_difference(t, first, t->gradient) == 0);
    gradient_of(&f, 0.02, 10, &loss);
    assert_true(worst_difference(t, first, t->gradient) > 1e-2);
    struct loss_sum still;
    OK(model_loss(f.model, &f.batch, &still)); /* evaluation has no dropout */
    assert_true(fabs(still.genewise / loss.genewise - 1) > 1e-4);
    free(first);
    close_model(&f);
}

/* Rows that nobody reads are not computed; what is read must not notice. */
static void check_loss_equals_predictions(int kind)
{
    struct fixture f;
    struct loss_sum loss;
    static float genewise[TOKENS], cellwise[TOKENS];
    double error[2] = {0}, hidden = 0, hidden_error = 0;
    open_kind(&f, kind, NULL);
    prepare(&f, 1, false);
    fill(&f.batch, all, CELLS);
    OK(model_predict(f.model, &f.batch, genewise, cellwise));
    OK(model_loss(f.model, &f.batch, &loss));
    for (int64_t t = 0; t < f.batch.token_count; t++) {
        if (f.batch.role[t] == TOKEN_CLS) assert_true(genewise[t] == 0 && cellwise[t] == 0);
        error[0] += f.batch.loss_weight[t] * pow(genewise[t] - f.batch.target[t], 2);
        error[1] += f.batch.loss_weight[t] * pow(cellwise[t] - f.batch.target[t], 2);
        if (f.batch.role[t] == TOKEN_CLS || f.batch.visible[t]) continue;
        hidden += f.batch.loss_weight[t];
        hidden_error += f.batch.loss_weight[t] * pow(genewise[t] - f.batch.target[t], 2);
    }
    assert_true(loss.hidden == hidden && hidden > 100 && loss.weight > hidden + 50);
    assert_true(fabs(loss.genewise / error[0] - 1) < 1e-5 && fabs(loss.cellwise / error[1] - 1) < 1e-5);
    assert_true(fabs(loss.genewise_hidden / hidden_error - 1) < 1e-5);
    close_model(&f);
}

static void test_loss_equals_predictions(void **state)
{
    for (int kind = 0; kind < KINDS; kind++) check_loss_equals_predictions(kind);
}

/* ---- the mixer's three entries ---- */

struct mixer_scene {
    struct param_table params;
    struct linears linears;
    struct arena packed, memory;
    struct tape *tape;
    struct mixer *mixer;
    struct pass pass;
};

static void open_mixer(struct mixer_scene *s, const struct config *config)
{
    *s = (struct mixer_scene){0};
    struct model_hold hold = model_hold_all(4);
    struct build build = {
        .config = config, .params = &s->params, .linears = &s->linears, .hold = &hold, .layers = 4, .width = 96};
    OK(mixer_create(&build, "mixer", &s->mixer));
    OK(param_allocate(&s->params, false));
    golden_weights(&s->params, 0);
    OK(linears_prepare(&s->linears, &s->params, DTYPE_REAL, false, 1));
    linears_take(&s->linears, &s->params, &s->packed);
    OK(arena_create(&s->packed, s->packed.high_bytes));
    linears_take(&s->linears, &s->params, &s->packed);
    linears_pack(&s->linears, &s->params);
    OK(arena_create(&s->memory, 8 << 20));
    OK(tape_create(&s->memory, 256, &s->tape));
    s->pass = (struct pass){.tape = s->tape, .params = &s->params, .type = DTYPE_REAL};
    tape_begin(s->tape, TAPE_INFER);
    tape_segment(s->tape, "test", 0, NULL);
}

static void close_mixer(struct mixer_scene *s)
{
    mixer_destroy(&s->mixer);
    linears_free(&s->linears);
    param_free(&s->params);
    tape_destroy(&s->tape);
    arena_destroy(&s->packed);
    arena_destroy(&s->memory);
}

/* Prefill with some rows of one cell, then one row at a time; the last row then reads all of them,
 * as it does in the full sequence. */
static void test_mixer_step_equals_full(void **state)
{
    enum { ROWS = 20, FIRST = 13 };
    struct fixture f;
    struct mixer_scene s;
    open_model(&f, "model.qk_scale=none");
    set(f.config, "model.key_mask=none");
    open_mixer(&s, f.config);
    int64_t ends[][2] = {{0, ROWS}, {0, FIRST}, {0, 1}};
    struct rows rows[3];
    for (int i = 0; i < 3; i++) rows[i] = (struct rows){.count = ends[i][1], .cells = {1, ends[i]}};
    struct tensor *x = tape_tensor(s.tape, DTYPE_REAL, ROWS, f.width), *y = NULL, *kept = NULL;
    struct rng r = rng_at(5, RNG_TEST, 0, 0);
    for (int i = 0; i < ROWS * f.width; i++) ((real *)x->data)[i] = (real)rng_normal(&r);
    struct tensor *full = mixer_full(s.mixer, &s.pass, x, &rows[0], x, &rows[0]);
    y = mixer_prefill(s.mixer, &s.pass, tape_wrap(s.tape, x->data, DTYPE_REAL, FIRST, f.width), &rows[1], &kept);
    for (int i = FIRST; i < ROWS; i++)
        y = mixer_step(s.mixer, &s.pass, tape_wrap(s.tape, (real *)x->data + i * f.width, DTYPE_REAL, 1, f.width),
                       &rows[2], &kept);
    for (int k = 0; k < f.width; k++) {
        double a = ((real *)full->data)[(ROWS - 1) * f.width + k], b = ((real *)y->data)[k];
        assert_true(fabs(a - b) < 1e-4);
        assert_true(a != 0);
    }
    close_mixer(&s);
    close_model(&f);
}

/* ---- switches ---- */

static void embed_with(const char *extra, float *z)
{
    struct fixture f;
    open_model(&f, extra);
    prepare(&f, 1, false);
    fill(&f.batch, all, CELLS);
    OK(model_embed(f.model, &f.batch, z));
    close_model(&f);
}

static double distance(const float *a, const float *b)
{
    double worst = 0;
    for (int i = 0; i < CELLS * 96; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    return worst;
}

static void test_switches(void **state)
{
    static const char *const moves[] = {"model.key_mask=all", "model.key_mask=none", "model.slope=0.01",
                                        "model.norm_eps=1e-2"};
    static float base[CELLS * 96], z[CELLS * 96];
    embed_with(NULL, base);
    embed_with("model.qk_scale=none", z);
    assert_true(distance(base, z) < 1e-4); /* the norm cancels the scales */
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        embed_with(moves[i], z);
        assert_true(distance(base, z) > 1e-3);
    }
}

/* ---- limits ---- */

static void check_step_allocates_nothing(int kind)
{
    struct fixture f;
    struct loss_sum loss = {0};
    static float z[CELLS * 96];
    open_kind(&f, kind, "model.dropout=0.3");
    for (int low = 0; low <= (sizeof(real) == 4); low++) {
        prepare(&f, 2, low);
        fill(&f.batch, all, CELLS);
        OK(model_gradient(f.model, &f.batch, 1, 0, &loss)); /* OpenMP makes its threads once */
        allocations_begin();
        OK(model_gradient(f.model, &f.batch, 1, 1, &loss));
        OK(model_pack(f.model));
        OK(model_embed(f.model, &f.batch, z));
        OK(model_loss(f.model, &f.batch, &loss));
        struct allocations seen = allocations_end();
        assert_int_equal(seen.ours, 0);
        assert_true(seen.library_largest <= 32768); /* oneDNN's argument lists, a few hundred bytes each */
    }
    close_model(&f);
}

static void test_step_allocates_nothing(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(CYTOMILL_DOUBLE)
    skip(); /* nothing to count with; OpenBLAS takes memory of its own */
#endif
    for (int kind = 0; kind < KINDS; kind++) check_step_allocates_nothing(kind);
    allocations_begin();
    void *own;
    OK(mem_alloc(&own, 1, 1, "a byte"));
    free(own);
    assert_int_equal(allocations_end().ours, 1); /* the counter does count */
}

static void test_refusals(void **state)
{
    struct fixture f;
    struct model *model = NULL;
    struct loss_sum loss;
    open_model(&f, NULL);
    prepare(&f, 1, false);
    struct param_table *t = model_params(f.model);
    param_weight(t, param_find(t, "encoder.1.attn.o_proj.weight"))[5] = NAN;
    OK(model_pack(f.model));
    fill(&f.batch, all, CELLS);
    assert_int_equal(model_loss(f.model, &f.batch, &loss), ST_NUMERIC);
    assert_non_null(strstr(status_message(), "not finite"));
    status_clear();
    static const char *const wrong[] = {"model.heads=5",
                                        "model.heads=1"}; /* no divisor; a head wider than kernels take */
    for (int i = 0; i < 2; i++) {
        set(f.config, "model.width=256");
        set(f.config, wrong[i]);
        assert_int_equal(model_create(f.config, f.vocab, NULL, &model), ST_CONFIG);
        assert_non_null(strstr(status_message(), "model.heads"));
        assert_null(model);
        status_clear();
    }
    close_model(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_models),
        cmocka_unit_test(test_pad_row_is_zero),
        cmocka_unit_test(test_embedding_depends_on_its_cell_alone),
        cmocka_unit_test(test_gradient_ignores_threads),
        cmocka_unit_test(test_gradients_add_up_over_cells),
        cmocka_unit_test(test_dropout_is_keyed_by_step),
        cmocka_unit_test(test_dropout_by_layer),
        cmocka_unit_test(test_loss_equals_predictions),
        cmocka_unit_test(test_mixer_step_equals_full),
        cmocka_unit_test(test_switches),
        cmocka_unit_test(test_step_allocates_nothing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
