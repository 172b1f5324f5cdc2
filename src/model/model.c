#include "model/model.h"

#include <math.h>
#include <stdlib.h>

#include "base/text.h"
#include "kernel/vector.h"
#include "model/family.h"
#include "objective/masked.h"

struct model {
    char *name;
    int layers;
    int64_t width;
    uint64_t seed;
    double select_fraction;
    const struct family *family;
    void *self; /* the family's */
    struct param_table params;
    struct linears linears;

    struct model_limits limits; /* below: made by model_prepare */
    enum dtype type;
    struct arena packed, activations;
    struct tape *tape;
};

enum status model_create(const struct config *config, const struct vocab *vocab, struct model **out)
{
    enum status st = ST_OK;
    struct model *m = NULL;
    TRY(NEW_ARRAY(m, 1));
    *m = (struct model){.name = text_copy(config_text(config, "model.name")),
                        .layers = (int)config_int(config, "model.layers"),
                        .width = config_int(config, "model.width"),
                        .seed = (uint64_t)config_int(config, "run.seed"),
                        .select_fraction = config_real(config, "model.select_fraction")};
    struct build build = {config, &m->params, &m->linears, 0, m->layers, m->width};
    TRY(family_find(config, &m->family));
    TRY(m->family->create(&build, vocab, &m->self));
done:
    if (st != ST_OK) model_destroy(&m);
    *out = m;
    return st;
}

void model_destroy(struct model **model)
{
    struct model *m = *model;
    if (!m) return;
    if (m->family) m->family->destroy(m->self);
    tape_destroy(&m->tape);
    arena_destroy(&m->packed);
    arena_destroy(&m->activations);
    linears_free(&m->linears);
    param_free(&m->params);
    free(m->name);
    free(m);
    *model = NULL;
}

struct param_table *model_params(struct model *m) { return &m->params; }
int model_width(const struct model *m) { return (int)m->width; }
const char *model_name(const struct model *m) { return m->name; }

/* ---- passes ---- */

/* Ops of a pass, with room to spare: 16 a block, 64 for embedding and heads. */
static int most_ops(const struct model *m) { return 16 * m->layers + 64; }

/* One pass of the model over `batch`, or, with NULL, over sizes alone. Returns the rows read. */
static struct tensor *encode(const struct model *m, struct pass *pass, const struct batch *batch,
                             struct pass_sizes sizes, enum read read)
{
    pass_begin(pass, batch, sizes, read);
    return m->family->encode(m->self, pass);
}

static struct pass new_pass(const struct model *m, struct tape *tape, enum dtype type, enum tape_mode mode)
{
    tape_begin(tape, mode);
    return (struct pass){.tape = tape, .params = &m->params, .type = type, .seed = m->seed};
}

/* Both heads' losses; backward will give the gradient of scale * (their sum). */
static void add_losses(const struct model *m, const struct pass *pass, struct tensor *h, double scale,
                       struct loss_sum *out)
{
    struct tensor *genewise, *cellwise;
    struct masked_sum gene, cell;
    m->family->decode(m->self, pass, h, &genewise, &cellwise);
    struct masked_rows rows = masked_gather(pass->tape, pass->batch, pass->read.index, pass->read.count);
    masked_loss(pass->tape, genewise, &rows, scale, &gene);
    masked_loss(pass->tape, cellwise, &rows, scale, &cell);
    out->genewise += gene.error;
    out->cellwise += cell.error;
    out->weight += gene.weight;
    out->genewise_hidden += gene.error_hidden;
    out->cellwise_hidden += cell.error_hidden;
    out->hidden += gene.hidden;
}

/* ---- measuring and preparing ---- */

struct measured {
    size_t bytes;
    double forward_flops, backward_flops;
};

/* The very code of a pass, on an arena without memory. */
static enum status measure_pass(const struct model *m, enum dtype type, enum tape_mode mode, enum read read,
                                struct pass_sizes sizes, struct measured *out)
{
    enum status st = ST_OK;
    struct arena nothing = {0};
    struct tape *tape = NULL;
    struct loss_sum unused = {0};
    TRY(tape_create(&nothing, most_ops(m), &tape));
    struct pass pass = new_pass(m, tape, type, mode);
    struct tensor *h = encode(m, &pass, NULL, sizes, read);
    if (read != READ_CLS) add_losses(m, &pass, h, 1, &unused);
    if (mode == TAPE_TRAIN) tape_backward(tape);
    *out = (struct measured){nothing.high_bytes, tape_forward_flops(tape), tape_backward_flops(tape)};
done:
    tape_destroy(&tape);
    return st;
}

static enum dtype type_under(const struct model_limits *limits) { return limits->bf16 ? DTYPE_BF16 : DTYPE_REAL; }

/* The largest pass these limits allow: every token a level of its own and read by somebody. */
static enum status measure_largest(const struct model *m, const struct model_limits *limits, size_t *bytes)
{
    enum status st = ST_OK;
    struct measured infer, train = {0};
    struct pass_sizes sizes = {limits->cells, limits->tokens, limits->tokens, limits->tokens};
    TRY(measure_pass(m, type_under(limits), TAPE_INFER, READ_LOSS, sizes, &infer));
    if (limits->train) TRY(measure_pass(m, type_under(limits), TAPE_TRAIN, READ_LOSS, sizes, &train));
    *bytes = infer.bytes > train.bytes ? infer.bytes : train.bytes;
done:
    return st;
}

