/* The end of an atlas: records become columns, everything is flushed, the index is written, the folder renamed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "cell/csr.h"
#include "io/atlas_writer.h"
#include "io/h5ad_layout.h"
#include "io/place.h"

/* Rows turned from records into columns at a time, and entries checked at a time. */
enum { BLOCK_ROWS = 4096, BLOCK_ENTRIES = 1 << 22 };

static enum status flush_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status st = ST_OK;
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
        st = fail(ST_OUTPUT, "%s: flush to disk failed: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return st;
}

static enum status flush_file(struct atlas_writer *w, int modality, int64_t shard)
{
    int fd;
    enum status st = writer_file(w, modality, shard, &fd);
    if (st == ST_OK && fsync(fd) != 0)
        st = fail(ST_OUTPUT, "shard %lld: flush to disk failed: %s", (long long)shard, strerror(errno));
    return st;
}

/* What this node wrote, files dealt out to its ranks. */
static enum status flush_node(const struct comm *comm, struct atlas_writer *w)
{
    enum status st = ST_OK;
    int64_t shards = w->index.shard_count;
    for (int64_t k = comm->node_rank; k < (w->index.modality_count + 1) * shards && st == ST_OK; k += comm->node_size)
        st = flush_file(w, (int)(k / shards), k % shards);
    return st;
}

/* ---- records to columns ---- */

struct block {
    int64_t shard, first, count; /* rows of the shard */
    const char *records;
    char *column; /* scratch */
};

/* `bytes` at `at` of each record become rows of a piece, in the shards of all modalities. */
static enum status write_piece(struct atlas_writer *w, const struct block *b, int piece, int64_t at, int64_t bytes)
{
    enum status st = ST_OK;
    int fd;
    for (int64_t i = 0; i < b->count; i++)
        memcpy(b->column + i * bytes, b->records + i * w->record_bytes + at, (size_t)bytes);
    for (int m = 0; m < w->index.modality_count; m++) {
        TRY(writer_file(w, m, b->shard, &fd));
        TRY(place_write(fd, w->index.pieces[piece], writer_offset(w, m, b->shard, piece) + b->first * bytes, b->column,
                        b->count * bytes));
    }
done:
    return st;
}

/* Names of rows: the sources' own, or <source>:<row>, written over the scratch of one piece. */
static enum status write_names(struct atlas_writer *w, const struct block *b)
{
    enum status st = ST_OK;
    int64_t bytes = w->index.row_bytes[0], name_bytes = field_bytes(&w->index.fields[2]);
    int fd;
    if (w->names_unique) return write_piece(w, b, 0, w->field_at[2], name_bytes);
    for (int64_t i = 0; i < b->count; i++) {
        const char *record = b->records + i * w->record_bytes;
        int32_t source;
        int64_t row;
        char name[64];
        memcpy(&source, record + w->field_at[0], sizeof source);
        memcpy(&row, record + w->field_at[1], sizeof row);
        snprintf(name, sizeof name, "%d:%lld", source, (long long)row);
        strncpy(b->column + i * bytes, name, (size_t)bytes);
    }
    for (int m = 0; m < w->index.modality_count; m++) {
        TRY(writer_file(w, m, b->shard, &fd));
        TRY(place_write(fd, "names", writer_offset(w, m, b->shard, 0) + b->first * bytes, b->column, b->count * bytes));
    }
done:
    return st;
}

static enum status write_block(struct atlas_writer *w, const struct block *b)
{
    enum status st = ST_OK;
    for (int64_t i = 0; i < b->count; i++)
        if (b->records[i * w->record_bytes] != 1)
            TRY(fail(ST_INTERNAL, "nobody wrote the row at %lld",
                     (long long)(b->shard * w->index.shard_rows + b->first + i)));
    TRY(write_names(w, b));
    for (int k = 0; k < w->index.field_count; k++) {
        int64_t bytes = field_bytes(&w->index.fields[k]);
        TRY(write_piece(w, b, index_values(&w->index, k), w->field_at[k], bytes));
        if (w->index.fields[k].nullable) TRY(write_piece(w, b, index_mask(&w->index, k), w->field_at[k] + bytes, 1));
    }
done:
    return st;
}

static enum status write_columns(struct atlas_writer *w, int64_t shard)
{
    enum status st = ST_OK;
    int64_t rows = index_shard_rows(&w->index, shard);
    char *records = NULL, *column = NULL;
    int fd;
    TRY(NEW_ARRAY(records, BLOCK_ROWS * w->record_bytes));
    TRY(NEW_ARRAY(column, BLOCK_ROWS * (w->record_bytes + w->index.row_bytes[0])));
    TRY(writer_file(w, w->index.modality_count, shard, &fd));
    for (int64_t at = 0; at < rows; at += BLOCK_ROWS) {
        struct block b = {.shard = shard,
                          .first = at,
                          .count = rows - at < BLOCK_ROWS ? rows - at : BLOCK_ROWS,
                          .records = records,
                          .column = column};
        TRY(place_read(fd, "obs records", at * w->record_bytes, records, b.count * w->record_bytes));
        TRY(write_block(w, &b));
    }
    for (int m = 0; m < w->index.modality_count; m++) TRY(flush_file(w, m, shard));
done:
    free(column);
    free(records);
    return st;
}

