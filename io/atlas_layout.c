/* The first pass of an atlas writer: from a plan and the rows' sizes to shards at their final size. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "io/atlas_writer.h"
#include "io/h5ad_layout.h"
#include "io/place.h"

/* ---- plan to index ---- */

static enum status check_sources(const struct atlas_plan *plan)
{
    int64_t row = 0;
    for (int k = 0; k < plan->source_count; k++) {
        if (plan->sources[k].first_row != row || plan->sources[k].rows < 0)
            return fail(ST_INTERNAL, "source %d begins at row %lld instead of %lld", k, (long long)plan->sources[k].first_row, (long long)row);
        row += plan->sources[k].rows;
    }
    if (row != plan->rows) return fail(ST_INTERNAL, "sources have %lld rows, the plan %lld", (long long)row, (long long)plan->rows);
    if (row == 0) return fail(ST_INPUT, "no cells in the input; give files with at least one cell");
    return ST_OK;
}

static enum status check_obs(const struct atlas_plan *plan)
{
    static const struct h5ad_field first[] = {{.name = "source_file", .type = COLUMN_CATEGORY},
                                              {.name = "source_row", .type = COLUMN_INT},
                                              {.name = "source_obs_name", .type = COLUMN_TEXT}};
    for (int k = 0; k < 3; k++)
        if (k >= plan->obs_count || strcmp(plan->obs[k].name, first[k].name) != 0 || plan->obs[k].type != first[k].type)
            return fail(ST_INTERNAL, "obs column %d must be %s", k, first[k].name);
    for (int k = 0; k < plan->obs_count; k++)
        for (int j = 0; j < k; j++)
            if (strcmp(plan->obs[k].name, plan->obs[j].name) == 0) return fail(ST_INTERNAL, "two obs columns '%s'", plan->obs[k].name);
    return ST_OK;
}

static enum status copy_sources(const struct atlas_plan *plan, struct atlas_index *index)
{
    enum status st = ST_OK;
    index->source_count = plan->source_count;
    TRY(NEW_ARRAY(index->sources, plan->source_count));
    for (int k = 0; k < plan->source_count; k++)
        index->sources[k] = (struct index_source){.path = text_copy(plan->sources[k].path),
                                                  .identity = text_copy(plan->sources[k].identity),
                                                  .first_row = plan->sources[k].first_row, .rows = plan->sources[k].rows};
done:
    return st;
}

static enum status copy_field(const struct h5ad_field *from, struct h5ad_field *to)
{
    enum status st = ST_OK;
    char **category = NULL;
    TRY(NEW_ARRAY(category, from->category_count));
    for (int32_t k = 0; k < from->category_count; k++) category[k] = text_copy(from->category[k]);
    *to = *from;
    to->name = text_copy(from->name);
    to->category = (const char *const *)category;
    to->nullable = from->nullable && (from->type == COLUMN_INT || from->type == COLUMN_BOOL);
    if (to->text_bytes < 1) to->text_bytes = 1;
done:
    return st;
}

/* The plan's columns, then has_<modality> for all modalities if any cell lacks one. */
static enum status copy_fields(const struct atlas_plan *plan, bool some_lack, struct atlas_index *index)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(index->fields, plan->obs_count + plan->modality_count));
    for (int k = 0; k < plan->obs_count; k++) {
        TRY(copy_field(&plan->obs[k], &index->fields[k]));
        index->field_count++;
    }
    for (int m = 0; some_lack && m < plan->modality_count; m++)
        index->fields[index->field_count++] =
            (struct h5ad_field){.name = text_format("has_%s", plan->modalities[m].name), .type = COLUMN_BOOL};
done:
    return st;
}

/* Store each distinct mask once. */
static enum status copy_masks(const struct atlas_modality_plan *from, int source_count, struct index_modality *to)
{
    enum status st = ST_OK;
    size_t n = (size_t)from->features->count;
    TRY(NEW_ARRAY(to->mask_of_source, source_count));
    for (int k = 0; k < source_count; k++) {
        const uint8_t *mask = from->measured ? from->measured[k] : NULL;
        int32_t found = -1;
        for (int32_t j = 0; mask && j < to->mask_count && found < 0; j++)
            if (memcmp(to->masks + (size_t)j * n, mask, n) == 0) found = j;
        if (mask && found < 0) {
            uint8_t *more = realloc(to->masks, (size_t)(to->mask_count + 1) * n + 1);
            if (!more) TRY(fail(ST_MEMORY, "no memory for masks of %zu features", n));
            to->masks = more;
            memcpy(to->masks + (size_t)to->mask_count * n, mask, n);
            found = to->mask_count++;
        }
        to->mask_of_source[k] = found;
    }
done:
    return st;
}

