/* AnnData files of any version: X, raw/X or a layer, sparse by rows or columns or dense. */
#include <stdlib.h>
#include <string.h>

#include "base/stop.h"
#include "base/text.h"
#include "cell/identity.h"
#include "io/frame.h"
#include "io/h5.h"
#include "io/h5_array.h"
#include "io/h5_filter.h"
#include "io/source_parts.h"
#include "io/spool.h"

enum layout { BY_ROWS, BY_COLUMNS, DENSE };

/* A matrix of the file from which the values may be taken. */
struct place {
    char *path; /* "X", "raw/X", "raw.X", "layers/counts" */
    const char *var;
    enum layout layout;
    int64_t rows, columns;
    bool may_be_counts; /* as far as its first values show */
};

struct h5ad {
    hid_t file;
    struct frame *obs;
    struct place *places; /* in order of preference */
    int place_count;
    int taken;      /* the one in use */
    bool automatic; /* the user left the choice */
    bool final;     /* no other will be tried */
};

static void close_file(struct source *s)
{
    struct h5ad *own = s->own;
    frame_close(&own->obs);
    for (int i = 0; i < own->place_count; i++) free(own->places[i].path);
    free(own->places);
    h5_drop(&own->file);
    free(own);
    s->own = NULL;
}

/* ---- places ---- */

/* Layout and shape of a sparse group, from its attributes (any AnnData version). */
static enum status describe_sparse(hid_t file, struct place *p)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE, attribute = H5_NONE;
    char *encoding = NULL;
    int64_t shape[2];
    TRY(h5_group_open(file, p->path, &group));
    bool old = h5_attr_exists(group, "h5sparse_format");
    if (!old && !h5_attr_exists(group, "encoding-type"))
        TRY(fail(ST_INPUT, "'%s' says no encoding; csr_matrix, csc_matrix or a dense array is read", p->path));
    TRY(h5_attr_read_text(group, old ? "h5sparse_format" : "encoding-type", &encoding));
    if (strncmp(encoding, "csr", 3) != 0 && strncmp(encoding, "csc", 3) != 0)
        TRY(fail(ST_INPUT, "'%s' is encoded as '%s'; csr_matrix, csc_matrix or a dense array is read", p->path,
                 encoding));
    p->layout = encoding[2] == 'r' ? BY_ROWS : BY_COLUMNS;
    const char *name = old ? "h5sparse_shape" : "shape";
    attribute = h5_attr_exists(group, name) ? H5Aopen(group, name, H5P_DEFAULT) : H5_NONE;
    hid_t space = attribute < 0 ? H5_NONE : H5Aget_space(attribute);
    bool two = space >= 0 && H5Sget_simple_extent_npoints(space) == 2;
    h5_drop(&space);
    if (!two || H5Aread(attribute, H5T_NATIVE_INT64, shape) < 0)
        TRY(h5_fail(ST_INPUT, "'%s' says no shape of two numbers", p->path));
    p->rows = shape[0];
    p->columns = shape[1];
done:
    free(encoding);
    h5_drop(&attribute);
    h5_drop(&group);
    return st;
}

static enum status describe_dense(hid_t file, struct place *p)
{
    enum status st = ST_OK;
    int rank;
    int64_t dims[8];
    TRY(h5_shape(file, p->path, &rank, dims));
    if (rank != 2) TRY(fail(ST_INPUT, "'%s' has %d dimensions; cells x features are needed", p->path, rank));
    p->layout = DENSE;
    p->rows = dims[0];
    p->columns = dims[1];
done:
    return st;
}

static bool is_group(hid_t file, const char *path)
{
    H5O_info_t info;
    return H5Oget_info_by_name1(file, path, &info, H5P_DEFAULT) >= 0 && info.type == H5O_TYPE_GROUP;
}

