#include "io/atlas_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "io/h5.h"
#include "io/h5ad_layout.h"
#include "io/place.h"

enum { VERSION = 1, BLOCK_BYTES = 4096, MAX_COUNT = 1 << 24 };
static const char mark[] = "cytomill atlas index\nsha256 of what follows these 4096 bytes: ";

/* ---- small questions ---- */

int index_piece(const struct atlas_index *index, const char *path)
{
    for (int k = 0; k < index->piece_count; k++)
        if (strcmp(index->pieces[k], path) == 0) return k;
    return -1;
}

static int piece_of_field(const struct atlas_index *index, int field, const char *tail)
{
    char *path = text_format("obs/%s%s", index->fields[field].name, tail);
    int piece = index_piece(index, path);
    free(path);
    return piece;
}

static bool has_mask(const struct h5ad_field *f)
{
    return f->nullable && (f->type == COLUMN_INT || f->type == COLUMN_BOOL);
}

int index_values(const struct atlas_index *index, int field)
{
    const struct h5ad_field *f = &index->fields[field];
    return piece_of_field(index, field, f->type == COLUMN_CATEGORY ? "/codes" : has_mask(f) ? "/values" : "");
}

int index_mask(const struct atlas_index *index, int field)
{
    return has_mask(&index->fields[field]) ? piece_of_field(index, field, "/mask") : -1;
}

int64_t index_shard_rows(const struct atlas_index *index, int64_t shard)
{
    int64_t left = index->rows - shard * index->shard_rows;
    return left < index->shard_rows ? left : index->shard_rows;
}

char *index_shard_path(const struct atlas_index *index, const char *folder, int modality, int64_t shard)
{
    return text_format("%s/mod/%s/shard-%05lld.h5ad", folder, index->modalities[modality].base.name, (long long)shard);
}

static void free_texts(char **texts, int64_t count)
{
    for (int64_t i = 0; texts && i < count; i++) free(texts[i]);
    free(texts);
}

static void free_fields(struct h5ad_field *fields, int count)
{
    for (int k = 0; fields && k < count; k++) {
        free((char *)fields[k].name);
        free_texts((char **)fields[k].category, fields[k].category_count);
    }
    free(fields);
}

static void free_modality(struct index_modality *m)
{
    free(m->base.name);
    feature_table_free(&m->base.features);
    free(m->masks);
    free(m->mask_of_source);
    free(m->entries);
    free(m->bytes);
    free(m->offsets);
}

void index_free(struct atlas_index *index)
{
    for (int k = 0; index->sources && k < index->source_count; k++) {
        free(index->sources[k].path);
        free(index->sources[k].identity);
    }
    for (int k = 0; index->modalities && k < index->modality_count; k++) free_modality(&index->modalities[k]);
    free(index->sources);
    free(index->modalities);
    free_fields(index->fields, index->field_count);
    free_texts(index->pieces, index->piece_count);
    free(index->row_bytes);
    free(index->config);
    *index = (struct atlas_index){0};
}

/* The pieces of a shard are those of an AnnData layout, without var. */
enum status index_set_pieces(struct atlas_index *index, int32_t name_bytes)
{
    enum status st = ST_OK;
    struct piece_table table = {0};
    struct column_pieces *columns = NULL;
    struct h5ad_layout layout = {
        .obs = {.index_bytes = name_bytes, .fields = index->fields, .field_count = index->field_count}, .x = H5AD_CSR};
    TRY(NEW_ARRAY(columns, index->field_count));
    TRY(pieces_of_layout(&layout, &table, columns, NULL));
    TRY(NEW_ARRAY(index->pieces, table.count));
    TRY(NEW_ARRAY(index->row_bytes, table.count));
    for (int k = 0; k < table.count; k++) {
        if (strncmp(table.pieces[k].path, "var/", 4) == 0) continue;
        index->pieces[index->piece_count] = text_copy(table.pieces[k].path);
        index->row_bytes[index->piece_count++] = table.pieces[k].row_bytes;
    }
done:
    piece_table_free(&table);
    free(columns);
    return st;
}

