/* Mixture of SGLU experts: y = sum over the K chosen of E experts of w_k Wo_k ((Wu_k x) * (Wv_k x)), dropless, with a
 * router in `real` (Shazeer et al., arXiv:1701.06538; ours on CellFM's block), and by choice one expert that every row
 * takes beside them. */
#include "model/ffn_moe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/expert_usage.h"

struct sglu_maps {
    const struct linear *uv, *o;
};

struct moe {
    struct ffn base;
    int experts, chosen; /* E, K */
    enum route_rule rule;
    double balance;                /* weight of the balance term; 0 = none */
    const struct linear *router;   /* [E, D], in `real` */
    int bias;                      /* parameter [E], -1 = none */
    struct expert_layers *layers;  /* the model's; */
    int layer;                     /* this one's place among them, -1 if it lies elsewhere */
    const struct linear **uv, **o; /* [E] each */
    struct sglu_maps shared;       /* NULL without */
};

static enum status check(const struct build *b)
{
    int64_t experts = config_int(b->config, "model.experts"), chosen = config_int(b->config, "model.experts_per_token");
    if (config_int(b->config, "model.expert_every") > b->layers)
        return config_fail(b->config, "model.expert_every",
                           "a model of %d blocks then has no experts; choose at most %d", b->layers, b->layers);
    if (chosen <= experts) return ST_OK;
    return config_fail(b->config, "model.experts_per_token",
                       "there are %lld experts (model.experts); choose at most %lld", (long long)experts,
                       (long long)experts);
}

/* Starts as the plain SGLU does. */
static enum status create_sglu(struct build *b, const char *prefix, struct sglu_maps *out)
{
    static const char *const names[] = {"u", "v", "o"};
    enum { U, V, O, COUNT };
    enum status st = ST_OK;
    int p[COUNT];
    struct param spec = build_xavier(b->width, b->width, pow(8.0 * b->layers, -0.25));
    for (int i = 0; i < COUNT; i++) TRY(build_param(b, spec, &p[i], "%s.%s_proj.weight", prefix, names[i]));
    TRY(build_linear(b, &p[U], 2, &out->uv));
    TRY(build_linear(b, &p[O], 1, &out->o));
done:
    return st;
}

static enum status create_router(struct moe *m, struct build *b, const char *prefix)
{
    enum status st = ST_OK;
    int weight;
    TRY(build_param(b, build_xavier(m->experts, b->width, 1), &weight, "%s.router.weight", prefix));
    TRY(build_linear_fine(b, weight, &m->router));
    if (config_word_is(b->config, "model.expert_balance", "bias")) {
        TRY(build_param(b, build_vector(m->experts, INIT_ZERO), &m->bias, "%s.router.bias", prefix));
        b->params->rows[m->bias].trainable = false; /* moved by rule: experts_end_step */
    }
    m->layers->rate = config_real(b->config, "model.expert_balance_rate");
    if (m->router) TRY(experts_add(m->layers, (struct expert_layer){b->layer, m->bias}, m->experts, &m->layer));
done:
    return st;
}

static enum status create_experts(struct moe *m, struct build *b, const char *prefix)
{
    enum status st = ST_OK;
    char name[80];
    TRY(NEW_ARRAY(m->uv, m->experts));
    TRY(NEW_ARRAY(m->o, m->experts));
    b->experts_total = m->experts;
    for (b->expert = 0; b->expert < m->experts; b->expert++) {
        struct sglu_maps maps;
        snprintf(name, sizeof name, "%s.experts.%d", prefix, b->expert);
        TRY(create_sglu(b, name, &maps));
        m->uv[b->expert] = maps.uv;
        m->o[b->expert] = maps.o;
    }
    b->experts_total = 0;
    if (!config_bool(b->config, "model.shared_expert")) return ST_OK;
    snprintf(name, sizeof name, "%s.shared", prefix);
    TRY(create_sglu(b, name, &m->shared));
done:
    return st;
}

static void moe_destroy(struct ffn *f)
{
    struct moe *m = (void *)f;
    free(m->uv);
    free(m->o);
    free(m);
}