static enum status copy_modality(const struct atlas_plan *plan, int m, struct atlas_index *index)
{
    enum status st = ST_OK;
    const struct atlas_modality_plan *from = &plan->modalities[m];
    struct index_modality *to = &index->modalities[m];
    to->base.name = text_copy(from->name);
    to->base.kind = from->kind;
    for (int64_t i = 0; i < from->features->count; i++) TRY(feature_table_add(&to->base.features, &from->features->rows[i]));
    TRY(copy_masks(from, plan->source_count, to));
    TRY(NEW_ARRAY(to->entries, index->shard_count));
    TRY(NEW_ARRAY(to->bytes, index->shard_count));
    TRY(NEW_ARRAY(to->offsets, index->shard_count * index->piece_count));
done:
    return st;
}

static int digits(int64_t n)
{
    char text[32];
    return snprintf(text, sizeof text, "%lld", (long long)n);
}

static enum status fill_index(const struct atlas_plan *plan, bool some_lack, struct atlas_index *index)
{
    enum status st = ST_OK;
    *index = (struct atlas_index){.rows = plan->rows, .shard_rows = plan->shard_rows, .seed = plan->seed, .shuffled = plan->shuffle};
    index->shard_count = (plan->rows - 1) / plan->shard_rows + 1;
    index->config = text_copy(plan->config ? plan->config : "");
    TRY(copy_sources(plan, index));
    TRY(copy_fields(plan, some_lack, index));
    int32_t counted = digits(plan->source_count) + 1 + digits(plan->rows);
    TRY(index_set_pieces(index, plan->obs_names_unique ? plan->obs[2].text_bytes : counted));
    TRY(NEW_ARRAY(index->modalities, plan->modality_count));
    index->modality_count = plan->modality_count;
    for (int m = 0; m < plan->modality_count; m++) TRY(copy_modality(plan, m, index));
done:
    return st;
}

/* ---- this rank's share ---- */

static enum status copy_share(struct atlas_writer *w, const struct atlas_share *share)
{
    enum status st = ST_OK;
    w->range_count = share->range_count;
    TRY(NEW_ARRAY(w->first, share->range_count));
    TRY(NEW_ARRAY(w->count, share->range_count));
    TRY(NEW_ARRAY(w->base, share->range_count));
    for (int k = 0; k < share->range_count; k++) {
        w->first[k] = share->first[k];
        w->count[k] = share->count[k];
        w->base[k] = w->rows;
        w->rows += share->count[k];
        bool rises = k == 0 || share->first[k] >= share->first[k - 1] + share->count[k - 1];
        if (!rises || share->first[k] < 0 || share->count[k] < 0 || share->first[k] + share->count[k] > w->index.rows)
            TRY(fail(ST_INTERNAL, "range %d of this rank's source rows is not in order", k));
    }
    TRY(NEW_ARRAY(w->entries, w->index.modality_count));
    TRY(NEW_ARRAY(w->starts, w->index.modality_count));
    for (int m = 0; m < w->index.modality_count; m++) {
        TRY(NEW_ARRAY(w->entries[m], w->rows));
        TRY(NEW_ARRAY(w->starts[m], w->rows));
        if (w->rows) memcpy(w->entries[m], share->entries[m], sizeof(int32_t) * (size_t)w->rows);
    }
done:
    return st;
}

