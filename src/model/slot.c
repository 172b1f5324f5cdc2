/* A part of a model on a micro-batch in a slot: forward, backward and weight gradients, each going on behind the exchanges
 * that it stops for. */
#include <string.h>

#include "model/model_inside.h"
#include "objective/masked.h"

static bool embeds(const struct slot *s) { return s->part.first == 0; }
static bool decides(const struct model *m, const struct slot *s) { return s->part.end == m->layers; }

/* Twice what comes if rows are spread evenly. */
static int64_t room_for_rows(const struct model *m, const struct model_limits *limits)
{
    return limits->expert_rows > 0 ? limits->expert_rows : 2 * limits->tokens * m->experts_per_token;
}

struct expert_ranks slot_expert_ranks(const struct model *m, const struct model_limits *limits)
{
    int ranks = m->experts.count > 0 && m->hold.expert_ranks > 1 ? m->hold.expert_ranks : 1;
    return (struct expert_ranks){ranks, m->hold.expert_rank, m->experts.experts, room_for_rows(m, limits), m->spare};
}

void slot_begin(const struct model *m, struct slot *s, struct model_part part, const struct batch *batch,
                struct pass_sizes sizes, enum read read, const struct model_limits *limits, const struct model_how *how)
{
    tape_begin(s->tape, how->train ? TAPE_TRAIN : TAPE_INFER);
    s->pass = (struct pass){.tape = s->tape,
                            .params = &m->params,
                            .type = model_type(limits),
                            .seed = m->seed,
                            .drops = how->train,
                            .step = how->step};
    s->stop.travel.ranks = slot_expert_ranks(m, limits);
    if (s->stop.travel.ranks.ranks > 1) s->pass.stop = &s->stop;
    if (batch) s->pass.balance_scale = experts_share(&m->experts, batch->token_count);
    s->part = part;
    s->how = *how;
    s->splits = limits->splits;
    s->recomputes = limits->recompute && how->train;
    s->waits = s->backward = s->again = false;
    s->in = s->out = NULL;
    pass_begin(&s->pass, batch, sizes, read);
}

/* Both heads' losses of h; backward will give the gradient of how.scale * (their sum). */
static void add_losses(const struct model *m, struct slot *s, struct tensor *h, struct loss_sum *out)
{
    const struct pass *pass = &s->pass;
    struct tensor *genewise, *cellwise;
    struct masked_sum gene, cell;
    m->family->decode(m->self, pass, h, &genewise, &cellwise);
    struct masked_rows rows = masked_gather(pass->tape, pass->batch, pass->read.index, pass->read.count);
    masked_loss(pass->tape, genewise, &rows, s->how.scale, &gene);
    masked_loss(pass->tape, cellwise, &rows, s->how.scale, &cell);
    out->genewise += gene.error;
    out->cellwise += cell.error;
    out->weight += gene.weight;
    out->genewise_hidden += gene.error_hidden;
    out->cellwise_hidden += cell.error_hidden;
    out->hidden += gene.hidden;
}

/* ---- modules, each on weights that are packed ---- */

static void need(const struct model *m, const struct slot *s, int module)
{
    if (s->how.need && !tape_measures(s->tape) && !model_is_packed(m, module)) s->how.need(s->how.context, module);
}

static struct tensor *run_embedding(const struct model *m, struct slot *s)
{
    need(m, s, MODULE_EMBEDDING);
    return m->family->embed(m->self, &s->pass);
}

/* Block s->block from x, or on behind its stop (x NULL); NULL where it stops. */
static struct tensor *run_block(const struct model *m, struct slot *s, struct tensor *x)
{
    if (x) need(m, s, s->block);
    struct tensor *y =
        x ? m->family->block(m->self, &s->pass, s->block, x) : m->family->resume(m->self, &s->pass, s->block);
    s->waits = !y;
    return y;
}

static void run_heads(const struct model *m, struct slot *s, struct tensor *h, struct loss_sum *loss)
{
    need(m, s, m->layers);
    add_losses(m, s, h, loss);
}

/* ---- what is kept: all, or with recomputation what enters a block, which runs forward once more for its backward ---- */

/* A value of the caller as a tensor whose gradient is wanted. */
static struct tensor *enter(const struct slot *s, void *data, int64_t rows, int64_t cols)
{
    struct tensor *x = tape_wrap(s->tape, data, s->pass.type, rows, cols);
    x->wants_gradient = tape_trains(s->tape);
    return x;
}

