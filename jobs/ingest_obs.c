#include "jobs/ingest_obs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 16384, LISTED_MAX = 1000 };

/* Where a column of the atlas comes from. */
struct obs_column {
    char *name;
    int *source_column;         /* [inputs] column of the source, -1 = it has none */
    const struct column *label; /* from the table of labels instead; NULL = from the sources */
    struct names *codes;        /* COLUMN_CATEGORY: category → code */
    char **categories;
    int32_t category_count, category_capacity;
    enum column_type type;
    bool typed, missing;
    int64_t width; /* longest text in bytes */
};

const char *qc_set_name(int set)
{
    static const char *const names[QC_SETS] = {"ok",
                                               "low_features",
                                               "high_mt",
                                               "low_features;high_mt",
                                               "high_total",
                                               "low_features;high_total",
                                               "high_mt;high_total",
                                               "low_features;high_mt;high_total"};
    return names[set];
}

static const char *const *qc_sets(void)
{
    static const char *names[QC_SETS];
    for (int s = 0; s < QC_SETS; s++) names[s] = qc_set_name(s);
    return names;
}

/* ---- which columns ---- */

static struct obs_column *find_column(struct ingest_obs *obs, const char *name)
{
    for (int c = OBS_FIXED; c < obs->count; c++)
        if (strcmp(obs->from[c - OBS_FIXED].name, name) == 0) return &obs->from[c - OBS_FIXED];
    return NULL;
}