static enum status set_records(struct atlas_writer *w)
{
    enum status st = ST_OK;
    w->record_bytes = 1;
    TRY(NEW_ARRAY(w->field_at, w->index.field_count));
    for (int k = 0; k < w->index.field_count; k++) {
        w->field_at[k] = w->record_bytes;
        w->record_bytes += field_bytes(&w->index.fields[k]) + w->index.fields[k].nullable;
    }
    w->data = index_piece(&w->index, "X/data");
    w->indices = index_piece(&w->index, "X/indices");
    w->indptr = index_piece(&w->index, "X/indptr");
    TRY(shard_files_create(&w->files, (w->index.modality_count + 1) * w->index.shard_count, O_RDWR));
done:
    return st;
}

/* ---- sizes travel to the ranks that own the shards, starts travel back ---- */

/* Row starts of the shards this rank owns: owned[(shard / size) * modalities + m] is [rows+1]. */
struct owned {
    int64_t **starts;
    int64_t shard_count;
    uint64_t digest; /* of all sizes, whatever their order */
};

/* One block of local rows on its way: item k of the packed message belongs to local row order[k]. */
struct parcel {
    int64_t *bytes;      /* [size] to each rank */
    char *items;
    int64_t *row;        /* [count] local row of each item */
    int64_t count;
};

enum { PARCEL_ROWS = 1 << 18 };

static void parcel_free(struct parcel *p)
{
    free(p->bytes);
    free(p->items);
    free(p->row);
    *p = (struct parcel){0};
}

static int64_t source_row_of(const struct atlas_writer *w, int64_t local)
{
    int low = 0, high = w->range_count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (w->base[middle] <= local) low = middle;
        else high = middle - 1;
    }
    return w->first[low] + local - w->base[low];
}

/* Pack (place, entries of each modality) of local rows [first, first+count), grouped by owner. */
static enum status pack_parcel(const struct comm *comm, const struct atlas_writer *w, int64_t first, int64_t count, struct parcel *p)
{
    enum status st = ST_OK;
    int modalities = w->index.modality_count;
    int64_t item = 8 + 4 * modalities, *at = NULL, *place = NULL;
    *p = (struct parcel){.count = count};
    TRY(NEW_ARRAY(p->bytes, comm->size));
    TRY(NEW_ARRAY(p->items, count * item));
    TRY(NEW_ARRAY(p->row, count));
    TRY(NEW_ARRAY(at, comm->size + 1));
    TRY(NEW_ARRAY(place, count));
    for (int64_t i = 0; i < count; i++) {
        place[i] = writer_place(w, source_row_of(w, first + i));
        p->bytes[writer_owner(comm, place[i] / w->index.shard_rows)] += item;
    }
    for (int r = 0; r < comm->size; r++) at[r + 1] = at[r] + p->bytes[r] / item;
    for (int64_t i = 0; i < count; i++) {
        int64_t k = at[writer_owner(comm, place[i] / w->index.shard_rows)]++;
        memcpy(p->items + k * item, &place[i], 8);
        for (int m = 0; m < modalities; m++) memcpy(p->items + k * item + 8 + 4 * m, &w->entries[m][first + i], 4);
        p->row[k] = first + i;
    }
done:
    free(at);
    free(place);
    return st;
}

static int64_t *owned_start(const struct comm *comm, const struct atlas_writer *w, const struct owned *owned, int64_t place, int m)
{
    int64_t shard = place / w->index.shard_rows, row = place - shard * w->index.shard_rows;
    return &owned->starts[shard / comm->size * w->index.modality_count + m][row + 1];
}

/* Note the sizes that arrived. A row that comes twice means overlapping shares. */
static enum status note_sizes(const struct comm *comm, const struct atlas_writer *w, const char *items, int64_t bytes, struct owned *owned)
{
    int modalities = w->index.modality_count;
    int64_t item = 8 + 4 * modalities;
    for (int64_t at = 0; at < bytes; at += item) {
        int64_t place;
        memcpy(&place, items + at, 8);
        for (int m = 0; m < modalities; m++) {
            int32_t entries;
            memcpy(&entries, items + at + 8 + 4 * m, 4);
            int64_t *start = owned_start(comm, w, owned, place, m);
            if (*start >= 0) return fail(ST_INTERNAL, "two ranks announced the row at %lld", (long long)place);
            *start = entries > 0 ? entries : 0;
        }
        owned->digest += hash_block(items + at, (size_t)item, 0);
    }
    return ST_OK;
}