enum status model_measure(const struct model *m, const struct model_limits *limits, struct model_cost *cost)
{
    enum status st = ST_OK;
    struct measured embed, train;
    enum dtype type = type_under(limits);
    int64_t tokens = limits->tokens;
    int64_t levels =
        tokens < 64 * limits->cells ? tokens : 64 * limits->cells; /* a cell has 20 to 90 distinct counts */
    struct pass_sizes sizes = {limits->cells, tokens, levels, limits->cells};
    *cost = (struct model_cost){.weight_bytes = (size_t)m->params.size * sizeof(real)};
    for (int i = 0; i < m->params.count; i++) cost->parameters += m->params.rows[i].rows * m->params.rows[i].cols;
    if (limits->train) cost->gradient_bytes = cost->weight_bytes, cost->moment_bytes = 2 * cost->weight_bytes;
    TRY(linears_measure(&m->linears, type, limits->train, limits->threads, &cost->packed_bytes));
    TRY(measure_pass(m, type, TAPE_INFER, READ_CLS, sizes, &embed));
    sizes.read = limits->cells + (int64_t)(m->select_fraction * (double)tokens);
    TRY(measure_pass(m, type, TAPE_TRAIN, READ_LOSS, sizes, &train));
    TRY(measure_largest(m, limits, &cost->activation_bytes));
    cost->forward_flops_per_token = embed.forward_flops / (double)tokens;
    cost->train_flops_per_token = (train.forward_flops + train.backward_flops) / (double)tokens;
done:
    return st;
}

static void take_packed(struct model *m)
{
    linears_take(&m->linears, &m->packed);
    m->family->take(m->self, &m->packed, m->limits.train);
}

enum status model_prepare(struct model *m, const struct model_limits *limits)
{
    enum status st = ST_OK;
    size_t activation_bytes;
    m->limits = *limits;
    m->type = type_under(limits);
    arena_destroy(&m->packed);
    arena_destroy(&m->activations);
    tape_destroy(&m->tape);
    TRY(linears_prepare(&m->linears, &m->params, m->type, limits->train, limits->threads));
    take_packed(m);
    TRY(arena_create(&m->packed, m->packed.high_bytes));
    take_packed(m);
    TRY(measure_largest(m, limits, &activation_bytes));
    TRY(arena_create(&m->activations, activation_bytes));
    TRY(tape_create(&m->activations, most_ops(m), &m->tape));
done:
    return st;
}

enum status model_pack(struct model *m)
{
    linears_pack(&m->linears);
    m->family->refresh(m->self, &m->params);
    return ST_OK;
}

void model_set_tap(struct model *m, tape_tap_fn *tap, void *context) { tape_set_tap(m->tape, tap, context); }

/* ---- use ---- */

static enum status check_batch(const struct model *m, const struct batch *b)
{
    if (!m->tape) return fail(ST_INTERNAL, "model '%s' was not prepared", m->name);
    if (b->cell_count <= m->limits.cells && b->token_count <= m->limits.tokens) return ST_OK;
    return fail(ST_INTERNAL, "a micro-batch of %d cells and %lld tokens; the model was prepared for %d and %lld",
                b->cell_count, (long long)b->token_count, m->limits.cells, (long long)m->limits.tokens);
}

enum status model_embed(struct model *m, const struct batch *b, float *z)
{
    enum status st = check_batch(m, b);
    if (st != ST_OK) return st;
    struct pass pass = new_pass(m, m->tape, m->type, TAPE_INFER);
    struct tensor *h = encode(m, &pass, b, pass_sizes_of(b, READ_CLS), READ_CLS);
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
    struct pass pass = new_pass(m, m->tape, m->type, TAPE_INFER);
    struct tensor *gene, *cell;
    struct tensor *h = encode(m, &pass, b, pass_sizes_of(b, READ_ALL), READ_ALL);
    m->family->decode(m->self, &pass, h, &gene, &cell);
    copy_predictions(genewise, gene, b);
    copy_predictions(cellwise, cell, b);
    return ST_OK;
}

void model_read_out(const struct model *m, const int32_t *genes, int count, float *vectors)
{
    m->family->read_out(m->self, &m->params, genes, count, vectors);
}

static enum status check_finite(const struct loss_sum *loss, const struct batch *b)
{
    if (isfinite(loss->genewise) && isfinite(loss->cellwise)) return ST_OK;
    return fail(ST_NUMERIC,
                "the loss of the micro-batch that starts with cell %lld is not finite; lower train.rate or look "
                "for damaged values in the checkpoint",
                b->cell_count ? (long long)b->cell_id[0] : -1LL);
}

enum status model_loss(struct model *m, const struct batch *b, struct loss_sum *out)
{
    enum status st = check_batch(m, b);
    if (st != ST_OK) return st;
    *out = (struct loss_sum){0};
    struct pass pass = new_pass(m, m->tape, m->type, TAPE_INFER);
    struct tensor *h = encode(m, &pass, b, pass_sizes_of(b, READ_LOSS), READ_LOSS);
    add_losses(m, &pass, h, 0, out);
    return check_finite(out, b);
}

enum status model_gradient(struct model *m, const struct batch *b, double scale, uint64_t step, struct loss_sum *out)
{
    enum status st = check_batch(m, b);
    if (st != ST_OK) return st;
    struct loss_sum loss = {0};
    struct pass pass = new_pass(m, m->tape, m->type, TAPE_TRAIN);
    pass.drops = true;
    pass.step = step;
    m->family->begin_gradient(m->self);
    struct tensor *h = encode(m, &pass, b, pass_sizes_of(b, READ_LOSS), READ_LOSS);
    add_losses(m, &pass, h, scale, &loss);
    tape_backward(m->tape);
    m->family->end_gradient(m->self, &m->params);
    out->genewise += loss.genewise;
    out->cellwise += loss.cellwise;
    out->weight += loss.weight;
    out->genewise_hidden += loss.genewise_hidden;
    out->cellwise_hidden += loss.cellwise_hidden;
    out->hidden += loss.hidden;
    return check_finite(&loss, b);
}