/* Do the first stored values look like counts? */
static enum status peek(const struct h5ad *own, struct place *p)
{
    enum status st = ST_OK;
    enum { SAMPLE = 65536 };
    struct h5_array *data = NULL;
    struct matrix *dense = NULL;
    struct cells cells = {0};
    struct value_check check = value_check_start();
    char *path = text_format("%s/data", p->path);
    if (p->layout == DENSE) {
        TRY(matrix_open_dense(own->file, p->path, &dense));
        int64_t rows = p->columns > 0 ? SAMPLE / p->columns + 1 : 1;
        if (rows > p->rows) rows = p->rows;
        TRY(dense->read(dense, 0, rows, &cells));
        value_check_add(&check, cells.value, cells.start[rows], 0);
    } else {
        TRY(h5_array_open(own->file, path, &data));
        int64_t n = h5_array_count(data) < SAMPLE ? h5_array_count(data) : SAMPLE;
        TRY(cells_reserve(&cells, 1, n));
        TRY(h5_array_read_float(data, 0, n, cells.value));
        value_check_add(&check, cells.value, n, 0);
    }
    p->may_be_counts = value_check_kind(&check) == VALUE_COUNTS;
done:
    if (st == ST_INPUT && own->automatic) { /* it will be refused where it is needed */
        status_clear();
        st = ST_OK;
    }
    cells_free(&cells);
    matrix_close(&dense);
    h5_array_close(&data);
    free(path);
    return st;
}

static enum status add_place(struct h5ad *own, const char *path, const char *var)
{
    enum status st = ST_OK;
    struct place *larger = realloc(own->places, sizeof *larger * (size_t)(own->place_count + 1));
    if (!larger) return fail(ST_MEMORY, "no memory for '%s'", path);
    own->places = larger;
    struct place *p = &own->places[own->place_count++];
    *p = (struct place){.path = text_copy(path), .var = var};
    TRY(is_group(own->file, path) ? describe_sparse(own->file, p) : describe_dense(own->file, p));
    TRY(peek(own, p));
done:
    return st;
}

static herr_t visit_layer(hid_t layers, const char *name, const H5L_info_t *info, void *data)
{
    struct h5ad *own = data;
    char *path = text_format("layers/%s", name);
    enum status st = ST_OK;
    if (strcmp(path, "layers/counts") != 0) {
        st = add_place(own, path, "var");
        if (st == ST_INPUT) { /* a layer of another kind (a table, a stranger's): leave it alone */
            status_clear();
            free(own->places[--own->place_count].path);
            st = ST_OK;
        }
    }
    free(path);
    return st == ST_OK ? 0 : -1;
}

/* Every place, in the order in which counts are looked for. */
static enum status list_places(struct h5ad *own)
{
    enum status st = ST_OK;
    static const struct {
        const char *path, *var;
    } usual[] = {{"X", "var"}, {"raw/X", "raw/var"}, {"raw.X", "raw.var"}, {"layers/counts", "var"}};
    hsize_t at = 0;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (h5_exists(own->file, usual[i].path)) TRY(add_place(own, usual[i].path, usual[i].var));
    if (h5_exists(own->file, "layers") && is_group(own->file, "layers") &&
        H5Literate_by_name(own->file, "layers", H5_INDEX_NAME, H5_ITER_INC, &at, visit_layer, own, H5P_DEFAULT) < 0)
        TRY(*status_message() ? ST_MEMORY : h5_fail(ST_INPUT, "its layers cannot be listed"));
    if (own->place_count == 0) TRY(fail(ST_INPUT, "has no X, raw/X or layers; there is nothing to read"));
done:
    return st;
}

/* The place the user named; it must be there. */
static enum status take_named(struct source *s, struct h5ad *own)
{
    const char *path = s->counts;
    if (strcmp(path, "raw/X") == 0 && !h5_exists(own->file, path) && h5_exists(own->file, "raw.X")) path = "raw.X";
    bool known = strcmp(path, "X") == 0 || strncmp(path, "raw", 3) == 0 || strncmp(path, "layers/", 7) == 0;
    if (!known) return fail(ST_CONFIG, "--counts is '%s'; auto, X, raw/X or layers/NAME is allowed", s->counts);
    if (!h5_exists(own->file, path))
        return fail(ST_INPUT, "has no '%s'; --counts=auto looks for counts wherever they lie", s->counts);
    return add_place(own, path,
                     strcmp(path, "raw/X") == 0   ? "raw/var"
                     : strcmp(path, "raw.X") == 0 ? "raw.var"
                                                  : "var");
}

