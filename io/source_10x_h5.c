/* 10x .h5: CellRanger 3 and later (group "matrix" with "features"), and CellRanger 1 and 2 (one group per
 * genome with "genes" and "gene_names"). Both store one column per barcode, which is our CSR by cell. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cell/identity.h"
#include "io/h5.h"
#include "io/h5_filter.h"
#include "io/source_parts.h"

struct h5_10x {
    hid_t file;
    char *group; /* "matrix", "GRCh38" */
};

static void close_file(struct source *s)
{
    struct h5_10x *own = s->own;
    h5_drop(&own->file);
    free(own->group);
    free(own);
    s->own = NULL;
}

/* ---- which group ---- */

struct group_list {
    char *names[64];
    int count;
};

static herr_t visit_link(hid_t file, const char *name, const H5L_info_t *info, void *data)
{
    struct group_list *list = data;
    char *barcodes = text_format("%s/barcodes", name);
    if (list->count < 64 && h5_exists(file, barcodes)) list->names[list->count++] = text_copy(name);
    free(barcodes);
    return 0;
}

static enum status refuse_several(const struct group_list *list, const char *wanted)
{
    struct text names = {0};
    for (int i = 0; i < list->count; i++) text_add(&names, "%s%s", i ? ", " : "", list->names[i]);
    enum status st =
        *wanted ? fail(ST_CONFIG, "has no genome '%s'; it has %s: choose one with --genome", wanted, names.data)
                : fail(ST_CONFIG, "holds several genomes (%s); choose one with --genome", names.data);
    text_free(&names);
    return st;
}

static enum status choose_group(struct source *s, struct h5_10x *own)
{
    enum status st = ST_OK;
    struct group_list list = {0};
    hsize_t at = 0;
    if (h5_exists(own->file, "matrix/features")) {
        own->group = text_copy("matrix");
        return ST_OK;
    }
    if (H5Literate(own->file, H5_INDEX_NAME, H5_ITER_INC, &at, visit_link, &list) < 0)
        TRY(h5_fail(ST_INPUT, "its groups cannot be listed"));
    if (list.count == 0)
        TRY(fail(ST_INPUT, "is an HDF5 file but neither .h5ad (obs, var, X) nor 10x .h5 ('matrix' with 'features', or "
                           "a group with 'barcodes'); "
                           "give one of these"));
    for (int i = 0; i < list.count; i++)
        if (list.count == 1 || strcmp(list.names[i], s->genome) == 0) own->group = text_copy(list.names[i]);
    if (!own->group) TRY(refuse_several(&list, s->genome));
done:
    for (int i = 0; i < list.count; i++) free(list.names[i]);
    return st;
}

/* ---- features ---- */

/* A column of strings of the group, all of it. NULL if it is absent and not needed. */
static enum status read_list(const struct h5_10x *own, const char *name, bool needed, char ***out, int64_t *count)
{
    enum status st = ST_OK;
    char *path = text_format("%s/%s", own->group, name);
    int rank;
    int64_t dims[8], expected = *count;
    hid_t dataset = H5_NONE;
    struct h5_pipeline pipeline;
    *out = NULL;
    if (!h5_exists(own->file, path)) {
        if (needed) st = fail(ST_INPUT, "has no '%s'; a 10x file needs it", path);
        goto done;
    }
    TRY(h5_shape(own->file, path, &rank, dims));
    if (rank != 1 || (expected >= 0 && dims[0] != expected))
        TRY(fail(ST_INPUT, "'%s' has %lld entries where %lld are needed; the file is damaged", path,
                 rank == 1 ? (long long)dims[0] : -1LL, (long long)expected));
    dataset = H5Dopen2(own->file, path, H5P_DEFAULT);
    TRY(h5_pipeline_open(dataset, path, &pipeline));
    *count = dims[0];
    TRY(NEW_ARRAY(*out, dims[0]));
    if (dims[0] > 0) TRY(h5_read_texts(own->file, path, 0, dims[0], *out));
    for (int64_t i = 0; i < dims[0]; i++)
        if (!text_is_utf8((*out)[i], strlen((*out)[i])))
            TRY(fail(ST_INPUT, "'%s' entry %lld is not UTF-8 text; rewrite the names as UTF-8", path, (long long)i));
done:
    h5_drop(&dataset);
    free(path);
    return st;
}

static void free_list(char **list, int64_t count)
{
    for (int64_t i = 0; list && i < count; i++) free(list[i]);
    free(list);
}

struct feature_lists {
    char **id, **name, **type, **genome;
    int64_t count;
};

static enum status read_lists(const struct h5_10x *own, struct feature_lists *l)
{
    enum status st = ST_OK;
    bool v3 = strcmp(own->group, "matrix") == 0;
    l->count = -1;
    TRY(read_list(own, v3 ? "features/id" : "genes", true, &l->id, &l->count));
    TRY(read_list(own, v3 ? "features/name" : "gene_names", true, &l->name, &l->count));
    if (v3) TRY(read_list(own, "features/feature_type", false, &l->type, &l->count));
    if (v3) TRY(read_list(own, "features/genome", false, &l->genome, &l->count));
done:
    return st;
}

