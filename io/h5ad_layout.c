#include "io/h5ad_layout.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/h5.h"

/* ---- the table of pieces ---- */

static int64_t item_bytes(enum item_type type, int32_t text_bytes)
{
    switch (type) {
    case ITEM_F32:
    case ITEM_I32: return 4;
    case ITEM_I64:
    case ITEM_F64: return 8;
    case ITEM_BOOL: return 1;
    case ITEM_TEXT: return text_bytes > 0 ? text_bytes : 1;
    }
    return 0;
}

/* Append a piece; `path` is handed over. Returns its number. */
static int add_piece(struct piece_table *table, char *path, enum item_type type, int32_t text_bytes, int64_t rows,
                     int64_t columns)
{
    if (table->count == table->capacity) {
        table->capacity = table->capacity ? table->capacity * 2 : 32;
        table->pieces = realloc(table->pieces, sizeof *table->pieces * (size_t)table->capacity);
        if (!table->pieces) abort();
    }
    int64_t bytes = item_bytes(type, text_bytes) * (columns > 0 ? columns : 1);
    table->pieces[table->count] =
        (struct piece){.path = path, .type = type, .rows = rows, .columns = columns, .row_bytes = bytes, .offset = -1};
    return table->count++;
}

static enum item_type item_of_column(enum column_type type)
{
    switch (type) {
    case COLUMN_INT: return ITEM_I64;
    case COLUMN_REAL: return ITEM_F64;
    case COLUMN_BOOL: return ITEM_BOOL;
    case COLUMN_CATEGORY: return ITEM_I32;
    case COLUMN_TEXT: return ITEM_TEXT;
    }
    return ITEM_TEXT;
}

int64_t field_bytes(const struct h5ad_field *field)
{
    return item_bytes(item_of_column(field->type), field->text_bytes);
}

static bool is_nullable(const struct h5ad_field *f)
{
    return f->nullable && (f->type == COLUMN_INT || f->type == COLUMN_BOOL);
}

static void add_frame(struct piece_table *table, const char *group, const struct h5ad_frame *frame,
                      struct column_pieces *columns)
{
    add_piece(table, text_format("%s/_index", group), ITEM_TEXT, frame->index_bytes, frame->rows, 0);
    for (int k = 0; k < frame->field_count; k++) {
        const struct h5ad_field *f = &frame->fields[k];
        const char *tail = f->type == COLUMN_CATEGORY ? "/codes" : is_nullable(f) ? "/values" : "";
        char *path = text_format("%s/%s%s", group, f->name, tail);
        columns[k].values = add_piece(table, path, item_of_column(f->type), f->text_bytes, frame->rows, 0);
        columns[k].mask = -1;
        if (is_nullable(f))
            columns[k].mask = add_piece(table, text_format("%s/%s/mask", group, f->name), ITEM_BOOL, 0, frame->rows, 0);
    }
}

enum status pieces_of_layout(const struct h5ad_layout *layout, struct piece_table *out, struct column_pieces *obs,
                             struct column_pieces *var)
{
    *out = (struct piece_table){0};
    int64_t n = layout->obs.rows;
    add_frame(out, "obs", &layout->obs, obs);
    add_frame(out, "var", &layout->var, var);
    if (layout->x == H5AD_CSR) {
        int first = add_piece(out, text_copy("X/data"), ITEM_F32, 0, layout->entries, 0);
        add_piece(out, text_copy("X/indices"), ITEM_I32, 0, layout->entries, 0);
        int last = add_piece(out, text_copy("X/indptr"), h5ad_starts_bytes(layout->entries) == 4 ? ITEM_I32 : ITEM_I64,
                             0, n + 1, 0);
        for (int k = first; k <= last; k++) out->pieces[k].plain = true;
    }
    if (layout->x == H5AD_DENSE) add_piece(out, text_copy("X"), ITEM_F32, 0, n, layout->var.rows);
    for (int k = 0; k < layout->obsm_count; k++)
        add_piece(out, text_format("obsm/%s", layout->obsm[k].name), ITEM_F32, 0, n, layout->obsm[k].columns);
    return ST_OK;
}

void piece_table_free(struct piece_table *table)
{
    for (int k = 0; k < table->count; k++) free(table->pieces[k].path);
    free(table->pieces);
    *table = (struct piece_table){0};
}