/* The first place that may hold counts, else the first. */
static int preferred(const struct h5ad *own)
{
    for (int i = 0; i < own->place_count; i++)
        if (own->places[i].may_be_counts) return i;
    return 0;
}

/* ---- features ---- */

/* Names that columns of var go by. */
static const char *const id_names[] = {"gene_ids",        "gene_id",    "ensembl_id", "ensembl",
                                       "ensembl_gene_id", "feature_id", NULL};
static const char *const symbol_names[] = {"gene_symbols", "gene_symbol", "gene_name",   "gene_names",
                                           "feature_name", "symbol",      "hgnc_symbol", NULL};
static const char *const biotype_names[] = {"gene_biotype", "biotype", "gene_type", NULL};
static const char *const chromosome_names[] = {"chromosome", "chrom", "seqname", NULL};
static const char *const type_names[] = {"feature_types", "feature_type", NULL};
static const char *const start_names[] = {"start", NULL};
static const char *const end_names[] = {"end", NULL};

struct var_columns {
    struct column name, id, symbol, biotype, chromosome, type, start, end;
};

static enum status read_first_of(struct frame *var, const char *const *names, struct column *out)
{
    for (; *names; names++) {
        int column = frame_find(var, *names);
        if (column >= 0) return frame_read(var, column, 0, frame_row_count(var), out);
    }
    return ST_OK;
}

static enum status read_var(struct frame *var, struct var_columns *v)
{
    enum status st = ST_OK;
    TRY(frame_read_names(var, 0, frame_row_count(var), &v->name));
    TRY(read_first_of(var, id_names, &v->id));
    TRY(read_first_of(var, symbol_names, &v->symbol));
    TRY(read_first_of(var, biotype_names, &v->biotype));
    TRY(read_first_of(var, chromosome_names, &v->chromosome));
    TRY(read_first_of(var, type_names, &v->type));
    TRY(read_first_of(var, start_names, &v->start));
    TRY(read_first_of(var, end_names, &v->end));
done:
    return st;
}

static void free_var(struct var_columns *v)
{
    struct column *all[] = {&v->name, &v->id, &v->symbol, &v->biotype, &v->chromosome, &v->type, &v->start, &v->end};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) column_free(all[i]);
}

static const char *text_or_empty(const struct column *c, int64_t row, char buffer[32])
{
    return c->name ? column_as_text(c, row, buffer) : "";
}

static int64_t number_or(const struct column *c, int64_t row, int64_t otherwise)
{
    bool there = c->name && c->type == COLUMN_INT && c->i[row] >= 0;
    return there ? c->i[row] : otherwise;
}

static enum status add_feature(struct feature_table *table, const struct var_columns *v, int64_t row)
{
    char biotype[32], chromosome[32], symbol[32], buffer[32];
    char *id = text_copy(text_or_empty(&v->id, row, buffer));
    const char *place = text_or_empty(&v->chromosome, row, chromosome);
    if (strncmp(place, "chr", 3) == 0) place += 3;
    struct feature f = {.name = v->name.text[row],
                        .id = identity_trim_id(id) ? id : NULL,
                        .symbol = (char *)text_or_empty(&v->symbol, row, symbol),
                        .biotype = (char *)text_or_empty(&v->biotype, row, biotype),
                        .chromosome = (char *)place,
                        .start = number_or(&v->start, row, -1),
                        .end = number_or(&v->end, row, -1)};
    enum status st = feature_table_add(table, &f);
    free(id);
    return st;
}

/* 10x feature types of the columns, or NULL if var does not say. Entries are borrowed from v or static. */
static enum status list_types(const struct var_columns *v, char ***out)
{
    enum status st = ST_OK;
    char buffer[32];
    bool text = v->type.name && (v->type.type == COLUMN_CATEGORY || v->type.type == COLUMN_TEXT);
    *out = NULL;
    if (!text) return ST_OK;
    TRY(NEW_ARRAY(*out, v->name.count));
    for (int64_t i = 0; i < v->name.count; i++) {
        const char *type = column_as_text(&v->type, i, buffer);
        (*out)[i] = *type ? (char *)type : NULL;
    }
done:
    return st;
}

