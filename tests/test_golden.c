/* The model against its PyTorch twin on parity weights: every inner value, both losses, every
 * gradient, ten optimiser steps; bf16 against the twin's own bf16 error; and that leaving out any
 * one term would be noticed. An argument names another golden file, a second one (--table) prints
 * every error beside its limit (validation/check_twin.sh).
 * plan: ranks=1 limit=60 configs=release,sanitize,double */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "golden.h"
#include "kernel/vector.h"
#include "optim/optimiser.h"

/* Largest relative error (root mean square) per quantity, at width 64; it grows with the root of the
 * width, as rounding does in sums. fp32: products of rounded numbers through two layers forward (and
 * back); double: the same, 2^29 times finer. Adam's first step is +-rate whatever the gradient's size,
 * so entries with tiny gradients lose digits. */
#ifdef CYTOMILL_DOUBLE
static const double inner_limit = 1e-13, loss_limit = 1e-13, gradient_limit = 1e-12, step_limit = 1e-9;
#else
static const double inner_limit = 1e-6, loss_limit = 1e-6, gradient_limit = 3e-6, step_limit = 4e-5;
#endif
/* A deleted term must move what is compared by at least this many limits. */
static const double deletion_factor = 100;
/* bf16: our error over the twin's own bf16 error. */
static const double bf16_factor = 1.5;

static struct golden golden;
static bool table; /* print what was found */

/* Is `error` within `limit`? Says so if not, or if a table is wanted. */
static bool within(const char *what, const char *name, double error, double limit)
{
    if (table) printf("PARITY\t%s\t%s\t%.2g\t%.2g\n", what, name, error, limit);
    if (error <= limit) return true;
    print_error("%s, %s: relative error %.3g, allowed %.3g\n", what, name, error, limit);
    return false;
}

static const int32_t *sizes(void) { return golden_find(&golden, "%s", "shape.sizes")->data; } /* L, D, H, b, V */
static double grown(double limit) { return limit * sqrt(sizes()[1] / 64.0); }

struct fixture {
    struct config *config;
    struct vocab *vocab;
    struct model *model;
    struct batch batch;
};

#define OK(call) assert_int_equal((call), ST_OK)

static void open_model(struct fixture *f, bool low)
{
    if (low && sizeof(real) == 8) skip(); /* the double build has no bf16 */
    f->config = golden_config(&golden);
    f->vocab = golden_vocab(sizes()[4]);
    OK(batch_create(8, 2048, &f->batch));
    OK(model_create(f->config, f->vocab, NULL, &f->model));
    OK(param_allocate(model_params(f->model), true));
    golden_weights(model_params(f->model), 0);
    OK(model_prepare(f->model,
                     &(struct model_limits){.cells = 8, .tokens = 2048, .train = true, .threads = 1, .bf16 = low}));
    OK(model_pack(f->model));
    golden_batch(&golden, 0, (int)golden_find(&golden, "%s", "cell.length")->count, &f->batch);
}

static void close_model(struct fixture *f)
{
    model_destroy(&f->model);
    vocab_destroy(&f->vocab);
    config_destroy(&f->config);
    batch_destroy(&f->batch);
}

/* The bf16 error of a few numbers is luck, and so is that of all gradients together where the batch has few cells:
 * an error of a cell's embedding moves all its predictions alike. What the golden file has on several draws of the
 * weights is judged over these (test_drawn_quantities_bf16): the few numbers in the committed file, every gradient
 * in the realistic one. */
enum { DRAWS = 8, MOST_DRAWN = 64 };

static bool is_drawn(const char *name) { return golden_look(&golden, "draw.1.%s", name) != NULL; }

/* ---- inner values ---- */

struct tap_check {
    const char *prefix; /* "tap." compares with the truth */
    bool low;
    int seen, failed;
    const struct batch *batch;
};