/* What a round does with a parcel: `answer` false notes sizes, true brings starts back. */
static enum status round_trip(struct comm *comm, struct atlas_writer *w, struct owned *owned, int64_t first, int64_t count, bool answer)
{
    struct parcel p = {0};
    void *arrived = NULL, *back = NULL;
    int64_t *from = NULL, *replies = NULL, *reply_bytes = NULL, total = 0;
    int modalities = w->index.modality_count;
    int64_t item = 8 + 4 * modalities;
    enum status st = pack_parcel(comm, w, first, count, &p);
    if (st == ST_OK) st = NEW_ARRAY(from, 2 * comm->size);
    st = comm_agree(comm, st);
    if (st != ST_OK) goto done;
    TRY(comm_exchange(comm, p.items, p.bytes, &arrived, from));
    for (int r = 0; r < comm->size; r++) total += from[r];
    if (!answer) {
        st = comm_agree(comm, note_sizes(comm, w, arrived, total, owned));
        goto done;
    }
    reply_bytes = from + comm->size;
    st = comm_agree(comm, NEW_ARRAY(replies, total / item * modalities));
    if (st != ST_OK) goto done;
    for (int64_t k = 0; k < total / item; k++) {
        int64_t place;
        memcpy(&place, (char *)arrived + k * item, 8);
        for (int m = 0; m < modalities; m++) replies[k * modalities + m] = owned_start(comm, w, owned, place, m)[-1];
    }
    for (int r = 0; r < comm->size; r++) from[r] = from[r] / item * 8 * modalities;
    TRY(comm_exchange(comm, replies, from, &back, reply_bytes));
    for (int64_t k = 0; k < count; k++)
        for (int m = 0; m < modalities; m++) w->starts[m][p.row[k]] = ((int64_t *)back)[k * modalities + m];
done:
    free(back);
    free(replies);
    free(arrived);
    free(from);
    parcel_free(&p);
    return st;
}

static enum status all_rounds(struct comm *comm, struct atlas_writer *w, struct owned *owned, bool answer)
{
    enum status st = ST_OK;
    int64_t rounds = (w->rows + PARCEL_ROWS - 1) / PARCEL_ROWS;
    comm_max_i64(comm, &rounds, 1);
    for (int64_t k = 0; k < rounds; k++) {
        int64_t first = k * PARCEL_ROWS < w->rows ? k * PARCEL_ROWS : w->rows;
        int64_t count = w->rows - first < PARCEL_ROWS ? w->rows - first : PARCEL_ROWS;
        TRY(round_trip(comm, w, owned, first, count, answer));
    }
done:
    return st;
}

static void owned_free(const struct atlas_writer *w, struct owned *owned)
{
    for (int64_t k = 0; owned->starts && k < owned->shard_count * w->index.modality_count; k++) free(owned->starts[k]);
    free(owned->starts);
}

static enum status owned_create(const struct comm *comm, const struct atlas_writer *w, struct owned *owned)
{
    enum status st = ST_OK;
    int modalities = w->index.modality_count;
    for (int64_t s = comm->rank; s < w->index.shard_count; s += comm->size) owned->shard_count++;
    TRY(NEW_ARRAY(owned->starts, owned->shard_count * modalities));
    for (int64_t k = 0; k < owned->shard_count * modalities; k++) {
        int64_t rows = index_shard_rows(&w->index, comm->rank + k / modalities * comm->size);
        TRY(NEW_ARRAY(owned->starts[k], rows + 1));
        for (int64_t i = 1; i <= rows; i++) owned->starts[k][i] = -1;
    }
done:
    return st;
}

/* Sizes to starts; a row nobody announced shows here. */
static enum status sum_up(const struct comm *comm, const struct atlas_writer *w, struct owned *owned)
{
    int modalities = w->index.modality_count;
    for (int64_t k = 0; k < owned->shard_count * modalities; k++) {
        int64_t shard = comm->rank + k / modalities * comm->size, rows = index_shard_rows(&w->index, shard);
        for (int64_t i = 1; i <= rows; i++) {
            if (owned->starts[k][i] < 0)
                return fail(ST_INTERNAL, "no rank announced the row at %lld", (long long)(shard * w->index.shard_rows + i - 1));
            owned->starts[k][i] += owned->starts[k][i - 1];
        }
        w->index.modalities[k % modalities].entries[shard] = owned->starts[k][rows];
    }
    return ST_OK;
}

