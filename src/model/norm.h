/* Norm placements: how a sub-layer F is joined to the residual stream.
 *     DeepNorm   y = LN(lambda x + Drop(F(x)))       before: x             after: the norm
 *     pre-norm   y = x + Drop(F(LN(x)))              before: the norm      after: the sum
 * so a placement is what happens before F and what happens after it. */
#ifndef CYTOMILL_MODEL_NORM_H
#define CYTOMILL_MODEL_NORM_H

#include "model/build.h"
#include "model/pass.h"

struct norm;

struct norm_kind {
    const char *name; /* word of model.norm */
    /* `sublayer` 0 is around the mixer, 1 around the feed-forward; parameters under `prefix`. */
    enum status (*create)(struct build *build, const char *prefix, int sublayer, struct norm **out);
    void (*destroy)(struct norm *norm);
    struct tensor *(*before)(const struct norm *norm, const struct pass *pass, struct tensor *x);
    struct tensor *(*after)(const struct norm *norm, const struct pass *pass, const struct rows *rows, struct tensor *x,
                            struct tensor *f);
};

/* Every kind embeds this first. */
struct norm {
    const struct norm_kind *kind;
};

extern const struct norm_kind *const norm_kinds[]; /* NULL-terminated: the registry */

/* The placement model.norm names. ST_CONFIG. Local. */
MUST_CHECK enum status norm_create(struct build *build, const char *prefix, int sublayer, struct norm **out);
void norm_destroy(struct norm **norm);

#endif
