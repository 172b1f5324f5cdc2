#include "io/pca_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/stop.h"
#include "base/text.h"
#include "io/embedding_obs.h"
#include "io/h5.h"

enum { BLOCK = 2048 };

/* ---- var ---- */

enum { VAR_FIELDS = 3 };

struct var {
    struct h5ad_field fields[VAR_FIELDS];
    struct column values[VAR_FIELDS];
    const char **names; /* [features] borrowed texts; unique */
    char **made;        /* [features] texts made here because the name was taken, else NULL */
};

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Row names are the Ensembl ids, or names where there is none; AnnData wants them different, so those that
 * repeat get their feature number behind a dash. */
static enum status make_names(const struct feature_table *features, struct var *v)
{
    enum status st = ST_OK;
    const char **sorted = NULL;
    int64_t n = features->count;
    TRY(NEW_ARRAY(v->names, n));
    TRY(NEW_ARRAY(v->made, n));
    TRY(NEW_ARRAY(sorted, n));
    memset(v->made, 0, sizeof *v->made * (size_t)n);
    for (int64_t f = 0; f < n; f++)
        sorted[f] = v->names[f] = *features->rows[f].id ? features->rows[f].id : features->rows[f].name;
    qsort(sorted, (size_t)n, sizeof *sorted, by_text);
    for (int64_t f = 0; f < n; f++) {
        const char **at = bsearch(&v->names[f], sorted, (size_t)n, sizeof *sorted, by_text);
        bool repeats = (at > sorted && strcmp(at[-1], *at) == 0) || (at + 1 < sorted + n && strcmp(at[1], *at) == 0);
        if (repeats) v->names[f] = v->made[f] = text_format("%s-%lld", v->names[f], (long long)f);
    }
done:
    free(sorted);
    return st;
}

static int32_t longest(const char *const *texts, int64_t n)
{
    size_t most = 1;
    for (int64_t i = 0; i < n; i++)
        if (strlen(texts[i]) > most) most = strlen(texts[i]);
    return (int32_t)most;
}

static enum status var_create(const struct pca *p, const struct feature_table *features, struct var *v)
{
    enum status st = ST_OK;
    int64_t n = features->count;
    TRY(make_names(features, v));
    for (int k = 0; k < VAR_FIELDS; k++) v->values[k].count = n;
    TRY(NEW_ARRAY(v->values[0].text, n));
    TRY(NEW_ARRAY(v->values[1].text, n));
    TRY(NEW_ARRAY(v->values[2].i, n));
    for (int64_t f = 0; f < n; f++) {
        v->values[0].text[f] = features->rows[f].name;
        v->values[1].text[f] = features->rows[f].symbol;
        v->values[2].i[f] = p->place[f] >= 0;
    }
    v->values[0].type = v->values[1].type = COLUMN_TEXT;
    v->values[2].type = COLUMN_BOOL;
    v->fields[0] =
        (struct h5ad_field){"name", COLUMN_TEXT, longest((const char *const *)v->values[0].text, n), false, NULL, 0};
    v->fields[1] =
        (struct h5ad_field){"symbol", COLUMN_TEXT, longest((const char *const *)v->values[1].text, n), false, NULL, 0};
    v->fields[2] = (struct h5ad_field){"in_pca", COLUMN_BOOL, 0, false, NULL, 0};
done:
    return st;
}

/* Texts are the feature table's. */
static void var_free(struct var *v, int64_t features)
{
    for (int64_t f = 0; v->made && f < features; f++) free(v->made[f]);
    free(v->made);
    free(v->names);
    free(v->values[0].text);
    free(v->values[1].text);
    free(v->values[2].i);
}

/* ---- rows ---- */

static enum status write_block(struct h5ad_file *file, const struct pca *p, struct cell_input *input,
                               const struct obs_layout *obs, int64_t first, int64_t count, struct cells *cells,
                               float *scores)
{
    enum status st = ST_OK;
    static const uint8_t reasons[BLOCK] = {0};
    TRY(cell_input_read(input, first, count, cells));
    pca_project(p, cells, scores);
    TRY(h5ad_write(file, h5ad_find(file, "obsm/X_pca"), first, count, scores));
    TRY(obs_layout_write(obs, input, file, first, count, reasons));
done:
    return st;
}

static enum status write_rows(const struct comm *comm, struct h5ad_file *file, const struct pca *p,
                              struct cell_input *input, const struct obs_layout *obs)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    float *scores = NULL;
    int64_t first, count;
    comm_share(comm, input->count, &first, &count);
    TRY(NEW_ARRAY(scores, (int64_t)BLOCK * p->components));
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        TRY(stop_asked() ? ST_REQUEUE : write_block(file, p, input, obs, first + at, n, &cells, scores));
    }
