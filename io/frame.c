#include "io/frame.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/frame_parts.h"
#include "io/h5.h"
#include "io/h5_filter.h"

void frame_free_column(struct frame_column *c)
{
    for (int32_t i = 0; c->category && i < c->category_count; i++) free(c->category[i]);
    free(c->category);
    free(c->name);
    free(c->values);
    free(c->extra);
}

void frame_close(struct frame **frame)
{
    struct frame *f = *frame;
    if (!f) return;
    for (int c = 0; c < f->count; c++) frame_free_column(&f->columns[c]);
    frame_free_column(&f->index);
    free(f->columns);
    free(f->path);
    text_free(&f->skipped);
    free(f);
    *frame = NULL;
}

int64_t frame_row_count(const struct frame *f) { return f->rows; }
int frame_column_count(const struct frame *f) { return f->count; }
const char *frame_column_name(const struct frame *f, int column) { return f->columns[column].name; }
const char *frame_version(const struct frame *f) { return f->version; }
const char *frame_skipped(const struct frame *f) { return f->skipped.data ? f->skipped.data : ""; }

int frame_find(const struct frame *f, const char *name)
{
    for (int c = 0; c < f->count; c++)
        if (strcmp(f->columns[c].name, name) == 0) return c;
    return -1;
}

/* ---- values ---- */

enum status frame_make_slice(struct column *out, const char *name, enum column_type type, int64_t count)
{
    enum status st = ST_OK;
    *out = (struct column){.name = text_copy(name), .type = type, .count = count};
    if (type == COLUMN_INT || type == COLUMN_BOOL) TRY(NEW_ARRAY(out->i, count));
    if (type == COLUMN_REAL) TRY(NEW_ARRAY(out->r, count));
    if (type == COLUMN_CATEGORY) TRY(NEW_ARRAY(out->code, count));
    if (type == COLUMN_TEXT) TRY(NEW_ARRAY(out->text, count));
done:
    return st;
}

static enum status check_texts(const struct frame *f, const char *name, char *const *texts, int64_t first,
                               int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (texts[i] && !text_is_utf8(texts[i], strlen(texts[i])))
            return fail(ST_INPUT, "'%s/%s' row %lld is not UTF-8 text; rewrite the names as UTF-8", f->path, name,
                        (long long)(first + i));
    return ST_OK;
}

/* Booleans are enums of int8: read them as what they are made of. */
static enum status read_booleans(hid_t dataset, int64_t first, int64_t count, int64_t *out)
{
    enum status st = ST_OK;
    hid_t type = H5Dget_type(dataset), native = H5_NONE;
    int8_t *bytes = NULL;
    TRY(NEW_ARRAY(bytes, count));
    native = H5Tget_class(type) == H5T_ENUM ? h5_bool_type() : H5Tcopy(H5T_NATIVE_INT8);
    TRY(h5_read_rows(dataset, native, first, count, bytes));
    for (int64_t i = 0; i < count; i++) out[i] = bytes[i] != 0;
done:
    free(bytes);
    h5_drop(&type);
    h5_drop(&native);
    return st;
}

/* Values of one dataset into a slice whose arrays are there. */
enum status frame_read_values(const struct frame *f, const char *path, enum column_type type, int64_t first,
                              int64_t count, struct column *out)
{
    enum status st = ST_OK;
    struct h5_pipeline pipeline;
    hid_t dataset = H5Dopen2(f->file, path, H5P_DEFAULT);
    if (dataset < 0) return h5_fail(ST_INPUT, "there is no readable dataset '%s'", path);
    TRY(h5_pipeline_open(dataset, path, &pipeline));
    if (count == 0) goto done;
    if (type == COLUMN_TEXT) TRY(h5_read_texts(f->file, path, first, count, out->text));
    else if (type == COLUMN_BOOL) TRY(read_booleans(dataset, first, count, out->i));
    else if (type == COLUMN_REAL) TRY(h5_read_rows(dataset, H5T_NATIVE_DOUBLE, first, count, out->r));
    else TRY(h5_read_rows(dataset, H5T_NATIVE_INT64, first, count, out->i));
    if (type == COLUMN_TEXT) TRY(check_texts(f, path + strlen(f->path) + 1, out->text, first, count));
done:
    h5_drop(&dataset);
    return st;
}

static enum status read_codes(const struct frame *f, const struct frame_column *c, int64_t first, int64_t count,
                              struct column *out)
{
    enum status st = ST_OK;
    struct column codes = {0};
    TRY(frame_make_slice(&codes, c->name, COLUMN_INT, count));
    TRY(frame_read_values(f, c->values, COLUMN_INT, first, count, &codes));
    for (int64_t i = 0; i < count; i++) {
        if (codes.i[i] >= c->category_count || codes.i[i] < -1)
            TRY(fail(ST_INPUT, "'%s/%s' row %lld has code %lld; it has %d categories: the file is damaged", f->path,
                     c->name, (long long)(first + i), (long long)codes.i[i], c->category_count));
        out->code[i] = (int32_t)codes.i[i];
    }
done:
    column_free(&codes);
    return st;
}

static enum status copy_categories(const struct frame_column *c, struct column *out)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(out->category, c->category_count));
    out->category_count = c->category_count;
    for (int32_t i = 0; i < c->category_count; i++) out->category[i] = text_copy(c->category[i]);
done:
    return st;
}

