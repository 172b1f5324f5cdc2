#include "io/atlas.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "cell/csr.h"
#include "io/atlas_shard.h"

/* ---- opening ---- */

/* Rank 0: the bytes of the index, or a message that helps. */
static enum status read_index_file(const char *path, char **bytes, size_t *count)
{
    char *index = text_format("%s/index.h5", path), *partial = text_format("%s.partial", path);
    enum status st = ST_OK;
    if (access(index, F_OK) == 0) st = text_read_file(index, bytes, count);
    else if (access(partial, F_OK) == 0)
        st = fail(ST_INPUT, "%s: its ingest did not finish; run cytomill-ingest again to go on", path);
    else if (access(path, F_OK) == 0)
        st = fail(ST_INPUT, "%s: is no atlas, it has no index.h5; make one with cytomill-ingest", path);
    else st = fail(ST_INPUT, "%s: does not exist; make an atlas with cytomill-ingest", path);
    free(partial);
    free(index);
    return st;
}

static enum status check_shard(const struct atlas *atlas, int modality, int64_t shard)
{
    struct stat info;
    char *path = index_shard_path(&atlas->index, atlas->path, modality, shard);
    int64_t expected = atlas->index.modalities[modality].bytes[shard];
    enum status st = ST_OK;
    if (stat(path, &info) != 0) st = fail(ST_INPUT, "%s: %s; ingest again", path, strerror(errno));
    else if (info.st_size != expected)
        st = fail(ST_INPUT, "%s: has %lld bytes, the index says %lld: it is truncated or was changed; ingest again",
                  path, (long long)info.st_size, (long long)expected);
    else if (access(path, R_OK) != 0) st = fail(ST_INPUT, "%s: %s", path, strerror(errno));
    free(path);
    return st;
}

/* Are all shards there in full? Dealt out to ranks. */
static enum status check_shards(const struct comm *comm, const struct atlas *atlas)
{
    enum status st = ST_OK;
    int64_t shards = atlas->index.shard_count;
    for (int64_t k = comm->rank; k < atlas->index.modality_count * shards && st == ST_OK; k += comm->size)
        st = check_shard(atlas, (int)(k / shards), k % shards);
    return st;
}

static enum status set_up(const char *path, const char *bytes, size_t count, struct atlas *atlas)
{
    enum status st = ST_OK;
    char *name = text_format("%s/index.h5", path);
    atlas->path = text_copy(path);
    TRY(index_parse(bytes, count, name, &atlas->index));
    atlas->data = index_piece(&atlas->index, "X/data");
    atlas->indices = index_piece(&atlas->index, "X/indices");
    atlas->indptr = index_piece(&atlas->index, "X/indptr");
    bool whole = atlas->data >= 0 && atlas->indices >= 0 && atlas->indptr >= 0;
    for (int k = 0; k < atlas->index.field_count; k++) whole = whole && index_values(&atlas->index, k) >= 0;
    if (!whole) TRY(fail(ST_INPUT, "%s: its list of pieces is not complete", name));
    TRY(shard_files_create(&atlas->files, atlas->index.modality_count * atlas->index.shard_count, O_RDONLY));
done:
    free(name);
    return st;
}

enum status atlas_open(struct comm *comm, const char *path, struct atlas **out)
{
    struct atlas *atlas = NULL;
    char *bytes = NULL;
    size_t count = 0;
    *out = NULL;
    enum status st = NEW_ARRAY(atlas, 1);
    if (st == ST_OK && comm->rank == 0) st = read_index_file(path, &bytes, &count);
    TRY(comm_agree(comm, st));
    comm_bcast(comm, &count, sizeof count, 0);
    if (comm->rank != 0) st = NEW_ARRAY(bytes, count);
    TRY(comm_agree(comm, st));
    comm_bcast(comm, bytes, (int64_t)count, 0);
    TRY(comm_agree(comm, set_up(path, bytes, count, atlas)));
    TRY(comm_agree(comm, check_shards(comm, atlas)));
    *out = atlas;
done:
    free(bytes);
    if (st != ST_OK) atlas_close(&atlas);
    return st;
}

void atlas_close(struct atlas **out)
{
    struct atlas *atlas = *out;
    if (!atlas) return;
    shard_close_deflated(atlas);
    if (atlas->files.fd) shard_files_destroy(&atlas->files);
    index_free(&atlas->index);
    free(atlas->path);
    free(atlas->starts);
    free(atlas);
    *out = NULL;
}

/* ---- questions ---- */

int64_t atlas_cell_count(const struct atlas *atlas) { return atlas->index.rows; }
int atlas_modality_count(const struct atlas *atlas) { return atlas->index.modality_count; }
const struct modality *atlas_modality(const struct atlas *atlas, int index)
{
    return &atlas->index.modalities[index].base;
}
const char *atlas_hash(const struct atlas *atlas) { return atlas->index.hash; }
const char *atlas_path(const struct atlas *atlas) { return atlas->path; }

int atlas_find_modality(const struct atlas *atlas, const char *name)
{
    for (int m = 0; m < atlas->index.modality_count; m++)
        if (strcmp(atlas->index.modalities[m].base.name, name) == 0) return m;
    return -1;
}

int atlas_source_count(const struct atlas *atlas) { return atlas->index.source_count; }
const char *atlas_source_path(const struct atlas *atlas, int source) { return atlas->index.sources[source].path; }
int64_t atlas_source_rows(const struct atlas *atlas, int source) { return atlas->index.sources[source].rows; }
const char *atlas_config(const struct atlas *atlas) { return atlas->index.config; }

