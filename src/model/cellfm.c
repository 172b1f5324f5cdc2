/* CellFM (Zeng et al., Nat. Commun. 16, 4679, 2025), pre-training network, under the published
 * tensor names:
 *     token   = gene_emb[g] + Table softmax(x u)     (mask_emb in place of the second where hidden)
 *     h       = trunk([cls_token; tokens])
 *     p_i     = w2 . LeakyReLU(W1 h_i)               gene-wise
 *     p'_i    = sigmoid(M gene_emb[g_i]) . h_cls     cell-wise
 * u is the value vector (kernel/value.h), a prepared segment: one [b] vector per change of weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/value.h"
#include "model/family.h"
#include "model/trunk.h"

struct cellfm {
    int64_t width, value_width, gene_rows; /* D, b, G */
    double slope;
    struct {
        int gene, cls, mask, a, w1, w3, table, decoder_w1, decoder_w2, map;
    } param;
    const struct linear *table, *decoder, *map;
    struct trunk trunk;
    real *u, *du, *value_scratch; /* [b] each; du NULL without training */
};

/* Rows of the gene table: V genes and the pad row 0, rounded up to a multiple of 8 as published. */
static int64_t gene_rows_for(int32_t genes) { return ((int64_t)genes + 1 + 7) / 8 * 8; }

static struct param token_param(int64_t width, enum param_init init, double sd)
{
    return (struct param){.shape_rank = 3, .shape = {1, 1, width}, .init = init, .init_scale = sd};
}

static enum status create_embedding(struct cellfm *c, struct build *b)
{
    enum status st = ST_OK;
    int unused; /* zero_emb exists in every checkpoint; only zero slots would use it */
    struct param gene = build_xavier(c->gene_rows, c->width, 0.5);
    struct param cls = token_param(c->width, INIT_NORMAL, build_xavier(c->width, c->width, 0.5).init_scale);
    struct param a = {.shape_rank = 2, .shape = {1, 1}, .init = INIT_ZERO};
    gene.sparse_rows = gene.tied = true;
    gene.zero_rows = 1;
    TRY(build_param(b, gene, &c->param.gene, "gene_emb"));
    TRY(build_param(b, cls, &c->param.cls, "cls_token"));
    TRY(build_param(b, token_param(c->width, INIT_ZERO, 0), &unused, "zero_emb"));
    TRY(build_param(b, token_param(c->width, INIT_ZERO, 0), &c->param.mask, "value_enc.mask_emb"));
    TRY(build_param(b, a, &c->param.a, "value_enc.value_enc.a"));
    TRY(build_param(b, build_dense(c->value_width, 1), &c->param.w1, "value_enc.value_enc.w1.weight"));
    TRY(build_param(b, build_dense(c->value_width, c->value_width), &c->param.w3, "value_enc.value_enc.w3.weight"));
    TRY(build_param(b, build_dense(c->width, c->value_width), &c->param.table, "value_enc.value_enc.table.weight"));
    TRY(build_linear_fine(b, c->param.table, &c->table)); /* few rows; softmax's backward cancels */
done:
    return st;
}

static enum status create_heads(struct cellfm *c, struct build *b)
{
    enum status st = ST_OK;
    struct param square = build_dense(c->width, c->width);
    TRY(build_param(b, square, &c->param.decoder_w1, "value_dec.w1.weight"));
    TRY(build_param(b, build_dense(1, c->width), &c->param.decoder_w2, "value_dec.w2.weight"));
    TRY(build_param(b, square, &c->param.map, "cellwise_dec.map.weight"));
    TRY(build_linear(b, &c->param.decoder_w1, 1, &c->decoder));
    TRY(build_linear(b, &c->param.map, 1, &c->map));
done:
    return st;
}

static void cellfm_destroy(void *self)
{
    struct cellfm *c = self;
    if (c) trunk_destroy(&c->trunk);
    free(c);
}

static enum status cellfm_create(struct build *b, const struct vocab *vocab, void **out)
{
    enum status st = ST_OK;
    struct cellfm *c = NULL;
    *out = NULL;
    TRY(NEW_ARRAY(c, 1));
    *c = (struct cellfm){.width = b->width,
                         .value_width = config_int(b->config, "model.value_width"),
                         .gene_rows = gene_rows_for(vocab->count),
                         .slope = config_real(b->config, "model.slope")};
    b->module = MODULE_EMBEDDING;
    TRY(create_embedding(c, b));
    TRY(trunk_create(b, "encoder", &c->trunk));
    b->module = b->layers;
    TRY(create_heads(c, b));
done:
    if (st != ST_OK) cellfm_destroy(c), c = NULL;
    *out = c;
    return st;
}

/* ---- the prepared segment: u = (W3 + a I) LeakyReLU(w1) ---- */

