/* Find out how the columns of an AnnData table lie in the file. */
#include <stdlib.h>
#include <string.h>

#include "io/frame_parts.h"
#include "io/h5.h"
#include "io/h5_filter.h"

/* ---- types ---- */

/* Is it h5py's boolean, an enum with FALSE and TRUE? */
static bool is_boolean(hid_t type) { return H5Tget_class(type) == H5T_ENUM && H5Tget_nmembers(type) == 2; }

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
static bool describe_dataset(const struct frame *f, const char *path, enum column_type *type, int64_t *rows,
                             const char **why)
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

/* ---- opening ---- */

static void skip_column(struct frame *f, struct frame_column *c, const char *why)
{
    text_add(&f->skipped, "%s/%s: %s\n", f->path, c->name, why);
    frame_free_column(c);
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
    TRY(frame_make_slice(&all, c->name, type, count));
    TRY(frame_read_values(f, c->extra, type, 0, count, &all));
    TRY(NEW_ARRAY(c->category, count));
    for (int64_t i = 0; i < count; i++) c->category[c->category_count++] = text_copy(column_as_text(&all, i, buffer));
done:
    column_free(&all);
    return st;
}

static enum status refuse_length(const struct frame *f, const char *name, int64_t rows)
{
    return fail(ST_INPUT,
                "column '%s' of '%s' has %lld rows and its index %lld; they must be equal: the file is damaged", name,
                f->path, (long long)rows, (long long)f->rows);
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
    frame_free_column(&c);
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
    frame_free_column(&c);
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
    if (!text_is_utf8(name, strlen(name)))
        st = fail(ST_INPUT, "'%s' has a column whose name is not UTF-8 text", f->path);
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
    frame_free_column(&c);
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
    if (H5Tget_class(table) != H5T_COMPOUND)
        TRY(fail(ST_INPUT, "'%s' is neither a group nor a table of fields", f->path));
    TRY(h5_shape(f->file, f->path, &rank, dims));
    f->rows = rank == 1 ? dims[0] : 0;
    f->version = "0.5";
    int fields = H5Tget_nmembers(table);
    for (int i = 0; i < fields; i++) {
        char *name = H5Tget_member_name(table, (unsigned)i);
        bool is_index = name && (strcmp(name, "index") == 0 || strcmp(name, "_index") == 0);
        if (is_index && !f->index.name)
            f->index = (struct frame_column){.name = text_copy(name), .storage = STORED_FIELD};
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