/* ---- names of features ---- */

static const char *key_of(const struct feature *f) { return *f->id ? f->id : f->name; }

struct keyed {
    const char *key;
    int64_t row;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : (x->row > y->row) - (x->row < y->row);
}

static bool is_taken(const struct keyed *sorted, int64_t n, const char *key)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (strcmp(sorted[middle].key, key) < 0) low = middle + 1;
        else high = middle;
    }
    return low < n && strcmp(sorted[low].key, key) == 0;
}

/* Unique names of var rows, as anndata makes them: repeats get -1, -2, … */
static enum status name_features(const struct feature_table *table, char **names)
{
    enum status st = ST_OK;
    struct keyed *sorted = NULL;
    int64_t n = table->count, suffix = 0;
    TRY(NEW_ARRAY(sorted, n));
    for (int64_t i = 0; i < n; i++) sorted[i] = (struct keyed){key_of(&table->rows[i]), i};
    qsort(sorted, (size_t)n, sizeof *sorted, by_key);
    for (int64_t i = 0; i < n; i++) {
        bool repeats = i > 0 && strcmp(sorted[i].key, sorted[i - 1].key) == 0;
        char *name = text_copy(sorted[i].key);
        for (suffix = repeats ? suffix : 0; repeats && is_taken(sorted, n, name);) {
            free(name);
            name = text_format("%s-%lld", sorted[i].key, (long long)++suffix);
        }
        names[sorted[i].row] = name;
    }
done:
    free(sorted);
    return st;
}

/* var of a modality's shards: made once, written into each. */
struct var_frame {
    char **names;
    struct h5ad_field fields[9];
    struct column columns[9];
    struct h5ad_frame frame;
};

static int32_t widest(char *const *texts, int64_t count)
{
    size_t width = 1;
    for (int64_t i = 0; i < count; i++)
        if (texts[i] && strlen(texts[i]) > width) width = strlen(texts[i]);
    return (int32_t)width;
}

static enum status var_text(struct var_frame *v, int k, const char *name, const struct feature_table *t, size_t member)
{
    enum status st = ST_OK;
    struct column *c = &v->columns[k];
    *c = (struct column){.type = COLUMN_TEXT, .count = t->count};
    TRY(NEW_ARRAY(c->text, t->count));
    for (int64_t i = 0; i < t->count; i++) c->text[i] = *(char **)(void *)((char *)&t->rows[i] + member);
    v->fields[k] = (struct h5ad_field){.name = name, .type = COLUMN_TEXT, .text_bytes = widest(c->text, t->count)};
done:
    return st;
}

static enum status var_number(struct var_frame *v, int k, const char *name, const struct feature_table *t, size_t member)
{
    enum status st = ST_OK;
    struct column *c = &v->columns[k];
    *c = (struct column){.type = COLUMN_INT, .count = t->count};
    TRY(NEW_ARRAY(c->i, t->count));
    for (int64_t i = 0; i < t->count; i++) {
        memcpy(&c->i[i], (char *)&t->rows[i] + member, sizeof *c->i);
        if (c->i[i] < 0) c->i[i] = INT64_MIN;
    }
    v->fields[k] = (struct h5ad_field){.name = name, .type = COLUMN_INT, .nullable = true};
done:
    return st;
}

static enum status var_rule(struct var_frame *v, int k, const struct feature_table *t)
{
    static const char *const words[] = {
#define X(name, word) word,
        MAP_RULE_LIST(X)
#undef X
    };
    enum status st = ST_OK;
    v->columns[k] = (struct column){.type = COLUMN_CATEGORY, .count = t->count};
    TRY(NEW_ARRAY(v->columns[k].code, t->count));
    for (int64_t i = 0; i < t->count; i++) v->columns[k].code[i] = (int32_t)t->rows[i].rule;
    v->fields[k] = (struct h5ad_field){.name = "rule", .type = COLUMN_CATEGORY, .category = words,
                                       .category_count = (int32_t)(sizeof words / sizeof *words)};
done:
    return st;
}

