#include "io/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/names.h"
#include "base/stop.h"
#include "base/text.h"
#include "cell/identity.h"
#include "io/h5.h"
#include "io/probe.h"
#include "io/source_parts.h"

enum { BLOCK_ENTRIES = 1 << 20 };

struct source_options source_options_default(void)
{
    static const char *const rna[] = {"Gene Expression"};
    return (struct source_options){.counts = "auto",
                                   .genome = "",
                                   .modality = "rna",
                                   .rna_types = rna,
                                   .rna_type_count = 1,
                                   .keep_other = true,
                                   .probe_time_s = 60,
                                   .probe_memory_mib = 1024};
}

/* ---- opening ---- */

static enum status copy_options(struct source *s, const struct source_options *o)
{
    enum status st = ST_OK;
    const char *folder = o->spool ? o->spool : getenv("TMPDIR");
    s->counts = text_copy(o->counts);
    s->genome = text_copy(o->genome);
    s->modality = text_copy(o->modality);
    s->spool = text_copy(folder ? folder : "/tmp");
    s->keep_other = o->keep_other;
    TRY(NEW_ARRAY(s->rna_types, o->rna_type_count));
    for (int i = 0; i < o->rna_type_count; i++) s->rna_types[s->rna_type_count++] = text_copy(o->rna_types[i]);
done:
    return st;
}

/* HDF5's signature stands at 0, 512, 1024, … (a user block may come first). */
static bool has_hdf5_signature(int file, int64_t bytes)
{
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char found[8];
    for (int64_t at = 0; at + 8 <= bytes; at = at ? at * 2 : 512)
        if (pread(file, found, 8, at) == 8 && memcmp(found, signature, 8) == 0) return true;
    return false;
}

/* Folder or HDF5 file? ST_INPUT for anything else. Local. */
static enum status look_at(const char *path, bool *is_folder)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return fail(ST_INPUT, "%s: cannot be opened: %s; give a 10x folder, a 10x .h5 or an .h5ad file", path,
                    strerror(errno));
    *is_folder = S_ISDIR(info.st_mode);
    if (*is_folder) {
        if (access(path, R_OK | X_OK) == 0) return ST_OK;
        return fail(ST_INPUT, "%s: the folder cannot be read: %s; ask for permission to read it", path,
                    strerror(errno));
    }
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return fail(ST_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    bool found = has_hdf5_signature(file, info.st_size);
    close(file);
    if (found) return ST_OK;
    return fail(ST_INPUT,
                "%s: is not an HDF5 file (%lld bytes, no signature); .h5ad and 10x .h5 are, and a Matrix Market input "
                "is given as its folder",
                path, (long long)info.st_size);
}

/* Which HDF5 layout is it? Local. */
static enum status choose_h5(const char *path, const struct source_format **out)
{
    hid_t file = H5_NONE;
    enum status st = h5_open(path, &file);
    if (st != ST_OK) return st;
    *out = h5_exists(file, "obs") || h5_exists(file, "X") || h5_exists(file, "var") ? &source_h5ad : &source_10x_h5;
    h5_drop(&file);
    return ST_OK;
}

static enum status choose_format(struct comm *comm, struct source *s, const struct source_options *o)
{
    enum status st = ST_OK;
    bool is_folder = false;
    TRY(comm_agree(comm, look_at(s->path, &is_folder)));
    if (is_folder) s->reader = &source_10x_folder;
    else {
        struct probe_limits limits = {o->probe_time_s, o->probe_memory_mib};
        TRY(comm_agree(comm, comm->rank == 0 ? probe_file(s->path, &limits) : ST_OK));
        TRY(comm_agree(comm, choose_h5(s->path, &s->reader)));
    }
done:
    return st;
}

