/* obs of an atlas, and the selection of cells by it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cell/select.h"
#include "io/atlas_shard.h"
#include "io/h5ad_layout.h"

int atlas_obs_count(const struct atlas *atlas) { return atlas->index.field_count; }
const char *atlas_obs_name(const struct atlas *atlas, int index) { return atlas->index.fields[index].name; }

static int find_field(const struct atlas *atlas, const char *name)
{
    for (int k = 0; k < atlas->index.field_count; k++)
        if (strcmp(atlas->index.fields[k].name, name) == 0) return k;
    return -1;
}

bool atlas_obs_has(const struct atlas *atlas, const char *name) { return find_field(atlas, name) >= 0; }

static enum status no_such_column(const struct atlas *atlas, const char *name)
{
    const char **names = NULL;
    enum status st = NEW_ARRAY(names, atlas->index.field_count);
    if (st != ST_OK) return st;
    for (int k = 0; k < atlas->index.field_count; k++) names[k] = atlas->index.fields[k].name;
    int near = text_nearest(name, names, atlas->index.field_count);
    st = fail(ST_INPUT, "%s: obs has no column '%s'%s%s%s", atlas->path, name, near < 0 ? "" : "; did you mean '",
              near < 0 ? "" : names[near], near < 0 ? "" : "'?");
    free(names);
    return st;
}

/* ---- a slice of a column ---- */

static enum status allocate(const struct h5ad_field *f, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    *out = (struct column){.name = text_copy(f->name), .type = f->type, .count = count};
    switch (f->type) {
    case COLUMN_INT:
    case COLUMN_BOOL: st = NEW_ARRAY(out->i, count); break;
    case COLUMN_REAL: st = NEW_ARRAY(out->r, count); break;
    case COLUMN_TEXT: st = NEW_ARRAY(out->text, count); break;
    case COLUMN_CATEGORY:
        st = NEW_ARRAY(out->code, count);
        if (st == ST_OK) st = NEW_ARRAY(out->category, f->category_count);
        for (int32_t c = 0; st == ST_OK && c < f->category_count; c++) {
            out->category[c] = text_copy(f->category[c]);
            out->category_count++;
        }
    }
    return st;
}

/* Values from their form on disk to rows [at, at+count) of the column. */
static enum status unpack(const struct h5ad_field *f, const char *packed, const uint8_t *missing, int64_t at,
                          int64_t count, struct column *out)
{
    int64_t bytes = field_bytes(f);
    for (int64_t i = 0; i < count; i++) {
        const char *place = packed + i * bytes;
        switch (f->type) {
        case COLUMN_INT: memcpy(&out->i[at + i], place, 8); break;
        case COLUMN_BOOL: out->i[at + i] = *place != 0; break;
        case COLUMN_REAL: memcpy(&out->r[at + i], place, 8); break;
        case COLUMN_TEXT:
            out->text[at + i] = *place ? text_format("%.*s", (int)strnlen(place, (size_t)bytes), place) : NULL;
            break;
        case COLUMN_CATEGORY:
            memcpy(&out->code[at + i], place, 4);
            if (out->code[at + i] < -1 || out->code[at + i] >= f->category_count)
                return fail(ST_INPUT, "column '%s' has code %d; allowed are -1 to %d", f->name, out->code[at + i],
                            f->category_count - 1);
        }
        if (missing && missing[i]) out->i[at + i] = INT64_MIN;
    }
    return ST_OK;
}

static enum status read_slice(struct atlas *atlas, int field, int64_t shard, int64_t row, int64_t count, int64_t at,
                              struct column *out)
{
    enum status st = ST_OK;
    const struct h5ad_field *f = &atlas->index.fields[field];
    int mask = index_mask(&atlas->index, field);
    char *packed = NULL;
    uint8_t *missing = NULL;
    TRY(NEW_ARRAY(packed, count * field_bytes(f)));
    TRY(shard_read(atlas, 0, shard, index_values(&atlas->index, field), row, count, packed));
    if (mask >= 0) {
        TRY(NEW_ARRAY(missing, count));
        TRY(shard_read(atlas, 0, shard, mask, row, count, missing));
    }
    st = unpack(f, packed, missing, at, count, out);
    TRY(shard_fail(atlas, 0, shard, st));
done:
    free(missing);
    free(packed);
    return st;
}

/* Rows [first, first+count) of a shard's piece 0, the names. */
static enum status read_names(struct atlas *atlas, int64_t shard, int64_t row, int64_t count, char **names)
{
    enum status st = ST_OK;
    int64_t bytes = atlas->index.row_bytes[0];
    char *packed = NULL;
    TRY(NEW_ARRAY(packed, count * bytes));
    TRY(shard_read(atlas, 0, shard, 0, row, count, packed));
    for (int64_t i = 0; i < count; i++) names[i] = text_format("%.*s", (int)bytes, packed + i * bytes);
done:
    free(packed);
    return st;
}

