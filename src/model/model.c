#include "model/model.h"

#include <stdlib.h>

#include "base/text.h"
#include "model/model_inside.h"

enum status model_create(const struct config *config, const struct vocab *vocab, const struct model_hold *hold,
                         struct model **out)
{
    enum status st = ST_OK;
    struct model *m = NULL;
    TRY(NEW_ARRAY(m, 1));
    *m = (struct model){.name = text_copy(config_text(config, "model.name")),
                        .layers = (int)config_int(config, "model.layers"),
                        .width = config_int(config, "model.width"),
                        .seed = (uint64_t)config_int(config, "run.seed"),
                        .select_fraction = config_real(config, "model.select_fraction"),
                        .experts_per_token = (int)config_int(config, "model.experts_per_token")};
    m->hold = hold ? *hold : model_hold_all(m->layers);
    TRY(NEW_ARRAY(m->expired, m->layers + 2));
    for (int i = 0; i < m->layers + 2; i++) m->expired[i] = false;
    struct build build = {.config = config,
                          .params = &m->params,
                          .linears = &m->linears,
                          .experts = &m->experts,
                          .hold = &m->hold,
                          .layers = m->layers,
                          .width = m->width};
    TRY(family_find(config, &m->family));
    TRY(m->family->create(&build, vocab, &m->self));
done:
    if (st != ST_OK) model_destroy(&m);
    *out = m;
    return st;
}

static void free_slots(struct model *m)
{
    for (int i = 0; i < m->slot_count; i++) {
        tape_destroy(&m->slots[i].tape);
        arena_destroy(&m->slots[i].activations);
    }
    free(m->slots);
    m->slots = NULL;
    m->slot_count = 0;
}

static void free_packed(struct model *m)
{
    for (int kind = 0; kind < PACK_KINDS; kind++) arena_destroy(&m->packed[kind]);
    arena_destroy(&m->scratch);
}

void model_destroy(struct model **model)
{
    struct model *m = *model;
    if (!m) return;
    if (m->family) m->family->destroy(m->self);
    free_slots(m);
    tape_destroy(&m->spare);
    arena_destroy(&m->spare_memory);
    free_packed(m);
    linears_free(&m->linears);
    experts_free(&m->experts);
    param_free(&m->params);
    free(m->expired);
    free(m->name);
    free(m);
    *model = NULL;
}

struct param_table *model_params(struct model *m) { return &m->params; }
struct expert_layers *model_experts(struct model *m) { return &m->experts; }
int model_width(const struct model *m) { return (int)m->width; }
int model_layers(const struct model *m) { return m->layers; }
enum dtype model_product_type(const struct model *m) { return model_type(&m->limits); }

int model_expert_layers(const struct model *m, struct model_part part)
{
    int count = 0;
    for (int i = 0; i < m->experts.count; i++) count += model_part_has(part, m->experts.layer[i].block, m->layers);
    return count;
}

const char *model_name(const struct model *m) { return m->name; }

/* ---- measuring ---- */

struct measured {
    size_t bytes;
    double forward_flops, backward_flops;
};

/* Ops of a pass, with room to spare: 24 a block, 64 for embedding and heads. */
static int most_ops(const struct model *m) { return 24 * m->layers + 64; }

/* The very code of a pass, on an arena without memory. */
static enum status measure_pass(const struct model *m, const struct model_limits *limits, struct model_part part,
                                bool train, enum read read, struct pass_sizes sizes, struct measured *out)
{
    enum status st = ST_OK;
    struct slot slot = {0};
    struct loss_sum unused = {0};
    struct model_how how = {.train = train, .scale = 1};
    TRY(tape_create(&slot.activations, most_ops(m), &slot.tape));
    slot_begin(m, &slot, part, NULL, sizes, read, limits, &how);
    slot_forward(m, &slot, NULL);
    slot_end_forward(m, &slot, NULL, read == READ_CLS ? NULL : &unused);
    if (train) slot_backward(m, &slot, NULL);
    if (train) slot_weights(&slot);
    *out =
        (struct measured){slot.activations.high_bytes, tape_forward_flops(slot.tape), tape_backward_flops(slot.tape)};
done:
    tape_destroy(&slot.tape);
    return st;
}