static void cellfm_take(void *self, struct arena *arena, bool train)
{
    struct cellfm *c = self;
    size_t bytes = (size_t)c->value_width * sizeof(real);
    c->u = arena_take(arena, bytes);
    c->du = train ? arena_take(arena, bytes) : NULL;
    c->value_scratch = train ? arena_take(arena, bytes) : NULL;
}

static void cellfm_refresh(void *self, const struct param_table *t)
{
    struct cellfm *c = self;
    if (t->rows[c->param.w1].elsewhere) return;
    value_vector_forward(c->u, param_weight(t, c->param.w1), param_weight(t, c->param.w3), param_weight(t, c->param.a),
                         c->slope, c->value_width);
}

static void cellfm_begin_gradient(void *self)
{
    struct cellfm *c = self;
    memset(c->du, 0, (size_t)c->value_width * sizeof(real));
}

static void cellfm_end_gradient(void *self, const struct param_table *t)
{
    struct cellfm *c = self;
    value_vector_backward(param_gradient(t, c->param.w1), param_gradient(t, c->param.w3), param_gradient(t, c->param.a),
                          c->du, param_weight(t, c->param.w1), param_weight(t, c->param.w3),
                          param_weight(t, c->param.a), c->slope, c->value_width, c->value_scratch);
}

/* ---- forward ---- */

static struct tensor *cellfm_embed(const void *self, const struct pass *pass)
{
    const struct cellfm *c = self;
    const struct batch *b = pass->batch;
    struct tape *t = pass->tape;
    tape_segment(t, "embed", 0, NULL);
    struct weight u = {c->u, c->du, tape_trains(t)};
    struct tensor *p = op_value_softmax(t, b ? b->level_value : NULL, pass->sizes.levels, u, c->value_width);
    struct tensor *e = op_linear(t, c->table, p);
    struct op_embed how = {.type = pass->type,
                           .gene = pass_weight(pass, c->param.gene),
                           .mask = pass_weight(pass, c->param.mask),
                           .cls = pass_weight(pass, c->param.cls),
                           .gene_rows = c->gene_rows,
                           .tokens = pass->sizes.tokens,
                           .feature = b ? b->feature : NULL,
                           .level = b ? b->level : NULL};
    struct tensor *x = op_embed(t, e, &how);
    tape_tap(t, "embed", x);
    return x;
}

static struct tensor *cellfm_block(const void *self, const struct pass *pass, int i, struct tensor *x)
{
    return trunk_block(&((const struct cellfm *)self)->trunk, pass, i, x);
}

static struct tensor *cellfm_resume(const void *self, const struct pass *pass, int i)
{
    return trunk_resume(&((const struct cellfm *)self)->trunk, pass, i);
}

static void cellfm_decode(const void *self, const struct pass *pass, struct tensor *h, struct tensor **genewise,
                          struct tensor **cellwise)
{
    const struct cellfm *c = self;
    struct tape *t = pass->tape;
    const struct rows *read = &pass->read;
    h = tape_segment(t, "heads", 0, h);
    *genewise = op_decode_gene(t, op_linear(t, c->decoder, h), pass_weight(pass, c->param.decoder_w2), c->slope);
    tape_tap(t, "genewise", *genewise);

    int32_t *id = tape_take(t, (size_t)read->count * sizeof *id);
    for (int64_t i = 0; id && i < read->count; i++) id[i] = pass->batch->feature[read->index ? read->index[i] : i];
    struct tensor *query =
        op_table_rows(t, pass_head_weight(pass, c->param.gene), c->gene_rows, c->width, id, read->count, pass->type);
    struct tensor *cls = op_rows(t, h, read->cells.offsets, read->cells.cells); /* the first row of each cell */
    *cellwise = op_decode_cell(t, op_linear(t, c->map, query), cls, read->cells);
    tape_tap(t, "cellwise", *cellwise);
}

/* sigmoid(M gene_emb[g]) in plain loops: once per gene of a sweep, not per cell. */
static void cellfm_read_out(const void *self, const struct param_table *params, const int32_t *genes, int count,
                            float *vectors)
{
    const struct cellfm *c = self;
    const real *map = param_weight(params, c->param.map), *table = param_weight(params, c->param.gene);
    for (int g = 0; g < count; g++)
        for (int64_t row = 0; row < c->width; row++) {
            double m = 0;
            for (int64_t d = 0; d < c->width; d++)
                m += (double)map[row * c->width + d] * table[genes[g] * c->width + d];
            vectors[g * c->width + row] = (float)(1 / (1 + exp(-m)));
        }
}

const struct family family_cellfm = {
    .name = "cellfm",
    .create = cellfm_create,
    .destroy = cellfm_destroy,
    .take = cellfm_take,
    .refresh = cellfm_refresh,
    .begin_gradient = cellfm_begin_gradient,
    .end_gradient = cellfm_end_gradient,
    .embed = cellfm_embed,
    .block = cellfm_block,
    .resume = cellfm_resume,
    .decode = cellfm_decode,
    .read_out = cellfm_read_out,
};
