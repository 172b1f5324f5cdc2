#include "io/cell_input.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "cell/select.h"

/* ---- identity ---- */

static const int64_t hashed_whole_bytes = (int64_t)8 << 30;

static enum status file_identity(const char *path, char out[SHA256_HEX])
{
    struct stat info;
    if (stat(path, &info) != 0) return fail(ST_INPUT, "%s: cannot be read", path);
    if (info.st_size <= hashed_whole_bytes) return hash_sha256_file(path, out);
    char *facts = text_format("size:%ld mtime:%ld", (long)info.st_size, (long)info.st_mtime);
    hash_sha256(facts, strlen(facts), out);
    free(facts);
    return ST_OK;
}

static enum status folder_identity(const char *path, char out[SHA256_HEX])
{
    enum status st = ST_OK;
    struct dirent **entries = NULL;
    struct text all = {0};
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char one[SHA256_HEX], *file = text_format("%s/%s", path, entries[i]->d_name);
        struct stat info;
        if (st == ST_OK && stat(file, &info) == 0 && S_ISREG(info.st_mode)) {
            st = file_identity(file, one);
            if (st == ST_OK) text_add(&all, "%s %s\n", entries[i]->d_name, one);
        }
        free(file);
        free(entries[i]);
    }
    free(entries);
    hash_sha256(all.data ? all.data : "", all.length, out);
    text_free(&all);
    return st;
}

static enum status find_identity(struct comm *comm, struct cell_input *in)
{
    enum status st = ST_OK;
    struct stat info;
    if (in->atlas) {
        memcpy(in->identity, atlas_hash(in->atlas), SHA256_HEX);
        return ST_OK;
    }
    if (comm->rank == 0)
        st = stat(in->path, &info) == 0 && S_ISDIR(info.st_mode) ? folder_identity(in->path, in->identity)
                                                                 : file_identity(in->path, in->identity);
    TRY(comm_agree(comm, st));
    comm_bcast(comm, in->identity, SHA256_HEX, 0);
done:
    return st;
}

/* ---- open ---- */

static bool is_atlas(const char *path)
{
    char *index = text_format("%s/index.h5", path);
    bool found = access(index, F_OK) == 0;
    free(index);
    return found;
}

static enum status modality_missing(const struct cell_input *in, const char *wanted)
{
    struct text names = {0};
    int count = in->atlas ? atlas_modality_count(in->atlas) : source_modality_count(in->source);
    for (int m = 0; m < count; m++)
        text_add(&names, "%s%s", m ? ", " : "",
                 in->atlas ? atlas_modality(in->atlas, m)->name : source_modality(in->source, m)->name);
    enum status st = fail(ST_INPUT, "%s: no modality '%s'; it has %s: choose with --set data.modality=NAME", in->path,
                          wanted, names.data ? names.data : "none");
    text_free(&names);
    return st;
}

static enum status refuse_kind(const struct cell_input *in, const char *modality, enum value_kind kind,
                               const char *where)
{
    return fail(ST_INPUT,
                "%s: modality '%s'%s%s holds %s values; this job needs counts: name where they are "
                "(--set embed.counts=raw/X or layers/NAME), or give an input that has them",
                in->path, modality, *where ? " in " : "", where, value_kind_word(kind));
}

static enum status choose_modality(struct cell_input *in, const char *wanted)
{
    in->modality = -1;
    if (in->atlas) in->modality = atlas_find_modality(in->atlas, wanted);
    else
        for (int m = 0; m < source_modality_count(in->source); m++)
            if (strcmp(source_modality(in->source, m)->name, wanted) == 0) in->modality = m;
    if (in->modality < 0) return modality_missing(in, wanted);
    if (in->atlas) {
        const struct modality *m = atlas_modality(in->atlas, in->modality);
        in->features = &m->features;
        return m->kind == VALUE_COUNTS ? ST_OK : refuse_kind(in, wanted, m->kind, "");
    }
    const struct source_modality *m = source_modality(in->source, in->modality);
    in->features = &m->features;
    return m->kind == VALUE_COUNTS ? ST_OK : refuse_kind(in, wanted, m->kind, m->taken);
}

static enum status open_source(struct comm *comm, const struct config *config, const char *counts,
                               struct cell_input *in)
{
    enum status st = ST_OK;
    struct source_options options = source_options_default();
    int64_t first, count;
    options.counts = counts;
    options.genome = config_text(config, "ingest.genome");
    TRY(source_open(comm, in->path, &options, &in->source));
    in->row_count = source_row_count(in->source);
    comm_share(comm, in->row_count, &first, &count);
    TRY(source_scan(comm, in->source, first, count, NULL));
done:
    return st;
}

/* ---- selection ---- */