static enum status var_create(const struct feature_table *t, struct var_frame *v)
{
    enum status st = ST_OK;
    *v = (struct var_frame){0};
    TRY(NEW_ARRAY(v->names, t->count));
    TRY(name_features(t, v->names));
    TRY(var_text(v, 0, "name", t, offsetof(struct feature, name)));
    TRY(var_text(v, 1, "id", t, offsetof(struct feature, id)));
    TRY(var_text(v, 2, "symbol", t, offsetof(struct feature, symbol)));
    TRY(var_text(v, 3, "hgnc", t, offsetof(struct feature, hgnc)));
    TRY(var_text(v, 4, "biotype", t, offsetof(struct feature, biotype)));
    TRY(var_text(v, 5, "chromosome", t, offsetof(struct feature, chromosome)));
    TRY(var_number(v, 6, "start", t, offsetof(struct feature, start)));
    TRY(var_number(v, 7, "end", t, offsetof(struct feature, end)));
    TRY(var_rule(v, 8, t));
    v->frame = (struct h5ad_frame){.rows = t->count, .index_bytes = widest(v->names, t->count), .fields = v->fields,
                                   .field_count = 9, .index = (const char *const *)v->names, .values = v->columns};
done:
    return st;
}

static void var_free(struct var_frame *v)
{
    for (int64_t i = 0; v->names && i < v->frame.rows; i++) free(v->names[i]);
    free(v->names);
    for (int k = 0; k < 9; k++) {
        free(v->columns[k].text); /* the strings are the feature table's */
        free(v->columns[k].i);
        free(v->columns[k].code);
    }
}

/* ---- laying out ---- */

static enum status note_places(struct atlas_writer *w, int m, int64_t shard, const char *path, const struct h5ad_file *file)
{
    struct index_modality *modality = &w->index.modalities[m];
    struct stat info;
    for (int k = 0; k < w->index.piece_count; k++)
        modality->offsets[shard * w->index.piece_count + k] = h5ad_offset(file, h5ad_find(file, w->index.pieces[k]));
    if (stat(path, &info) != 0) return fail(ST_OUTPUT, "%s: %s", path, strerror(errno));
    modality->bytes[shard] = info.st_size;
    return ST_OK;
}

static enum status lay_out_shard(struct atlas_writer *w, int m, int64_t shard, const struct var_frame *var, const int64_t *starts)
{
    enum status st = ST_OK;
    struct index_modality *modality = &w->index.modalities[m];
    struct h5ad_file *file = NULL;
    char *path = index_shard_path(&w->index, w->partial, m, shard);
    int64_t rows = index_shard_rows(&w->index, shard);
    const struct h5ad_note notes[] = {{.name = "cytomill/modality", .text = modality->base.name},
                                      {.name = "cytomill/kind", .text = value_kind_word(modality->base.kind)},
                                      {.name = "cytomill/first_row", .number = (double)(shard * w->index.shard_rows)}};
    struct h5ad_layout layout = {
        .obs = {.rows = rows, .index_bytes = (int32_t)w->index.row_bytes[0], .fields = w->index.fields, .field_count = w->index.field_count},
        .var = var->frame, .x = H5AD_CSR, .entries = starts[rows], .uns = notes, .uns_count = 3};
    TRY(w->resumed ? h5ad_reopen_local(path, &layout, &file) : h5ad_create_local(path, &layout, &file));
    if (!w->resumed) TRY(h5ad_write(file, h5ad_find(file, "X/indptr"), 0, rows + 1, starts));
    TRY(note_places(w, m, shard, path, file));
done:
    h5ad_close(&file);
    free(path);
    return st;
}

static enum status create_records(const struct atlas_writer *w, int64_t shard)
{
    enum status st = ST_OK;
    char *path = writer_records_path(w, shard);
    int64_t bytes = index_shard_rows(&w->index, shard) * w->record_bytes;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || ftruncate(fd, bytes) != 0) TRY(fail(ST_OUTPUT, "%s: cannot be created: %s", path, strerror(errno)));
    TRY(place_reserve(fd, path, bytes));
done:
    if (fd >= 0) close(fd);
    free(path);
    return st;
}