static enum status read_features(struct source *s, const struct h5ad *own, const struct place *p)
{
    enum status st = ST_OK;
    struct frame *var = NULL;
    struct var_columns v = {0};
    struct feature_table table = {0};
    char **types = NULL;
    TRY(frame_open(own->file, p->var, &var));
    if (frame_row_count(var) != p->columns)
        TRY(fail(ST_INPUT, "'%s' has %lld columns and '%s' %lld rows; they must be equal", p->path,
                 (long long)p->columns, p->var, (long long)frame_row_count(var)));
    TRY(read_var(var, &v));
    for (int64_t i = 0; i < p->columns; i++) TRY(add_feature(&table, &v, i));
    TRY(list_types(&v, &types));
    TRY(source_set_views(s, &table, types, s->modality, p->path));
done:
    feature_table_free(&table);
    free(types);
    free_var(&v);
    frame_close(&var);
    return st;
}

/* ---- matrices ---- */

static enum status check_rows(const struct source *s, const struct place *p)
{
    if (p->rows == s->rows) return ST_OK;
    return fail(ST_INPUT, "'%s' has %lld rows and obs %lld; they must be equal", p->path, (long long)p->rows,
                (long long)s->rows);
}

static enum status open_rows(struct source *s, const struct h5ad *own, const struct place *p)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    if (p->layout == DENSE) return matrix_open_dense(own->file, p->path, &s->matrix);
    TRY(h5_group_open(own->file, p->path, &group));
    TRY(matrix_open_csr(group, s->rows, p->columns, &s->matrix));
done:
    h5_drop(&group);
    return st;
}

/* Put the columns [first, first+count) of a CSC matrix into the spool, block by block. */
static enum status spool_columns(struct matrix *csc, int64_t first, int64_t count, struct spool *spool)
{
    enum status st = ST_OK;
    enum { BLOCK_ENTRIES = 1 << 18 };
    struct cells block = {0};
    for (int64_t at = first, end = first + count, n; at < end; at += n) {
        TRY(stop_asked() ? ST_REQUEUE : matrix_block(csc, at, end, BLOCK_ENTRIES, &n));
        TRY(csc->read(csc, at, n, &block));
        for (int64_t c = 0; c < n; c++)
            for (int64_t e = block.start[c]; e < block.start[c + 1]; e++)
                TRY(spool_add(spool, block.feature[e], at + c, block.value[e]));
    }
done:
    cells_free(&block);
    return st;
}

/* This rank's columns [*first, *first + *count) of a CSC matrix: an equal share of its entries. */
static enum status cut_columns(const struct comm *comm, struct matrix *csc, int64_t *first, int64_t *count)
{
    enum status st = ST_OK;
    int64_t share = csc->entries / comm->size, end = csc->rows;
    *first = 0;
    if (comm->rank > 0) TRY(matrix_row_at(csc, share * comm->rank, first));
    if (comm->rank + 1 < comm->size) TRY(matrix_row_at(csc, share * (comm->rank + 1), &end));
    *count = end - *first;
done:
    return st;
}

static enum status spool_share(const struct comm *comm, struct source *s, const struct h5ad *own, const struct place *p,
                               struct spool **spool)
{
    enum status st = ST_OK;
    struct matrix *csc = NULL;
    hid_t group = H5_NONE;
    int64_t first, count;
    TRY(h5_group_open(own->file, p->path, &group));
    TRY(matrix_open_csr(group, p->columns, p->rows, &csc)); /* a row of it is a column of ours */
    TRY(cut_columns(comm, csc, &first, &count));
    TRY(spool_create(s->spool, comm->rank, p->rows, p->columns, csc->entries, spool));
    TRY(spool_columns(csc, first, count, *spool));
done:
    if (st != ST_OK) status_prefix("%s: '%s': ", s->path, p->path);
    matrix_close(&csc);
    h5_drop(&group);
    return st;
}