/* ---- lists of rows as columns of a file ---- */

/* Column `name` of texts, one per row of `stride` bytes, through a getter. */
static enum status write_column(hid_t group, const char *name, const void *rows, size_t stride, int64_t count, size_t member)
{
    const char **texts = NULL;
    enum status st = ST_OK;
    TRY(NEW_ARRAY(texts, count));
    for (int64_t i = 0; i < count; i++) texts[i] = *(char *const *)(const void *)((const char *)rows + (size_t)i * stride + member);
    TRY(h5_write_texts(group, name, texts, count));
done:
    free(texts);
    return st;
}

static enum status read_column(hid_t group, const char *name, void *rows, size_t stride, int64_t count, size_t member)
{
    char **texts = NULL;
    enum status st = ST_OK;
    TRY(NEW_ARRAY(texts, count));
    TRY(h5_read_texts(group, name, 0, count, texts));
    for (int64_t i = 0; i < count; i++) *(char **)(void *)((char *)rows + (size_t)i * stride + member) = texts[i];
done:
    free(texts);
    return st;
}

static enum status write_numbers(hid_t group, const char *name, const void *rows, size_t stride, int64_t count, size_t member)
{
    int64_t *numbers = NULL;
    enum status st = ST_OK;
    TRY(NEW_ARRAY(numbers, count));
    for (int64_t i = 0; i < count; i++) memcpy(&numbers[i], (const char *)rows + (size_t)i * stride + member, sizeof *numbers);
    TRY(h5_write(group, name, H5T_NATIVE_INT64, 1, &count, numbers));
done:
    free(numbers);
    return st;
}

static enum status read_numbers(hid_t group, const char *name, void *rows, size_t stride, int64_t count, size_t member)
{
    int64_t *numbers = NULL;
    enum status st = ST_OK;
    TRY(NEW_ARRAY(numbers, count));
    TRY(h5_read(group, name, H5T_NATIVE_INT64, count, numbers));
    for (int64_t i = 0; i < count; i++) memcpy((char *)rows + (size_t)i * stride + member, &numbers[i], sizeof *numbers);
done:
    free(numbers);
    return st;
}

/* Length of a list, refused when absurd. */
static enum status list_length(hid_t group, const char *name, int64_t *count)
{
    int rank;
    int64_t dims[8];
    enum status st = h5_shape(group, name, &rank, dims);
    if (st != ST_OK) return st;
    if (rank != 1 || dims[0] > MAX_COUNT) return fail(ST_INPUT, "'%s' is not a list of at most %d", name, MAX_COUNT);
    *count = dims[0];
    return ST_OK;
}

#define TEXT_OF(group, verb, rows, count, member) \
    verb##_column(group, #member, rows, sizeof *(rows), count, (size_t)((char *)&(rows)->member - (char *)(rows)))
#define NUMBER_OF(group, verb, rows, count, member) \
    verb##_numbers(group, #member, rows, sizeof *(rows), count, (size_t)((char *)&(rows)->member - (char *)(rows)))

/* ---- sources ---- */

static enum status write_sources(hid_t file, const struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    TRY(h5_group_create(file, "sources", &group));
    TRY(TEXT_OF(group, write, index->sources, index->source_count, path));
    TRY(TEXT_OF(group, write, index->sources, index->source_count, identity));
    TRY(NUMBER_OF(group, write, index->sources, index->source_count, first_row));
    TRY(NUMBER_OF(group, write, index->sources, index->source_count, rows));
done:
    h5_drop(&group);
    return st;
}

static enum status read_sources(hid_t file, struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t count = 0;
    TRY(h5_group_open(file, "sources", &group));
    TRY(list_length(group, "path", &count));
    TRY(NEW_ARRAY(index->sources, count));
    index->source_count = (int)count;
    TRY(TEXT_OF(group, read, index->sources, count, path));
    TRY(TEXT_OF(group, read, index->sources, count, identity));
    TRY(NUMBER_OF(group, read, index->sources, count, first_row));
    TRY(NUMBER_OF(group, read, index->sources, count, rows));
done:
    h5_drop(&group);
    return st;
}