static void compare(struct tap_check *c, const char *name, const double *found, int64_t count)
{
    const struct golden_record *truth = golden_find(&golden, "tap.%s", name);
    double limit = c->low ? bf16_factor * *golden_doubles(&golden, "bf16.tap.%s", name) : grown(inner_limit);
    assert_int_equal(truth->count, count);
    double error = golden_error(found, truth->data, count);
    c->seen++;
    if (c->low && is_drawn(name)) return;
    if (!within(c->low ? "inner value, bf16" : "inner value", name, error, limit)) c->failed++;
}

/* Columns [first, first+width) of a value, rows without cls ones if `genes_only`. */
static int64_t columns(double *out, const struct tensor *x, int64_t first, int64_t width,
                       const struct batch *genes_only)
{
    int64_t n = 0;
    for (int64_t r = 0; r < x->rows; r++) {
        if (genes_only && genes_only->role[r] == TOKEN_CLS) continue;
        for (int64_t k = 0; k < width; k++) out[n++] = dtype_load(x->data, r * x->cols + first + k, x->type);
    }
    return n;
}

static void check_tap(void *context, const char *segment, int index, const char *name, const struct tensor *x)
{
    struct tap_check *c = context;
    double *found = malloc(sizeof *found * (size_t)(x->rows * x->cols));
    bool pair = strcmp(name, "kv") == 0 || strcmp(name, "qu") == 0, in_block = strcmp(segment, "block") == 0;
    bool head = strcmp(segment, "heads") == 0;
    if (strcmp(name, "state") != 0) {
        for (int part = 0; part <= (pair ? 1 : 0); part++) {
            char full[64], letter[2] = {name[part], 0};
            int64_t width = pair ? x->cols / 2 : x->cols;
            int64_t n = columns(found, x, part * width, width, head ? c->batch : NULL);
            if (in_block) snprintf(full, sizeof full, "block.%d.%s", index, pair ? letter : name);
            else snprintf(full, sizeof full, "%s", name);
            compare(c, full, found, n);
        }
    }
    free(found);
}

static void check_inner_values(bool low)
{
    struct fixture f;
    open_model(&f, low);
    struct tap_check check = {.low = low, .batch = &f.batch};
    model_set_tap(f.model, check_tap, &check);
    static float genewise[2048], cellwise[2048];
    OK(model_predict(f.model, &f.batch, genewise, cellwise));
    assert_int_equal(check.seen, 1 + 10 * config_int(f.config, "model.layers") + 2);
    assert_int_equal(check.failed, 0);
    close_model(&f);
}

static void test_inner_values(void **state) { check_inner_values(false); }
static void test_inner_values_bf16(void **state) { check_inner_values(true); }

/* ---- losses and gradients ---- */

static double scale_of(void) { return 1 / golden_doubles(&golden, "%s", "loss")[2]; }

/* The bf16 error of one sum is luck, so it is bounded by that of the predictions it is made of: a
 * relative error e of p moves sum (p - y)^2 by at most 2 e |p| / |p - y| + ..., where y is no larger. */
static double bf16_loss_limit(void)
{
    return 4 * bf16_factor *
           fmax(*golden_doubles(&golden, "%s", "bf16.tap.genewise"),
                *golden_doubles(&golden, "%s", "bf16.tap.cellwise"));
}

