#include "io/embedding_obs.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/embedding.h"

static const char embedded_name[] = "embedded", reason_name[] = "embedding_reason";
static const char *const reasons_in_words[] = {
#define X(name, words) words,
    EMBED_REASON_LIST(X)
#undef X
};

enum { BLOCK = 65536 }; /* rows looked at together */

/* ---- what the columns need ---- */

/* Facts of one column over all rows: longest text in bytes, is anything missing. */
static void measure_values(const struct column *c, int64_t *longest, int64_t *missing)
{
    for (int64_t r = 0; r < c->count; r++) {
        if (c->type == COLUMN_TEXT && c->text[r]) {
            int64_t bytes = (int64_t)strlen(c->text[r]);
            if (bytes > *longest) *longest = bytes;
        }
        if ((c->type == COLUMN_INT || c->type == COLUMN_BOOL) && c->i[r] == INT64_MIN) *missing = 1;
    }
}

static bool needs_look(enum column_type type)
{
    return type == COLUMN_TEXT || type == COLUMN_INT || type == COLUMN_BOOL;
}

/* facts[0..1] for names of rows, then two for each carried column. */
static enum status measure_block(const struct obs_layout *layout, struct cell_input *input, int64_t first,
                                 int64_t count, int64_t *facts)
{
    enum status st = ST_OK;
    struct column c = {0};
    TRY(cell_input_names(input, first, count, &c));
    measure_values(&c, &facts[0], &facts[1]);
    column_free(&c);
    for (int k = 0; k < layout->carried; k++) {
        if (!needs_look(layout->sample[k].type)) continue;
        TRY(cell_input_obs_read(input, layout->column[k], first, count, &c));
        measure_values(&c, &facts[2 + 2 * k], &facts[3 + 2 * k]);
        column_free(&c);
    }
done:
    column_free(&c);
    return st;
}

static enum status measure(struct comm *comm, const struct obs_layout *layout, struct cell_input *input, int64_t *facts)
{
    enum status st = ST_OK;
    int64_t first, count;
    comm_share(comm, input->count, &first, &count);
    for (int64_t at = 0; at < count && st == ST_OK; at += BLOCK)
        st = measure_block(layout, input, first + at, count - at < BLOCK ? count - at : BLOCK, facts);
    TRY(comm_agree(comm, st));
    comm_max_i64(comm, facts, 2 + 2 * layout->carried);
done:
    return st;
}

/* ---- the layout ---- */

static enum status choose_columns(struct obs_layout *layout, struct cell_input *input)
{
    enum status st = ST_OK;
    int all = cell_input_obs_count(input);
    TRY(NEW_ARRAY(layout->column, all));
    TRY(NEW_ARRAY(layout->sample, all));
    TRY(NEW_ARRAY(layout->fields, all + 2));
    for (int k = 0; k < all; k++) {
        const char *name = cell_input_obs_name(input, k);
        if (strcmp(name, embedded_name) == 0 || strcmp(name, reason_name) == 0) continue;
        TRY(cell_input_obs_read(input, k, 0, 1, &layout->sample[layout->carried]));
        layout->column[layout->carried++] = k;
    }
    layout->field_count = layout->carried + 2;
done:
    return st;
}

static void fill_fields(struct obs_layout *layout, struct cell_input *input, const int64_t *facts)
{
    for (int k = 0; k < layout->carried; k++) {
        const struct column *c = &layout->sample[k];
        layout->fields[k] = (struct h5ad_field){.name = cell_input_obs_name(input, layout->column[k]),
                                                .type = c->type,
                                                .text_bytes = facts[2 + 2 * k] > 0 ? (int32_t)facts[2 + 2 * k] : 1,
                                                .nullable = facts[3 + 2 * k] != 0,
                                                .category = (const char *const *)c->category,
                                                .category_count = c->category_count};
    }
    layout->fields[layout->carried] = (struct h5ad_field){.name = embedded_name, .type = COLUMN_BOOL};
    layout->fields[layout->carried + 1] = (struct h5ad_field){.name = reason_name,
                                                              .type = COLUMN_CATEGORY,
                                                              .category = reasons_in_words + 1,
                                                              .category_count = EMBED_REASON_COUNT - 1};
    layout->frame = (struct h5ad_frame){.rows = input->count,
                                        .index_bytes = facts[0] > 0 ? (int32_t)facts[0] : 1,
                                        .fields = layout->fields,
                                        .field_count = layout->field_count};
}