/* ---- obs columns ---- */

static enum status write_categories(hid_t obs, const struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    char name[16];
    TRY(h5_group_create(obs, "categories", &group));
    for (int k = 0; k < index->field_count; k++) {
        const struct h5ad_field *f = &index->fields[k];
        if (f->type != COLUMN_CATEGORY) continue;
        snprintf(name, sizeof name, "%d", k);
        TRY(h5_write_texts(group, name, f->category, f->category_count));
    }
done:
    h5_drop(&group);
    return st;
}

static enum status write_fields(hid_t file, const struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t n = index->field_count, *rows = NULL;
    TRY(NEW_ARRAY(rows, 3 * n));
    for (int k = 0; k < n; k++) {
        rows[k] = index->fields[k].type;
        rows[n + k] = index->fields[k].text_bytes;
        rows[2 * n + k] = index->fields[k].nullable;
    }
    TRY(h5_group_create(file, "obs", &group));
    TRY(TEXT_OF(group, write, index->fields, n, name));
    TRY(h5_write(group, "type", H5T_NATIVE_INT64, 1, &n, rows));
    TRY(h5_write(group, "text_bytes", H5T_NATIVE_INT64, 1, &n, rows + n));
    TRY(h5_write(group, "nullable", H5T_NATIVE_INT64, 1, &n, rows + 2 * n));
    TRY(write_categories(group, index));
done:
    h5_drop(&group);
    free(rows);
    return st;
}

static enum status read_categories(hid_t obs, int k, struct h5ad_field *f)
{
    enum status st = ST_OK;
    char name[32];
    int64_t count = 0;
    char **texts = NULL;
    snprintf(name, sizeof name, "categories/%d", k);
    TRY(list_length(obs, name, &count));
    TRY(NEW_ARRAY(texts, count));
    f->category = (const char *const *)texts;
    f->category_count = (int32_t)count;
    TRY(h5_read_texts(obs, name, 0, count, texts));
done:
    return st;
}

static enum status read_fields(hid_t file, struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t n = 0, *rows = NULL;
    TRY(h5_group_open(file, "obs", &group));
    TRY(list_length(group, "name", &n));
    TRY(NEW_ARRAY(rows, 3 * n));
    TRY(NEW_ARRAY(index->fields, n));
    index->field_count = (int)n;
    TRY(TEXT_OF(group, read, index->fields, n, name));
    TRY(h5_read(group, "type", H5T_NATIVE_INT64, n, rows));
    TRY(h5_read(group, "text_bytes", H5T_NATIVE_INT64, n, rows + n));
    TRY(h5_read(group, "nullable", H5T_NATIVE_INT64, n, rows + 2 * n));
    for (int k = 0; k < n; k++) {
        struct h5ad_field *f = &index->fields[k];
        if (rows[k] < COLUMN_INT || rows[k] > COLUMN_TEXT) TRY(fail(ST_INPUT, "column '%s' has an unknown type", f->name));
        f->type = (enum column_type)rows[k];
        f->text_bytes = (int32_t)rows[n + k];
        f->nullable = rows[2 * n + k] != 0;
        if (f->type == COLUMN_CATEGORY) TRY(read_categories(group, k, f));
    }
done:
    h5_drop(&group);
    free(rows);
    return st;
}

/* ---- modalities ---- */

static enum status write_features(hid_t parent, const struct feature_table *t)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t *rules = NULL;
    TRY(NEW_ARRAY(rules, t->count));
    for (int64_t i = 0; i < t->count; i++) rules[i] = t->rows[i].rule;
    TRY(h5_group_create(parent, "features", &group));
    TRY(TEXT_OF(group, write, t->rows, t->count, name));
    TRY(TEXT_OF(group, write, t->rows, t->count, id));
    TRY(TEXT_OF(group, write, t->rows, t->count, symbol));
    TRY(TEXT_OF(group, write, t->rows, t->count, hgnc));
    TRY(TEXT_OF(group, write, t->rows, t->count, biotype));
    TRY(TEXT_OF(group, write, t->rows, t->count, chromosome));
    TRY(NUMBER_OF(group, write, t->rows, t->count, start));
    TRY(NUMBER_OF(group, write, t->rows, t->count, end));
    TRY(h5_write(group, "rule", H5T_NATIVE_INT64, 1, &t->count, rules));