enum status source_open(struct comm *comm, const char *path, const struct source_options *options, struct source **out)
{
    enum status st = ST_OK;
    struct source *s = NULL;
    TRY(comm_agree(comm, NEW_ARRAY(s, 1)));
    s->path = text_copy(path);
    TRY(comm_agree(comm, copy_options(s, options)));
    TRY(choose_format(comm, s, options));
    TRY(s->reader->open(comm, s));
    st = s->rows > 0 ? ST_OK : fail(ST_INPUT, "%s: holds no cells; at least one is needed", path);
    if (st == ST_OK && s->view_count == 0) st = fail(ST_INPUT, "%s: holds no features; at least one is needed", path);
    TRY(comm_agree(comm, st));
    *out = s;
    s = NULL;
done:
    source_close(&s);
    return st;
}

void source_close(struct source **source)
{
    struct source *s = *source;
    if (!s) return;
    if (s->reader && s->own) s->reader->close(s);
    matrix_close(&s->matrix);
    source_free_views(s);
    cells_free(&s->raw);
    free(s->checks);
    for (int i = 0; i < s->rna_type_count; i++) free(s->rna_types[i]);
    free(s->rna_types);
    free(s->path);
    free(s->format);
    free(s->counts);
    free(s->genome);
    free(s->modality);
    free(s->spool);
    free(s);
    *source = NULL;
}

/* ---- views ---- */

void source_free_views(struct source *s)
{
    for (int v = 0; v < s->view_count; v++) {
        feature_table_free(&s->views[v].is.features);
        free(s->views[v].name);
        free(s->views[v].taken);
        free(s->views[v].feature);
    }
    free(s->views);
    s->views = NULL;
    s->view_count = 0;
}

/* Name of the modality of a 10x feature type; the caller frees. NULL = left out. */
static char *modality_of(const struct source *s, const char *type)
{
    static const struct {
        const char *type, *name;
    } known[] = {{"Antibody Capture", "adt"},
                 {"CRISPR Guide Capture", "guide"},
                 {"Multiplexing Capture", "hto"},
                 {"Peaks", "atac"}};
    for (int i = 0; i < s->rna_type_count; i++)
        if (strcmp(type, s->rna_types[i]) == 0) return text_copy("rna");
    if (!s->keep_other) return NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(type, known[i].type) == 0) return text_copy(known[i].name);
    char *name = text_copy(*type ? type : "other");
    for (char *c = name; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') ? *c : '_';
    return name;
}

static enum status find_view(struct source *s, const char *name, int64_t columns, const char *taken, int *out)
{
    enum status st = ST_OK;
    for (*out = 0; *out < s->view_count; ++*out)
        if (strcmp(s->views[*out].name, name) == 0) return ST_OK;
    struct source_view *larger = realloc(s->views, sizeof *larger * (size_t)(s->view_count + 1));
    if (!larger) return fail(ST_MEMORY, "no memory for modality %s", name);
    s->views = larger;
    struct source_view *v = &s->views[s->view_count];
    *v = (struct source_view){.name = text_copy(name), .taken = text_copy(taken)};
    v->is.name = v->name;
    v->is.taken = v->taken;
    s->view_count++;
    TRY(NEW_ARRAY(v->feature, columns));
    for (int64_t c = 0; c < columns; c++) v->feature[c] = -1;
done:
    return st;
}

enum status source_set_views(struct source *s, struct feature_table *table, char *const *types, const char *fallback,
                             const char *taken)
{
    enum status st = ST_OK;
    char *name = NULL;
    source_free_views(s);
    for (int64_t c = 0; c < table->count; c++) {
        int v;
        free(name);
        name = types && types[c] ? modality_of(s, types[c]) : text_copy(fallback);
        if (!name) continue;
        TRY(find_view(s, name, table->count, taken, &v));
        s->views[v].feature[c] = (int32_t)s->views[v].is.features.count;
        TRY(feature_table_add(&s->views[v].is.features, &table->rows[c]));
    }
    for (int v = 0; v < s->view_count; v++) s->views[v].is.feature_count = s->views[v].is.features.count;
done:
    free(name);
    feature_table_free(table);
    return st;
}

