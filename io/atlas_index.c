#include "io/atlas_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "io/atlas_tables.h"
#include "io/h5.h"
#include "io/h5ad_layout.h"
#include "io/place.h"

enum { VERSION = 1, BLOCK_BYTES = 4096 };
static const char mark[] = "cytomill atlas index\nsha256 of what follows these 4096 bytes: ";

/* ---- small questions ---- */

int index_piece(const struct atlas_index *index, const char *path)
{
    for (int k = 0; k < index->piece_count; k++)
        if (strcmp(index->pieces[k], path) == 0) return k;
    return -1;
}

int64_t index_row_bytes(const struct atlas_index *index, int modality, int64_t shard, int piece)
{
    if (strcmp(index->pieces[piece], "X/indptr") != 0) return index->row_bytes[piece];
    return h5ad_starts_bytes(index->modalities[modality].entries[shard]);
}

void index_widen_starts(const struct atlas_index *index, int modality, int64_t shard, int64_t *starts, int64_t n)
{
    if (h5ad_starts_bytes(index->modalities[modality].entries[shard]) == 8) return;
    for (int64_t i = n - 1; i >= 0; i--) { /* from the end: the wide item i lies on narrow ones that are done */
        int32_t narrow;
        memcpy(&narrow, (const char *)starts + i * 4, 4);
        starts[i] = narrow;
    }
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
    TRY(table_write_sources(file, index));
    TRY(table_write_fields(file, index));
    TRY(h5_group_create(file, "modality", &group));
    for (int k = 0; k < index->modality_count; k++) TRY(table_write_modality(group, k, index));
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
    if (count < BLOCK_BYTES || memcmp(bytes, mark, start) != 0)
        return fail(ST_INPUT, "it is not the index of an atlas");
    hash_sha256(bytes + BLOCK_BYTES, count - BLOCK_BYTES, index->hash);
    if (memcmp(bytes + start, index->hash, SHA256_HEX - 1) != 0)
        return fail(ST_INPUT, "its bytes do not match their SHA-256: it is damaged or was changed; ingest again");
    return ST_OK;
}

static enum status read_pieces(hid_t file, struct atlas_index *index)
{
    enum status st = ST_OK;
    int64_t count = 0;
    TRY(table_length(file, "pieces/path", &count));
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
    if (version != VERSION)
        TRY(fail(ST_INPUT, "it has format version %lld; this program reads %d; ingest again", (long long)version,
                 VERSION));
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
    TRY(table_read_sources(file, index));
    TRY(table_read_fields(file, index));
    TRY(h5_group_open(file, "modality", &group));
    for (int k = 0; k < index->modality_count; k++) TRY(table_read_modality(group, k, index));
done:
    if (st != ST_OK) {
        status_prefix("%s: ", name);
        index_free(index);
    }
    h5_drop(&group);
    h5_drop(&file);
    return st;
}