done:
    h5_drop(&group);
    free(rules);
    return st;
}

static enum status read_features(hid_t parent, struct feature_table *t)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t *rules = NULL, n = 0;
    TRY(h5_group_open(parent, "features", &group));
    TRY(list_length(group, "name", &n));
    TRY(NEW_ARRAY(rules, n));
    TRY(NEW_ARRAY(t->rows, n));
    t->count = t->capacity = n;
    TRY(TEXT_OF(group, read, t->rows, n, name));
    TRY(TEXT_OF(group, read, t->rows, n, id));
    TRY(TEXT_OF(group, read, t->rows, n, symbol));
    TRY(TEXT_OF(group, read, t->rows, n, hgnc));
    TRY(TEXT_OF(group, read, t->rows, n, biotype));
    TRY(TEXT_OF(group, read, t->rows, n, chromosome));
    TRY(NUMBER_OF(group, read, t->rows, n, start));
    TRY(NUMBER_OF(group, read, t->rows, n, end));
    TRY(h5_read(group, "rule", H5T_NATIVE_INT64, n, rules));
    for (int64_t i = 0; i < n; i++) {
        if (rules[i] < MAP_NONE || rules[i] > MAP_AMBIGUOUS) TRY(fail(ST_INPUT, "feature %lld has an unknown rule", (long long)i));
        t->rows[i].rule = (enum map_rule)rules[i];
    }
done:
    h5_drop(&group);
    free(rules);
    return st;
}

static enum status write_shards(hid_t parent, const struct atlas_index *index, const struct index_modality *m)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t n = index->shard_count;
    TRY(h5_group_create(parent, "shards", &group));
    TRY(h5_write(group, "entries", H5T_NATIVE_INT64, 1, &n, m->entries));
    TRY(h5_write(group, "bytes", H5T_NATIVE_INT64, 1, &n, m->bytes));
    TRY(h5_write(group, "offsets", H5T_NATIVE_INT64, 2, (int64_t[]){n, index->piece_count}, m->offsets));
done:
    h5_drop(&group);
    return st;
}

static enum status read_shards(hid_t parent, const struct atlas_index *index, struct index_modality *m)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t n = index->shard_count;
    TRY(NEW_ARRAY(m->entries, n));
    TRY(NEW_ARRAY(m->bytes, n));
    TRY(NEW_ARRAY(m->offsets, n * index->piece_count));
    TRY(h5_group_open(parent, "shards", &group));
    TRY(h5_read(group, "entries", H5T_NATIVE_INT64, n, m->entries));
    TRY(h5_read(group, "bytes", H5T_NATIVE_INT64, n, m->bytes));
    TRY(h5_read(group, "offsets", H5T_NATIVE_INT64, n * index->piece_count, m->offsets));
done:
    h5_drop(&group);
    return st;
}

static enum status write_modality(hid_t parent, int k, const struct atlas_index *index)
{
    enum status st = ST_OK;
    const struct index_modality *m = &index->modalities[k];
    int64_t sources = index->source_count;
    hid_t group = H5_NONE;
    char name[16];
    snprintf(name, sizeof name, "%d", k);
    TRY(h5_group_create(parent, name, &group));
    TRY(h5_attr_write_text(group, "name", m->base.name));
    TRY(h5_attr_write_text(group, "kind", value_kind_word(m->base.kind)));
    TRY(write_features(group, &m->base.features));
    TRY(h5_write(group, "mask_of_source", H5T_NATIVE_INT32, 1, &sources, m->mask_of_source));
    TRY(h5_write(group, "masks", H5T_NATIVE_UINT8, 2, (int64_t[]){m->mask_count, m->base.features.count}, m->masks));
    TRY(write_shards(group, index, m));
done:
    h5_drop(&group);
    return st;
}