/* All shards this rank owns. */
static enum status lay_out_owned(const struct comm *comm, struct atlas_writer *w, const struct owned *owned)
{
    enum status st = ST_OK;
    struct var_frame var = {0};
    int modalities = w->index.modality_count;
    for (int m = 0; m < modalities; m++) {
        TRY(var_create(&w->index.modalities[m].base.features, &var));
        for (int64_t k = 0; k < owned->shard_count; k++)
            TRY(lay_out_shard(w, m, comm->rank + k * comm->size, &var, owned->starts[k * modalities + m]));
        var_free(&var);
        var = (struct var_frame){0};
    }
    for (int64_t k = 0; k < owned->shard_count; k++) TRY(create_records(w, comm->rank + k * comm->size));
done:
    var_free(&var);
    return st;
}

/* Every rank learns all places. */
static void share_places(struct comm *comm, struct atlas_writer *w)
{
    for (int m = 0; m < w->index.modality_count; m++) {
        struct index_modality *modality = &w->index.modalities[m];
        comm_sum_i64(comm, modality->entries, w->index.shard_count);
        comm_sum_i64(comm, modality->bytes, w->index.shard_count);
        comm_sum_i64(comm, modality->offsets, w->index.shard_count * w->index.piece_count);
    }
}

/* ---- an earlier run ---- */

/* Names the plan and all sizes: what the files of a partial atlas depend on. */
static void digest_of(const struct atlas_writer *w, uint64_t sizes, char out[SHA256_HEX])
{
    struct text t = {0};
    const struct atlas_index *x = &w->index;
    text_add(&t, "%lld %lld %llu %d %d %llu %lld\n", (long long)x->rows, (long long)x->shard_rows, (unsigned long long)x->seed,
             x->shuffled, w->names_unique, (unsigned long long)sizes, (long long)w->record_bytes);
    for (int k = 0; k < x->source_count; k++) text_add(&t, "%s %s %lld\n", x->sources[k].path, x->sources[k].identity, (long long)x->sources[k].rows);
    for (int k = 0; k < x->field_count; k++) {
        text_add(&t, "%s %d %d %d\n", x->fields[k].name, x->fields[k].type, x->fields[k].text_bytes, x->fields[k].nullable);
        for (int32_t c = 0; c < x->fields[k].category_count; c++) text_add(&t, "%s\n", x->fields[k].category[c]);
    }
    for (int m = 0; m < x->modality_count; m++) {
        const struct feature_table *f = &x->modalities[m].base.features;
        text_add(&t, "%s %d\n", x->modalities[m].base.name, x->modalities[m].base.kind);
        for (int64_t i = 0; i < f->count; i++)
            text_add(&t, "%s|%s|%s|%d\n", f->rows[i].name, f->rows[i].id, f->rows[i].symbol, f->rows[i].rule);
    }
    hash_sha256(t.data, t.length, out);
    text_free(&t);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) { return remove(path); }

static enum status remove_folder(const char *path)
{
    if (access(path, F_OK) != 0 || nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0) return ST_OK;
    return fail(ST_OUTPUT, "%s: what an earlier run left cannot be removed: %s", path, strerror(errno));
}

static bool same_plan(const struct atlas_writer *w, const char *digest)
{
    char *path = text_format("%s/plan", w->partial), *text = NULL;
    size_t n;
    bool same = access(path, R_OK) == 0 && text_read_file(path, &text, &n) == ST_OK && strcmp(text, digest) == 0;
    status_clear();
    free(text);
    free(path);
    return same;
}

static enum status make_folders(const struct atlas_writer *w)
{
    enum status st = ST_OK;
    TRY(remove_folder(w->partial));
    for (int m = 0; m < w->index.modality_count; m++) {
        char *path = text_format("%s/mod/%s", w->partial, w->index.modalities[m].base.name);
        st = text_make_folder(path);
        free(path);
        TRY(st);
    }
done:
    return st;
}

/* Rank 0: is the way free, is there something to go on with, else make folders. */
static enum status begin(const struct comm *comm, struct atlas_writer *w, const char *digest)
{
    struct stat info;
    if (lstat(w->path, &info) == 0)
        return fail(ST_OUTPUT, "%s: is there already; choose another name or remove it", w->path);
    bool there = access(w->partial, F_OK) == 0;
    w->resumed = there && same_plan(w, digest);
    if (w->resumed) comm_note(comm, "going on with %s", w->partial);
    else if (there) comm_note(comm, "%s: an earlier run had other inputs or settings; starting over", w->partial);
    return w->resumed ? ST_OK : make_folders(w);
}