static enum status source_column(struct source *source, const char *name, int64_t first, int64_t count,
                                 struct column *out)
{
    for (int k = 0; k < source_obs_count(source); k++)
        if (strcmp(source_obs_name(source, k), name) == 0) return source_obs_read(source, k, first, count, out);
    return fail(ST_CONFIG, "%s: no obs column '%s'", source_path(source), name);
}

/* Selected rows of [first, first+count) of a foreign input, appended to found. */
static enum status select_block(struct source *source, const struct select *select, int64_t first, int64_t count,
                                int64_t *found, int64_t *found_count)
{
    enum status st = ST_OK;
    int n = select_column_count(select);
    struct column *columns = NULL;
    uint8_t *keep = NULL;
    TRY(NEW_ARRAY(columns, n));
    TRY(NEW_ARRAY(keep, count));
    for (int k = 0; k < n; k++) TRY(source_column(source, select_column_name(select, k), first, count, &columns[k]));
    TRY(select_evaluate(select, columns, count, keep));
    for (int64_t i = 0; i < count; i++)
        if (keep[i]) found[(*found_count)++] = first + i;
done:
    for (int k = 0; columns && k < n; k++) column_free(&columns[k]);
    free(columns);
    free(keep);
    return st;
}

static enum status check_columns(const struct cell_input *in, const struct select *select)
{
    enum status st = ST_OK;
    int count = source_obs_count(in->source);
    const char **names = NULL;
    TRY(NEW_ARRAY(names, count));
    for (int k = 0; k < count; k++) names[k] = source_obs_name(in->source, k);
    TRY(select_check_names(select, names, count));
done:
    free(names);
    return st;
}

static enum status select_source(struct comm *comm, struct cell_input *in, const char *expression)
{
    enum { BLOCK = 65536 };
    enum status st = ST_OK;
    struct select *select = NULL;
    int64_t *found = NULL, found_count = 0, first, count, bytes;
    comm_share(comm, in->row_count, &first, &count);
    st = select_parse(expression, &select);
    if (st == ST_OK) st = check_columns(in, select);
    if (st == ST_OK) st = NEW_ARRAY(found, count);
    for (int64_t at = 0; at < count && st == ST_OK; at += BLOCK)
        st = select_block(in->source, select, first + at, count - at < BLOCK ? count - at : BLOCK, found, &found_count);
    TRY(comm_agree(comm, st));
    TRY(comm_gather_all(comm, found, found_count * (int64_t)sizeof *found, (void **)&in->rows, &bytes, NULL));
    in->count = bytes / (int64_t)sizeof *found;
    if (in->count == 0)
        st = fail(ST_INPUT, "%s: --cells \"%s\" selects none of its %ld cells", in->path, expression,
                  (long)in->row_count);
    TRY(comm_agree(comm, st));
done:
    select_destroy(&select);
    free(found);
    return st;
}

enum status cell_input_open(struct comm *comm, const struct config *config, const char *path, const char *counts,
                            struct cell_input *in)
{
    enum status st = ST_OK;
    const char *cells = config_text(config, "run.cells");
    *in = (struct cell_input){.path = path};
    int64_t found_atlas = is_atlas(path); /* one rank's look decides for all */
    comm_max_i64(comm, &found_atlas, 1);
    if (found_atlas) {
        TRY(atlas_open(comm, path, &in->atlas));
        in->row_count = atlas_cell_count(in->atlas);
    } else {
        TRY(open_source(comm, config, counts, in));
    }
    TRY(comm_agree(comm, choose_modality(in, config_text(config, "data.modality"))));
    in->counts = in->source && strncmp(source_format(in->source), "h5ad", 4) == 0
                     ? source_modality(in->source, in->modality)->taken
                     : "";
    if (*in->counts)
        comm_note(comm, "%s: counts taken from %s%s", path, in->counts,
                  strcmp(counts, "auto") == 0 ? " (auto: the first place that holds counts)" : "");
    TRY(find_identity(comm, in));
    in->count = in->row_count;
    if (*cells && in->atlas) TRY(atlas_select(comm, in->atlas, cells, &in->rows, &in->count));
    else if (*cells) TRY(select_source(comm, in, cells));
done:
    if (st != ST_OK) cell_input_close(in);
    return st;
}

void cell_input_close(struct cell_input *in)
{
    if (in->atlas) atlas_close(&in->atlas);
    if (in->source) source_close(&in->source);
    free(in->rows);
    *in = (struct cell_input){0};
}

/* ---- rows ---- */

/* Rows of the input from the first to the last of these cells. */
static void find_span(const struct cell_input *in, int64_t first, int64_t count, int64_t *row, int64_t *rows)
{
    *row = in->rows ? in->rows[first] : first;
    *rows = in->rows ? in->rows[first + count - 1] - *row + 1 : count;
}

