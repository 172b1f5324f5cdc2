#include "io/embedding_read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cell/select.h"
#include "io/frame.h"
#include "io/h5.h"
#include "io/probe.h"

enum { MOST_ENTRIES = 64, READ_ROWS = 16384 };
/* Limits of the process that opens the file first (io/probe.h). */
enum { PROBE_TIME_S = 60, PROBE_MEMORY_MIB = 1024 };

struct embedding_file {
    hid_t h5;
    struct frame *obs;
};

/* ---- which entry ---- */

struct entries {
    int count;
    char *name[MOST_ENTRIES];
};

static herr_t add_entry(hid_t group, const char *name, const H5L_info_t *info, void *data)
{
    struct entries *e = data;
    if (e->count < MOST_ENTRIES) e->name[e->count++] = text_copy(name);
    return 0;
}

static void list_entries(hid_t file, struct entries *e)
{
    hid_t group = H5_NONE;
    if (h5_exists(file, "obsm") && h5_group_open(file, "obsm", &group) == ST_OK)
        H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, add_entry, e);
    h5_drop(&group);
    status_clear();
}

static bool is_picture(const char *name)
{
    return strcmp(name, "X_umap") == 0 || strcmp(name, "X_tsne") == 0 || strcmp(name, "X_draw_graph_fa") == 0;
}

static char *join_names(const struct entries *e)
{
    struct text list = {0};
    for (int i = 0; i < e->count; i++) text_add(&list, "%s%s", i ? ", " : "", e->name[i]);
    if (!list.data) text_add(&list, "none");
    return list.data;
}

/* Path of the dataset, "obsm/X_cellfm" or "X"; the caller frees. */
static enum status choose_entry(hid_t file, const char *which, char **path)
{
    enum status st = ST_OK;
    struct entries e = {0};
    list_entries(file, &e);
    char *names = join_names(&e);
    int vectors = 0, chosen = -1;
    for (int i = 0; i < e.count; i++)
        if (*which ? strcmp(e.name[i], which) == 0 : !is_picture(e.name[i])) {
            vectors++;
            chosen = i;
        }
    if (*which && strcmp(which, "X") == 0) vectors = 0;
    else if (*which && vectors == 0) st = fail(ST_INPUT, "obsm has no '%s'; it has: %s", which, names);
    else if (vectors > 1) st = fail(ST_CONFIG, "obsm has several embeddings (%s); name one with --obsm", names);
    if (st == ST_OK && vectors == 1) *path = text_format("obsm/%s", e.name[chosen]);
    if (st == ST_OK && vectors == 0) {
        if (h5_exists(file, "X")) *path = text_copy("X");
        else
            st = fail(ST_INPUT,
                      "neither obsm nor X holds an embedding; give a file that cytomill-embed or scanpy wrote");
    }
    for (int i = 0; i < e.count; i++) free(e.name[i]);
    free(names);
    return st;
}

/* ---- reading ---- */

static enum status read_values(struct embedding_table *t, const char *path)
{
    enum status st = ST_OK;
    hid_t set = H5Dopen2(t->file->h5, path, H5P_DEFAULT);
    if (set < 0) TRY(h5_fail(ST_INPUT, "'%s' is not a dense table; sparse embeddings are not read", path));
    TRY(NEW_ARRAY(t->values, t->count * t->width));
    for (int64_t at = 0; at < t->count; at += READ_ROWS) {
        int64_t n = t->count - at < READ_ROWS ? t->count - at : READ_ROWS;
        TRY(h5_read_rows(set, H5T_NATIVE_FLOAT, t->first + at, n, t->values + at * t->width));
    }
done:
    h5_drop(&set);
    return st;
}

static enum status read_usable(struct embedding_table *t)
{
    enum status st = ST_OK;
    struct column c = {0};
    TRY(NEW_ARRAY(t->usable, t->rows));
    memset(t->usable, 1, (size_t)t->rows);
    if (!embedding_table_has(t, "embedded")) goto done;
    TRY(embedding_table_column(t, "embedded", &c));
    for (int64_t i = 0; c.i && i < t->rows; i++) t->usable[i] = c.i[i] == 1;
done:
    column_free(&c);
    for (int64_t i = 0; st == ST_OK && i < t->rows; i++) t->usable_count += t->usable[i];
    return st;
}

static enum status check_values(const struct embedding_table *t)
{
    if (t->usable_count == 0) return fail(ST_INPUT, "none of %lld cells has an embedding", (long long)t->rows);
    for (int64_t i = 0; i < t->count; i++)
        for (int j = 0; t->usable[t->first + i] && j < t->width; j++)
            if (!isfinite(t->values[i * t->width + j]))
                return fail(ST_INPUT,
                            "row %lld of '%s' holds NaN or infinity but is not marked embedded=False; embed again or "
                            "leave the cell out",
                            (long long)(t->first + i), t->name);
    return ST_OK;
}

