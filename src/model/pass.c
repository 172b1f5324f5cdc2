#include "model/pass.h"

#include <math.h>

static bool is_read(const struct batch *b, int64_t token, enum read read)
{
    if (read == READ_ALL || b->role[token] == TOKEN_CLS) return true;
    return read == READ_LOSS && b->loss_weight[token] != 0;
}

struct pass_sizes pass_sizes_of(const struct batch *b, enum read read)
{
    struct pass_sizes s = {b->cell_count, b->token_count, b->level_count, 0};
    for (int64_t t = 0; t < b->token_count; t++) s.read += is_read(b, t, read);
    return s;
}

static void fill_all(struct pass *p, int64_t *cell_id, uint8_t *key_mask, float *value_scale)
{
    const struct batch *b = p->batch;
    for (int c = 0; c < b->cell_count; c++) {
        int64_t genes = b->offsets[c + 1] - b->offsets[c] - 1;
        value_scale[c] = genes > 0 ? 1 / sqrtf((float)genes) : 1;
        for (int64_t t = b->offsets[c]; t < b->offsets[c + 1]; t++) {
            cell_id[t] = b->cell_id[c];
            key_mask[t] = b->role[t] == TOKEN_CLS || b->visible[t];
        }
    }
}

static void fill_read(struct pass *p, enum read read, int64_t *offsets, int64_t *index, int64_t *cell_id,
                      int32_t *position)
{
    const struct batch *b = p->batch;
    int64_t n = 0;
    for (int c = 0; c < b->cell_count; c++) {
        offsets[c] = n;
        for (int64_t t = b->offsets[c]; t < b->offsets[c + 1]; t++) {
            if (!is_read(b, t, read)) continue;
            index[n] = t;
            cell_id[n] = b->cell_id[c];
            position[n++] = b->position[t];
        }
    }
    offsets[b->cell_count] = n;
}

#define TAKE(type, count) ((type *)tape_take(p->tape, (size_t)(count) * sizeof(type)))

void pass_begin(struct pass *p, const struct batch *batch, struct pass_sizes sizes, enum read read)
{
    p->batch = batch;
    p->sizes = sizes;
    int64_t *cell_id = TAKE(int64_t, sizes.tokens);
    uint8_t *key_mask = TAKE(uint8_t, sizes.tokens);
    float *value_scale = TAKE(float, sizes.cells);
    if (batch) fill_all(p, cell_id, key_mask, value_scale);
    p->key_mask = key_mask;
    p->value_scale = value_scale;
    p->all = (struct rows){.count = sizes.tokens,
                           .cells = {sizes.cells, batch ? batch->offsets : NULL},
                           .cell_id = cell_id,
                           .position = batch ? batch->position : NULL};
    if (read == READ_ALL) {
        p->read = p->all;
        return;
    }
    int64_t *offsets = TAKE(int64_t, sizes.cells + 1), *index = TAKE(int64_t, sizes.read);
    int64_t *read_id = TAKE(int64_t, sizes.read);
    int32_t *position = TAKE(int32_t, sizes.read);
    if (batch) fill_read(p, read, offsets, index, read_id, position);
    p->read = (struct rows){sizes.read, true, {sizes.cells, offsets}, index, read_id, position};
}

struct weight pass_weight(const struct pass *p, int param)
{
    const struct param_table *t = p->params;
    struct weight w = {NULL, NULL, tape_trains(p->tape) && t->rows[param].trainable};
    if (t->weight) w.value = param_weight(t, param);
    if (t->gradient) w.gradient = param_gradient(t, param);
    return w;
}

struct weight pass_head_weight(const struct pass *p, int param)
{
    struct weight w = pass_weight(p, param);
    if (w.gradient) w.gradient = param_head_gradient(p->params, param);
    return w;
}

struct dropout pass_dropout(const struct pass *p, const struct rows *rows, double share, int site)
{
    return (struct dropout){.p = p->drops ? share : 0,
                            .seed = p->seed,
                            .step = p->step,
                            .site = (uint32_t)site,
                            .row_cell = rows->cell_id,
                            .row_position = rows->position};
}
