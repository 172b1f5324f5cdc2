/* A family of models: a graph of named modules, and what the facade (model.h) asks of it. */
#ifndef CYTOMILL_MODEL_FAMILY_H
#define CYTOMILL_MODEL_FAMILY_H

#include "cell/vocab.h"
#include "model/build.h"
#include "model/pass.h"

struct family {
    const char *name; /* word of model.family */
    /* Build the modules; parameters go into build->params. */
    enum status (*create)(struct build *build, const struct vocab *vocab, void **out);
    void (*destroy)(void *self);
    /* Take the memory of prepared segments: what is computed once per change of the weights. */
    void (*take)(void *self, struct arena *arena, bool train);
    /* Redo the prepared segments, which are the embedding's; called after every change of its weights. */
    void (*refresh)(void *self, const struct param_table *params);
    /* Before and after the backward pass through the embedding alone: clear the gradients of the prepared segments'
     * results, and carry them on to the parameters. */
    void (*begin_gradient)(void *self);
    void (*end_gradient)(void *self, const struct param_table *params);
    /* Tokens h[S, D] before the first block. */
    struct tensor *(*embed)(const void *self, const struct pass *pass);
    /* Through block i: [S, D] -> [S, D], after the last block rows [R, D] that pass->read names. NULL where it stops
     * (pass->stop); `resume` goes on when the move is done, and may stop again. */
    struct tensor *(*block)(const void *self, const struct pass *pass, int i, struct tensor *x);
    struct tensor *(*resume)(const void *self, const struct pass *pass, int i);
    /* Predictions [R, 1] of both heads, in `real`, for the rows the last block returned. */
    void (*decode)(const void *self, const struct pass *pass, struct tensor *h, struct tensor **genewise,
                   struct tensor **cellwise);
    /* vectors[count, D]: the cell-wise head's prediction of genes[i] is vectors[i] . z. */
    void (*read_out)(const void *self, const struct param_table *params, const int32_t *genes, int count,
                     float *vectors);
};

extern const struct family *const families[]; /* NULL-terminated: the registry */

/* The family model.family names. ST_CONFIG. Local. */
MUST_CHECK enum status family_find(const struct config *config, const struct family **out);

#endif