/* ---- rows of a resumed run ---- */

/* Rows that an earlier run marked may have died with its node before they reached the disk: look at all. */
static enum status check_shard(struct atlas_writer *w, int m, int64_t shard)
{
    enum status st = ST_OK;
    int64_t rows = index_shard_rows(&w->index, shard), *starts = NULL;
    int64_t features = w->index.modalities[m].base.features.count;
    int32_t *feature = NULL;
    float *value = NULL;
    int fd;
    TRY(NEW_ARRAY(starts, rows + 1));
    TRY(writer_file(w, m, shard, &fd));
    TRY(place_read(fd, "indptr", writer_offset(w, m, shard, w->indptr), starts,
                   (rows + 1) * index_row_bytes(&w->index, m, shard, w->indptr)));
    index_widen_starts(&w->index, m, shard, starts, rows + 1);
    TRY(csr_check_starts(starts, rows, w->index.modalities[m].entries[shard]));
    for (int64_t first = 0, end; first < rows; first = end) {
        for (end = first + 1; end < rows && starts[end + 1] - starts[first] <= BLOCK_ENTRIES;) end++;
        int64_t n = starts[end] - starts[first];
        free(feature);
        free(value);
        TRY(NEW_ARRAY(feature, n));
        TRY(NEW_ARRAY(value, n));
        TRY(place_read(fd, "indices", writer_offset(w, m, shard, w->indices) + starts[first] * 4, feature, n * 4));
        TRY(place_read(fd, "data", writer_offset(w, m, shard, w->data) + starts[first] * 4, value, n * 4));
        TRY(csr_check_rows(starts + first, end - first, feature, value, features));
    }
done:
    if (st == ST_INPUT) st = fail(ST_OUTPUT, "shard %lld", (long long)shard);
    if (st != ST_OK)
        status_prefix("%s: rows of an earlier run are damaged; remove the folder and run again: ", w->partial);
    free(value);
    free(feature);
    free(starts);
    return st;
}

static enum status finish_shards(const struct comm *comm, struct atlas_writer *w)
{
    enum status st = ST_OK;
    for (int64_t s = comm->rank; s < w->index.shard_count; s += comm->size) {
        for (int m = 0; w->resumed && m < w->index.modality_count; m++) TRY(check_shard(w, m, s));
        TRY(write_columns(w, s));
    }
done:
    return st;
}

/* ---- the end ---- */

static enum status remove_scratch(const struct atlas_writer *w)
{
    enum status st = ST_OK;
    char *path = text_format("%s/plan", w->partial);
    if (unlink(path) != 0) st = fail(ST_OUTPUT, "%s: %s", path, strerror(errno));
    free(path);
    for (int64_t s = 0; s < w->index.shard_count && st == ST_OK; s++) {
        path = writer_records_path(w, s);
        if (unlink(path) != 0) st = fail(ST_OUTPUT, "%s: %s", path, strerror(errno));
        free(path);
    }
    return st;
}

/* Rank 0. The records go after the index is safe and before the rename: an atlas never shows them, and a
 * run killed in between starts over. */
static enum status finish_folder(struct atlas_writer *w)
{
    enum status st = ST_OK;
    char *index = text_format("%s/index.h5", w->partial), *slash = NULL, *parent = text_copy(w->path);
    TRY(index_write(index, &w->index));
    TRY(remove_scratch(w));
    TRY(flush_folder(w->partial));
    if (rename(w->partial, w->path) != 0)
        TRY(fail(ST_OUTPUT, "%s: cannot be renamed to %s: %s", w->partial, w->path, strerror(errno)));
    slash = strrchr(parent, '/');
    if (slash) *slash = '\0';
    TRY(flush_folder(slash ? (*parent ? parent : "/") : "."));
done:
    free(parent);
    free(index);
    return st;
}

enum status atlas_writer_commit(struct comm *comm, struct atlas_writer **writer)
{
    enum status st = ST_OK;
    struct atlas_writer *w = *writer;
    comm_barrier(comm); /* all rows of this node are written when its files are flushed */
    TRY(comm_agree(comm, flush_node(comm, w)));
    TRY(comm_agree(comm, finish_shards(comm, w)));
    TRY(comm_agree(comm, comm->rank == 0 ? finish_folder(w) : ST_OK));
done:
    atlas_writer_destroy(writer);
    return st;
}