static size_t row_bytes(const struct model *m, const struct slot *s)
{
    return (size_t)m->width * dtype_bytes(s->pass.type);
}

/* The activation that the part was handed, in the slot's own memory. */
static struct tensor *take_in(const struct model *m, struct slot *s, const void *in)
{
    size_t bytes = (size_t)s->pass.sizes.tokens * row_bytes(m, s);
    void *own = tape_take(s->tape, bytes);
    if (own) memcpy(own, in, bytes);
    return enter(s, own, s->pass.sizes.tokens, m->width);
}

static int64_t rows_entering(const struct model *m, const struct slot *s, int block)
{
    return block == m->layers ? s->pass.read.count : s->pass.sizes.tokens;
}

static void take_kept(const struct model *m, struct slot *s)
{
    int first = s->part.first, end = s->part.end;
    s->kept = tape_take(s->tape, (size_t)(end - first + 1) * sizeof *s->kept);
    for (int i = first; i <= end; i++) {
        void *memory = tape_take(s->tape, (size_t)rows_entering(m, s, i) * row_bytes(m, s));
        if (s->kept) s->kept[i - first] = memory;
    }
    s->carried = tape_take(s->tape, (size_t)s->pass.sizes.tokens * row_bytes(m, s));
    s->above = arena_mark(tape_arena(s->tape));
}

static void *kept_before(const struct slot *s, int block) { return s->kept ? s->kept[block - s->part.first] : NULL; }

static void keep(const struct model *m, struct slot *s, int block, const void *x)
{
    void *kept = kept_before(s, block);
    if (kept) memcpy(kept, x, (size_t)rows_entering(m, s, block) * row_bytes(m, s));
}

/* What a stretch of the pass starts with: everything but what is kept is gone. */
static struct tensor *again(const struct model *m, struct slot *s, enum tape_mode mode, int block)
{
    tape_again(s->tape, mode, s->above);
    return enter(s, kept_before(s, block), rows_entering(m, s, block), m->width);
}

/* ---- forward ---- */

/* What enters s->block; NULL if it is under way. */
static struct tensor *entering(const struct model *m, struct slot *s, enum tape_mode mode)
{
    if (s->waits) return NULL;
    return s->recomputes ? again(m, s, mode, s->block) : s->out;
}

static void forward_on(const struct model *m, struct slot *s)
{
    for (; s->block < s->part.end; s->block++) {
        struct tensor *y = run_block(m, s, entering(m, s, TAPE_INFER));
        if (!y) return;
        if (s->recomputes) keep(m, s, s->block + 1, y->data);
        else s->out = y;
    }
}

void slot_forward(const struct model *m, struct slot *s, const void *in)
{
    s->block = s->part.first;
    if (s->recomputes) {
        take_kept(m, s);
        tape_again(s->tape, TAPE_INFER, s->above);
        keep(m, s, s->block, embeds(s) ? run_embedding(m, s)->data : in);
    } else {
        if (!embeds(s)) s->in = take_in(m, s, in);
        s->out = embeds(s) ? run_embedding(m, s) : s->in;
    }
    forward_on(m, s);
}

void slot_end_forward(const struct model *m, struct slot *s, void *out, struct loss_sum *loss)
{
    int end = s->part.end;
    if (decides(m, s) && loss) run_heads(m, s, s->recomputes ? again(m, s, TAPE_INFER, end) : s->out, loss);
    if (out)
        memcpy(out, s->recomputes ? kept_before(s, end) : s->out->data, (size_t)s->pass.sizes.tokens * row_bytes(m, s));
}

/* ---- backward ---- */

static void tell(const struct slot *s, int module)
{
    if (s->how.ready && !tape_measures(s->tape)) s->how.ready(s->how.context, module);
}

/* The module that segment `segment` of the part's tape is. */
static int module_of(const struct slot *s, int segment)
{
    return s->recomputes ? s->block : s->part.first - embeds(s) + segment;
}

static void drain(const struct slot *s, int segment)
{
    tape_drain_segment(s->tape, segment);
    tell(s, module_of(s, segment));
}

