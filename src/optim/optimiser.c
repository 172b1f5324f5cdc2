#include "optim/optimiser.h"

#include <math.h>
#include <stdlib.h>

#include "kernel/vector.h"

enum clip_kind { CLIP_NONE, CLIP_VALUE, CLIP_TENSOR, CLIP_GLOBAL };

struct optimiser {
    struct param_table *params; /* borrowed */
    struct rate_schedule schedule;
    struct adam adam; /* what all rows and steps share */
    enum clip_kind clip;
    double clip_at;
    double norm;    /* of the whole gradient, by optimiser_norm */
    double *square; /* [pieces] of each piece's norm */
    double *tensor; /* [params->count] norm of each tensor */
};

/* ---- schedule ---- */

struct rate_schedule rate_schedule_from(const struct config *config)
{
    return (struct rate_schedule){
        .kind = config_word_is(config, "train.schedule", "cosine")   ? RATE_COSINE
                : config_word_is(config, "train.schedule", "linear") ? RATE_LINEAR
                                                                     : RATE_CONSTANT,
        .peak = config_real(config, "train.rate"),
        .end = config_real(config, "train.rate_end"),
        .warmup = config_int(config, "train.warmup"),
        .steps = config_int(config, "train.steps"),
    };
}

double rate_schedule_at(const struct rate_schedule *s, int64_t step)
{
    if (step < s->warmup) return s->peak * (double)(step + 1) / (double)(s->warmup + 1);
    int64_t span = s->steps - 1 - s->warmup;
    double done = span > 0 ? (double)(step - s->warmup) / (double)span : 0;
    if (done > 1) done = 1;
    switch (s->kind) {
    case RATE_COSINE: return s->end + (s->peak - s->end) * 0.5 * (1 + cos(M_PI * done));
    case RATE_LINEAR: return s->peak + (s->end - s->peak) * done;
    case RATE_CONSTANT: break;
    }
    return s->peak;
}

/* ---- optimiser ---- */

static enum clip_kind clip_from(const struct config *config)
{
    if (config_word_is(config, "train.clip", "value")) return CLIP_VALUE;
    if (config_word_is(config, "train.clip", "tensor")) return CLIP_TENSOR;
    return config_word_is(config, "train.clip", "global") ? CLIP_GLOBAL : CLIP_NONE;
}

enum status optimiser_create(const struct config *config, struct param_table *params, struct optimiser **out)
{
    enum status st = ST_OK;
    struct optimiser *o = NULL;
    TRY(NEW_ARRAY(o, 1));
    *o = (struct optimiser){
        .params = params,
        .schedule = rate_schedule_from(config),
        .adam = {.beta1 = config_real(config, "train.beta1"),
                 .beta2 = config_real(config, "train.beta2"),
                 .eps = config_real(config, "train.eps"),
                 .decoupled = config_word_is(config, "train.decay_kind", "decoupled")},
        .clip = clip_from(config),
        .clip_at = config_real(config, "train.clip_at"),
    };
    o->adam.decay = config_real(config, "train.decay");
    if (o->schedule.warmup >= o->schedule.steps && o->schedule.warmup > 0)
        TRY(config_fail(config, "train.warmup", "%lld warm-up steps in a run of %lld; give fewer than train.steps",
                        (long long)o->schedule.warmup, (long long)o->schedule.steps));
    TRY(NEW_ARRAY(o->square, params->shard.count));
    TRY(NEW_ARRAY(o->tensor, params->count));
    *out = o;
    o = NULL;
done:
    optimiser_destroy(&o);
    return st;
}

void optimiser_destroy(struct optimiser **optimiser)
{
    if (!*optimiser) return;
    free((*optimiser)->square);
    free((*optimiser)->tensor);
    free(*optimiser);
    *optimiser = NULL;
}

double optimiser_rate(const struct optimiser *o, int64_t step) { return rate_schedule_at(&o->schedule, step); }

double *optimiser_squares(struct optimiser *o)
{
    const struct shard *shard = &o->params->shard;
    for (int64_t i = 0; i < shard->count; i++) {
        const struct piece *piece = &shard->piece[i];
        const struct param *p = &o->params->rows[piece->tensor];
        o->square[i] = 0;
        if (p->trainable && !p->copy && shard_owns(shard, piece))
            vector_square_sum(&o->square[i], o->params->gradient + piece->at, piece->reals);
    }
    return o->square;
}

double optimiser_norm(struct optimiser *o)
{
    double all = 0;
    for (int i = 0; i < o->params->count; i++) o->tensor[i] = 0;
    for (int64_t i = 0; i < o->params->shard.count; i++) o->tensor[o->params->shard.piece[i].tensor] += o->square[i];
    for (int i = 0; i < o->params->count; i++) {
        all += o->tensor[i];
        o->tensor[i] = sqrt(o->tensor[i]);
    }
    return o->norm = sqrt(all);
}

double optimiser_measure(struct optimiser *o)
{
    optimiser_squares(o);
    return optimiser_norm(o);
}

/* Factor that brings a norm down to the limit. */
static double shrink(double norm, double limit) { return norm > limit ? limit / norm : 1; }

/* Adam's numbers for a tensor in this step. */
static struct adam adam_of(const struct optimiser *o, int tensor, int64_t step)
{
    const struct param *p = &o->params->rows[tensor];
    enum clip_kind clip = p->clip ? o->clip : CLIP_NONE;
    struct adam adam = o->adam;
    adam.t = step + 1;
    adam.rate = optimiser_rate(o, step) * p->rate_scale;
    adam.decay = p->decay ? o->adam.decay : 0;
    adam.clip = clip == CLIP_VALUE ? o->clip_at : 0;
    adam.scale = clip == CLIP_TENSOR   ? shrink(o->tensor[tensor], o->clip_at)
                 : clip == CLIP_GLOBAL ? shrink(o->norm, o->clip_at)
                                       : 1;
    return adam;
}

void optimiser_step(struct optimiser *o, int64_t step)
{
    struct param_table *t = o->params;
    for (int64_t i = 0; i < t->shard.count; i++) {
        const struct piece *piece = &t->shard.piece[i];
        if (!t->rows[piece->tensor].trainable || !shard_owns(&t->shard, piece)) continue;
        struct adam adam = adam_of(o, piece->tensor, step);
        adam_step(param_piece_weight(t, piece), t->moment1 + piece->moment, t->moment2 + piece->moment,
                  t->gradient + piece->at, piece->reals, &adam);
    }
}