static bool is_reserved(const char *name)
{
    static const char *const fixed[] = {"source_file",   "source_row", "source_obs_name", "qc_total",
                                        "qc_n_features", "qc_pct_mt",  "qc_flags"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (strcmp(name, fixed[i]) == 0) return true;
    return strncmp(name, "has_", 4) == 0 || strncmp(name, "perturb_", 8) == 0;
}

/* A name that HDF5 and we can use: no '/', not empty, not one of ours. The caller frees. */
static char *usable_name(const char *name, struct text *notes)
{
    bool reserved = is_reserved(name) || strcmp(name, "_index") == 0 || strcmp(name, "index") == 0 || !*name;
    char *out = text_format("%s%s", reserved ? "source_own_" : "", name);
    for (char *c = out; *c; c++)
        if (*c == '/') *c = '_';
    if (strcmp(out, name) != 0) text_add(notes, "obs column '%s' is kept as '%s'\n", name, out);
    return out;
}

static enum status add_column(struct ingest_obs *obs, const char *name, int inputs, struct obs_column **out)
{
    enum status st = ST_OK;
    *out = find_column(obs, name);
    if (*out) return ST_OK;
    struct obs_column *larger = realloc(obs->from, sizeof *larger * (size_t)(obs->count - OBS_FIXED + 1));
    if (!larger) return fail(ST_MEMORY, "no memory for obs column '%s'", name);
    obs->from = larger;
    *out = &obs->from[obs->count - OBS_FIXED];
    **out = (struct obs_column){.name = text_copy(name), .width = 1};
    obs->count++;
    TRY(NEW_ARRAY((*out)->source_column, inputs));
    for (int i = 0; i < inputs; i++) (*out)->source_column[i] = -1;
done:
    return st;
}

/* The type that holds both. */
static enum column_type wider(enum column_type a, enum column_type b)
{
    if (a == b) return a;
    bool numbers = (a == COLUMN_INT || a == COLUMN_REAL) && (b == COLUMN_INT || b == COLUMN_REAL);
    return numbers ? COLUMN_REAL : COLUMN_TEXT;
}

static enum status add_category(struct obs_column *c, const char *text)
{
    enum status st = ST_OK;
    if (names_find(c->codes, text) >= 0) return ST_OK;
    if (c->category_count == c->category_capacity) {
        int32_t capacity = c->category_capacity ? c->category_capacity * 2 : 64;
        char **larger = realloc(c->categories, sizeof *larger * (size_t)capacity);
        if (!larger) return fail(ST_MEMORY, "no memory for the categories of '%s'", c->name);
        c->categories = larger;
        c->category_capacity = capacity;
    }
    TRY(names_add(c->codes, text, c->category_count, NULL));
    c->categories[c->category_count++] = text_copy(text);
done:
    return st;
}

/* Type and categories from an empty slice of the source's column. */
static enum status take_type(struct obs_column *c, const struct column *slice)
{
    enum status st = ST_OK;
    c->type = c->typed ? wider(c->type, slice->type) : slice->type;
    c->typed = true;
    if (!c->codes) TRY(names_create(&c->codes, 64));
    for (int32_t k = 0; k < slice->category_count; k++) TRY(add_category(c, slice->category[k]));
done:
    return st;
}

static enum status list_columns(struct ingest_inputs *in, struct ingest_obs *obs)
{
    enum status st = ST_OK;
    struct column slice = {0};
    char *name = NULL;
    for (int i = 0; i < in->count; i++) {
        struct source *s = in->inputs[i].source;
        text_add(&obs->notes, "%s", source_obs_skipped(s));
        for (int k = 0; k < source_obs_count(s); k++) {
            struct obs_column *c;
            free(name);
            name = usable_name(source_obs_name(s, k), &obs->notes);
            TRY(add_column(obs, name, in->count, &c));
            c->source_column[i] = k;
            TRY(source_obs_read(s, k, 0, 0, &slice));
            TRY(take_type(c, &slice));
            column_free(&slice);
        }
    }
done:
    free(name);
    column_free(&slice);
    return st;
}

static enum status list_labels(struct ingest_inputs *in, struct ingest_obs *obs)
{
    enum status st = ST_OK;
    char *name = NULL;
    for (int k = 0; obs->labels && k < obs->labels->column_count; k++) {
        const struct column *label = &obs->labels->columns[k];
        struct obs_column *c;
        free(name);
        name = usable_name(label->name, &obs->notes);
        if (find_column(obs, name))
            text_add(&obs->notes, "obs column '%s' comes from the table of labels, not from the inputs\n", name);
        TRY(add_column(obs, name, in->count, &c));
        c->label = label;
        c->type = label->type;
        c->missing = true;
        c->category_count = 0;
        names_destroy(&c->codes);
        TRY(names_create(&c->codes, 64));
        for (int32_t i = 0; i < label->category_count; i++) TRY(add_category(c, label->category[i]));
    }
done:
    free(name);
    return st;
}

/* ---- looking at this rank's rows ---- */

static void note_values(struct obs_column *c, const struct column *slice)
{
    char buffer[32];
    for (int64_t r = 0; r < slice->count; r++) {
        if (slice->i && slice->i[r] == INT64_MIN) c->missing = true;
        if (c->type != COLUMN_TEXT) continue;
        int64_t n = (int64_t)strlen(column_as_text(slice, r, buffer));
        if (n > c->width) c->width = n;
    }
}

static bool needs_look(const struct obs_column *c, int input)
{
    return !c->label && c->source_column[input] >= 0 &&
           (c->type == COLUMN_TEXT || c->type == COLUMN_INT || c->type == COLUMN_BOOL);
}

static void match_names(struct ingest_obs *obs, const struct column *names)
{
    for (int64_t r = 0; obs->labels && r < names->count; r++) {
        int64_t row = names_find(obs->labels->index, names->text[r]);
        if (row >= 0) obs->labels->used[row]++;
        obs->matched += row >= 0;
        if (row < 0 && obs->unmatched++ < LISTED_MAX) text_add(&obs->unmatched_names, "%s\n", names->text[r]);
    }
}

/* hashes[count] of the names of one block. */
static void hash_names(const struct column *names, uint64_t *hashes, int64_t *width)
{
    for (int64_t r = 0; r < names->count; r++) {
        size_t n = strlen(names->text[r]);
        hashes[r] = hash_block(names->text[r], n, 0);
        if ((int64_t)n > *width) *width = (int64_t)n;
    }
}

static enum status look_at_block(struct ingest_inputs *in, struct ingest_obs *obs, int i, int64_t first, int64_t n,
                                 uint64_t *hashes, int64_t *name_width)
{
    enum status st = ST_OK;
    struct column slice = {0};
    struct source *s = in->inputs[i].source;
    TRY(source_names_read(s, first, n, &slice));
    hash_names(&slice, hashes, name_width);
    match_names(obs, &slice);
    column_free(&slice);
    for (int c = OBS_FIXED; c < obs->count; c++) {
        struct obs_column *from = &obs->from[c - OBS_FIXED];
        if (!needs_look(from, i)) continue;
        TRY(source_obs_read(s, from->source_column[i], first, n, &slice));
        note_values(from, &slice);
        column_free(&slice);
    }
done:
    column_free(&slice);
    return st;
}

static int64_t rows_of_rank(const struct ingest_inputs *in)
{
    int64_t rows = 0;
    for (int i = 0; i < in->count; i++) rows += in->inputs[i].my_count;
    return rows;
}

static enum status look_at_rows(struct ingest_inputs *in, struct ingest_obs *obs, uint64_t *hashes, int64_t *name_width)
{
    enum status st = ST_OK;
    for (int i = 0; i < in->count; i++) {
        const struct ingest_input *input = &in->inputs[i];
        for (int64_t at = 0; at < input->my_count; at += BLOCK) {
            int64_t n = input->my_count - at < BLOCK ? input->my_count - at : BLOCK;
            TRY(look_at_block(in, obs, i, input->my_first + at, n, hashes, name_width));
            hashes += n;
        }
    }
done:
    return st;
}

/* ---- what ranks must agree on ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Are the names of all ranks distinct? Hashes go to the rank they belong to and are sorted there. Collective. */
static enum status find_repeats(struct comm *comm, uint64_t *hashes, int64_t count, bool *unique)
{
    enum status st = ST_OK;
    uint64_t *theirs = NULL;
    int64_t *bytes = NULL, repeated = 0, total = 0;
    TRY(comm_agree(comm, NEW_ARRAY(bytes, 2 * comm->size)));
    qsort(hashes, (size_t)count, sizeof *hashes, by_value);
    uint64_t share = UINT64_MAX / (uint64_t)comm->size + 1;
    for (int64_t i = 0; i < count; i++)
        bytes[comm->size == 1 ? 0 : (int)(hashes[i] / share)] += (int64_t)sizeof *hashes;
    TRY(comm_exchange(comm, hashes, bytes, (void **)&theirs, bytes + comm->size));
    for (int r = 0; r < comm->size; r++) total += bytes[comm->size + r] / (int64_t)sizeof *hashes;
    qsort(theirs, (size_t)total, sizeof *theirs, by_value);
    for (int64_t i = 1; i < total; i++) repeated |= theirs[i] == theirs[i - 1];
    comm_max_i64(comm, &repeated, 1);
    *unique = !repeated;
done:
    free(theirs);
    free(bytes);
    return st;
}

static enum status agree_on_columns(struct comm *comm, struct ingest_obs *obs, int64_t *name_width)
{
    enum status st = ST_OK;
    int64_t *figures = NULL;
    int n = obs->count - OBS_FIXED;
    TRY(comm_agree(comm, NEW_ARRAY(figures, 2 * n + 1)));
    for (int c = 0; c < n; c++) {
        figures[2 * c] = obs->from[c].width;
        figures[2 * c + 1] = obs->from[c].missing;
    }
    figures[2 * n] = *name_width;
    comm_max_i64(comm, figures, 2 * n + 1);
    for (int c = 0; c < n; c++) {
        obs->from[c].width = figures[2 * c];
        obs->from[c].missing = figures[2 * c + 1] != 0;
    }
    *name_width = figures[2 * n];
done:
    free(figures);
    return st;
}

/* Counts of matches, and the list of cells without a label, in the order of ranks. */
static enum status agree_on_matches(struct comm *comm, struct ingest_obs *obs)
{
    enum status st = ST_OK;
    int64_t figures[2] = {obs->matched, obs->unmatched}, bytes;
    char *all = NULL;
    if (!obs->labels) return ST_OK;
    comm_sum_i64(comm, figures, 2);
    comm_sum_i64(comm, obs->labels->used, obs->labels->rows);
    TRY(comm_gather_all(comm, obs->unmatched_names.data, (int64_t)obs->unmatched_names.length, (void **)&all, &bytes,
                        NULL));
    text_free(&obs->unmatched_names);
    text_add_bytes(&obs->unmatched_names, all, (size_t)bytes);
    obs->matched = figures[0];
    obs->unmatched = figures[1];
    if (obs->matched == 0)
        TRY(comm_agree(
            comm,
            comm->rank != 0
                ? ST_OK
                : fail(ST_INPUT,
                       "the table of labels matches no cell: its keys look like '%s' and the unmatched cells like "
                       "'%.*s'; name the right column with --obs-key",
                       obs->labels->keys[0], (int)strcspn(obs->unmatched_names.data, "\n"),
                       obs->unmatched_names.data)));
done:
    free(all);
    return st;
}

/* ---- fields for the writer ---- */

static enum status make_fields(const struct config *config, const struct ingest_inputs *in, struct ingest_obs *obs,
                               int64_t name_width)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(obs->files, in->count));
    TRY(NEW_ARRAY(obs->fields, obs->count + PERTURB_COLUMN_COUNT));
    for (int i = 0; i < in->count; i++) obs->files[i] = source_path(in->inputs[i].source);
    const struct h5ad_field fixed[OBS_FIXED] = {
        [OBS_FILE] = {"source_file", COLUMN_CATEGORY, .category = obs->files, .category_count = in->count},
        [OBS_ROW] = {"source_row", COLUMN_INT},
        [OBS_NAME] = {"source_obs_name", COLUMN_TEXT, .text_bytes = (int32_t)name_width},
        [OBS_TOTAL] = {"qc_total", COLUMN_REAL},
        [OBS_FEATURES] = {"qc_n_features", COLUMN_INT},
        [OBS_PCT_MT] = {"qc_pct_mt", COLUMN_REAL},
        [OBS_FLAGS] = {"qc_flags", COLUMN_CATEGORY, .category = qc_sets(), .category_count = QC_SETS}};
    memcpy(obs->fields, fixed, sizeof fixed);
    for (int c = OBS_FIXED; c < obs->count; c++) {
        struct obs_column *from = &obs->from[c - OBS_FIXED];
        for (int i = 0; i < in->count; i++) from->missing |= !from->label && from->source_column[i] < 0;
        obs->fields[c] =
            (struct h5ad_field){.name = from->name,
                                .type = from->type,
                                .text_bytes = (int32_t)from->width,
                                .nullable = from->missing && (from->type == COLUMN_INT || from->type == COLUMN_BOOL),
                                .category = (const char *const *)from->categories,
                                .category_count = from->category_count};
    }
    TRY(ingest_perturbation_plan(config, obs->fields, obs->own, &obs->perturbation));
    ingest_perturbation_fields(&obs->perturbation, obs->fields, obs->fields + obs->own);
    obs->count = obs->own + obs->perturbation.count;