static void check_gradients(bool low)
{
    struct fixture f;
    open_model(&f, low);
    struct param_table *t = model_params(f.model);
    struct loss_sum loss = {0};
    OK(model_gradient(f.model, &f.batch, scale_of(), 0, &loss));
    const double *truth = golden_doubles(&golden, "%s", "loss");
    static const char *const sums[] = {"gene-wise", "cell-wise", "weight"};
    const double found[] = {loss.genewise, loss.cellwise, loss.weight};
    int failed = 0;
    for (int i = 0; i < 3; i++)
        if (!within(low ? "loss, bf16" : "loss", sums[i], fabs(found[i] / truth[i] - 1),
                    low ? bf16_loss_limit() : grown(loss_limit)))
            failed++;
    for (int i = 0; i < t->count; i++) {
        int64_t n = t->rows[i].rows * t->rows[i].cols;
        double *g = malloc(sizeof *g * (size_t)n);
        for (int64_t k = 0; k < n; k++) g[k] = param_gradient(t, i)[k];
        double error = golden_error(g, golden_doubles(&golden, "grad.%s", t->rows[i].name), n);
        double limit =
            low ? bf16_factor * *golden_doubles(&golden, "bf16.grad.%s", t->rows[i].name) : grown(gradient_limit);
        free(g);
        if (low && is_drawn(t->rows[i].name)) continue;
        if (!within(low ? "gradient, bf16" : "gradient", t->rows[i].name, error, limit)) failed++;
    }
    assert_int_equal(failed, 0);
    close_model(&f);
}

/* Relative error of parameter `name`'s gradient, or of the cell-wise predictions. */
static double drawn_error(struct fixture *f, const char *name, int draw, const float *cellwise)
{
    char key[64];
    snprintf(key, sizeof key, "draw.%d.%%s", draw);
    const struct golden_record *truth = golden_find(&golden, key, name);
    const struct param_table *t = model_params(f->model);
    double *found = malloc(sizeof *found * (size_t)(truth->count + f->batch.token_count + 2));
    int64_t n = 0;
    int row = param_find(t, name);
    if (row >= 0)
        for (; n < truth->count; n++) found[n] = param_gradient(t, row)[n];
    else
        for (int64_t i = 0; i < f->batch.token_count; i++)
            if (f->batch.role[i] != TOKEN_CLS) found[n++] = cellwise[i];
    assert_int_equal(n, truth->count);
    double error = golden_error(found, truth->data, n);
    free(found);
    return error;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double x[DRAWS])
{
    qsort(x, DRAWS, sizeof *x, compare_double);
    return (x[DRAWS / 2 - 1] + x[DRAWS / 2]) / 2;
}

static int drawn_names(const char *names[MOST_DRAWN])
{
    static const char prefix[] = "draw.1.";
    int count = 0;
    for (int i = 0; i < golden.count; i++)
        if (strncmp(golden.records[i].name, prefix, sizeof prefix - 1) == 0) {
            assert_true(count < MOST_DRAWN);
            names[count++] = golden.records[i].name + sizeof prefix - 1;
        }
    return count;
}

static void test_drawn_quantities_bf16(void **state)
{
    struct fixture f;
    const char *names[MOST_DRAWN];
    double errors[MOST_DRAWN][DRAWS];
    int failed = 0, count = drawn_names(names);
    open_model(&f, true);
    struct param_table *t = model_params(f.model);
    assert_true(count >= 4);
    for (int draw = 1; draw <= DRAWS; draw++) {
        struct loss_sum loss = {0};
        static float cellwise[2048];
        golden_weights(t, draw);
        OK(model_pack(f.model));
        memset(t->gradient, 0, (size_t)t->size * sizeof(real));
        OK(model_predict(f.model, &f.batch, NULL, cellwise));
        OK(model_gradient(f.model, &f.batch, scale_of(), 0, &loss));
        for (int i = 0; i < count; i++) errors[i][draw - 1] = drawn_error(&f, names[i], draw, cellwise);
    }
    for (int i = 0; i < count; i++) {
        double error = median(errors[i]), limit = bf16_factor * *golden_doubles(&golden, "bf16.draws.%s", names[i]);
        if (!within("median of draws, bf16", names[i], error, limit)) failed++;
    }
    assert_int_equal(failed, 0);
    close_model(&f);
}

static void test_gradients(void **state) { check_gradients(false); }
static void test_gradients_bf16(void **state) { check_gradients(true); }

/* ---- ten optimiser steps ---- */