static enum status apply_mask(const struct frame *f, const struct frame_column *c, int64_t first, int64_t count,
                              struct column *out)
{
    enum status st = ST_OK;
    struct column mask = {0};
    TRY(frame_make_slice(&mask, c->name, COLUMN_BOOL, count));
    TRY(frame_read_values(f, c->extra, COLUMN_BOOL, first, count, &mask));
    for (int64_t i = 0; i < count; i++) {
        if (!mask.i[i]) continue;
        if (out->i) out->i[i] = INT64_MIN;
        if (out->r) out->r[i] = NAN;
        if (out->text) {
            free(out->text[i]);
            out->text[i] = NULL;
        }
    }
done:
    column_free(&mask);
    return st;
}

/* ---- compound tables ---- */

/* One field of rows [first, first+count): a memory type with that field alone. */
static enum status read_field(const struct frame *f, const char *name, hid_t member, int64_t first, int64_t count,
                              void *out)
{
    enum status st = ST_OK;
    hid_t type = H5Tcreate(H5T_COMPOUND, H5Tget_size(member)), dataset = H5Dopen2(f->file, f->path, H5P_DEFAULT);
    if (H5Tinsert(type, name, 0, member) < 0 || dataset < 0)
        TRY(h5_fail(ST_INPUT, "'%s' has no readable field '%s'", f->path, name));
    TRY(h5_read_rows(dataset, type, first, count, out));
done:
    h5_drop(&type);
    h5_drop(&dataset);
    return st;
}

static enum status read_text_field(const struct frame *f, const char *name, int64_t first, int64_t count, char **texts)
{
    enum status st = ST_OK;
    hid_t dataset = H5Dopen2(f->file, f->path, H5P_DEFAULT), table = H5_NONE, member = H5_NONE;
    char *packed = NULL;
    table = dataset < 0 ? H5_NONE : H5Dget_type(dataset);
    int place = table < 0 ? -1 : H5Tget_member_index(table, name);
    member = place < 0 ? H5_NONE : H5Tget_member_type(table, (unsigned)place);
    if (member < 0 || H5Tis_variable_str(member) > 0)
        TRY(h5_fail(ST_INPUT, "'%s' field '%s' is not fixed-length text", f->path, name));
    size_t width = H5Tget_size(member);
    TRY(NEW_ARRAY(packed, (size_t)count * width + 1));
    TRY(read_field(f, name, member, first, count, packed));
    for (int64_t i = 0; i < count; i++) {
        texts[i] = strndup(packed + (size_t)i * width, width);
        if (!texts[i]) TRY(fail(ST_MEMORY, "no memory for '%s'", name));
    }
    TRY(check_texts(f, name, texts, first, count));
done:
    free(packed);
    h5_drop(&member);
    h5_drop(&table);
    h5_drop(&dataset);
    return st;
}

static enum status read_field_values(const struct frame *f, const struct frame_column *c, int64_t first, int64_t count,
                                     struct column *out)
{
    enum status st = ST_OK;
    int64_t *codes = NULL;
    int8_t *flags = NULL;
    hid_t boolean = H5_NONE;
    if (c->type == COLUMN_TEXT) return read_text_field(f, c->name, first, count, out->text);
    if (c->type == COLUMN_REAL) return read_field(f, c->name, H5T_NATIVE_DOUBLE, first, count, out->r);
    if (c->type == COLUMN_INT) return read_field(f, c->name, H5T_NATIVE_INT64, first, count, out->i);
    if (c->type == COLUMN_BOOL) {
        TRY(NEW_ARRAY(flags, count));
        boolean = h5_bool_type();
        TRY(read_field(f, c->name, boolean, first, count, flags));
        for (int64_t i = 0; i < count; i++) out->i[i] = flags[i] != 0;
    } else {
        TRY(NEW_ARRAY(codes, count));
        TRY(read_field(f, c->name, H5T_NATIVE_INT64, first, count, codes));
        for (int64_t i = 0; i < count; i++) {
            if (codes[i] >= c->category_count || codes[i] < -1)
                TRY(fail(ST_INPUT, "'%s' field '%s' row %lld has code %lld of %d categories; the file is damaged",
                         f->path, c->name, (long long)(first + i), (long long)codes[i], c->category_count));
            out->code[i] = (int32_t)codes[i];
        }
    }
done:
    free(codes);
    free(flags);
    h5_drop(&boolean);
    return st;
}

/* ---- reading ---- */

enum status frame_read_names(struct frame *f, int64_t first, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    const struct frame_column *c = &f->index;
    struct column numbers = {0};
    char buffer[32];
    TRY(frame_make_slice(out, "index", COLUMN_TEXT, count));
    if (c->storage == STORED_FIELD) TRY(read_text_field(f, c->name, first, count, out->text));
    else if (c->type == COLUMN_TEXT) TRY(frame_read_values(f, c->values, COLUMN_TEXT, first, count, out));
    else { /* rows that are numbered: their names are the numbers */
        TRY(frame_make_slice(&numbers, c->name, c->type, count));
        TRY(frame_read_values(f, c->values, c->type, first, count, &numbers));
        for (int64_t i = 0; i < count; i++) out->text[i] = text_copy(column_as_text(&numbers, i, buffer));
    }
done:
    column_free(&numbers);
    if (st != ST_OK) column_free(out);
    return st;
}

enum status frame_read(struct frame *f, int column, int64_t first, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    const struct frame_column *c = &f->columns[column];
    TRY(frame_make_slice(out, c->name, c->type, count));
    if (c->type == COLUMN_CATEGORY) TRY(copy_categories(c, out));
    if (c->storage == STORED_FIELD) TRY(read_field_values(f, c, first, count, out));
    else if (c->storage == STORED_CATEGORIES) TRY(read_codes(f, c, first, count, out));
    else TRY(frame_read_values(f, c->values, c->type, first, count, out));
    if (c->storage == STORED_MASKED) TRY(apply_mask(f, c, first, count, out));
done:
    if (st != ST_OK) column_free(out);
    return st;
}