/* A segment, or on behind its stop. False where it stops. */
static bool run_back(struct slot *s, int segment)
{
    if (s->waits && !travel_turn_on(&s->stop.travel)) return false;
    s->waits = !tape_backward_segment(s->tape, segment);
    if (s->waits) travel_turn(&s->stop.travel, tape_stopped_at(s->tape));
    return !s->waits;
}

static void run_embedding_back(const struct model *m, struct slot *s, int segment)
{
    bool measures = tape_measures(s->tape);
    if (!measures) m->family->begin_gradient(m->self);
    run_back(s, segment);
    if (!measures) m->family->end_gradient(m->self, &m->params);
}

static void backward_kept_on(const struct model *m, struct slot *s)
{
    for (; s->segment >= 0; s->segment--) {
        if (s->segment == 0 && embeds(s)) run_embedding_back(m, s, 0);
        else if (!run_back(s, s->segment)) return;
        if (!s->splits) drain(s, s->segment);
    }
}

/* The gradient of what a stretch gave, carried so far. */
static void start_carried(const struct model *m, struct slot *s, struct tensor *y)
{
    void *start = tape_start_gradient(s->tape, y);
    if (start) memcpy(start, s->carried, (size_t)y->rows * row_bytes(m, s));
}

static void carry(const struct model *m, struct slot *s, const struct tensor *x)
{
    if (s->carried) memcpy(s->carried, x->gradient, (size_t)x->rows * row_bytes(m, s));
}

/* Block s->block forward once more. False where it stops. */
static bool repeat_block(const struct model *m, struct slot *s)
{
    if (!s->waits) s->in = entering(m, s, TAPE_TRAIN);
    struct tensor *y = run_block(m, s, s->waits ? NULL : s->in);
    if (y) start_carried(m, s, y);
    s->again = y != NULL;
    return s->again;
}

static void backward_again_on(const struct model *m, struct slot *s)
{
    for (; s->block >= s->part.first; s->block--, s->again = false) {
        if (!s->again && !repeat_block(m, s)) return;
        if (!run_back(s, 0)) return;
        drain(s, 0);
        carry(m, s, s->in);
    }
    if (!embeds(s)) return;
    tape_again(s->tape, TAPE_TRAIN, s->above);
    start_carried(m, s, run_embedding(m, s));
    run_embedding_back(m, s, 0);
    drain(s, 0);
}

/* From the losses to what enters the heads. */
static void repeat_heads(const struct model *m, struct slot *s)
{
    struct loss_sum known = {0};
    struct tensor *h = again(m, s, TAPE_TRAIN, s->part.end);
    s->block = s->part.end;
    run_heads(m, s, h, &known);
    tape_backward_segment(s->tape, 0);
    drain(s, 0);
    carry(m, s, h);
}

static void backward_on(const struct model *m, struct slot *s)
{
    if (s->recomputes) backward_again_on(m, s);
    else backward_kept_on(m, s);
}

void slot_backward(const struct model *m, struct slot *s, const void *d_out)
{
    size_t bytes = (size_t)s->pass.sizes.tokens * row_bytes(m, s);
    s->backward = true;
    if (s->recomputes) {
        if (decides(m, s)) repeat_heads(m, s);
        else if (s->carried) memcpy(s->carried, d_out, bytes);
        s->block = s->part.end - 1;
    } else {
        void *start = decides(m, s) ? NULL : tape_start_gradient(s->tape, s->out);
        if (start) memcpy(start, d_out, bytes);
        s->segment = tape_segment_count(s->tape) - 1;
    }
    backward_on(m, s);
}

void slot_end_backward(const struct model *m, struct slot *s, void *d_in)
{
    size_t bytes = (size_t)s->pass.sizes.tokens * row_bytes(m, s);
    if (d_in) memcpy(d_in, s->recomputes ? s->carried : s->in->gradient, bytes);
}

void slot_weights(struct slot *s)
{
    for (int i = tape_segment_count(s->tape) - 1; i >= 0; i--)
        if (tape_is_undrained(s->tape, i)) drain(s, i);
}

/* ---- stops ---- */

void slot_go_on(const struct model *m, struct slot *s)
{
    if (s->backward) backward_on(m, s);
    else forward_on(m, s);
}

void slot_meanwhile(struct slot *s)
{
    if (s->backward && !s->splits && tape_stopped_at(s->tape)) tape_drain_early(s->tape);
}
