/* Deflate the shards of a finished atlas. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "io/atlas_index.h"
#include "io/atlas_write.h"

enum action { DEFLATE, REPLACE, FORGET };

static char *deflated_path(const struct atlas_index *index, const char *path, int m, int64_t shard)
{
    char *plain = index_shard_path(index, path, m, shard), *out = text_format("%s.deflated", plain);
    free(plain);
    return out;
}

/* Deflate a shard beside itself, put that in its place, or remove it. */
static enum status treat_shard(enum action action, const char *path, int level, int m, int64_t shard,
                               struct atlas_index *index)
{
    enum status st = ST_OK;
    struct stat info = {0};
    char *plain = index_shard_path(index, path, m, shard), *deflated = deflated_path(index, path, m, shard);
    if (action == FORGET) unlink(deflated);
    bool replaced = access(deflated, F_OK) != 0 && access(plain, F_OK) == 0; /* before a kill */
    if (action == REPLACE && !replaced && rename(deflated, plain) != 0)
        st = fail(ST_OUTPUT, "%s: cannot be renamed to %s: %s", deflated, plain, strerror(errno));
    if (action == DEFLATE) {
        st = h5ad_deflate(plain, deflated, level);
        if (st == ST_OK && stat(deflated, &info) != 0) st = fail(ST_OUTPUT, "%s: %s", deflated, strerror(errno));
        index->modalities[m].bytes[shard] = info.st_size;
    }
    free(deflated);
    free(plain);
    return st;
}

/* All shards, dealt out to ranks. */
static enum status treat_shards(const struct comm *comm, enum action action, const char *path, int level,
                                struct atlas_index *index)
{
    enum status st = ST_OK;
    int64_t shards = index->shard_count;
    for (int64_t k = comm->rank; k < index->modality_count * shards && st == ST_OK; k += comm->size)
        st = treat_shard(action, path, level, (int)(k / shards), k % shards, index);
    return st;
}

static enum status load_index(const char *name, int level, struct atlas_index *index)
{
    enum status st = ST_OK;
    char *bytes = NULL;
    size_t count;
    TRY(text_read_file(name, &bytes, &count));
    TRY(index_parse(bytes, count, name, index));
    if (index->deflate && index->deflate != level)
        TRY(fail(ST_INPUT, "%s: the shards are compressed already, at level %d", name, index->deflate));
done:
    free(bytes);
    return st;
}

/* The index as it will be: places unknown, sizes not yet known. */
static void forget_places(struct atlas_index *index, int level)
{
    index->deflate = level;
    for (int m = 0; m < index->modality_count; m++) {
        memset(index->modalities[m].bytes, 0, sizeof(int64_t) * (size_t)index->shard_count);
        for (int64_t k = 0; k < index->shard_count * index->piece_count; k++) index->modalities[m].offsets[k] = -1;
    }
}

/* Is the new index there, whole? Then all shards were deflated before a kill. */
static bool is_deflated(const char *fresh)
{
    struct atlas_index index = {0};
    char *bytes = NULL;
    size_t count;
    bool whole = access(fresh, R_OK) == 0 && text_read_file(fresh, &bytes, &count) == ST_OK &&
                 index_parse(bytes, count, fresh, &index) == ST_OK;
    status_clear();
    index_free(&index);
    free(bytes);
    return whole;
}

/* All shards beside themselves, then the new index. Collective, agreed; a failure leaves nothing behind. */
static enum status deflate_all(struct comm *comm, const char *path, int level, const char *fresh,
                               struct atlas_index *index)
{
    enum status st = comm_agree(comm, treat_shards(comm, DEFLATE, path, level, index));
    if (st == ST_OK) {
        for (int m = 0; m < index->modality_count; m++)
            comm_sum_i64(comm, index->modalities[m].bytes, index->shard_count);
        st = comm_agree(comm, comm->rank == 0 ? index_write(fresh, index) : ST_OK);
    }
    if (st == ST_OK) return ST_OK;
    enum status removed = treat_shards(comm, FORGET, path, level, index);
    if (removed == ST_OK) unlink(fresh);
    return st;
}

enum status atlas_compress(struct comm *comm, const char *path, int level)
{
    enum status st = ST_OK;
    struct atlas_index index = {0};
    char *name = text_format("%s/index.h5", path), *fresh = text_format("%s/index.h5.deflated", path);
    TRY(comm_agree(comm, load_index(name, level, &index)));
    if (index.deflate == level) goto done;
    forget_places(&index, level);
    int64_t deflated = comm->rank == 0 && is_deflated(fresh);
    comm_max_i64(comm, &deflated, 1);
    if (!deflated) TRY(deflate_all(comm, path, level, fresh, &index));
    /* Only renames from here on. */
    TRY(comm_agree(comm, treat_shards(comm, REPLACE, path, level, &index)));
    if (comm->rank == 0 && rename(fresh, name) != 0) st = fail(ST_OUTPUT, "%s: %s", name, strerror(errno));
    st = comm_agree(comm, st);
done:
    index_free(&index);
    free(fresh);
    free(name);
    return st;
}
