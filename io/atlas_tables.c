/* Tables of the index of an atlas: sources, obs columns, modalities. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/atlas_tables.h"

enum { MAX_COUNT = 1 << 24 };

/* ---- lists of rows as columns of a file ---- */

/* Column `name` of texts, one per row of `stride` bytes, through a getter. */
static enum status write_column(hid_t group, const char *name, const void *rows, size_t stride, int64_t count,
                                size_t member)
{
    const char **texts = NULL;
    enum status st = ST_OK;
    TRY(NEW_ARRAY(texts, count));
    for (int64_t i = 0; i < count; i++)
        texts[i] = *(char *const *)(const void *)((const char *)rows + (size_t)i * stride + member);
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

static enum status write_numbers(hid_t group, const char *name, const void *rows, size_t stride, int64_t count,
                                 size_t member)
{
    int64_t *numbers = NULL;
    enum status st = ST_OK;
    TRY(NEW_ARRAY(numbers, count));
    for (int64_t i = 0; i < count; i++)
        memcpy(&numbers[i], (const char *)rows + (size_t)i * stride + member, sizeof *numbers);
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
    for (int64_t i = 0; i < count; i++)
        memcpy((char *)rows + (size_t)i * stride + member, &numbers[i], sizeof *numbers);
done:
    free(numbers);
    return st;
}

/* Length of a list, refused when absurd. */
enum status table_length(hid_t group, const char *name, int64_t *count)
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

enum status table_write_sources(hid_t file, const struct atlas_index *index)
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

enum status table_read_sources(hid_t file, struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t count = 0;
    TRY(h5_group_open(file, "sources", &group));
    TRY(table_length(group, "path", &count));
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

enum status table_write_fields(hid_t file, const struct atlas_index *index)
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
    TRY(table_length(obs, name, &count));
    TRY(NEW_ARRAY(texts, count));
    f->category = (const char *const *)texts;
    f->category_count = (int32_t)count;
    TRY(h5_read_texts(obs, name, 0, count, texts));
done:
    return st;
}

enum status table_read_fields(hid_t file, struct atlas_index *index)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t n = 0, *rows = NULL;
    TRY(h5_group_open(file, "obs", &group));
    TRY(table_length(group, "name", &n));
    TRY(NEW_ARRAY(rows, 3 * n));
    TRY(NEW_ARRAY(index->fields, n));
    index->field_count = (int)n;
    TRY(TEXT_OF(group, read, index->fields, n, name));
    TRY(h5_read(group, "type", H5T_NATIVE_INT64, n, rows));
    TRY(h5_read(group, "text_bytes", H5T_NATIVE_INT64, n, rows + n));
    TRY(h5_read(group, "nullable", H5T_NATIVE_INT64, n, rows + 2 * n));
    for (int k = 0; k < n; k++) {
        struct h5ad_field *f = &index->fields[k];
        if (rows[k] < COLUMN_INT || rows[k] > COLUMN_TEXT)
            TRY(fail(ST_INPUT, "column '%s' has an unknown type", f->name));
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
    TRY(table_length(group, "name", &n));
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
        if (rules[i] < MAP_NONE || rules[i] > MAP_AMBIGUOUS)
            TRY(fail(ST_INPUT, "feature %lld has an unknown rule", (long long)i));
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

enum status table_write_modality(hid_t parent, int k, const struct atlas_index *index)
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
        if (m->mask_of_source[k] < -1 || m->mask_of_source[k] >= m->mask_count)
            TRY(fail(ST_INPUT, "source %d has no mask", k));
done:
    return st;
}

enum status table_read_modality(hid_t parent, int k, struct atlas_index *index)
{
    enum status st = ST_OK;
    struct index_modality *m = &index->modalities[k];
    hid_t group = H5_NONE;
    char name[16], *kind = NULL;
    snprintf(name, sizeof name, "%d", k);
    TRY(h5_group_open(parent, name, &group));
    TRY(h5_attr_read_text(group, "name", &m->base.name));
    TRY(h5_attr_read_text(group, "kind", &kind));
    if (!value_kind_parse(kind, &m->base.kind))
        TRY(fail(ST_INPUT, "modality '%s' has unknown kind '%s'", m->base.name, kind));
    TRY(read_features(group, &m->base.features));
    TRY(read_masks(group, index, m));
    TRY(read_shards(group, index, m));
done:
    free(kind);
    h5_drop(&group);
    return st;
}