enum status source_check_ids(char *const *ids, int64_t count, const char *what)
{
    enum status st = ST_OK;
    struct names *seen = NULL;
    char *id = NULL;
    int64_t held;
    TRY(names_create(&seen, count));
    for (int64_t i = 0; i < count; i++) {
        free(id);
        id = text_copy(ids[i]);
        if (!identity_trim_id(id)) continue;
        TRY(names_add(seen, id, i, &held));
        if (held != i)
            TRY(fail(ST_INPUT, "%s: id '%s' stands twice, at %lld and %lld; ids must be unique: remove or rename one",
                     what, ids[i], (long long)held + 1, (long long)i + 1));
    }
done:
    free(id);
    names_destroy(&seen);
    return st;
}

/* ---- asking ---- */

const char *source_path(const struct source *s) { return s->path; }
const char *source_format(const struct source *s) { return s->format; }
int64_t source_row_count(const struct source *s) { return s->rows; }
int64_t source_entry_count(const struct source *s) { return s->matrix->entries; }
int source_modality_count(const struct source *s) { return s->view_count; }
const struct source_modality *source_modality(const struct source *s, int index) { return &s->views[index].is; }

struct feature_table source_take_features(struct source *s, int modality)
{
    struct feature_table taken = s->views[modality].is.features;
    s->views[modality].is.features = (struct feature_table){0};
    return taken;
}

int source_obs_count(const struct source *s) { return s->reader->obs_count ? s->reader->obs_count(s) : 0; }
const char *source_obs_name(const struct source *s, int index) { return s->reader->obs_name(s, index); }
const char *source_obs_skipped(const struct source *s)
{
    return s->reader->obs_skipped ? s->reader->obs_skipped(s) : "";
}

void source_rest(struct source *s)
{
    s->matrix->rest(s->matrix);
    cells_free(&s->raw);
}

/* Put the file's name in front of what went wrong in it. */
static enum status named(const struct source *s, enum status st)
{
    if (st != ST_OK) status_prefix("%s: ", s->path);
    return st;
}

enum status source_names_read(struct source *s, int64_t first, int64_t count, struct column *out)
{
    return named(s, s->reader->read_names(s, first, count, out));
}

enum status source_obs_read(struct source *s, int index, int64_t first, int64_t count, struct column *out)
{
    return named(s, s->reader->read_obs(s, index, first, count, out));
}

enum status source_row_at(struct source *s, int64_t entry, int64_t *row)
{
    return named(s, matrix_row_at(s->matrix, entry, row));
}

enum status source_block(struct source *s, int64_t first, int64_t end, int64_t *count)
{
    return named(s, matrix_block(s->matrix, first, end, BLOCK_ENTRIES, count));
}

/* ---- pass 1 ---- */

/* Values of row `r` of s->raw that belong to each view: check them and count what is not 0. */
static void scan_row(struct source *s, int64_t r, struct value_check *checks, float *values, int64_t *sizes,
                     int64_t stride)
{
    int64_t start = s->raw.start[r], end = s->raw.start[r + 1];
    for (int v = 0; v < s->view_count; v++) {
        int64_t n = 0, zeros = 0;
        for (int64_t e = start; e < end; e++) {
            values[n] = s->raw.value[e];
            n += s->views[v].feature[s->raw.feature[e]] >= 0;
        }
        for (int64_t e = 0; e < n; e++) zeros += values[e] == 0;
        value_check_add(&checks[v], values, n, s->raw.id[r]);
        if (sizes) sizes[v * stride] = n - zeros;
    }
}