/* The largest pass of a part that these limits allow: every token a level of its own and read by somebody. */
static enum status measure_largest(const struct model *m, const struct model_limits *limits, struct model_part part,
                                   size_t *bytes)
{
    enum status st = ST_OK;
    struct measured infer, train = {0};
    struct pass_sizes sizes = {limits->cells, limits->tokens, limits->tokens, limits->tokens};
    TRY(measure_pass(m, limits, part, false, READ_LOSS, sizes, &infer));
    if (limits->train) TRY(measure_pass(m, limits, part, true, READ_LOSS, sizes, &train));
    *bytes = infer.bytes > train.bytes ? infer.bytes : train.bytes;
done:
    return st;
}

static int slots_of(const struct model_limits *limits) { return limits->slots > 0 ? limits->slots : 1; }

static enum status measure_flops(const struct model *m, const struct model_limits *limits, struct model_part part,
                                 struct model_cost *cost)
{
    enum status st = ST_OK;
    struct measured embed, train;
    int64_t tokens = limits->tokens, few = 64 * limits->cells; /* a cell has 20 to 90 distinct counts */
    struct pass_sizes sizes = {limits->cells, tokens, tokens < few ? tokens : few, limits->cells};
    TRY(measure_pass(m, limits, part, false, READ_CLS, sizes, &embed));
    sizes.read = limits->cells + (int64_t)(m->select_fraction * (double)tokens);
    TRY(measure_pass(m, limits, part, true, READ_LOSS, sizes, &train));
    cost->forward_flops_per_token += embed.forward_flops / (double)tokens;
    cost->train_flops_per_token += (train.forward_flops + train.backward_flops) / (double)tokens;
done:
    return st;
}

/* Adds a part to what is known of others; slots serve all parts, so the largest counts. */
static enum status measure_part(const struct model *m, const struct model_limits *limits, struct model_part part,
                                struct model_cost *cost)
{
    enum status st = ST_OK;
    size_t packed[PACK_KINDS], activations;
    TRY(linears_measure(&m->linears, &m->params, part, m->layers, model_type(limits), limits->train, limits->threads,
                        packed));
    TRY(measure_flops(m, limits, part, cost));
    TRY(measure_largest(m, limits, part, &activations));
    cost->packed_bytes += packed[PACK_DENSE] + packed[PACK_ROUTED];
    cost->packed_routed += packed[PACK_ROUTED];
    activations *= (size_t)slots_of(limits);
    if (activations > cost->activation_bytes) cost->activation_bytes = activations;
done:
    return st;
}

/* An expert of a block that lies here, on another rank. */
static bool is_away(const struct model *m, const struct param *p)
{
    return p->routed && p->elsewhere && model_hold_has(&m->hold, p->module, m->layers);
}

/* Weights of these parts, and gradients. A row that is tied lies in two parts. */
static void measure_params(const struct model *m, const struct model_hold *hold, bool train, struct model_cost *cost)
{
    for (int i = 0; i < m->params.count; i++) {
        const struct param *p = &m->params.rows[i];
        size_t bytes = (size_t)param_room(p) * sizeof(real);
        bool home = model_hold_has(hold, p->module, m->layers) && !is_away(m, p);
        bool heads = p->tied && model_hold_has(hold, m->layers, m->layers);
        cost->parameters += param_reals(p);
        if (home || heads) cost->weight_bytes += bytes;
        if (home && p->routed) cost->routed_bytes += bytes;
        if (home && heads && train) cost->gradient_bytes += bytes;
    }
    if (train) cost->gradient_bytes += cost->weight_bytes, cost->moment_bytes = 2 * cost->weight_bytes;
}

/* Made first, without memory; measuring the slots runs it, too, and finds how much it needs. */
static enum status make_spare(struct model *m, const struct model_limits *limits)
{
    tape_destroy(&m->spare);
    arena_destroy(&m->spare_memory);
    if (slot_expert_ranks(m, limits).ranks == 1) return ST_OK;
    return tape_create(&m->spare_memory, most_ops(m), &m->spare);
}

enum status model_measure(const struct model *m, const struct model_limits *limits, const struct model_part *part,
                          struct model_cost *cost)
{
    enum status st = ST_OK;
    struct model apart = *m; /* shares all with m but what further rounds of experts run on */
    struct model_hold hold = part ? (struct model_hold){.count = 1, .part = {*part}} : m->hold;
    *cost = (struct model_cost){.message_bytes = (size_t)(limits->tokens * m->width) * dtype_bytes(model_type(limits))};
    measure_params(m, &hold, limits->train, cost);
    apart.spare_memory = (struct arena){0};
    apart.spare = NULL;
    TRY(make_spare(&apart, limits));
    for (int i = 0; i < hold.count; i++) TRY(measure_part(&apart, limits, hold.part[i], cost));
    cost->activation_bytes += apart.spare_memory.high_bytes;
done:
    tape_destroy(&apart.spare);
    return st;
}