/* A v3 file may hold genes of two genomes; --genome then keeps one, and the others go by a type of their own. */
static enum status keep_genome(const struct source *s, struct feature_lists *l)
{
    int64_t kept = 0, others = 0;
    if (!*s->genome || !l->genome || !l->type) return ST_OK;
    for (int64_t i = 0; i < l->count; i++) {
        kept += strcmp(l->genome[i], s->genome) == 0;
        others += *l->genome[i] && strcmp(l->genome[i], l->genome[0]) != 0;
    }
    if (others == 0) return ST_OK; /* one genome: nothing to choose */
    if (kept == 0)
        return fail(ST_CONFIG, "has no feature of genome '%s'; its first has '%s': choose with --genome", s->genome,
                    l->count ? l->genome[0] : "");
    for (int64_t i = 0; i < l->count; i++)
        if (*l->genome[i] && strcmp(l->genome[i], s->genome) != 0) {
            free(l->type[i]);
            l->type[i] = text_copy("other genome");
        }
    return ST_OK;
}

static enum status read_features(struct source *s, const struct h5_10x *own, int64_t *columns)
{
    enum status st = ST_OK;
    struct feature_lists l = {0};
    struct feature_table table = {0};
    TRY(read_lists(own, &l));
    TRY(source_check_ids(l.id, l.count, "features"));
    TRY(keep_genome(s, &l));
    for (int64_t i = 0; i < l.count; i++) {
        char *id = text_copy(l.id[i]);
        struct feature f = {.name = l.name[i], .id = identity_trim_id(id) ? id : NULL, .start = -1, .end = -1};
        st = feature_table_add(&table, &f);
        free(id);
        if (st != ST_OK) goto done;
    }
    *columns = l.count;
    TRY(source_set_views(s, &table, l.type, "rna", own->group));
done:
    feature_table_free(&table);
    free_list(l.id, l.count);
    free_list(l.name, l.count);
    free_list(l.type, l.count);
    free_list(l.genome, l.count);
    return st;
}

/* ---- the matrix ---- */

/* "shape" is (features, barcodes) and must agree with the lists. */
static enum status check_shape(const struct source *s, const struct h5_10x *own, int64_t columns)
{
    enum status st = ST_OK;
    int64_t shape[2];
    char *path = text_format("%s/shape", own->group);
    if (!h5_exists(own->file, path)) TRY(fail(ST_INPUT, "has no '%s'; a 10x file needs it", path));
    TRY(h5_read(own->file, path, H5T_NATIVE_INT64, 2, shape));
    if (shape[0] != columns || shape[1] != s->rows)
        TRY(fail(ST_INPUT,
                 "'%s' says %lld x %lld and the lists hold %lld features and %lld barcodes; the file is damaged", path,
                 (long long)shape[0], (long long)shape[1], (long long)columns, (long long)s->rows));
done:
    free(path);
    return st;
}

static enum status open_local(struct source *s)
{
    enum status st = ST_OK;
    struct h5_10x *own = NULL;
    hid_t group = H5_NONE;
    int rank;
    int64_t dims[8], columns = 0;
    char *barcodes = NULL;
    TRY(NEW_ARRAY(own, 1));
    own->file = H5_NONE;
    s->own = own;
    s->always_counts = true;
    h5_filter_register();
    TRY(h5_open(s->path, &own->file));
    TRY(choose_group(s, own));
    s->format = text_copy(strcmp(own->group, "matrix") == 0 ? "10x .h5 v3" : "10x .h5 v2");
    barcodes = text_format("%s/barcodes", own->group);
    if (!h5_exists(own->file, barcodes)) TRY(fail(ST_INPUT, "has no '%s'; a 10x file needs it", barcodes));
    TRY(h5_shape(own->file, barcodes, &rank, dims));
    s->rows = rank == 1 ? dims[0] : 0;
    TRY(read_features(s, own, &columns));
    TRY(check_shape(s, own, columns));
    TRY(h5_group_open(own->file, own->group, &group));
    TRY(matrix_open_csr(group, s->rows, columns, &s->matrix));
done:
    if (st != ST_OK && strncmp(status_message(), s->path, strlen(s->path)) != 0) status_prefix("%s: ", s->path);
    h5_drop(&group);
    free(barcodes);
    return st;
}

static enum status open_file(struct comm *comm, struct source *s) { return comm_agree(comm, open_local(s)); }

static enum status read_names(struct source *s, int64_t first, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    const struct h5_10x *own = s->own;
    char *path = text_format("%s/barcodes", own->group);
    *out = (struct column){.name = text_copy("barcode"), .type = COLUMN_TEXT, .count = count};
    TRY(NEW_ARRAY(out->text, count));
    if (count > 0) TRY(h5_read_texts(own->file, path, first, count, out->text));
    for (int64_t i = 0; i < count; i++)
        if (!text_is_utf8(out->text[i], strlen(out->text[i])))
            TRY(fail(ST_INPUT, "barcode %lld is not UTF-8 text", (long long)(first + i)));
done:
    free(path);
    if (st != ST_OK) column_free(out);
    return st;
}

const struct source_format source_10x_h5 = {
    .name = "10x .h5", .open = open_file, .close = close_file, .read_names = read_names};