/* Keep the selected rows of a block that begins at row `row`; moves entries towards the front. */
static void keep_selected_cells(struct cells *cells, const int64_t *rows, int64_t count)
{
    int64_t row = rows[0], entry = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t from = cells->start[rows[i] - row], n = cells->start[rows[i] - row + 1] - from;
        memmove(cells->feature + entry, cells->feature + from, sizeof *cells->feature * (size_t)n);
        memmove(cells->value + entry, cells->value + from, sizeof *cells->value * (size_t)n);
        cells->id[i] = rows[i];
        cells->start[i] = entry; /* start[i] is not read again: rows[i] - row >= i */
        entry += n;
    }
    cells->start[count] = entry;
    cells->count = count;
}

static void keep_selected_values(struct column *c, const int64_t *rows, int64_t count)
{
    int64_t row = rows[0], kept = 0;
    for (int64_t i = 0; i < c->count; i++) {
        bool keep = kept < count && rows[kept] == row + i;
        if (keep && c->i) c->i[kept] = c->i[i];
        if (keep && c->r) c->r[kept] = c->r[i];
        if (keep && c->code) c->code[kept] = c->code[i];
        if (c->text && !keep) free(c->text[i]);
        if (c->text && keep) c->text[kept] = c->text[i];
        kept += keep;
    }
    c->count = kept;
}

enum status cell_input_read(struct cell_input *in, int64_t first, int64_t count, struct cells *out)
{
    int64_t row, rows;
    if (in->atlas && in->rows) return atlas_read_rows(in->atlas, in->modality, in->rows + first, count, out);
    if (in->atlas) return atlas_read(in->atlas, in->modality, first, count, out);
    find_span(in, first, count, &row, &rows);
    enum status st = source_read(in->source, in->modality, row, rows, out);
    if (st == ST_OK && in->rows) keep_selected_cells(out, in->rows + first, count);
    return st;
}

enum status cell_input_names(struct cell_input *in, int64_t first, int64_t count, struct column *out)
{
    int64_t row, rows;
    find_span(in, first, count, &row, &rows);
    enum status st =
        in->atlas ? atlas_names_read(in->atlas, row, rows, out) : source_names_read(in->source, row, rows, out);
    if (st == ST_OK && in->rows) keep_selected_values(out, in->rows + first, count);
    return st;
}

int cell_input_obs_count(const struct cell_input *in)
{
    return in->atlas ? atlas_obs_count(in->atlas) : source_obs_count(in->source);
}

const char *cell_input_obs_name(const struct cell_input *in, int index)
{
    return in->atlas ? atlas_obs_name(in->atlas, index) : source_obs_name(in->source, index);
}

enum status cell_input_obs_read(struct cell_input *in, int index, int64_t first, int64_t count, struct column *out)
{
    int64_t row, rows;
    find_span(in, first, count, &row, &rows);
    enum status st = in->atlas ? atlas_obs_read(in->atlas, atlas_obs_name(in->atlas, index), row, rows, out)
                               : source_obs_read(in->source, index, row, rows, out);
    if (st == ST_OK && in->rows) keep_selected_values(out, in->rows + first, count);
    return st;
}

/* ---- what a vocabulary keeps ---- */

static enum status add_kept(struct cell_input *in, const int32_t *lookup, int64_t first, int64_t count, double sums[2])
{
    struct cells cells = {0};
    enum status st = cell_input_read(in, first, count, &cells);
    for (int64_t e = 0; st == ST_OK && e < cells.start[cells.count]; e++) {
        sums[0] += cells.value[e];
        if (lookup[cells.feature[e]] > 0) sums[1] += cells.value[e];
    }
    cells_free(&cells);
    return st;
}

enum status cell_input_kept_share(struct comm *comm, struct cell_input *in, const int32_t *lookup, int64_t sample,
                                  double *share)
{
    enum { BLOCK = 64 }; /* neighbouring cells of one piece of the sample */
    enum status st = ST_OK;
    double sums[2] = {0, 0};
    int64_t blocks = (sample + BLOCK - 1) / BLOCK, all = (in->count + BLOCK - 1) / BLOCK, first, count;
    if (blocks > all) blocks = all;
    comm_share(comm, blocks, &first, &count);
    for (int64_t b = first; b < first + count && st == ST_OK; b++) {
        int64_t at = b * all / blocks * BLOCK;
        st = add_kept(in, lookup, at, in->count - at < BLOCK ? in->count - at : BLOCK, sums);
    }
    TRY(comm_agree(comm, st));
    comm_sum_f64(comm, sums, 2);
    *share = sums[0] > 0 ? sums[1] / sums[0] : 0;
done:
    return st;
}
