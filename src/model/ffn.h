/* Feed-forwards: the part of a block that works on each token alone. */
#ifndef CYTOMILL_MODEL_FFN_H
#define CYTOMILL_MODEL_FFN_H

#include "model/build.h"
#include "model/pass.h"

struct ffn;

struct ffn_kind {
    const char *name; /* word of model.feed_forward */
    enum status (*create)(struct build *build, const char *prefix, struct ffn **out);
    void (*destroy)(struct ffn *ffn);
    /* [R, D] -> [R, D]; NULL where it stops (pass->stop), and then `resume` when the move is done, until it is through. */
    struct tensor *(*run)(const struct ffn *ffn, const struct pass *pass, struct tensor *x);
    struct tensor *(*resume)(const struct ffn *ffn, const struct pass *pass); /* NULL for a kind that never stops */
};

/* Every kind embeds this first. */
struct ffn {
    const struct ffn_kind *kind;
};

extern const struct ffn_kind *const ffn_kinds[]; /* NULL-terminated: the registry */
extern const struct ffn_kind ffn_sglu;

/* The feed-forward model.feed_forward names. ST_CONFIG. Local. */
MUST_CHECK enum status ffn_create(struct build *build, const char *prefix, struct ffn **out);
/* One of this kind: how a kind leaves a block to another. Local. */
MUST_CHECK enum status ffn_create_kind(const struct ffn_kind *kind, struct build *build, const char *prefix,
                                       struct ffn **out);
void ffn_destroy(struct ffn **ffn);

#endif
