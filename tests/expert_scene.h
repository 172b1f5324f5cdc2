/* What the tests of experts share: one feed-forward of block 1 of 2 by itself, with rows
 * that bf16 holds exactly. Header only, so that every test stays one file. */
#ifndef CYTOMILL_TESTS_EXPERT_SCENE_H
#define CYTOMILL_TESTS_EXPERT_SCENE_H

#include "tests/kernel_check.h"

#include <omp.h>

#include "golden.h"
#include "model/ffn_moe.h"
#include "part_scene.h"

#define OK(call) assert_int_equal((call), ST_OK)

enum { WIDTH = 48, MOST_ROWS = 300 };

struct scene {
    struct part_scene part;
    struct arena memory;
    struct tape *tape;
    struct ffn *ffn;
    struct pass pass;
    enum dtype type;
    int64_t rows;
    real x[MOST_ROWS * WIDTH], dx[MOST_ROWS * WIDTH], y[MOST_ROWS * WIDTH], weights[MOST_ROWS * WIDTH];
};

static inline void set(struct config *config, const char *assignments)
{
    char text[512], *rest = text;
    snprintf(text, sizeof text, "%s", assignments);
    for (char *one; (one = strtok_r(rest, " ", &rest)) != NULL;) OK(config_set(config, one, "test"));
}

static inline void prepare(struct scene *s, int threads)
{
    omp_set_num_threads(threads);
    OK(part_pack(&s->part, s->type, threads));
}

static inline void open_scene(struct scene *s, const char *keys, int64_t rows, enum dtype type)
{
    struct model_hold hold = model_hold_all(2);
    *s = (struct scene){.rows = rows, .type = type};
    OK(config_create(&s->part.config));
    set(s->part.config, "model.feed_forward=moe model.expert_balance=bias");
    set(s->part.config, keys);
    struct build build = part_build(&s->part, &hold, WIDTH);
    OK(ffn_create(&build, "ffn", &s->ffn));
    OK(param_allocate(&s->part.params, true));
    golden_weights(&s->part.params, 0);
    struct rng r = rng_at(6, RNG_TEST, 0, 0);
    for (int64_t i = 0; i < rows * WIDTH; i++) {
        s->x[i] = (real)bf16_to_float(bf16_from_float((float)rng_normal(&r)));
        s->weights[i] = (real)bf16_to_float(bf16_from_float((float)rng_normal(&r)));
    }
    prepare(s, 1);
    OK(arena_create(&s->memory, 16 << 20));
    OK(tape_create(&s->memory, 64, &s->tape));
}

static inline void close_scene(struct scene *s)
{
    ffn_destroy(&s->ffn);
    tape_destroy(&s->tape);
    arena_destroy(&s->memory);
    part_close(&s->part);
}

static inline real *weight_of(struct scene *s, const char *name)
{
    int i = param_find(&s->part.params, name);
    if (i < 0) fail_msg("no parameter %s", name);
    return param_weight(&s->part.params, i);
}

#endif