static enum status read_masks(hid_t group, const struct atlas_index *index, struct index_modality *m)
{
    enum status st = ST_OK;
    int rank;
    int64_t dims[8];
    TRY(h5_shape(group, "masks", &rank, dims));
    if (rank != 2 || dims[1] != m->base.features.count || dims[0] > index->source_count)
        TRY(fail(ST_INPUT, "'masks' does not fit its features"));
    m->mask_count = (int)dims[0];
    TRY(NEW_ARRAY(m->masks, dims[0] * dims[1]));
    TRY(NEW_ARRAY(m->mask_of_source, index->source_count));
    TRY(h5_read(group, "masks", H5T_NATIVE_UINT8, dims[0] * dims[1], m->masks));
    TRY(h5_read(group, "mask_of_source", H5T_NATIVE_INT32, index->source_count, m->mask_of_source));
    for (int k = 0; k < index->source_count; k++)
        if (m->mask_of_source[k] < -1 || m->mask_of_source[k] >= m->mask_count) TRY(fail(ST_INPUT, "source %d has no mask", k));
done:
    return st;
}

static enum status read_modality(hid_t parent, int k, struct atlas_index *index)
{
    enum status st = ST_OK;
    struct index_modality *m = &index->modalities[k];
    hid_t group = H5_NONE;
    char name[16], *kind = NULL;
    snprintf(name, sizeof name, "%d", k);
    TRY(h5_group_open(parent, name, &group));
    TRY(h5_attr_read_text(group, "name", &m->base.name));
    TRY(h5_attr_read_text(group, "kind", &kind));
    if (!value_kind_parse(kind, &m->base.kind)) TRY(fail(ST_INPUT, "modality '%s' has unknown kind '%s'", m->base.name, kind));
    TRY(read_features(group, &m->base.features));
    TRY(read_masks(group, index, m));
    TRY(read_shards(group, index, m));
done:
    free(kind);
    h5_drop(&group);
    return st;
}

/* ---- the whole ---- */

static enum status write_root(hid_t file, const struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t pieces = index->piece_count;
    TRY(h5_attr_write_int(file, "version", VERSION));
    TRY(h5_attr_write_int(file, "rows", index->rows));
    TRY(h5_attr_write_int(file, "shard_rows", index->shard_rows));
    TRY(h5_attr_write_int(file, "shuffled", index->shuffled));
    TRY(h5_attr_write_int(file, "seed", (int64_t)index->seed));
    TRY(h5_attr_write_int(file, "deflate", index->deflate));
    TRY(h5_attr_write_int(file, "modalities", index->modality_count));
    TRY(h5_write_text(file, "config", index->config));
    TRY(h5_group_create(file, "pieces", &group));
    TRY(h5_write_texts(group, "path", (const char *const *)index->pieces, pieces));
    TRY(h5_write(group, "row_bytes", H5T_NATIVE_INT64, 1, &pieces, index->row_bytes));
done:
    h5_drop(&group);
    return st;
}

static enum status write_all(hid_t file, const struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    TRY(write_root(file, index));
    TRY(write_sources(file, index));
    TRY(write_fields(file, index));
    TRY(h5_group_create(file, "modality", &group));
    for (int k = 0; k < index->modality_count; k++) TRY(write_modality(group, k, index));
done:
    h5_drop(&group);
    return st;
}

/* Put the hash of what follows into the first block, and flush. */
static enum status sign(const char *path, char hash[SHA256_HEX])
{
    enum status st = ST_OK;
    char *bytes = NULL, *block = NULL;
    size_t count = 0;
    int fd = -1;
    TRY(text_read_file(path, &bytes, &count));
    if (count < BLOCK_BYTES) TRY(fail(ST_OUTPUT, "%s: %zu bytes only", path, count));
    hash_sha256(bytes + BLOCK_BYTES, count - BLOCK_BYTES, hash);
    block = text_format("%s%s\n", mark, hash);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) TRY(fail(ST_OUTPUT, "%s: %s", path, strerror(errno)));
    TRY(place_write(fd, path, 0, block, (int64_t)strlen(block)));
    if (fsync(fd) != 0) TRY(fail(ST_OUTPUT, "%s: flush to disk failed: %s", path, strerror(errno)));