static enum status open_file(struct embedding_table *t, const char *which, char **entry)
{
    enum status st = ST_OK;
    int rank;
    int64_t dims[8];
    TRY(NEW_ARRAY(t->file, 1));
    *t->file = (struct embedding_file){.h5 = H5_NONE};
    TRY(h5_open(t->path, &t->file->h5));
    TRY(choose_entry(t->file->h5, which, entry));
    TRY(h5_shape(t->file->h5, *entry, &rank, dims));
    if (rank != 2 || dims[0] < 1 || dims[1] < 1 || dims[1] > 1 << 20)
        TRY(fail(ST_INPUT, "'%s' is not a table of cells x dimensions", *entry));
    TRY(frame_open(t->file->h5, "obs", &t->file->obs));
    t->name = text_copy(strrchr(*entry, '/') ? strrchr(*entry, '/') + 1 : *entry);
    t->rows = dims[0];
    t->width = (int)dims[1];
    if (frame_row_count(t->file->obs) != t->rows)
        TRY(fail(ST_INPUT, "'%s' has %lld rows, obs has %lld", *entry, (long long)t->rows,
                 (long long)frame_row_count(t->file->obs)));
done:
    return st;
}

static enum status read_table(const struct comm *comm, struct embedding_table *t, const char *which)
{
    enum status st = ST_OK;
    char *entry = NULL;
    TRY(open_file(t, which, &entry));
    comm_share(comm, t->rows, &t->first, &t->count);
    TRY(read_values(t, entry));
    TRY(read_usable(t));
    TRY(check_values(t));
done:
    free(entry);
    if (st != ST_OK) status_prefix("%s: ", t->path);
    return st;
}

enum status embedding_table_open(struct comm *comm, const char *path, const char *which, struct embedding_table **out)
{
    enum status st = ST_OK;
    struct embedding_table *t = NULL;
    const struct probe_limits limits = {PROBE_TIME_S, PROBE_MEMORY_MIB};
    TRY(comm_agree(comm, comm->rank == 0 ? probe_file(path, &limits) : ST_OK));
    st = NEW_ARRAY(t, 1);
    if (st == ST_OK) {
        *t = (struct embedding_table){.path = text_copy(path)};
        st = read_table(comm, t, which);
    }
    TRY(comm_agree(comm, st));
    *out = t;
    t = NULL;
done:
    embedding_table_close(&t);
    return st;
}

void embedding_table_close(struct embedding_table **table)
{
    struct embedding_table *t = *table;
    if (!t) return;
    if (t->file) {
        frame_close(&t->file->obs);
        h5_drop(&t->file->h5);
    }
    free(t->file);
    free(t->values);
    free(t->usable);
    free(t->name);
    free(t->path);
    free(t);
    *table = NULL;
}

/* ---- obs and uns ---- */

bool embedding_table_has(const struct embedding_table *t, const char *name)
{
    return frame_find(t->file->obs, name) >= 0;
}

static enum status no_column(const struct embedding_table *t, const char *name)
{
    int n = frame_column_count(t->file->obs);
    const char **names = malloc(sizeof *names * (size_t)(n + 1));
    if (!names) return fail(ST_MEMORY, "no memory for %d column names", n);
    struct text list = {0};
    text_add(&list, "%s", "");
    for (int i = 0; i < n; i++) {
        names[i] = frame_column_name(t->file->obs, i);
        text_add(&list, "%s%s", i ? ", " : "", names[i]);
    }
    int near = text_nearest(name, names, n);
    enum status st =
        fail(ST_INPUT, "%s: obs has no column '%s'%s%s%s; it has: %s", t->path, name,
             near >= 0 ? "; did you mean '" : "", near >= 0 ? names[near] : "", near >= 0 ? "'" : "", list.data);
    text_free(&list);
    free(names);
    return st;
}

enum status embedding_table_column(struct embedding_table *t, const char *name, struct column *out)
{
    int column = frame_find(t->file->obs, name);
    if (column < 0) return no_column(t, name);
    return frame_read(t->file->obs, column, 0, t->rows, out);
}

enum status embedding_table_names(struct embedding_table *t, int64_t first, int64_t count, struct column *out)
{
    return frame_read_names(t->file->obs, first, count, out);
}

enum status embedding_table_select(struct embedding_table *t, const char *expression, uint8_t *keep)
{
    enum status st = ST_OK;
    struct select *s = NULL;
    struct column *columns = NULL;
    TRY(select_parse(expression, &s));
    TRY(NEW_ARRAY(columns, select_column_count(s)));
    memset(columns, 0, sizeof *columns * (size_t)select_column_count(s));
    for (int k = 0; k < select_column_count(s); k++)
        TRY(embedding_table_column(t, select_column_name(s, k), &columns[k]));
    TRY(select_evaluate(s, columns, t->rows, keep));
done:
    for (int k = 0; columns && k < select_column_count(s); k++) column_free(&columns[k]);
    free(columns);
    select_destroy(&s);
    return st;
}

char *embedding_table_note(struct embedding_table *t, const char *name)
{
    char *path = text_format("uns/%s", name), *text = NULL;
    if (!h5_exists(t->file->h5, path) || h5_read_text(t->file->h5, path, &text) != ST_OK) {
        status_clear();
        text = text_copy("");
    }
    free(path);
    return text;
}
