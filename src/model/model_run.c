/* Passes of a model: parts of it on micro-batches in slots, and the whole of it. */
#include <math.h>

#include "kernel/vector.h"
#include "model/model_inside.h"

/* ---- parts, as callers see them ---- */

static enum status check_batch(const struct model *m, const struct batch *b)
{
    if (!m->slots) return fail(ST_INTERNAL, "model '%s' was not prepared", m->name);
    if (b->cell_count <= m->limits.cells && b->token_count <= m->limits.tokens) return ST_OK;
    return fail(ST_INTERNAL, "a micro-batch of %d cells and %lld tokens; the model was prepared for %d and %lld",
                b->cell_count, (long long)b->token_count, m->limits.cells, (long long)m->limits.tokens);
}

/* A pass that was asked for its weights has them by now. */
static enum status check_packed(const struct model *m, struct model_part part)
{
    for (int module = MODULE_EMBEDDING; module <= m->layers; module++)
        if (model_part_has(part, module, m->layers) && !model_is_packed(m, module))
            return fail(ST_INTERNAL, "module %d of model '%s' ran before its new weights had come", module, m->name);
    return ST_OK;
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
    return tokens * m->width * (int64_t)dtype_bytes(model_type(&m->limits));
}

struct expert_ranks model_expert_ranks(const struct model *m) { return slot_expert_ranks(m, &m->limits); }

enum status model_begin_forward(struct model *m, int slot, int part, const struct batch *b, const struct model_how *how,
                                const void *in)
{
    enum status st = check_batch(m, b);
    if (st != ST_OK) return st;
    struct slot *s = &m->slots[slot];
    slot_begin(m, s, m->hold.part[part], b, pass_sizes_of(b, READ_LOSS), READ_LOSS, &m->limits, how);
    slot_forward(m, s, in);
    return ST_OK;
}

enum status model_end_forward(struct model *m, int slot, void *out, struct loss_sum *loss)
{
    struct slot *s = &m->slots[slot];
    struct loss_sum own = {0};
    slot_end_forward(m, s, out, &own);
    add_loss(loss, &own);
    enum status st = check_packed(m, s->part);
    return st != ST_OK ? st : check_finite(&own, s->pass.batch);
}

void model_begin_backward(struct model *m, int slot, const void *d_out) { slot_backward(m, &m->slots[slot], d_out); }
void model_end_backward(struct model *m, int slot, void *d_in) { slot_end_backward(m, &m->slots[slot], d_in); }

struct travel_move *model_move(struct model *m, int slot)
{
    struct slot *s = &m->slots[slot];
    return s->waits ? &s->stop.travel.move : NULL;
}

void model_go_on(struct model *m, int slot) { slot_go_on(m, &m->slots[slot]); }
void model_meanwhile(struct model *m, int slot) { slot_meanwhile(&m->slots[slot]); }

static enum status check_through(struct model *m, int slot)
{
    if (!model_move(m, slot)) return ST_OK;
    return fail(ST_INTERNAL, "model '%s': rows must go to experts on other ranks, and nobody moves them", m->name);
}

enum status model_forward_part(struct model *m, int slot, int part, const struct batch *b, const struct model_how *how,
                               const void *in, void *out, struct loss_sum *loss)
{
    enum status st = ST_OK;
    TRY(model_begin_forward(m, slot, part, b, how, in));
    TRY(check_through(m, slot));
    TRY(model_end_forward(m, slot, out, loss));
done:
    return st;
}

enum status model_backward_part(struct model *m, int slot, const void *d_out, void *d_in)
{
    enum status st = ST_OK;
    model_begin_backward(m, slot, d_out);
    TRY(check_through(m, slot));
    model_end_backward(m, slot, d_in);
done:
    return st;
}

void model_weights_part(struct model *m, int slot)
{
    if (m->limits.splits) slot_weights(&m->slots[slot]);
}

/* ---- the whole model ---- */

static enum status check_ready(const struct model *m, const struct batch *b)
{
    enum status st = check_batch(m, b);
    return st != ST_OK ? st : check_packed(m, m->hold.part[0]);
}

/* Rows of the last layer that `read` names. */
static struct tensor *infer(struct model *m, const struct batch *b, enum read read)
{
    struct slot *s = &m->slots[0];
    slot_begin(m, s, m->hold.part[0], b, pass_sizes_of(b, read), read, &m->limits, &(struct model_how){0});
    slot_forward(m, s, NULL);
    return s->out;
}

enum status model_embed(struct model *m, const struct batch *b, float *z)
{
    enum status st = check_ready(m, b);
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
    enum status st = check_ready(m, b);
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