done:
    if (fd >= 0) close(fd);
    free(block);
    free(bytes);
    return st;
}

enum status index_write(const char *path, struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    TRY(h5_create_after(path, BLOCK_BYTES, &file));
    TRY(write_all(file, index));
    TRY(h5_close(&file));
    TRY(sign(path, index->hash));
done:
    h5_drop(&file);
    return st;
}

static enum status check_block(const char *bytes, size_t count, struct atlas_index *index)
{
    size_t start = strlen(mark);
    if (count < BLOCK_BYTES || memcmp(bytes, mark, start) != 0) return fail(ST_INPUT, "it is not the index of an atlas");
    hash_sha256(bytes + BLOCK_BYTES, count - BLOCK_BYTES, index->hash);
    if (memcmp(bytes + start, index->hash, SHA256_HEX - 1) != 0)
        return fail(ST_INPUT, "its bytes do not match their SHA-256: it is damaged or was changed; ingest again");
    return ST_OK;
}

static enum status read_pieces(hid_t file, struct atlas_index *index)
{
    enum status st = ST_OK;
    int64_t count = 0;
    TRY(list_length(file, "pieces/path", &count));
    TRY(NEW_ARRAY(index->pieces, count));
    TRY(NEW_ARRAY(index->row_bytes, count));
    index->piece_count = (int)count;
    TRY(h5_read_texts(file, "pieces/path", 0, count, index->pieces));
    TRY(h5_read(file, "pieces/row_bytes", H5T_NATIVE_INT64, count, index->row_bytes));
done:
    return st;
}

static enum status read_root(hid_t file, struct atlas_index *index)
{
    enum status st = ST_OK;
    int64_t version = 0, shuffled = 0, seed = 0, deflate = 0, modalities = 0;
    TRY(h5_attr_read_int(file, "version", &version));
    if (version != VERSION) TRY(fail(ST_INPUT, "it has format version %lld; this program reads %d; ingest again", (long long)version, VERSION));
    TRY(h5_attr_read_int(file, "rows", &index->rows));
    TRY(h5_attr_read_int(file, "shard_rows", &index->shard_rows));
    TRY(h5_attr_read_int(file, "shuffled", &shuffled));
    TRY(h5_attr_read_int(file, "seed", &seed));
    TRY(h5_attr_read_int(file, "deflate", &deflate));
    TRY(h5_attr_read_int(file, "modalities", &modalities));
    if (index->rows < 1 || index->shard_rows < 1 || modalities < 1 || modalities > 1024)
        TRY(fail(ST_INPUT, "%lld rows, %lld a shard, %lld modalities make no atlas", (long long)index->rows,
                 (long long)index->shard_rows, (long long)modalities));
    index->shard_count = (index->rows - 1) / index->shard_rows + 1;
    index->shuffled = shuffled != 0;
    index->seed = (uint64_t)seed;
    index->deflate = (int)deflate;
    index->modality_count = (int)modalities;
    TRY(NEW_ARRAY(index->modalities, modalities));
    TRY(h5_read_text(file, "config", &index->config));
    TRY(read_pieces(file, index));
done:
    return st;
}

enum status index_parse(const char *bytes, size_t count, const char *name, struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE, group = H5_NONE;
    *index = (struct atlas_index){0};
    TRY(check_block(bytes, count, index));
    TRY(h5_open_image(bytes, count, name, &file));
    TRY(read_root(file, index));
    TRY(read_sources(file, index));
    TRY(read_fields(file, index));
    TRY(h5_group_open(file, "modality", &group));
    for (int k = 0; k < index->modality_count; k++) TRY(read_modality(group, k, index));
done:
    if (st != ST_OK) {
        status_prefix("%s: ", name);
        index_free(index);
    }
    h5_drop(&group);
    h5_drop(&file);
    return st;
}
