/* Passes of a model: parts of it on micro-batches in slots, and the whole of it. */
#include <math.h>
#include <string.h>

#include "kernel/vector.h"
#include "model/model_inside.h"
#include "objective/masked.h"

/* ---- a part in a slot ---- */

static bool embeds(const struct slot *s) { return s->part.first == 0; }
static bool decides(const struct model *m, const struct slot *s) { return s->part.end == m->layers; }

void slot_begin(const struct model *m, struct slot *s, struct model_part part, const struct batch *batch,
                struct pass_sizes sizes, enum read read, enum dtype type, const struct model_how *how)
{
    tape_begin(s->tape, how->train ? TAPE_TRAIN : TAPE_INFER);
    s->pass = (struct pass){
        .tape = s->tape, .params = &m->params, .type = type, .seed = m->seed, .drops = how->train, .step = how->step};
    if (m->linked) s->pass.link = &m->link;
    if (batch) s->pass.balance_scale = experts_share(&m->experts, batch->token_count);
    s->part = part;
    s->how = *how;
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

static void forward_kept(const struct model *m, struct slot *s, const void *in, struct loss_sum *loss)
{
    const struct pass *pass = &s->pass;
    if (!embeds(s)) s->in = take_in(m, s, in);
    s->out = embeds(s) ? m->family->embed(m->self, pass) : s->in;
    s->out = m->family->blocks(m->self, pass, s->part, s->out);
    if (decides(m, s) && loss) add_losses(m, s, s->out, loss);
}

static void tell(const struct slot *s, int module)
{
    if (s->how.ready && !tape_measures(s->tape)) s->how.ready(s->how.context, module);
}

/* The module that segment `segment` of the part's tape is. */
static int module_of(const struct slot *s, int segment) { return s->part.first - embeds(s) + segment; }

static void drain(const struct slot *s, int segment)
{
    tape_drain_segment(s->tape, segment);
    tell(s, module_of(s, segment));
}

static void backward_kept(const struct model *m, struct slot *s, bool splits, const void *d_out, void *d_in)
{
    struct tape *t = s->tape;
    if (!decides(m, s)) {
        void *start = tape_start_gradient(t, s->out);
        if (start) memcpy(start, d_out, (size_t)s->out->rows * row_bytes(m, s));
    }
    for (int i = tape_segment_count(t) - 1; i >= 0; i--) {
        tape_backward_segment(t, i);
        if (!splits) drain(s, i);
    }
    if (d_in) memcpy(d_in, s->in->gradient, (size_t)s->in->rows * row_bytes(m, s));
}

void slot_weights(struct slot *s)
{
    for (int i = tape_segment_count(s->tape) - 1; i >= 0; i--)
        if (tape_is_undrained(s->tape, i)) drain(s, i);
}

/* ---- the same with less memory: a block keeps what enters it, and runs forward once more before its backward ---- */

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

static void forward_recomputed(const struct model *m, struct slot *s, const void *in, struct loss_sum *loss)
{
    int first = s->part.first;
    take_kept(m, s);
    tape_again(s->tape, TAPE_INFER, s->above);
    keep(m, s, first, embeds(s) ? m->family->embed(m->self, &s->pass)->data : in);
    for (int i = first; i < s->part.end; i++) {
        struct tensor *x = again(m, s, TAPE_INFER, i);
        keep(m, s, i + 1, m->family->blocks(m->self, &s->pass, (struct model_part){i, i + 1}, x)->data);
    }
    if (decides(m, s)) add_losses(m, s, again(m, s, TAPE_INFER, s->part.end), loss);
}

/* One stretch backward, from the gradient carried so far (y NULL: from the losses) to that of x. */
static void step_back(const struct model *m, struct slot *s, struct tensor *x, struct tensor *y)
{
    if (y) {
        void *start = tape_start_gradient(s->tape, y);
        if (start) memcpy(start, s->carried, (size_t)y->rows * row_bytes(m, s));
    }
    tape_backward(s->tape);
    if (x && s->carried) memcpy(s->carried, x->gradient, (size_t)x->rows * row_bytes(m, s));
}

static void backward_recomputed(const struct model *m, struct slot *s, const void *d_out, void *d_in)
{
    struct loss_sum known = {0};
    if (decides(m, s)) {
        struct tensor *h = again(m, s, TAPE_TRAIN, s->part.end);
        add_losses(m, s, h, &known);
        step_back(m, s, h, NULL);
        tell(s, m->layers);
    } else if (s->carried) {
        memcpy(s->carried, d_out, (size_t)s->pass.sizes.tokens * row_bytes(m, s));
    }
    for (int i = s->part.end - 1; i >= s->part.first; i--) {
        struct tensor *x = again(m, s, TAPE_TRAIN, i);
        step_back(m, s, x, m->family->blocks(m->self, &s->pass, (struct model_part){i, i + 1}, x));
        tell(s, i);
    }
    if (embeds(s)) {
        tape_again(s->tape, TAPE_TRAIN, s->above);
        step_back(m, s, NULL, m->family->embed(m->self, &s->pass));
    } else if (d_in) {
        memcpy(d_in, s->carried, (size_t)s->pass.sizes.tokens * row_bytes(m, s));
    }
}

/* ---- either way ---- */

static bool recomputes(const struct slot *s, const struct model_limits *limits)
{
    return limits->recompute && s->pass.drops;
}

void slot_forward(const struct model *m, struct slot *s, const struct model_limits *limits, const void *in, void *out,
                  struct loss_sum *loss)
{
    size_t bytes = (size_t)s->pass.sizes.tokens * row_bytes(m, s);
    if (recomputes(s, limits)) forward_recomputed(m, s, in, loss);
    else forward_kept(m, s, in, loss);
    if (out) memcpy(out, recomputes(s, limits) ? kept_before(s, s->part.end) : s->out->data, bytes);
}

void slot_backward(const struct model *m, struct slot *s, const struct model_limits *limits, const void *d_out,
                   void *d_in)
{
    bool measures = tape_measures(s->tape);
    if (embeds(s) && !measures) m->family->begin_gradient(m->self);
    if (recomputes(s, limits)) backward_recomputed(m, s, d_out, d_in);
    else backward_kept(m, s, limits->splits, d_out, d_in);
    if (embeds(s) && !measures) m->family->end_gradient(m->self, &m->params);
}

/* ---- parts, as callers see them ---- */

static enum status check_batch(const struct model *m, const struct batch *b)
{
    if (!m->slots) return fail(ST_INTERNAL, "model '%s' was not prepared", m->name);
    if (b->cell_count <= m->limits.cells && b->token_count <= m->limits.tokens) return ST_OK;
    return fail(ST_INTERNAL, "a micro-batch of %d cells and %lld tokens; the model was prepared for %d and %lld",
                b->cell_count, (long long)b->token_count, m->limits.cells, (long long)m->limits.tokens);
}

static enum status check_finite(const struct loss_sum *loss, const struct batch *b)
{
    if (isfinite(loss->genewise) && isfinite(loss->cellwise)) return ST_OK;
    return fail(ST_NUMERIC,
                "the loss of the micro-batch that starts with cell %lld is not finite; lower train.rate or look "
                "for damaged values in the checkpoint",
                b->cell_count ? (long long)b->cell_id[0] : -1LL);
}

static void add_loss(struct loss_sum *sum, const struct loss_sum *x)
{
    sum->genewise += x->genewise;
    sum->cellwise += x->cellwise;
    sum->weight += x->weight;
    sum->genewise_hidden += x->genewise_hidden;
    sum->cellwise_hidden += x->cellwise_hidden;
    sum->hidden += x->hidden;
}

int64_t model_message_bytes(const struct model *m, int64_t tokens)
{
    return tokens * m->width * (int64_t)dtype_bytes(m->type);
}

enum status model_forward_part(struct model *m, int slot, int part, const struct batch *b, const struct model_how *how,
                               const void *in, void *out, struct loss_sum *loss)
{
    enum status st = check_batch(m, b);
    if (st != ST_OK) return st;
    struct slot *s = &m->slots[slot];
    struct loss_sum own = {0};
    slot_begin(m, s, m->hold.part[part], b, pass_sizes_of(b, READ_LOSS), READ_LOSS, m->type, how);
    slot_forward(m, s, &m->limits, in, out, &own);
    add_loss(loss, &own);
    return check_finite(&own, b);
}

enum status model_backward_part(struct model *m, int slot, const void *d_out, void *d_in)
{
    slot_backward(m, &m->slots[slot], &m->limits, d_out, d_in);
    return ST_OK;
}

void model_weights_part(struct model *m, int slot)
{
    if (m->limits.splits) slot_weights(&m->slots[slot]);
}

/* ---- the whole model ---- */

/* Rows of the last layer that `read` names. */
static struct tensor *infer(struct model *m, const struct batch *b, enum read read)
{
    struct slot *s = &m->slots[0];
    slot_begin(m, s, m->hold.part[0], b, pass_sizes_of(b, read), read, m->type, &(struct model_how){0});
    forward_kept(m, s, NULL, NULL);
    return s->out;
}

enum status model_embed(struct model *m, const struct batch *b, float *z)
{
    enum status st = check_batch(m, b);
    if (st != ST_OK) return st;
    struct tensor *h = infer(m, b, READ_CLS);
    vector_convert(z, DTYPE_F32, h->data, h->type, h->rows * h->cols);
    return ST_OK;
}

/* Predictions of all tokens as float, cls rows 0. */
static void copy_predictions(float *out, const struct tensor *p, const struct batch *b)
{
    if (!out) return;
    vector_convert(out, DTYPE_F32, p->data, p->type, p->rows);
    for (int c = 0; c < b->cell_count; c++) out[b->offsets[c]] = 0;
}

enum status model_predict(struct model *m, const struct batch *b, float *genewise, float *cellwise)
{
    enum status st = check_batch(m, b);
    if (st != ST_OK) return st;
    struct tensor *gene, *cell, *h = infer(m, b, READ_ALL);
    m->family->decode(m->self, &m->slots[0].pass, h, &gene, &cell);
    copy_predictions(genewise, gene, b);
    copy_predictions(cellwise, cell, b);
    return ST_OK;
}

void model_read_out(const struct model *m, const int32_t *genes, int count, float *vectors)
{
    m->family->read_out(m->self, &m->params, genes, count, vectors);
}

enum status model_loss(struct model *m, const struct batch *b, struct loss_sum *out)
{
    *out = (struct loss_sum){0};
    return model_forward_part(m, 0, 0, b, &(struct model_how){0}, NULL, NULL, out);
}

enum status model_gradient(struct model *m, const struct batch *b, double scale, uint64_t step, struct loss_sum *out)
{
    enum status st = ST_OK;
    TRY(model_forward_part(m, 0, 0, b, &(struct model_how){.train = true, .scale = scale, .step = step}, NULL, NULL,
                           out));
    TRY(model_backward_part(m, 0, NULL, NULL));
    model_weights_part(m, 0);
    param_join(&m->params);
done:
    return st;
}