enum status obs_layout_create(struct comm *comm, struct cell_input *input, struct obs_layout *layout)
{
    enum status st = ST_OK;
    int64_t *facts = NULL;
    *layout = (struct obs_layout){0};
    st = choose_columns(layout, input);
    if (st == ST_OK) st = NEW_ARRAY(facts, 2 + 2 * layout->carried);
    TRY(comm_agree(comm, st));
    TRY(measure(comm, layout, input, facts));
    fill_fields(layout, input, facts);
done:
    free(facts);
    if (st != ST_OK) obs_layout_free(layout);
    return st;
}

void obs_layout_free(struct obs_layout *layout)
{
    for (int k = 0; layout->sample && k < layout->carried; k++) column_free(&layout->sample[k]);
    free(layout->sample);
    free(layout->column);
    free(layout->fields);
    *layout = (struct obs_layout){0};
}

/* ---- rows ---- */

static enum status write_names(struct cell_input *input, struct h5ad_file *file, int64_t first, int64_t count)
{
    enum status st = ST_OK;
    struct column names = {0};
    TRY(cell_input_names(input, first, count, &names));
    TRY(h5ad_write_names(file, first, count, (const char *const *)names.text));
done:
    column_free(&names);
    return st;
}

static enum status write_carried(const struct obs_layout *layout, struct cell_input *input, struct h5ad_file *file,
                                 int64_t first, int64_t count)
{
    enum status st = ST_OK;
    struct column c = {0};
    for (int k = 0; k < layout->carried; k++) {
        TRY(cell_input_obs_read(input, layout->column[k], first, count, &c));
        TRY(h5ad_write_column(file, k, first, &c));
        column_free(&c);
    }
done:
    column_free(&c);
    return st;
}

/* Reasons as the two columns: code = reason - 1, missing (-1) for an embedded cell. */
static enum status write_reasons(const struct obs_layout *layout, struct h5ad_file *file, int64_t first, int64_t count,
                                 const uint8_t *reasons)
{
    enum status st = ST_OK;
    struct column embedded = {.type = COLUMN_BOOL, .count = count}, why = {.type = COLUMN_CATEGORY, .count = count};
    TRY(NEW_ARRAY(embedded.i, count));
    TRY(NEW_ARRAY(why.code, count));
    for (int64_t i = 0; i < count; i++) {
        embedded.i[i] = reasons[i] == EMBED_OK;
        why.code[i] = (int32_t)reasons[i] - 1;
    }
    TRY(h5ad_write_column(file, layout->carried, first, &embedded));
    TRY(h5ad_write_column(file, layout->carried + 1, first, &why));
done:
    free(embedded.i);
    free(why.code);
    return st;
}

enum status obs_layout_write(const struct obs_layout *layout, struct cell_input *input, struct h5ad_file *file,
                             int64_t first, int64_t count, const uint8_t *reasons)
{
    enum status st = ST_OK;
    TRY(write_names(input, file, first, count));
    TRY(write_carried(layout, input, file, first, count));
    TRY(write_reasons(layout, file, first, count, reasons));
done:
    return st;
}

enum status obs_layout_read_reasons(const struct obs_layout *layout, struct h5ad_file *file, int64_t first,
                                    int64_t count, uint8_t *reasons)
{
    enum status st = ST_OK;
    int32_t *codes = NULL;
    TRY(NEW_ARRAY(codes, count));
    TRY(h5ad_read(file, h5ad_find(file, "obs/embedding_reason/codes"), first, count, codes));
    for (int64_t i = 0; i < count; i++) {
        if (codes[i] < -1 || codes[i] >= EMBED_REASON_COUNT - 1)
            codes[i] = EMBED_NOT_FINITE - 1; /* damaged: fails its hash */
        reasons[i] = (uint8_t)(codes[i] + 1);
    }
done:
    free(codes);
    return st;
}
