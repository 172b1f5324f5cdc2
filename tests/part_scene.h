/* What tests and benchmarks of a single part of a model (a block, a feed-forward) share: a place for it in a model of two
 * blocks, and its weights packed. The scene around them is each one's own. */
#ifndef CYTOMILL_TESTS_PART_SCENE_H
#define CYTOMILL_TESTS_PART_SCENE_H

#include "model/build.h"

/* The parts of a scene that a model part is built from. Zero-initialise. */
struct part_scene {
    struct config *config;
    struct param_table params;
    struct linears linears;
    struct expert_layers experts;
    struct arena packed;
};

/* To build a part of block 1 of 2; `hold` says what lies here and stays as long as the build. */
static inline struct build part_build(struct part_scene *s, const struct model_hold *hold, int64_t width)
{
    return (struct build){.config = s->config,
                          .params = &s->params,
                          .linears = &s->linears,
                          .experts = &s->experts,
                          .hold = hold,
                          .layer = 1,
                          .layers = 2,
                          .module = 1,
                          .width = width};
}

/* Pack the weights for passes that train, anew if they were packed before. */
static inline enum status part_pack(struct part_scene *s, enum dtype type, int threads)
{
    enum status st = ST_OK;
    arena_destroy(&s->packed);
    TRY(linears_prepare(&s->linears, &s->params, type, true, threads));
    linears_take(&s->linears, &s->params, &s->packed);
    TRY(arena_create(&s->packed, s->packed.high_bytes));
    linears_take(&s->linears, &s->params, &s->packed);
    linears_pack(&s->linears, &s->params);
done:
    return st;
}

static inline void part_close(struct part_scene *s)
{
    experts_free(&s->experts);
    linears_free(&s->linears);
    param_free(&s->params);
    arena_destroy(&s->packed);
    config_destroy(&s->config);
}

#endif