/* Every rank decodes its share of a CSC matrix; the spool turns it. Collective. */
static enum status open_columns(struct comm *comm, struct source *s, const struct h5ad *own, const struct place *p)
{
    enum status st = ST_OK;
    struct spool *spool = NULL;
    TRY(comm_agree(comm, spool_share(comm, s, own, p, &spool)));
    TRY(spool_finish(comm, &spool, &s->matrix));
done:
    spool_destroy(&spool);
    return st;
}

static void set_format(struct source *s, const struct h5ad *own, const struct place *p)
{
    free(s->format);
    s->format = text_format("h5ad %s %s", frame_version(own->obs),
                            p->layout == DENSE     ? "dense"
                            : p->layout == BY_ROWS ? "csr"
                                                   : "csc");
}

/* Take values and features from place number `taken`. Collective, agreed. */
static enum status take_place(struct comm *comm, struct source *s, int taken)
{
    enum status st = ST_OK;
    struct h5ad *own = s->own;
    const struct place *p = &own->places[taken];
    own->taken = taken;
    matrix_close(&s->matrix);
    set_format(s, own, p);
    st = check_rows(s, p);
    if (st == ST_OK) st = read_features(s, own, p);
    if (st == ST_OK && p->layout != BY_COLUMNS) st = open_rows(s, own, p);
    if (st != ST_OK) status_prefix("%s: ", s->path);
    TRY(comm_agree(comm, st));
    if (p->layout == BY_COLUMNS) TRY(open_columns(comm, s, own, p));
done:
    return st;
}

static enum status next_place(struct comm *comm, struct source *s, bool found_counts, bool *again)
{
    struct h5ad *own = s->own;
    int next = own->taken;
    *again = false;
    if (found_counts || own->final) return ST_OK;
    own->places[own->taken].may_be_counts = false;
    next = preferred(own);
    own->final = !own->places[next].may_be_counts; /* none left: back to the first, whatever it holds */
    if (next == own->taken) return ST_OK;
    *again = true;
    return take_place(comm, s, next);
}

/* ---- opening ---- */

static enum status open_local(struct source *s)
{
    enum status st = ST_OK;
    struct h5ad *own = NULL;
    TRY(NEW_ARRAY(own, 1));
    own->file = H5_NONE;
    s->own = own;
    h5_filter_register();
    TRY(h5_open(s->path, &own->file));
    TRY(frame_open(own->file, "obs", &own->obs));
    if (!h5_exists(own->file, "var")) TRY(fail(ST_INPUT, "has no 'var'; an AnnData file needs obs and var"));
    s->rows = frame_row_count(own->obs);
    own->automatic = strcmp(s->counts, "auto") == 0;
    own->final = !own->automatic;
    TRY(own->automatic ? list_places(own) : take_named(s, own));
done:
    if (st != ST_OK && strncmp(status_message(), s->path, strlen(s->path)) != 0) status_prefix("%s: ", s->path);
    return st;
}

static enum status open_file(struct comm *comm, struct source *s)
{
    enum status st = ST_OK;
    TRY(comm_agree(comm, open_local(s)));
    TRY(take_place(comm, s, preferred(s->own)));
done:
    return st;
}

static enum status read_names(struct source *s, int64_t first, int64_t count, struct column *out)
{
    return frame_read_names(((struct h5ad *)s->own)->obs, first, count, out);
}

static int obs_count(const struct source *s) { return frame_column_count(((struct h5ad *)s->own)->obs); }
static const char *obs_name(const struct source *s, int index)
{
    return frame_column_name(((struct h5ad *)s->own)->obs, index);
}
static const char *obs_skipped(const struct source *s) { return frame_skipped(((struct h5ad *)s->own)->obs); }

static enum status read_obs(struct source *s, int index, int64_t first, int64_t count, struct column *out)
{
    return frame_read(((struct h5ad *)s->own)->obs, index, first, count, out);
}

const struct source_format source_h5ad = {.name = "h5ad",
                                          .open = open_file,
                                          .close = close_file,
                                          .read_names = read_names,
                                          .obs_count = obs_count,
                                          .obs_name = obs_name,
                                          .read_obs = read_obs,
                                          .obs_skipped = obs_skipped,
                                          .next_place = next_place};
