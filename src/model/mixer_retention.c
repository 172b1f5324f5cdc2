/* CellFM's gated retention: linear attention with ReLU features, RMS norm per head, SiLU gate.
 *     y = Wo [RMSnorm(Q sum_j K_j^T V_j) * SiLU(u)]      spec: CellFM, Nat. Commun. 16, 4679, 2025
 * Its state is the sum K^T V, [C, C] per head. */
#include <math.h>
#include <stdlib.h>

#include "kernel/retention.h"
#include "model/mixer.h"

struct retention {
    struct mixer base;
    int heads;
    bool scales; /* Q, K by 1/sqrt(C) and V by 1/sqrt(n), as published; the norm cancels them */
    bool masks;  /* hidden genes are no keys in this layer */
    const struct linear *qu, *kv, *o;
};

/* Published: hidden genes are no keys in layers 0 .. L/2-1, and are from L/2 on. */
static bool masks_keys(const struct build *b)
{
    if (config_word_is(b->config, "model.key_mask", "half")) return b->layer < b->layers / 2;
    return config_word_is(b->config, "model.key_mask", "all");
}

static enum status check_heads(const struct build *b)
{
    int64_t heads = config_int(b->config, "model.heads"), width = b->width / heads;
    if (b->width % heads != 0)
        return config_fail(b->config, "model.heads", "%lld heads do not divide the width %lld; choose a divisor",
                           (long long)heads, (long long)b->width);
    if (width > RETENTION_MAX_HEAD_WIDTH)
        return config_fail(b->config, "model.heads",
                           "%lld heads of width %lld each, at most %d allowed; take more heads", (long long)heads,
                           (long long)width, RETENTION_MAX_HEAD_WIDTH);
    return ST_OK;
}

static enum status retention_create(struct build *b, const char *prefix, struct mixer **out)
{
    static const char *const names[] = {"q", "k", "v", "u", "o"};
    enum { Q, K, V, U, O, COUNT };
    enum status st = ST_OK;
    struct retention *r = NULL;
    int p[COUNT];
    double beta = pow(8.0 * b->layers, -0.25); /* DeepNorm's gain of values and outputs */
    TRY(check_heads(b));
    TRY(NEW_ARRAY(r, 1));
    *r = (struct retention){.heads = (int)config_int(b->config, "model.heads"),
                            .masks = masks_keys(b),
                            .scales = config_word_is(b->config, "model.qk_scale", "published")};
    for (int i = 0; i < COUNT; i++)
        TRY(build_param(b, build_xavier(b->width, b->width, i <= K ? 1 : beta), &p[i], "%s.%s_proj.weight", prefix,
                        names[i]));
    TRY(build_linear(b, (int[]){p[Q], p[U]}, 2, &r->qu));
    TRY(build_linear(b, (int[]){p[K], p[V]}, 2, &r->kv));
    TRY(build_linear(b, &p[O], 1, &r->o));
done:
    *out = r ? &r->base : NULL;
    return st;
}

static void retention_destroy(struct mixer *m) { free(m); }

static struct tensor *retention_run(const struct mixer *m, const struct pass *pass, struct tensor *keys,
                                    const struct rows *key_rows, struct tensor *readers, const struct rows *reader_rows,
                                    struct tensor **state)
{
    const struct retention *r = (const void *)m;
    struct tape *t = pass->tape;
    struct op_retention how = {.rows = key_rows->cells, .heads = r->heads, .feature_scale = 1};
    if (r->scales) how.feature_scale = 1 / sqrt((double)keys->cols / r->heads), how.value_scale = pass->value_scale;
    if (r->masks) how.key_mask = pass->key_mask;
    struct tensor *kv = op_linear(t, r->kv, keys);
    tape_tap(t, "kv", kv);
    struct tensor *sum = op_retention_state(t, kv, state ? *state : NULL, &how);
    tape_tap(t, "state", sum);
    how.rows = reader_rows->cells;
    struct tensor *qu = op_linear(t, r->qu, readers);
    tape_tap(t, "qu", qu);
    struct tensor *o = op_retention_read(t, qu, sum, &how);
    tape_tap(t, "retention", o);
    if (state) *state = sum;
    return op_linear(t, r->o, o);
}

const struct mixer_kind mixer_retention = {"retention", retention_create, retention_destroy, retention_run};
