#include "io/frame.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/h5.h"
#include "io/h5_filter.h"

/* How a column lies in the file. */
enum storage {
    STORED_PLAIN,      /* a dataset of numbers, booleans or strings */
    STORED_CATEGORIES, /* codes and categories: two datasets */
    STORED_MASKED,     /* values and mask: two datasets */
    STORED_FIELD       /* a field of the compound table */
};

struct frame_column {
    char *name;
    enum storage storage;
    enum column_type type;
    char *values, *extra; /* path of values or codes; path of categories or mask */
    char **category;      /* [category_count] of a COLUMN_CATEGORY */
    int32_t category_count;
};

struct frame {
    hid_t file;
    char *path;
    const char *version;
    int64_t rows;
    struct frame_column index;
    struct frame_column *columns;
    int count, capacity;
    struct text skipped;
};

static void free_column(struct frame_column *c)
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
    for (int c = 0; c < f->count; c++) free_column(&f->columns[c]);
    free_column(&f->index);
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

/* ---- types ---- */

/* Is it h5py's boolean, an enum with FALSE and TRUE? */
static bool is_boolean(hid_t type)
{
    return H5Tget_class(type) == H5T_ENUM && H5Tget_nmembers(type) == 2;
}

static bool column_type_of(hid_t type, enum column_type *out)
{
    switch (H5Tget_class(type)) {
    case H5T_INTEGER: *out = COLUMN_INT; return true;
    case H5T_FLOAT: *out = COLUMN_REAL; return true;
    case H5T_STRING: *out = COLUMN_TEXT; return true;
    case H5T_ENUM: *out = COLUMN_BOOL; return is_boolean(type);
    default: return false;
    }
}

/* Type and length of a one-dimensional dataset; false (with a reason) if a column cannot be that. */
static bool describe_dataset(const struct frame *f, const char *path, enum column_type *type, int64_t *rows, const char **why)
{
    int rank;
    int64_t dims[8];
    *why = "it cannot be opened";
    hid_t dataset = h5_exists(f->file, path) ? H5Dopen2(f->file, path, H5P_DEFAULT) : H5_NONE;
    if (dataset < 0) return false;
    hid_t file_type = H5Dget_type(dataset);
    bool known = file_type >= 0 && column_type_of(file_type, type);
    h5_drop(&file_type);
    h5_drop(&dataset);
    *why = "its type is not one of numbers, booleans and strings";
    if (!known) return false;
    if (h5_shape(f->file, path, &rank, dims) != ST_OK) {
        status_clear();
        return false;
    }
    *why = "it is not one-dimensional";
    *rows = rank == 1 ? dims[0] : -1;
    return rank == 1;
}

/* ---- values ---- */

static enum status make_slice(struct column *out, const char *name, enum column_type type, int64_t count)
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