done:
    return st;
}

static enum status list_all(const struct config *config, struct ingest_inputs *in, struct ingest_obs *obs)
{
    enum status st = ST_OK;
    const char *table = config_text(config, "ingest.obs_table");
    obs->count = OBS_FIXED;
    TRY(list_columns(in, obs));
    if (*table) TRY(label_table_read(table, config_text(config, "ingest.obs_key"), &obs->labels));
    TRY(list_labels(in, obs));
done:
    return st;
}

enum status ingest_obs_plan(struct comm *comm, const struct config *config, struct ingest_inputs *in,
                            struct ingest_obs *obs)
{
    enum status st = ST_OK;
    uint64_t *hashes = NULL;
    int64_t name_width = 1, rows = rows_of_rank(in);
    TRY(comm_agree(comm, list_all(config, in, obs)));
    TRY(comm_agree(comm, NEW_ARRAY(hashes, rows)));
    TRY(comm_agree(comm, look_at_rows(in, obs, hashes, &name_width)));
    TRY(find_repeats(comm, hashes, rows, &obs->names_unique));
    TRY(agree_on_columns(comm, obs, &name_width));
    TRY(agree_on_matches(comm, obs));
    obs->own = obs->count;
    TRY(comm_agree(comm, make_fields(config, in, obs, name_width)));
done:
    free(hashes);
    return st;
}