static void test_ten_steps(void **state)
{
    struct fixture f;
    open_model(&f, false);
    struct param_table *t = model_params(f.model);
    struct optimiser *o;
    int failed = 0;
    OK(config_set(f.config, "train.rate=1e-3", "test"));
    OK(optimiser_create(f.config, t, &o));
    for (int step = 0; step < 10; step++) {
        struct loss_sum loss = {0};
        memset(t->gradient, 0, (size_t)t->size * sizeof(real));
        OK(model_gradient(f.model, &f.batch, scale_of(), (uint64_t)step, &loss));
        assert_true(isfinite(optimiser_measure(o)));
        optimiser_step(o, step);
        OK(model_pack(f.model));
    }
    for (int i = 0; i < t->count; i++) {
        int64_t n = t->rows[i].rows * t->rows[i].cols;
        double *w = malloc(sizeof *w * (size_t)n);
        for (int64_t k = 0; k < n; k++) w[k] = param_weight(t, i)[k];
        double error = golden_error(w, golden_doubles(&golden, "step.%s", t->rows[i].name), n);
        free(w);
        if (!within("weights after ten steps", t->rows[i].name, error, grown(step_limit))) failed++;
    }
    assert_int_equal(failed, 0);
    optimiser_destroy(&o);
    close_model(&f);
}

/* ---- would the comparison notice? ---- */

/* Size of all gradients together: what the last but one number of "without.*" is. */
static double gradient_size(void)
{
    double sum = 0;
    for (int i = 0; i < golden.count; i++) {
        const struct golden_record *r = &golden.records[i];
        const double *g = r->data;
        if (strncmp(r->name, "grad.", 5) != 0) continue;
        for (int64_t k = 0; k < r->count; k++) sum += g[k] * g[k];
    }
    return sqrt(sum);
}

/* The twin with one term left out must differ, in losses, gradients or embeddings, far beyond what
 * the tests above allow: since the model equals the whole twin, it would then fail them. */
static void test_deleted_terms_are_noticed(void **state)
{
    const int32_t *length = golden_find(&golden, "%s", "cell.length")->data;
    const double *loss = golden_doubles(&golden, "%s", "loss");
    char last[64];
    snprintf(last, sizeof last, "block.%d.norm2", sizes()[0] - 1);
    const double *rows = golden_doubles(&golden, "tap.%s", last);
    int width = sizes()[1], cells = (int)golden_find(&golden, "%s", "cell.length")->count, terms = 0, unnoticed = 0;
    double *cls = malloc(sizeof *cls * (size_t)(width * cells));
    for (int c = 0, first = 0; c < cells; first += length[c++])
        memcpy(cls + c * width, rows + first * width, sizeof *cls * (size_t)width);
    for (int i = 0; i < golden.count; i++) {
        const struct golden_record *r = &golden.records[i];
        const double *without = r->data;
        if (strncmp(r->name, "without.", 8) != 0) continue;
        assert_int_equal(r->count, 3 + width * cells);
        double moved =
            fmax(fmax(fabs(without[0] / loss[0] - 1) / loss_limit, fabs(without[1] / loss[1] - 1) / loss_limit),
                 fmax(fabs(without[2] / gradient_size() - 1) / gradient_limit,
                      golden_error(without + 3, cls, width * cells) / inner_limit));
        if (moved < deletion_factor)
            print_error("leaving out %s moves only %.3g limits\n", r->name + 8, moved), unnoticed++;
        terms++;
    }
    free(cls);
    if (sizes()[1] > 64) skip(); /* the large file has none */
    assert_true(terms >= 30);
    assert_int_equal(unnoticed, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inner_values),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_ten_steps),
        cmocka_unit_test(test_inner_values_bf16),
        cmocka_unit_test(test_gradients_bf16),
        cmocka_unit_test(test_drawn_quantities_bf16),
        cmocka_unit_test(test_deleted_terms_are_noticed),
    };
    table = argc > 2 && strcmp(argv[2], "--table") == 0;
    golden_open(&golden, argc > 1 ? argv[1] : "tests/data/golden/cellfm.bin");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    golden_close(&golden);
    return failed;
}
