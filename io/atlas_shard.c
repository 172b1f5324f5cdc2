#include "io/atlas_shard.h"

#include <stdlib.h>

#include "io/h5.h"
#include "io/place.h"

struct deflated_shard {
    int64_t id;
    hid_t file;
    hid_t *datasets, *types; /* [piece_count] opened when first read */
    int piece_count;
};

enum status shard_fail(const struct atlas *atlas, int modality, int64_t shard, enum status st)
{
    if (st == ST_OK) return ST_OK;
    char *path = index_shard_path(&atlas->index, atlas->path, modality, shard);
    status_prefix("%s: ", path);
    free(path);
    return st;
}

static void close_shard(struct deflated_shard **shard)
{
    if (!*shard) return;
    for (int k = 0; k < (*shard)->piece_count; k++) {
        if ((*shard)->datasets) h5_drop(&(*shard)->datasets[k]);
        if ((*shard)->types) h5_drop(&(*shard)->types[k]);
    }
    h5_drop(&(*shard)->file);
    free((*shard)->datasets);
    free((*shard)->types);
    free(*shard);
    *shard = NULL;
}

void shard_close_deflated(struct atlas *atlas)
{
    for (int k = 0; k < DEFLATED_OPEN; k++) close_shard(&atlas->deflated[k]);
}

static enum status open_shard(struct atlas *atlas, int modality, int64_t shard, struct deflated_shard **out)
{
    enum status st = ST_OK;
    int pieces = atlas->index.piece_count;
    char *path = index_shard_path(&atlas->index, atlas->path, modality, shard);
    TRY(NEW_ARRAY(*out, 1));
    (*out)->file = H5_NONE;
    (*out)->id = modality * atlas->index.shard_count + shard;
    TRY(NEW_ARRAY((*out)->datasets, pieces));
    TRY(NEW_ARRAY((*out)->types, pieces));
    for (int k = 0; k < pieces; k++) (*out)->datasets[k] = (*out)->types[k] = H5_NONE;
    (*out)->piece_count = pieces;
    TRY(h5_open(path, &(*out)->file));
done:
    if (st != ST_OK) close_shard(out);
    free(path);
    return st;
}

/* The open shard, from the cache or in place of its oldest. */
static enum status find_shard(struct atlas *atlas, int modality, int64_t shard, struct deflated_shard **out)
{
    int64_t id = modality * atlas->index.shard_count + shard;
    for (int k = 0; k < DEFLATED_OPEN; k++)
        if (atlas->deflated[k] && atlas->deflated[k]->id == id) {
            *out = atlas->deflated[k];
            return ST_OK;
        }
    struct deflated_shard **slot = &atlas->deflated[atlas->deflated_next];
    atlas->deflated_next = (atlas->deflated_next + 1) % DEFLATED_OPEN;
    close_shard(slot);
    enum status st = open_shard(atlas, modality, shard, slot);
    *out = *slot;
    return st;
}

static enum status read_deflated(struct atlas *atlas, int modality, int64_t shard, int piece, int64_t first,
                                 int64_t count, void *out)
{
    enum status st = ST_OK;
    struct deflated_shard *s = NULL;
    TRY(find_shard(atlas, modality, shard, &s));
    if (s->datasets[piece] < 0) {
        s->datasets[piece] = H5Dopen2(s->file, atlas->index.pieces[piece], H5P_DEFAULT);
        if (s->datasets[piece] < 0) TRY(h5_fail(ST_INPUT, "there is no '%s'", atlas->index.pieces[piece]));
        s->types[piece] = H5Dget_type(s->datasets[piece]);
        if ((int64_t)H5Tget_size(s->types[piece]) != index_row_bytes(&atlas->index, modality, shard, piece))
            TRY(fail(ST_INPUT, "'%s' has another type than the index says", atlas->index.pieces[piece]));
    }
    TRY(h5_read_rows(s->datasets[piece], s->types[piece], first, count, out));
done:
    return st;
}

enum status shard_read(struct atlas *atlas, int modality, int64_t shard, int piece, int64_t first, int64_t count,
                       void *out)
{
    enum status st = ST_OK;
    int fd;
    if (count == 0) return ST_OK;
    if (atlas->index.deflate) {
        st = read_deflated(atlas, modality, shard, piece, first, count, out);
        return shard_fail(atlas, modality, shard, st);
    }
    char *path = NULL;
    int64_t id = modality * atlas->index.shard_count + shard,
            bytes = index_row_bytes(&atlas->index, modality, shard, piece);
    fd = shard_files_get(&atlas->files, id);
    if (fd < 0) {
        path = index_shard_path(&atlas->index, atlas->path, modality, shard);
        TRY(shard_files_open(&atlas->files, id, path, &fd));
    }
    int64_t offset = atlas->index.modalities[modality].offsets[shard * atlas->index.piece_count + piece];
    st = place_read(fd, atlas->index.pieces[piece], offset + first * bytes, out, count * bytes);
    if (st != ST_OK) shard_fail(atlas, modality, shard, st);
done:
    free(path);
    return st;
}
