/* What the tests of the tape share: numbers to differentiate by, a pass over what a test builds of them, central
 * differences. Header only, so that every test stays one file. */
#ifndef CYTOMILL_TESTS_TAPE_SCENE_H
#define CYTOMILL_TESTS_TAPE_SCENE_H

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

static inline struct leaf *add_leaf(struct scene *s, bool input, int64_t rows, int64_t cols)
{
    struct leaf *l = &s->leaf[s->leaves];
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)s->leaves++, 0);
    assert_true(rows * cols <= LEAF_REALS);
    l->rows = rows, l->cols = cols, l->input = input;
    for (int64_t i = 0; i < rows * cols; i++) l->value[i] = (real)rng_normal(&r);
    return l;
}

static inline struct tensor *in(struct scene *s, int i)
{
    struct leaf *l = &s->leaf[i];
    l->tensor = tape_tensor(s->tape, DTYPE_REAL, l->rows, l->cols);
    l->tensor->wants_gradient = true;
    memcpy(l->tensor->data, l->value, sizeof(real) * (size_t)(l->rows * l->cols));
    return l->tensor;
}

static inline struct weight parameter(struct scene *s, int i)
{
    return (struct weight){s->leaf[i].value, s->leaf[i].gradient, true};
}

/* sum of weights * out, or the error of an objective. */
static inline double run(struct scene *s, build_fn *build, struct tensor **out)
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

static inline void backward(struct scene *s, build_fn *build)
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

static inline void open_scene(struct scene *s)
{
    *s = (struct scene){0};
    OK(arena_create(&s->arena, 1 << 20));
    OK(tape_create(&s->arena, 32, &s->tape));
    struct rng r = rng_at(2, RNG_TEST, 0, 0);
    for (int i = 0; i < LEAF_REALS; i++) s->weights[i] = (real)rng_normal(&r);
}

static inline void close_scene(struct scene *s)
{
    tape_destroy(&s->tape);
    product_destroy(&s->map.product);
    free(s->packed.forward);
    for (int e = 0; e < EXPERTS; e++) free(s->expert_packed[e].forward);
    free(s->scratch);
    arena_destroy(&s->arena);
}

/* Every element of every leaf. */
static inline void check_differences(struct scene *s, build_fn *build, const char *name)
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

static inline struct product_weight weight_memory(const struct product *product)
{
    struct arena measured = {0};
    product_weight_take(product, &measured);
    struct arena memory = {.base = aligned_alloc(64, (measured.used_bytes + 63) / 64 * 64),
                           .size_bytes = measured.used_bytes};
    return product_weight_take(product, &memory);
}

/* A map of this shape with its product, scratch and packed weight. */
static inline void make_map(struct scene *s, int64_t width, int64_t out, int parts)
{
    struct product_spec spec = {
        .in = width, .out = out, .parts = parts, .type = DTYPE_REAL, .backward = true, .threads = 1};
    s->map = (struct linear){.in = width, .out = out, .parts = parts, .learns = true};
    OK(product_create(&spec, &s->map.product));
    s->packed = weight_memory(s->map.product);
    s->scratch = aligned_alloc(64, (product_scratch_bytes(s->map.product) + 127) / 64 * 64);
    product_set_scratch(s->map.product, s->scratch);
}

#endif