void ingest_obs_free(struct ingest_obs *obs)
{
    int own = obs->own ? obs->own : obs->count; /* the same until the fields are made */
    for (int c = OBS_FIXED; c < own; c++) {
        struct obs_column *from = &obs->from[c - OBS_FIXED];
        for (int32_t k = 0; k < from->category_count; k++) free(from->categories[k]);
        free(from->categories);
        free(from->name);
        free(from->source_column);
        names_destroy(&from->codes);
    }
    ingest_perturbation_free(&obs->perturbation);
    free(obs->from);
    free(obs->fields);
    free(obs->files);
    label_table_destroy(&obs->labels);
    text_free(&obs->unmatched_names);
    text_free(&obs->notes);
    *obs = (struct ingest_obs){0};
}

/* ---- reading ---- */

static enum status make_column(const struct h5ad_field *field, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    *out = (struct column){.name = text_copy(field->name), .type = field->type, .count = count};
    if (field->type == COLUMN_INT || field->type == COLUMN_BOOL) TRY(NEW_ARRAY(out->i, count));
    if (field->type == COLUMN_REAL) TRY(NEW_ARRAY(out->r, count));
    if (field->type == COLUMN_CATEGORY) TRY(NEW_ARRAY(out->code, count));
    if (field->type == COLUMN_TEXT) TRY(NEW_ARRAY(out->text, count));
    for (int64_t r = 0; r < count; r++) {
        if (out->i) out->i[r] = INT64_MIN;
        if (out->r) out->r[r] = NAN;
        if (out->code) out->code[r] = -1;
    }
done:
    return st;
}