static enum status moe_create(struct build *b, const char *prefix, struct ffn **out)
{
    enum status st = ST_OK;
    struct moe *m = NULL;
    TRY(check(b));
    if ((b->layer + 1) % config_int(b->config, "model.expert_every") != 0)
        return ffn_create_kind(&ffn_sglu, b, prefix, out);
    TRY(NEW_ARRAY(m, 1));
    *m = (struct moe){.experts = (int)config_int(b->config, "model.experts"),
                      .chosen = (int)config_int(b->config, "model.experts_per_token"),
                      .bias = -1,
                      .layer = -1,
                      .layers = b->experts};
    m->rule = config_word_is(b->config, "model.expert_gate", "topk-softmax") ? ROUTE_TOPK_SOFTMAX : ROUTE_SOFTMAX_TOPK;
    if (config_word_is(b->config, "model.expert_balance", "loss"))
        m->balance = config_real(b->config, "model.expert_balance_weight");
    TRY(create_router(m, b, prefix));
    TRY(create_experts(m, b, prefix));
done:
    *out = m ? &m->base : NULL;
    return st;
}

/* ---- the three steps ---- */

struct tensor *moe_route(const struct ffn *f, const struct pass *pass, struct tensor *x, struct routing *routing)
{
    const struct moe *m = (const void *)f;
    struct tape *t = pass->tape;
    struct op_route how = {.chosen = m->chosen,
                           .rule = m->rule,
                           .bias = m->bias >= 0 ? pass_weight(pass, m->bias).value : NULL,
                           .balance = m->balance * pass->balance_scale,
                           .load = tape_trains(t) ? m->layers->load + m->layer * m->experts : NULL,
                           .count = expert_usage_count(m->layers, m->layer, pass, x->rows)};
    struct tensor *logits = op_linear(t, m->router, op_convert(t, x, DTYPE_REAL));
    tape_tap(t, "router", logits);
    *routing = op_route(t, logits, &how);
    return op_dispatch(t, x, routing);
}

struct tensor *moe_experts(const struct ffn *f, const struct pass *pass, struct tensor *rows, struct expert_runs runs)
{
    const struct moe *m = (const void *)f;
    const struct expert_ranks *ranks = pass->stop ? &pass->stop->travel.ranks : NULL;
    int first = ranks ? ranks->experts / ranks->ranks * ranks->rank : 0;
    struct tensor *g = op_gate_product(pass->tape, op_expert_linear(pass->tape, m->uv + first, rows, runs));
    tape_tap(pass->tape, "gate", g);
    return op_expert_linear(pass->tape, m->o + first, g, runs);
}

struct tensor *moe_combine(const struct ffn *f, const struct pass *pass, struct tensor *results,
                           const struct routing *routing, struct tensor *x)
{
    const struct moe *m = (const void *)f;
    struct tape *t = pass->tape;
    struct tensor *shared = NULL;
    if (m->shared.uv) shared = op_linear(t, m->shared.o, op_gate_product(t, op_linear(t, m->shared.uv, x)));
    return op_combine(t, results, routing, shared);
}

/* One run for each expert: all rows came from here. */
static struct expert_runs own_runs(const struct pass *pass, const struct routing *routing)
{
    const int64_t *first = routing->order.first;
    struct expert_run *list = tape_take(pass->tape, (size_t)routing->experts * sizeof *list);
    for (int e = 0; list && e < routing->experts; e++)
        list[e] = (struct expert_run){e, first[e], first[e + 1] - first[e]};
    return (struct expert_runs){routing->experts, list};
}

/* The experts here, on rows that came: on the pass's tape or on another. */
static struct tensor *run_come(const void *self, const void *pass, struct tape *tape, struct tensor *rows,
                               struct expert_runs runs)
{
    struct pass apart = *(const struct pass *)pass;
    apart.tape = tape;
    return moe_experts(self, &apart, rows, runs);
}

/* Experts lie on other ranks, too: rows go there and results come back. */
static struct tensor *moe_resume(const struct ffn *f, const struct pass *pass)
{
    struct stop *stop = pass->stop;
    struct tensor *results = travel_on(&stop->travel, pass->tape);
    return results ? moe_combine(f, pass, results, &stop->routing, stop->x) : NULL;
}

static struct tensor *moe_run(const struct ffn *f, const struct pass *pass, struct tensor *x)
{
    struct routing routing;
    struct stop *stop = pass->stop;
    struct tensor *rows = moe_route(f, pass, x, &routing);
    if (!stop) return moe_combine(f, pass, moe_experts(f, pass, rows, own_runs(pass, &routing)), &routing, x);
    stop->routing = routing;
    stop->x = x;
    travel_begin(&stop->travel, pass->tape, rows, &routing, &(struct travel_experts){run_come, f, pass});
    return tape_measures(pass->tape) ? moe_resume(f, pass) : NULL;
}

const struct ffn_kind ffn_moe = {"moe", moe_create, moe_destroy, moe_run, moe_resume};