/* ---- preparing ---- */

static void take_scratch(struct model *m)
{
    linears_take_scratch(&m->linears, &m->scratch);
    m->family->take(m->self, &m->scratch, m->limits.train);
}

size_t model_packed_bytes(const struct model *m, enum pack_kind kind) { return m->packed[kind].high_bytes; }

enum status model_packers(const struct model *m, enum pack_kind kind, int ranks, int *packer)
{
    return linears_packers(&m->linears, &m->params, kind, ranks, packer);
}

enum status model_place_packed(struct model *m, enum pack_kind kind, void *memory, const int *packer, int rank)
{
    struct arena *arena = &m->packed[kind];
    size_t bytes = arena->high_bytes;
    enum status st = ST_OK;
    arena_destroy(arena);
    if (memory) arena_lend(arena, memory, bytes);
    else st = arena_create(arena, bytes);
    if (st != ST_OK) return st;
    linears_take_packed(&m->linears, &m->params, kind, arena);
    linears_pack_some(&m->linears, &m->params, kind, packer, rank);
    return ST_OK;
}

static enum status make_slots(struct model *m)
{
    enum status st = ST_OK;
    size_t bytes = 0;
    for (int i = 0; i < m->hold.count; i++) {
        size_t one;
        TRY(measure_largest(m, &m->limits, m->hold.part[i], &one));
        if (one > bytes) bytes = one;
    }
    TRY(NEW_ARRAY(m->slots, slots_of(&m->limits)));
    for (; m->slot_count < slots_of(&m->limits); m->slot_count++) {
        struct slot *s = &m->slots[m->slot_count];
        *s = (struct slot){0};
        TRY(arena_create(&s->activations, bytes));
        TRY(tape_create(&s->activations, most_ops(m), &s->tape));
    }
done:
    return st;
}

enum status model_prepare(struct model *m, const struct model_limits *limits)
{
    enum status st = ST_OK;
    m->limits = *limits;
    free_packed(m);
    free_slots(m);
    TRY(linears_prepare(&m->linears, &m->params, model_type(limits), limits->train, limits->threads));
    take_scratch(m);
    TRY(arena_create(&m->scratch, m->scratch.high_bytes));
    take_scratch(m);
    for (enum pack_kind kind = 0; kind < PACK_KINDS; kind++) {
        linears_take_packed(&m->linears, &m->params, kind, &m->packed[kind]);
        if (!limits->packed_apart) TRY(model_place_packed(m, kind, NULL, NULL, 0));
    }
    TRY(make_spare(m, limits));
    TRY(make_slots(m));
    if (m->spare) TRY(arena_create(&m->spare_memory, m->spare_memory.high_bytes));
done:
    return st;
}

enum status model_pack(struct model *m)
{
    for (int i = 0; i < m->params.count; i++)
        if (m->params.rows[i].split) return fail(ST_INTERNAL, "model '%s' has not all its weights to pack", m->name);
    for (int module = MODULE_EMBEDDING; module <= m->layers; module++) model_pack_module(m, module, NULL);
    return ST_OK;
}

void model_expire(struct model *m)
{
    for (int module = MODULE_EMBEDDING; module <= m->layers; module++)
        m->expired[module + 1] = model_hold_has(&m->hold, module, m->layers);
}

void model_pack_module(struct model *m, int module, const void *const *from)
{
    linears_pack_module(&m->linears, &m->params, module, model_type(&m->limits), from);
    if (module == MODULE_EMBEDDING) m->family->refresh(m->self, &m->params);
    m->expired[module + 1] = false;
}

bool model_is_packed(const struct model *m, int module) { return !m->expired[module + 1]; }

void model_hash(const struct model *m, uint64_t *hash)
{
    param_hash_each(&m->params, hash);
    linears_hash(&m->linears, &m->params, hash);
}

void model_set_tap(struct model *m, tape_tap_fn *tap, void *context)
{
    for (int i = 0; i < m->slot_count; i++) tape_set_tap(m->slots[i].tape, tap, context);
}