done:
    cells_free(&cells);
    free(scores);
    return st;
}

/* ---- components, after the rows ---- */

static enum status write_array(hid_t group, const char *name, hid_t type, int rank, const int64_t *dims,
                               const void *data)
{
    enum status st = ST_OK;
    hid_t set = H5_NONE;
    TRY(h5_write(group, name, type, rank, dims, data));
    set = H5Dopen2(group, name, H5P_DEFAULT);
    if (set < 0) TRY(h5_fail(ST_OUTPUT, "'%s' cannot be opened again", name));
    TRY(h5_attr_write_text(set, "encoding-type", "array"));
    TRY(h5_attr_write_text(set, "encoding-version", "0.2.0"));
done:
    h5_drop(&set);
    return st;
}

/* PCs[features, K] fp32, zero for genes that were not used. */
static enum status write_loadings(hid_t file, const struct pca *p)
{
    enum status st = ST_OK;
    hid_t varm = H5_NONE;
    float *loadings = NULL;
    int64_t dims[2] = {p->features, p->components};
    TRY(NEW_ARRAY(loadings, p->features * p->components));
    memset(loadings, 0, sizeof *loadings * (size_t)(p->features * p->components));
    for (int64_t g = 0; g < p->genes; g++)
        for (int k = 0; k < p->components; k++)
            loadings[p->gene[g] * p->components + k] = (float)p->vectors[k * p->genes + g];
    TRY(h5_group_open(file, "varm", &varm));
    TRY(write_array(varm, "PCs", H5T_NATIVE_FLOAT, 2, dims, loadings));
done:
    h5_drop(&varm);
    free(loadings);
    return st;
}

static enum status write_variance(hid_t file, const struct pca *p)
{
    enum status st = ST_OK;
    hid_t uns = H5_NONE;
    double *ratio = NULL;
    int64_t count = p->components;
    TRY(NEW_ARRAY(ratio, count));
    for (int64_t k = 0; k < count; k++) ratio[k] = p->variance[k] / p->total_variance;
    TRY(h5_group_open(file, "uns/pca", &uns));
    TRY(write_array(uns, "variance", H5T_NATIVE_DOUBLE, 1, &count, p->variance));
    TRY(write_array(uns, "variance_ratio", H5T_NATIVE_DOUBLE, 1, &count, ratio));
done:
    h5_drop(&uns);
    free(ratio);
    return st;
}

static enum status finish(const char *partial, const char *path, const struct pca *p)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    TRY(h5_open_rw(partial, &file));
    TRY(write_loadings(file, p));
    TRY(write_variance(file, p));
    TRY(h5_close(&file));
    if (rename(partial, path) != 0)
        TRY(fail(ST_OUTPUT, "%s: cannot be renamed from %s: %s", path, partial, strerror(errno)));
done:
    h5_drop(&file);
    return st;
}

enum status pca_write(struct comm *comm, const char *path, const struct pca *p, struct cell_input *input,
                      const struct h5ad_note *notes, int note_count)
{
    enum status st = ST_OK;
    struct var var = {0};
    struct obs_layout obs = {0};
    struct h5ad_file *file = NULL;
    const struct h5ad_matrix obsm = {"X_pca", p->components};
    char *partial = text_format("%s.partial", path);
    TRY(comm_agree(comm, var_create(p, input->features, &var)));
    TRY(obs_layout_create(comm, input, &obs));
    struct h5ad_layout layout = {
        .obs = obs.frame,
        .var = {p->features, longest(var.names, p->features), var.fields, VAR_FIELDS, var.names, var.values},
        .x = H5AD_NO_X,
        .obsm = &obsm,
        .obsm_count = 1,
        .uns = notes,
        .uns_count = note_count};
    TRY(h5ad_create(comm, partial, &layout, &file));
    TRY(comm_agree(comm, write_rows(comm, file, p, input, &obs)));
    TRY(h5ad_commit(comm, &file, NULL));
    TRY(comm_agree(comm, comm->rank == 0 ? finish(partial, path, p) : ST_OK));
done:
    h5ad_close(&file);
    if (st != ST_OK && comm->rank == 0) unlink(partial); /* nothing goes on with it */
    obs_layout_free(&obs);
    var_free(&var, p->features);
    free(partial);
    return st;
}
