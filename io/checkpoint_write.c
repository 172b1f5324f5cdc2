/* Writing a checkpoint at once: every rank converts, hashes and writes its blocks, one after another. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/checkpoint_writer.h"
#include "io/place.h"

/* Where blocks go to: the writer's own descriptor, or MPI-IO. */
struct target {
    struct checkpoint_writer *writer;
    bool posix;
    struct shared_file shared;
    float *staged; /* [largest block] */
};

static enum status target_open(struct comm *world, struct target *t, const struct config *config)
{
    enum status st = ST_OK;
    const struct checkpoint_map *map = &t->writer->map;
    int64_t largest = 1;
    for (int64_t b = 0; b < map->block_count; b++) {
        int64_t reals = checkpoint_block_reals(map, &map->blocks[b]);
        if (reals > largest) largest = reals;
    }
    st = NEW_ARRAY(t->staged, largest);
    if (st == ST_OK && world->rank == 0) st = place_reserve(t->writer->fd, t->writer->partial, t->writer->file_bytes);
    TRY(comm_agree(world, st));
    if (!t->posix) TRY(file_open(world, t->writer->partial, config_text(config, "run.io"), &t->shared));
done:
    return st;
}

static enum status write_at(struct target *t, int64_t place, const void *data, int64_t bytes)
{
    return t->posix ? place_write(t->writer->fd, t->writer->partial, place, data, bytes)
                    : file_write(&t->shared, place, data, bytes);
}

static enum status write_block(struct target *t, const struct checkpoint_block *b)
{
    struct checkpoint_writer *w = t->writer;
    const real *from = checkpoint_writer_values(w, b);
    int64_t count = checkpoint_block_reals(&w->map, b);
    for (int64_t i = 0; i < count; i++) t->staged[i] = (float)from[i];
    w->sum[b->index] = hash_block(t->staged, sizeof *t->staged * (size_t)count, 0);
    return write_at(t, checkpoint_writer_place(w, b), t->staged, count * (int64_t)sizeof *t->staged);
}

/* This rank's blocks, and after each run of them its checksums. */
static enum status write_share(struct target *t)
{
    enum status st = ST_OK;
    const struct checkpoint_writer *w = t->writer;
    for (int64_t first, last = 0; checkpoint_writer_next(w, &first, &last);) {
        for (int64_t b = first; b < last; b++) TRY(write_block(t, &w->map.blocks[b]));
        TRY(write_at(t, w->checksum_place + first * 8, w->sum + first, (last - first) * 8));
    }
done:
    return st;
}

/* Put all ranks' bytes on disk, those of a failed rank too: it closes the file with the others. */
static enum status target_close(struct comm *world, struct target *t)
{
    enum status shared = file_close(world, &t->shared), st = ST_OK;
    if (fsync(t->writer->fd) != 0)
        st = fail(ST_OUTPUT, "%s: cannot be put on disk: %s", t->writer->partial, strerror(errno));
    st = comm_agree(world, st);
    return shared != ST_OK ? shared : st;
}

enum status checkpoint_write(struct mesh *mesh, const char *path, const struct param_table *params,
                             const struct config *config, const struct vocab *vocab, const char *model_name,
                             const struct train_state *state)
{
    struct checkpoint_contents contents = {config, vocab, model_name, state};
    struct checkpoint_writer w;
    struct target t = {
        .writer = &w, .posix = checkpoint_uses_posix(&mesh->world, config), .shared = {.handle = MPI_FILE_NULL}};
    enum status st = checkpoint_writer_open(&mesh->world, &w, path, params, &contents);
    if (st != ST_OK) return st;
    st = target_open(&mesh->world, &t, config);
    if (st == ST_OK) st = comm_agree(&mesh->world, write_share(&t));
    enum status closed = target_close(&mesh->world, &t);
    free(t.staged);
    return checkpoint_writer_commit(&mesh->world, &w, st != ST_OK ? st : closed);
}