int piece_find(const struct piece_table *table, const char *path)
{
    for (int k = 0; k < table->count; k++)
        if (strcmp(table->pieces[k].path, path) == 0) return k;
    return -1;
}

/* ---- groups and attributes ---- */

static enum status encode(hid_t object, const char *type, const char *version)
{
    enum status st = h5_attr_write_text(object, "encoding-type", type);
    return st == ST_OK ? h5_attr_write_text(object, "encoding-version", version) : st;
}

/* Make a group that carries an encoding; groups on the way ("a" of "a/b") are plain dicts. */
static enum status make_group(hid_t file, const char *path, const char *type, const char *version, hid_t *group)
{
    enum status st = ST_OK;
    const char *slash = strrchr(path, '/');
    *group = H5_NONE;
    if (slash) {
        char *parent = text_format("%.*s", (int)(slash - path), path);
        hid_t above = H5_NONE;
        if (!h5_exists(file, parent)) st = make_group(file, parent, "dict", "0.1.0", &above);
        h5_drop(&above);
        free(parent);
        if (st != ST_OK) return st;
    }
    TRY(h5_group_create(file, path, group));
    TRY(encode(*group, type, version));
done:
    return st;
}

static enum status make_empty_group(hid_t file, const char *path)
{
    hid_t group = H5_NONE;
    enum status st = make_group(file, path, "dict", "0.1.0", &group);
    h5_drop(&group);
    return st;
}

static enum status make_categories(hid_t group, const struct h5ad_field *field)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE;
    TRY(h5_attr_write_bool(group, "ordered", false));
    TRY(h5_write_texts(group, "categories", field->category, field->category_count));
    dataset = H5Dopen2(group, "categories", H5P_DEFAULT);
    TRY(encode(dataset, "string-array", "0.2.0"));
done:
    h5_drop(&dataset);
    return st;
}

/* Columns that are groups: categorical and nullable ones. */
static enum status make_column_group(hid_t file, const char *frame, const struct h5ad_field *f)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    char *path = text_format("%s/%s", frame, f->name);
    if (f->type == COLUMN_CATEGORY) {
        TRY(make_group(file, path, "categorical", "0.2.0", &group));
        TRY(make_categories(group, f));
    } else if (is_nullable(f)) {
        TRY(make_group(file, path, f->type == COLUMN_INT ? "nullable-integer" : "nullable-boolean", "0.1.0", &group));
    }
done:
    h5_drop(&group);
    free(path);
    return st;
}

static enum status make_frame(hid_t file, const char *name, const struct h5ad_frame *frame)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    const char **order = NULL;
    TRY(NEW_ARRAY(order, frame->field_count));
    for (int k = 0; k < frame->field_count; k++) order[k] = frame->fields[k].name;
    TRY(make_group(file, name, "dataframe", "0.2.0", &group));
    TRY(h5_attr_write_text(group, "_index", "_index"));
    TRY(h5_attr_write_texts(group, "column-order", order, frame->field_count));
    for (int k = 0; k < frame->field_count; k++) TRY(make_column_group(file, name, &frame->fields[k]));
done:
    h5_drop(&group);
    free(order);
    return st;
}

static enum status make_x(hid_t file, const struct h5ad_layout *layout)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    if (layout->x != H5AD_CSR) return ST_OK;
    TRY(make_group(file, "X", "csr_matrix", "0.1.0", &group));
    TRY(h5_attr_write_ints(group, "shape", (int64_t[]){layout->obs.rows, layout->var.rows}, 2));
done:
    h5_drop(&group);
    return st;
}

static enum status make_note(hid_t file, const struct h5ad_note *note)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE, parent = H5_NONE;
    char *path = text_format("uns/%s", note->name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    if (!h5_exists(file, path)) TRY(make_group(file, path, "dict", "0.1.0", &parent));
    *slash = '/';
    TRY(note->text ? h5_write_text(file, path, note->text)
                   : h5_write(file, path, H5T_IEEE_F64LE, 0, NULL, &note->number));
    dataset = H5Dopen2(file, path, H5P_DEFAULT);
    TRY(encode(dataset, note->text ? "string" : "numeric-scalar", "0.2.0"));
done:
    h5_drop(&dataset);
    h5_drop(&parent);
    free(path);
    return st;
}

