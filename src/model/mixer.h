/* Mixers: the part of a block in which tokens see each other.
 *
 * A mixer has three entries, one interface for retention sums, key-value caches and state spaces:
 *   full     every row of `readers` reads every key among `keys` of its cell
 *   prefill  full, and the state that is left is returned
 *   step     more rows come: the state grows by them and they read it
 * `keys` and `readers` may differ (the last layer reads few rows; cross attention reads others'). */
#ifndef CYTOMILL_MODEL_MIXER_H
#define CYTOMILL_MODEL_MIXER_H

#include "model/build.h"
#include "model/pass.h"

struct mixer;

struct mixer_kind {
    const char *name; /* word of model.mixer */
    /* Build with parameters under `prefix` ("encoder.3.attn"). */
    enum status (*create)(struct build *build, const char *prefix, struct mixer **out);
    void (*destroy)(struct mixer *mixer);
    /* y for `readers` from `keys`; rows tell which row belongs to which cell. If `state` is not NULL
     * it is what earlier keys left (*state, NULL = nothing) and becomes what these leave. */
    struct tensor *(*run)(const struct mixer *mixer, const struct pass *pass, struct tensor *keys,
                          const struct rows *key_rows, struct tensor *readers, const struct rows *reader_rows,
                          struct tensor **state);
};

/* Every kind embeds this first. */
struct mixer {
    const struct mixer_kind *kind;
};

extern const struct mixer_kind *const mixer_kinds[]; /* NULL-terminated: the registry */

/* The mixer model.mixer names. ST_CONFIG. Local. */
MUST_CHECK enum status mixer_create(struct build *build, const char *prefix, struct mixer **out);
void mixer_destroy(struct mixer **mixer);

static inline struct tensor *mixer_full(const struct mixer *m, const struct pass *pass, struct tensor *keys,
                                        const struct rows *key_rows, struct tensor *readers,
                                        const struct rows *reader_rows)
{
    return m->kind->run(m, pass, keys, key_rows, readers, reader_rows, NULL);
}

static inline struct tensor *mixer_prefill(const struct mixer *m, const struct pass *pass, struct tensor *x,
                                           const struct rows *rows, struct tensor **state)
{
    *state = NULL;
    return m->kind->run(m, pass, x, rows, x, rows, state);
}

static inline struct tensor *mixer_step(const struct mixer *m, const struct pass *pass, struct tensor *x,
                                        const struct rows *rows, struct tensor **state)
{
    return m->kind->run(m, pass, x, rows, x, rows, state);
}

#endif