const uint8_t *atlas_measured(const struct atlas *atlas, int modality, int source)
{
    const struct index_modality *m = &atlas->index.modalities[modality];
    int32_t mask = m->mask_of_source[source];
    return mask < 0 ? NULL : m->masks + mask * m->base.features.count;
}

/* ---- cells ---- */

static enum status reserve_starts(struct atlas *atlas, int64_t count)
{
    if (count <= atlas->starts_capacity) return ST_OK;
    free(atlas->starts);
    atlas->starts_capacity = 0;
    enum status st = NEW_ARRAY(atlas->starts, count);
    if (st == ST_OK) atlas->starts_capacity = count;
    return st;
}

static int64_t larger(int64_t need, int64_t capacity) { return need <= capacity ? capacity : need + need / 2; }

/* Entries of rows starts[0..count], read and checked in pieces that stay in the cache. */
static enum status read_entries(struct atlas *atlas, int modality, int64_t shard, const int64_t *starts, int64_t count,
                                int32_t *feature, float *value)
{
    enum { PIECE_ENTRIES = 1 << 15 };
    enum status st = ST_OK;
    int64_t features = atlas->index.modalities[modality].base.features.count;
    for (int64_t row = 0, end; row < count; row = end) {
        for (end = row + 1; end < count && starts[end + 1] - starts[row] <= PIECE_ENTRIES;) end++;
        int64_t from = starts[row], at = from - starts[0], n = starts[end] - from;
        TRY(shard_read(atlas, modality, shard, atlas->indices, from, n, feature + at));
        TRY(shard_read(atlas, modality, shard, atlas->data, from, n, value + at));
        st = csr_check_rows(starts + row, end - row, feature + at, value + at, features);
        TRY(shard_fail(atlas, modality, shard, st));
    }
done:
    return st;
}

/* Append rows [row, row+count) of a shard. */
static enum status append_rows(struct atlas *atlas, int modality, int64_t shard, int64_t row, int64_t count,
                               struct cells *out)
{
    enum status st = ST_OK;
    int64_t first = shard * atlas->index.shard_rows + row, before = out->start[out->count];
    int64_t *starts;
    TRY(reserve_starts(atlas, count + 1));
    starts = atlas->starts;
    TRY(shard_read(atlas, modality, shard, atlas->indptr, row, count + 1, starts));
    index_widen_starts(&atlas->index, modality, shard, starts, count + 1);
    st = csr_check_starts(starts, count, atlas->index.modalities[modality].entries[shard]);
    TRY(shard_fail(atlas, modality, shard, st));
    TRY(cells_reserve(out, larger(out->count + count, out->row_capacity),
                      larger(before + starts[count] - starts[0], out->entry_capacity)));
    for (int64_t i = 0; i < count; i++) {
        out->id[out->count + i] = first + i;
        out->start[out->count + i + 1] = before + starts[i + 1] - starts[0];
    }
    TRY(read_entries(atlas, modality, shard, starts, count, out->feature + before, out->value + before));
    out->count += count;
done:
    return st;
}

static enum status begin_read(const struct atlas *atlas, int modality, int64_t first, int64_t count, struct cells *out)
{
    if (modality < 0 || modality >= atlas->index.modality_count || first < 0 || count < 0 ||
        first > atlas->index.rows - count)
        return fail(ST_INTERNAL, "%s: rows %lld to %lld of modality %d are asked for; it has %lld rows, %d modalities",
                    atlas->path, (long long)first, (long long)(first + count), modality, (long long)atlas->index.rows,
                    atlas->index.modality_count);
    enum status st = cells_reserve(out, out->row_capacity > 0 ? out->row_capacity : 1, out->entry_capacity);
    out->count = 0;
    if (st == ST_OK) out->start[0] = 0;
    return st;
}

/* Append rows [first, first+count) of the atlas, shard by shard. */
static enum status append_run(struct atlas *atlas, int modality, int64_t first, int64_t count, struct cells *out)
{
    enum status st = ST_OK;
    while (count > 0 && st == ST_OK) {
        int64_t shard = first / atlas->index.shard_rows, row = first - shard * atlas->index.shard_rows;
        int64_t n = atlas->index.shard_rows - row < count ? atlas->index.shard_rows - row : count;
        st = append_rows(atlas, modality, shard, row, n, out);
        first += n;
        count -= n;
    }
    return st;
}

enum status atlas_read(struct atlas *atlas, int modality, int64_t first, int64_t count, struct cells *out)
{
    enum status st = begin_read(atlas, modality, first, count, out);
    return st == ST_OK ? append_run(atlas, modality, first, count, out) : st;
}

enum status atlas_read_rows(struct atlas *atlas, int modality, const int64_t *rows, int64_t count, struct cells *out)
{
    enum status st = begin_read(atlas, modality, 0, 0, out);
    for (int64_t at = 0, end; at < count && st == ST_OK; at = end) {
        for (end = at + 1; end < count && rows[end] == rows[end - 1] + 1;) end++;
        if (rows[at] < 0 || rows[end - 1] >= atlas->index.rows)
            st = fail(ST_INTERNAL, "%s: row %lld is asked for; it has %lld", atlas->path, (long long)rows[at],
                      (long long)atlas->index.rows);
        else st = append_run(atlas, modality, rows[at], end - at, out);
    }
    return st;
}