/* Row `from` of a column as row `to` of one of a wider type. */
static void put_value(const struct obs_column *c, const struct column *in, int64_t from, struct column *out, int64_t to)
{
    char buffer[32];
    switch (out->type) {
    case COLUMN_INT:
    case COLUMN_BOOL: out->i[to] = in->i[from]; break;
    case COLUMN_REAL: out->r[to] = in->r ? in->r[from] : in->i[from] == INT64_MIN ? NAN : (double)in->i[from]; break;
    case COLUMN_CATEGORY:
        out->code[to] = in->code[from] < 0 ? -1 : (int32_t)names_find(c->codes, in->category[in->code[from]]);
        break;
    case COLUMN_TEXT: {
        const char *text = column_as_text(in, from, buffer);
        out->text[to] = *text ? text_copy(text) : NULL;
    }
    }
}

static enum status read_column(const struct ingest_obs *obs, const struct obs_column *c, struct source *s,
                               int source_column, const struct column *names, int64_t first, struct column *out)
{
    enum status st = ST_OK;
    struct column slice = {0};
    if (c->label) {
        for (int64_t r = 0; r < out->count; r++) {
            int64_t row = names_find(obs->labels->index, names->text[r]);
            if (row >= 0) put_value(c, c->label, row, out, r);
        }
        return ST_OK;
    }
    if (source_column < 0) return ST_OK;
    TRY(source_obs_read(s, source_column, first, out->count, &slice));
    for (int64_t r = 0; r < out->count; r++) put_value(c, &slice, r, out, r);
done:
    column_free(&slice);
    return st;
}

enum status ingest_obs_read(const struct ingest_obs *obs, struct ingest_inputs *in, int i, int64_t first, int64_t count,
                            struct column *columns)
{
    enum status st = ST_OK;
    struct source *s = in->inputs[i].source;
    for (int c = 0; c < obs->own; c++)
        if (c != OBS_NAME) TRY(make_column(&obs->fields[c], count, &columns[c]));
    TRY(source_names_read(s, first, count, &columns[OBS_NAME]));
    for (int64_t r = 0; r < count; r++) {
        columns[OBS_FILE].code[r] = i;
        columns[OBS_ROW].i[r] = first + r;
    }
    for (int c = OBS_FIXED; c < obs->own; c++) {
        const struct obs_column *from = &obs->from[c - OBS_FIXED];
        TRY(read_column(obs, from, s, from->source_column[i], &columns[OBS_NAME], first, &columns[c]));
    }
    st = ingest_perturbation_build(&obs->perturbation, obs->fields, columns, columns + obs->own);
    if (st != ST_OK) status_prefix("%s, from row %lld: ", source_path(s), (long long)first);
done:
    return st;
}