static enum status make_groups(hid_t file, const struct h5ad_layout *layout)
{
    static const char *const mappings[] = {"layers", "obsm", "varm", "obsp", "varp", "uns"};
    enum status st = ST_OK;
    TRY(encode(file, "anndata", "0.1.0"));
    TRY(make_frame(file, "obs", &layout->obs));
    TRY(make_frame(file, "var", &layout->var));
    TRY(make_x(file, layout));
    for (size_t k = 0; k < sizeof mappings / sizeof *mappings; k++) TRY(make_empty_group(file, mappings[k]));
    for (int k = 0; k < layout->uns_count; k++) TRY(make_note(file, &layout->uns[k]));
done:
    return st;
}

/* ---- datasets ---- */

static hid_t type_of_piece(const struct piece *piece)
{
    switch (piece->type) {
    case ITEM_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case ITEM_I32: return H5Tcopy(H5T_STD_I32LE);
    case ITEM_I64: return H5Tcopy(H5T_STD_I64LE);
    case ITEM_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case ITEM_BOOL: return h5_bool_type();
    case ITEM_TEXT: return h5_text_type((size_t)piece->row_bytes);
    }
    return H5_NONE;
}

/* A nested name of a column ("a/b") needs its group first. */
static enum status make_parent(hid_t file, const char *path)
{
    hid_t group = H5_NONE;
    char *parent = text_copy(path), *slash = strrchr(parent, '/');
    enum status st = ST_OK;
    if (slash) {
        *slash = '\0';
        if (!h5_exists(file, parent)) st = make_group(file, parent, "dict", "0.1.0", &group);
    }
    h5_drop(&group);
    free(parent);
    return st;
}

static enum status make_piece(hid_t file, struct piece *piece)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE, type = type_of_piece(piece);
    TRY(make_parent(file, piece->path));
    TRY(h5_dataset_create(file, piece->path, type, piece->columns > 0 ? 2 : 1, (int64_t[]){piece->rows, piece->columns},
                          &dataset));
    if (!piece->plain) TRY(encode(dataset, piece->type == ITEM_TEXT ? "string-array" : "array", "0.2.0"));
    piece->offset = h5_dataset_offset(dataset);
done:
    h5_drop(&dataset);
    h5_drop(&type);
    return st;
}

enum status pieces_create(const char *path, const struct h5ad_layout *layout, struct piece_table *table)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    TRY(h5_create(path, &file));
    TRY(make_groups(file, layout));
    for (int k = 0; k < table->count; k++) TRY(make_piece(file, &table->pieces[k]));
    TRY(h5_close(&file));
done:
    if (st != ST_OK) status_prefix("%s: ", path);
    h5_drop(&file);
    return st;
}

static enum status locate(hid_t file, struct piece *piece)
{
    enum status st = ST_OK;
    hid_t dataset = H5Dopen2(file, piece->path, H5P_DEFAULT), type = H5_NONE;
    int rank = 0;
    int64_t dims[8];
    if (dataset < 0) TRY(h5_fail(ST_INPUT, "there is no dataset '%s'", piece->path));
    TRY(h5_shape(file, piece->path, &rank, dims));
    type = H5Dget_type(dataset);
    int64_t columns = piece->columns > 0 ? piece->columns : 1;
    if (rank != (piece->columns > 0 ? 2 : 1) || dims[0] != piece->rows || (rank == 2 && dims[1] != columns) ||
        (int64_t)H5Tget_size(type) * columns != piece->row_bytes)
        TRY(fail(ST_INPUT, "'%s' has another shape or type than this run would write; remove the file to start over",
                 piece->path));
    piece->offset = h5_dataset_offset(dataset);
    if (piece->offset < 0 && piece->rows > 0) TRY(fail(ST_INPUT, "'%s' is not contiguous", piece->path));
done:
    h5_drop(&type);
    h5_drop(&dataset);
    return st;
}

enum status pieces_locate(const char *path, struct piece_table *table)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    TRY(h5_open(path, &file));
    for (int k = 0; k < table->count; k++) TRY(locate(file, &table->pieces[k]));
done:
    if (st != ST_OK) status_prefix("%s: ", path);
    h5_drop(&file);
    return st;
}