static enum status check_texts(const struct frame *f, const char *name, char *const *texts, int64_t first, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (texts[i] && !text_is_utf8(texts[i], strlen(texts[i])))
            return fail(ST_INPUT, "'%s/%s' row %lld is not UTF-8 text; rewrite the names as UTF-8", f->path, name, (long long)(first + i));
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
static enum status read_values(const struct frame *f, const char *path, enum column_type type, int64_t first, int64_t count, struct column *out)
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

static enum status read_codes(const struct frame *f, const struct frame_column *c, int64_t first, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    struct column codes = {0};
    TRY(make_slice(&codes, c->name, COLUMN_INT, count));
    TRY(read_values(f, c->values, COLUMN_INT, first, count, &codes));
    for (int64_t i = 0; i < count; i++) {
        if (codes.i[i] >= c->category_count || codes.i[i] < -1)
            TRY(fail(ST_INPUT, "'%s/%s' row %lld has code %lld; it has %d categories: the file is damaged", f->path, c->name,
                     (long long)(first + i), (long long)codes.i[i], c->category_count));
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

static enum status apply_mask(const struct frame *f, const struct frame_column *c, int64_t first, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    struct column mask = {0};
    TRY(make_slice(&mask, c->name, COLUMN_BOOL, count));
    TRY(read_values(f, c->extra, COLUMN_BOOL, first, count, &mask));
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
static enum status read_field(const struct frame *f, const char *name, hid_t member, int64_t first, int64_t count, void *out)
{
    enum status st = ST_OK;
    hid_t type = H5Tcreate(H5T_COMPOUND, H5Tget_size(member)), dataset = H5Dopen2(f->file, f->path, H5P_DEFAULT);
    if (H5Tinsert(type, name, 0, member) < 0 || dataset < 0) TRY(h5_fail(ST_INPUT, "'%s' has no readable field '%s'", f->path, name));
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

static enum status read_field_values(const struct frame *f, const struct frame_column *c, int64_t first, int64_t count, struct column *out)
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
                TRY(fail(ST_INPUT, "'%s' field '%s' row %lld has code %lld of %d categories; the file is damaged", f->path, c->name,
                         (long long)(first + i), (long long)codes[i], c->category_count));
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
    TRY(make_slice(out, "index", COLUMN_TEXT, count));
    if (c->storage == STORED_FIELD) TRY(read_text_field(f, c->name, first, count, out->text));
    else if (c->type == COLUMN_TEXT) TRY(read_values(f, c->values, COLUMN_TEXT, first, count, out));
    else { /* rows that are numbered: their names are the numbers */
        TRY(make_slice(&numbers, c->name, c->type, count));
        TRY(read_values(f, c->values, c->type, first, count, &numbers));
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
    TRY(make_slice(out, c->name, c->type, count));
    if (c->type == COLUMN_CATEGORY) TRY(copy_categories(c, out));
    if (c->storage == STORED_FIELD) TRY(read_field_values(f, c, first, count, out));
    else if (c->storage == STORED_CATEGORIES) TRY(read_codes(f, c, first, count, out));
    else TRY(read_values(f, c->values, c->type, first, count, out));
    if (c->storage == STORED_MASKED) TRY(apply_mask(f, c, first, count, out));
done:
    if (st != ST_OK) column_free(out);
    return st;
}

/* ---- opening ---- */

static void skip_column(struct frame *f, struct frame_column *c, const char *why)
{
    text_add(&f->skipped, "%s/%s: %s\n", f->path, c->name, why);
    free_column(c);
}

static enum status add_column(struct frame *f, struct frame_column c)
{
    if (f->count == f->capacity) {
        int capacity = f->capacity ? f->capacity * 2 : 16;
        struct frame_column *larger = realloc(f->columns, sizeof *larger * (size_t)capacity);
        if (!larger) return fail(ST_MEMORY, "no memory for the columns of '%s'", f->path);
        f->columns = larger;
        f->capacity = capacity;
    }
    f->columns[f->count++] = c;
    return ST_OK;
}

/* All categories as text, whatever they are. */
static enum status load_categories(struct frame *f, struct frame_column *c)
{
    enum status st = ST_OK;
    enum column_type type;
    int64_t count;
    const char *why;
    char buffer[32];
    struct column all = {0};
    if (!describe_dataset(f, c->extra, &type, &count, &why) || count > INT32_MAX)
        return fail(ST_INPUT, "categories '%s' of '%s' cannot be read: %s", c->extra, c->name, why);
    TRY(make_slice(&all, c->name, type, count));
    TRY(read_values(f, c->extra, type, 0, count, &all));
    TRY(NEW_ARRAY(c->category, count));
    for (int64_t i = 0; i < count; i++) c->category[c->category_count++] = text_copy(column_as_text(&all, i, buffer));
done:
    column_free(&all);
    return st;
}

static enum status refuse_length(const struct frame *f, const char *name, int64_t rows)
{
    return fail(ST_INPUT, "column '%s' of '%s' has %lld rows and its index %lld; they must be equal: the file is damaged", name, f->path,
                (long long)rows, (long long)f->rows);
}

/* A group: categorical or one of the nullable encodings. */
static enum status open_encoded(struct frame *f, struct frame_column c)
{
    enum status st = ST_OK;
    char *place = text_format("%s/%s", f->path, c.name), *codes = text_format("%s/codes", place);
    bool categorical = h5_exists(f->file, codes);
    c.storage = categorical ? STORED_CATEGORIES : STORED_MASKED;
    c.values = text_format("%s/%s", place, categorical ? "codes" : "values");
    c.extra = text_format("%s/%s", place, categorical ? "categories" : "mask");
    free(place);
    free(codes);
    int64_t rows;
    const char *why;
    if (!h5_exists(f->file, c.values) || !h5_exists(f->file, c.extra)) {
        skip_column(f, &c, "an encoding that is not known here");
        return ST_OK;
    }
    if (!describe_dataset(f, c.values, &c.type, &rows, &why)) {
        skip_column(f, &c, why);
        return ST_OK;
    }
    if (rows != f->rows) TRY(refuse_length(f, c.name, rows));
    if (categorical) {
        c.type = COLUMN_CATEGORY;
        TRY(load_categories(f, &c));
    }
    return add_column(f, c);
done:
    free_column(&c);
    return st;
}

/* AnnData 0.7: an integer dataset whose attribute `categories` refers to the list. */
static bool find_referred_categories(struct frame *f, struct frame_column *c)
{
    hid_t dataset = H5Dopen2(f->file, c->values, H5P_DEFAULT), attribute = H5_NONE, type = H5_NONE;
    bool found = false;
    if (dataset >= 0 && h5_attr_exists(dataset, "categories")) {
        attribute = H5Aopen(dataset, "categories", H5P_DEFAULT);
        type = attribute < 0 ? H5_NONE : H5Aget_type(attribute);
        found = type >= 0 && H5Tget_class(type) == H5T_REFERENCE;
    }
    h5_drop(&type);
    h5_drop(&attribute);
    h5_drop(&dataset);
    /* the reference leads to __categories/NAME in every file that AnnData wrote; a name is safer to follow */
    if (found) c->extra = text_format("%s/__categories/%s", f->path, c->name);
    return found;
}

static enum status open_plain(struct frame *f, struct frame_column c)
{
    enum status st = ST_OK;
    int64_t rows;
    const char *why;
    c.values = text_format("%s/%s", f->path, c.name);
    if (!describe_dataset(f, c.values, &c.type, &rows, &why)) {
        skip_column(f, &c, why);
        return ST_OK;
    }
    if (rows != f->rows) TRY(refuse_length(f, c.name, rows));
    if (find_referred_categories(f, &c)) {
        f->version = "0.7";
        c.storage = STORED_CATEGORIES;
        c.type = COLUMN_CATEGORY;
        TRY(load_categories(f, &c));
    }
    return add_column(f, c);
done:
    free_column(&c);
    return st;
}

static bool is_group(hid_t file, const char *path)
{
    H5O_info_t info;
    return H5Oget_info_by_name1(file, path, &info, H5P_DEFAULT) >= 0 && info.type == H5O_TYPE_GROUP;
}

static herr_t visit_column(hid_t group, const char *name, const H5L_info_t *link, void *data)
{
    struct frame *f = data;
    if (strcmp(name, "__categories") == 0 || strcmp(name, f->index.name) == 0) return 0;
    struct frame_column c = {.name = text_copy(name)};
    char *path = text_format("%s/%s", f->path, name);
    enum status st = ST_OK;
    if (!text_is_utf8(name, strlen(name))) st = fail(ST_INPUT, "'%s' has a column whose name is not UTF-8 text", f->path);
    else if (!h5_exists(f->file, path)) skip_column(f, &c, "a link that leads nowhere");
    else st = is_group(f->file, path) ? open_encoded(f, c) : open_plain(f, c);
    free(path);
    return st == ST_OK ? 0 : -1;
}

static enum status open_group(struct frame *f)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    char *index = NULL;
    const char *why;
    TRY(h5_group_open(f->file, f->path, &group));
    if (h5_attr_exists(group, "_index")) TRY(h5_attr_read_text(group, "_index", &index));
    else index = text_copy(h5_exists(group, "_index") ? "_index" : "index");
    f->index = (struct frame_column){.name = index, .values = text_format("%s/%s", f->path, index)};
    if (is_group(f->file, f->index.values)) { /* a nullable string array as index */
        char *values = text_format("%s/values", f->index.values);
        free(f->index.values);
        f->index.values = values;
    }
    if (!describe_dataset(f, f->index.values, &f->index.type, &f->rows, &why))
        TRY(fail(ST_INPUT, "'%s' has no usable index '%s' (%s); AnnData tables need one", f->path, index, why));
    hsize_t at = 0;
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, &at, visit_column, f) < 0) {
        if (!*status_message()) TRY(h5_fail(ST_INPUT, "the columns of '%s' cannot be listed", f->path));
        st = ST_INPUT;
    }
done:
    h5_drop(&group);
    return st;
}

/* 0.5 keeps the categories of field `x` in uns/x_categories, beside int8 codes. */
static enum status open_field(struct frame *f, hid_t table, unsigned place)
{
    enum status st = ST_OK;
    char *name = H5Tget_member_name(table, place);
    hid_t type = H5Tget_member_type(table, place);
    struct frame_column c = {.name = text_copy(name ? name : "?"), .storage = STORED_FIELD};
    H5free_memory(name);
    bool known = type >= 0 && column_type_of(type, &c.type) && H5Tis_variable_str(type) <= 0;
    h5_drop(&type);
    if (!known) {
        skip_column(f, &c, "its type is not one of numbers, booleans and fixed-length strings");
        return ST_OK;
    }
    c.extra = text_format("uns/%s_categories", c.name);
    if (c.type == COLUMN_INT && h5_exists(f->file, c.extra)) {
        c.type = COLUMN_CATEGORY;
        TRY(load_categories(f, &c));
    }
    return add_column(f, c);
done:
    free_column(&c);
    return st;
}

static enum status open_table(struct frame *f)
{
    enum status st = ST_OK;
    int rank;
    int64_t dims[8];
    hid_t dataset = H5Dopen2(f->file, f->path, H5P_DEFAULT), table = H5_NONE;
    if (dataset < 0) TRY(h5_fail(ST_INPUT, "'%s' cannot be opened", f->path));
    table = H5Dget_type(dataset);
    if (H5Tget_class(table) != H5T_COMPOUND) TRY(fail(ST_INPUT, "'%s' is neither a group nor a table of fields", f->path));
    TRY(h5_shape(f->file, f->path, &rank, dims));
    f->rows = rank == 1 ? dims[0] : 0;
    f->version = "0.5";
    int fields = H5Tget_nmembers(table);
    for (int i = 0; i < fields; i++) {
        char *name = H5Tget_member_name(table, (unsigned)i);
        bool is_index = name && (strcmp(name, "index") == 0 || strcmp(name, "_index") == 0);
        if (is_index && !f->index.name) f->index = (struct frame_column){.name = text_copy(name), .storage = STORED_FIELD};
        else TRY(open_field(f, table, (unsigned)i));
        H5free_memory(name);
    }
    if (!f->index.name) TRY(fail(ST_INPUT, "'%s' has no field 'index'; AnnData tables need one", f->path));
done:
    h5_drop(&table);
    h5_drop(&dataset);
    return st;
}

enum status frame_open(hid_t file, const char *path, struct frame **out)
{
    enum status st = ST_OK;
    struct frame *f = NULL;
    h5_filter_register();
    if (!h5_exists(file, path)) return fail(ST_INPUT, "has no '%s'; an AnnData file needs obs and var", path);
    TRY(NEW_ARRAY(f, 1));
    f->file = file;
    f->version = "0.8";
    f->path = text_copy(path);
    TRY(is_group(file, path) ? open_group(f) : open_table(f));
    *out = f;
    f = NULL;
done:
    frame_close(&f);
    return st;
}