static enum status scan_rows(struct source *s, int64_t first, int64_t count, struct value_check *checks, int64_t *sizes)
{
    enum status st = ST_OK;
    float *values = NULL;
    TRY(NEW_ARRAY(values, s->matrix->columns + 1));
    for (int64_t at = 0; at < count;) {
        int64_t n;
        TRY(stop_asked() ? ST_REQUEUE : source_block(s, first + at, first + count, &n));
        TRY(named(s, matrix_read(s->matrix, first + at, n, &s->raw)));
        for (int64_t r = 0; r < n; r++) scan_row(s, r, checks, values, sizes ? sizes + at + r : NULL, count);
        at += n;
    }
done:
    free(values);
    return st;
}

enum status source_scan_rows(struct source *s, int64_t first, int64_t count, int64_t *sizes)
{
    enum status st = ST_OK;
    free(s->checks);
    TRY(NEW_ARRAY(s->checks, s->view_count));
    for (int v = 0; v < s->view_count; v++) s->checks[v] = value_check_start();
    TRY(scan_rows(s, first, count, s->checks, sizes));
done:
    return st;
}

/* Merge the checks of all ranks; the kind of each view. Collective. */
static enum status agree_on_kinds(struct comm *comm, struct source *s)
{
    enum status st = ST_OK;
    struct value_check *all = NULL;
    int64_t bytes;
    TRY(comm_gather_all(comm, s->checks, (int64_t)sizeof *all * s->view_count, (void **)&all, &bytes, NULL));
    for (int v = 0; v < s->view_count; v++) {
        struct value_check check = value_check_start();
        struct source_modality *m = &s->views[v].is;
        for (int r = 0; r < comm->size; r++) value_check_merge(&check, &all[r * s->view_count + v]);
        if (value_check_is_broken(&check) && st == ST_OK)
            st = fail(ST_INPUT,
                      "%s: '%s' holds NaN or an infinite value in row %lld; only finite numbers are allowed: "
                      "remove these cells or take the counts from elsewhere (--counts)",
                      s->path, m->taken, (long long)check.broken_row);
        m->kind = value_check_kind(&check);
        if (m->kind == VALUE_BINARY && s->always_counts) m->kind = VALUE_COUNTS;
        m->entry_count = check.count;
        value_check_why(&check, m->why);
    }
    st = comm_agree(comm, st);
done:
    free(all);
    return st;
}

static bool all_counts(const struct source *s)
{
    for (int v = 0; v < s->view_count; v++)
        if (s->views[v].is.kind != VALUE_COUNTS) return false;
    return true;
}

enum status source_scan_agree(struct comm *comm, struct source *s, bool *again)
{
    enum status st = ST_OK;
    *again = false;
    TRY(agree_on_kinds(comm, s));
    if (s->reader->next_place) TRY(s->reader->next_place(comm, s, all_counts(s), again));
done:
    return st;
}

enum status source_scan(struct comm *comm, struct source *s, int64_t first, int64_t count, int64_t *sizes)
{
    enum status st = ST_OK;
    for (bool again = true; again;) {
        TRY(comm_agree(comm, source_scan_rows(s, first, count, sizes)));
        TRY(source_scan_agree(comm, s, &again));
    }
done:
    return st;
}

/* ---- pass 2 ---- */

enum status source_read(struct source *s, int modality, int64_t first, int64_t count, struct cells *out)
{
    enum status st = ST_OK;
    const int32_t *feature = s->views[modality].feature;
    TRY(named(s, matrix_read(s->matrix, first, count, &s->raw)));
    TRY(cells_reserve(out, count, s->raw.start[count]));
    int64_t n = 0;
    for (int64_t r = 0; r < count; r++) {
        out->id[r] = first + r;
        out->start[r] = n;
        for (int64_t e = s->raw.start[r]; e < s->raw.start[r + 1]; e++) {
            int32_t f = feature[s->raw.feature[e]];
            out->feature[n] = f;
            out->value[n] = s->raw.value[e];
            n += f >= 0 && s->raw.value[e] != 0;
        }
    }
    out->start[count] = n;
    out->count = count;
done:
    return st;
}