enum status atlas_names_read(struct atlas *atlas, int64_t first, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    *out = (struct column){.type = COLUMN_TEXT, .count = count};
    TRY(NEW_ARRAY(out->text, count));
    for (int64_t at = 0, n; at < count; at += n) {
        int64_t shard = (first + at) / atlas->index.shard_rows, row = first + at - shard * atlas->index.shard_rows;
        n = atlas->index.shard_rows - row < count - at ? atlas->index.shard_rows - row : count - at;
        TRY(read_names(atlas, shard, row, n, out->text + at));
    }
done:
    if (st != ST_OK) column_free(out);
    return st;
}

enum status atlas_obs_read(struct atlas *atlas, const char *name, int64_t first, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    int field = find_field(atlas, name);
    *out = (struct column){0};
    if (field < 0) return no_such_column(atlas, name);
    if (first < 0 || count < 0 || first > atlas->index.rows - count)
        return fail(ST_INTERNAL, "%s: rows %lld to %lld of obs are asked for; it has %lld", atlas->path,
                    (long long)first, (long long)(first + count), (long long)atlas->index.rows);
    TRY(allocate(&atlas->index.fields[field], count, out));
    for (int64_t at = 0, n; at < count; at += n) {
        int64_t shard = (first + at) / atlas->index.shard_rows, row = first + at - shard * atlas->index.shard_rows;
        n = atlas->index.shard_rows - row < count - at ? atlas->index.shard_rows - row : count - at;
        TRY(read_slice(atlas, field, shard, row, n, at, out));
    }
done:
    if (st != ST_OK) column_free(out);
    return st;
}

/* ---- selection ---- */

/* Evaluate on rows [first, first+count); append the chosen to rows[*chosen…]. */
static enum status select_block(struct atlas *atlas, const struct select *select, int64_t first, int64_t count,
                                uint8_t *keep, int64_t *rows, int64_t *chosen)
{
    enum status st = ST_OK;
    int n = select_column_count(select);
    struct column *columns = NULL;
    TRY(NEW_ARRAY(columns, n));
    for (int k = 0; k < n; k++) TRY(atlas_obs_read(atlas, select_column_name(select, k), first, count, &columns[k]));
    TRY(select_evaluate(select, columns, count, keep));
    for (int64_t i = 0; i < count; i++)
        if (keep[i]) rows[(*chosen)++] = first + i;
done:
    for (int k = 0; columns && k < n; k++) column_free(&columns[k]);
    free(columns);
    return st;
}

static enum status select_share(const struct comm *comm, struct atlas *atlas, const char *expression, int64_t **rows,
                                int64_t *chosen)
{
    enum { BLOCK = 1 << 16 };
    enum status st = ST_OK;
    struct select *select = NULL;
    const char **names = NULL;
    uint8_t *keep = NULL;
    int64_t first, count;
    comm_share(comm, atlas->index.rows, &first, &count);
    TRY(select_parse(expression, &select));
    TRY(NEW_ARRAY(names, atlas->index.field_count));
    for (int k = 0; k < atlas->index.field_count; k++) names[k] = atlas->index.fields[k].name;
    TRY(select_check_names(select, names, atlas->index.field_count));
    TRY(NEW_ARRAY(*rows, count));
    TRY(NEW_ARRAY(keep, BLOCK));
    for (int64_t at = 0; at < count; at += BLOCK)
        TRY(select_block(atlas, select, first + at, count - at < BLOCK ? count - at : BLOCK, keep, *rows, chosen));
done:
    free(keep);
    free(names);
    select_destroy(&select);
    return st;
}

enum status atlas_select(struct comm *comm, struct atlas *atlas, const char *expression, int64_t **rows, int64_t *count)
{
    int64_t *mine = NULL, chosen = 0, bytes = 0;
    void *all = NULL;
    *rows = NULL;
    *count = 0;
    enum status st = comm_agree(comm, select_share(comm, atlas, expression, &mine, &chosen));
    if (st != ST_OK) goto done;
    TRY(comm_gather_all(comm, mine, chosen * (int64_t)sizeof *mine, &all, &bytes, NULL));
    *rows = all;
    *count = bytes / (int64_t)sizeof *mine;
    if (*count == 0) {
        st = fail(ST_INPUT, "%s: no cell of %lld is selected by: %s", atlas->path, (long long)atlas->index.rows,
                  expression);
        free(all);
        *rows = NULL;
        st = comm_agree(comm, st);
    }
done:
    free(mine);
    return st;
}