/* The plan's digest is written last: a folder that has it is laid out completely. */
static enum status write_digest(const struct atlas_writer *w, const char *digest)
{
    char *path = text_format("%s/plan", w->partial);
    FILE *file = fopen(path, "w");
    bool good = file && fputs(digest, file) >= 0;
    if (file && fclose(file) != 0) good = false;
    enum status st = good ? ST_OK : fail(ST_OUTPUT, "%s: cannot be written: %s", path, strerror(errno));
    free(path);
    return st;
}

static int64_t count_resumed(const struct atlas_writer *w)
{
    int64_t done = 0;
    for (int k = 0; w->resumed && k < w->range_count; k++)
        for (int64_t row = w->first[k]; row < w->first[k] + w->count[k]; row++) done += atlas_writer_has(w, row, 1);
    return done;
}

static enum status lay_out_all(struct comm *comm, struct atlas_writer *w, struct owned *owned)
{
    char digest[SHA256_HEX];
    int64_t sizes = (int64_t)owned->digest, resumed = 0;
    comm_sum_i64(comm, &sizes, 1);
    digest_of(w, (uint64_t)sizes, digest);
    enum status st = comm_same(comm, digest, sizeof digest, "the plan of the atlas");
    if (st != ST_OK) return st;
    st = comm_agree(comm, comm->rank == 0 ? begin(comm, w, digest) : ST_OK);
    if (st != ST_OK) return st;
    resumed = w->resumed;
    comm_bcast(comm, &resumed, sizeof resumed, 0);
    w->resumed = resumed != 0;
    st = comm_agree(comm, lay_out_owned(comm, w, owned));
    if (st == ST_OK && comm->rank == 0 && !w->resumed) st = write_digest(w, digest);
    st = comm_agree(comm, st);
    if (st != ST_OK && !w->resumed && comm->rank == 0 && remove_folder(w->partial) != ST_OK) status_clear();
    return st;
}

/* Does any cell lack a modality? Then obs says which. */
static bool some_lack(struct comm *comm, const struct atlas_plan *plan, const struct atlas_share *share)
{
    int64_t lack = 0;
    for (int m = 0; m < plan->modality_count; m++) {
        const int32_t *entries = share->entries[m];
        for (int k = 0; k < share->range_count; entries += share->count[k++])
            for (int64_t i = 0; i < share->count[k]; i++) lack += entries[i] < 0;
    }
    comm_sum_i64(comm, &lack, 1);
    return lack > 0;
}

enum status atlas_writer_create(struct comm *comm, const char *path, const struct atlas_plan *plan,
                                const struct atlas_share *share, struct atlas_writer **out)
{
    struct atlas_writer *w = NULL;
    struct owned owned = {0};
    bool lack = some_lack(comm, plan, share);
    *out = NULL;
    enum status st = NEW_ARRAY(w, 1);
    if (st == ST_OK) st = check_sources(plan);
    if (st == ST_OK) st = check_obs(plan);
    if (st == ST_OK) st = fill_index(plan, lack, &w->index);
    if (st == ST_OK) {
        w->path = text_copy(path);
        w->partial = text_format("%s.partial", path);
        w->names_unique = plan->obs_names_unique;
        w->plan_fields = plan->obs_count;
        st = copy_share(w, share);
    }
    if (st == ST_OK) st = set_records(w);
    if (st == ST_OK) st = owned_create(comm, w, &owned);
    TRY(comm_agree(comm, st));
    TRY(all_rounds(comm, w, &owned, false));
    TRY(comm_agree(comm, sum_up(comm, w, &owned)));
    TRY(lay_out_all(comm, w, &owned));
    share_places(comm, w);
    TRY(all_rounds(comm, w, &owned, true));
    w->resumed_rows = count_resumed(w);
    *out = w;
done:
    if (w) owned_free(w, &owned);
    if (st != ST_OK) atlas_writer_destroy(&w);
    return st;
}
