/* Writing a checkpoint: lay the file out, let every rank write its blocks, make it final. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "io/checkpoint_file.h"
#include "io/h5.h"
#include "io/place.h"
#include "mpi/file.h"

/* What lay_out() puts into the file; the same on every rank. */
struct contents {
    const char *model_name;
    char *config_text; /* owned */
    const struct vocab *vocab;
    const struct train_state *state;
};

/* A file being written: laid out by rank 0, then each rank puts its blocks where they belong. HDF5's own
 * parallel driver is not used: on a full disk its collective metadata writes hang. */
struct writer {
    const struct param_table *params;
    struct checkpoint_map map;
    char *partial; /* the temporary name */
    bool posix;    /* through `fd`, else through `shared` */
    int fd;
    struct shared_file shared;
    int64_t *place; /* [parts * tensors] byte offsets of the datasets */
    int64_t checksum_place, file_bytes;
    float *staged; /* [largest block] */
    uint64_t *sum; /* [block_count] checksums of this rank's blocks */
    int *owner;    /* [block_count] which of the ranks that hold it writes it, -1 if none of them */
};

/* ---- layout ---- */

static enum status write_state(hid_t file, const struct contents *c)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    const struct train_state *s = c->state;
    uint64_t check = checkpoint_small_check(c->config_text, c->vocab->text, c->vocab->text_bytes, c->model_name, s);
    TRY(h5_group_create(file, "state", &group));
    TRY(h5_attr_write_int(group, "step", s->step));
    TRY(h5_attr_write_int(group, "cells_seen", s->cells_seen));
    TRY(h5_attr_write_int(group, "global_batch", s->global_batch));
    TRY(h5_attr_write_int(group, "seed", (int64_t)s->seed));
    TRY(h5_attr_write_real(group, "best_loss", s->best_loss));
    TRY(h5_attr_write_text(group, "atlas_hash", s->atlas_hash));
    TRY(h5_attr_write_int(group, "check", (int64_t)check));
done:
    h5_drop(&group);
    return st;
}

static enum status write_vocabulary(hid_t file, const struct vocab *vocab)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE;
    int64_t bytes = (int64_t)vocab->text_bytes;
    TRY(h5_write(file, "vocabulary", H5T_NATIVE_UINT8, 1, &bytes, vocab->text));
    dataset = H5Dopen2(file, "vocabulary", H5P_DEFAULT);
    TRY(h5_attr_write_text(dataset, "sha256", vocab->sha256));
done:
    h5_drop(&dataset);
    return st;
}

/* Create all datasets and note where they lie. */
static enum status create_tensors(struct writer *w, hid_t file)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE, dataset = H5_NONE;
    for (int part = 0; part < w->map.parts; part++) {
        TRY(h5_group_create(file, checkpoint_part_group(part), &group));
        for (int i = 0; i < w->map.tensor_count; i++) {
            const struct checkpoint_tensor *t = &w->map.tensors[i];
            TRY(h5_dataset_create(group, t->name, H5T_IEEE_F32LE, t->shape_rank, t->shape, &dataset));
            TRY(h5_attr_write_int(dataset, "first_block", t->first_block[part]));
            w->place[part * w->map.tensor_count + i] = h5_dataset_offset(dataset);
            h5_drop(&dataset);
        }
        h5_drop(&group);
    }
    TRY(h5_dataset_create(file, "checksum", H5T_STD_U64LE, 1, &w->map.block_count, &dataset));
    w->checksum_place = h5_dataset_offset(dataset);
done:
    h5_drop(&dataset);
    h5_drop(&group);
    return st;
}

static enum status lay_out(struct writer *w, const struct contents *c)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    struct stat info;
    int64_t bytes = (int64_t)c->vocab->text_bytes + (1 << 20); /* and what HDF5 adds */
    for (int64_t b = 0; b < w->map.block_count; b++) bytes += 4 * checkpoint_block_reals(&w->map, &w->map.blocks[b]);
    TRY(place_check_limit(w->partial, bytes));
    TRY(h5_create(w->partial, &file));
    TRY(h5_attr_write_text(file, "format", CHECKPOINT_FORMAT));
    TRY(h5_attr_write_int(file, "format_version", CHECKPOINT_VERSION));
    TRY(h5_attr_write_text(file, "model_name", c->model_name));
    TRY(h5_write_text(file, "config", c->config_text));
    TRY(write_vocabulary(file, c->vocab));
    TRY(write_state(file, c));
    TRY(create_tensors(w, file));
    TRY(h5_close(&file));
    if (stat(w->partial, &info) != 0) TRY(fail(ST_OUTPUT, "%s: vanished while being written", w->partial));
    w->file_bytes = info.st_size;
done:
    h5_drop(&file);
    return st;
}

/* ---- opening ---- */

/* Reserve the space on rank 0, and open the file on every rank. */
static enum status open_for_blocks(struct comm *comm, struct writer *w, const char *driver)
{
    enum status st = ST_OK;
    w->fd = open(w->partial, O_RDWR | O_CLOEXEC);
    if (w->fd < 0) st = fail(ST_OUTPUT, "%s: cannot be opened for writing: %s", w->partial, strerror(errno));
    else if (comm->rank == 0) st = place_reserve(w->fd, w->partial, w->file_bytes);
    TRY(comm_agree(comm, st));
    if (!w->posix) TRY(file_open(comm, w->partial, driver, &w->shared));
done:
    return st;
}

static enum status open_laid_out(struct comm *comm, struct writer *w, const struct contents *c, const char *driver)
{
    enum status st = ST_OK;
    TRY(comm_agree(comm, comm->rank == 0 ? lay_out(w, c) : ST_OK));
    comm_bcast(comm, w->place, (int64_t)sizeof *w->place * w->map.parts * w->map.tensor_count, 0);
    comm_bcast(comm, &w->checksum_place, sizeof w->checksum_place, 0);
    TRY(open_for_blocks(comm, w, driver));
done:
    return st;
}

/* ---- blocks ---- */

static enum status write_at(struct writer *w, int64_t place, const void *data, int64_t bytes)
{
    return w->posix ? place_write(w->fd, w->partial, place, data, bytes) : file_write(&w->shared, place, data, bytes);
}

static enum status write_block(struct writer *w, const struct checkpoint_block *b)
{
    const struct checkpoint_tensor *t = &w->map.tensors[b->tensor];
    const real *from = checkpoint_block_values(b, checkpoint_block_piece(&w->map, b, w->params, b->tensor), w->params);
    int64_t count = checkpoint_block_reals(&w->map, b);
    for (int64_t i = 0; i < count; i++) w->staged[i] = (float)from[i];
    w->sum[b->index] = hash_block(w->staged, sizeof *w->staged * (size_t)count, 0);
    int64_t place =
        w->place[b->part * w->map.tensor_count + b->tensor] + b->first_row * t->row_reals * (int64_t)sizeof(float);
    return write_at(w, place, w->staged, count * (int64_t)sizeof(float));
}

/* This rank's blocks, and after each run of them its checksums. */
static enum status write_share(struct writer *w, int rank)
{
    enum status st = ST_OK;
    for (int64_t b = 0, end; b < w->map.block_count; b = end) {
        for (end = b; end < w->map.block_count && w->owner[end] == rank; end++)
            TRY(write_block(w, &w->map.blocks[end]));
        if (end > b) TRY(write_at(w, w->checksum_place + b * 8, w->sum + b, (end - b) * 8));
        else end = b + 1;
    }
done:
    return st;
}

/* ---- making it final ---- */

static enum status sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int failed = fd < 0 || fsync(fd) != 0;
    enum status st =
        failed && errno != EINVAL ? fail(ST_OUTPUT, "%s: cannot be put on disk: %s", path, strerror(errno)) : ST_OK;
    if (fd >= 0) close(fd);
    return st;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? text_format("%.*s", (int)(slash - path + 1), path) : text_copy(".");
}

static enum status rename_synced(const char *from, const char *to)
{
    enum status st = ST_OK;
    char *folder = folder_of(to);
    TRY(sync_path(from));
    if (rename(from, to) != 0) TRY(fail(ST_OUTPUT, "%s: cannot be renamed to %s: %s", from, to, strerror(errno)));
    TRY(sync_path(folder));
done:
    free(folder);
    return st;
}

/* Remove all but the `keep` newest checkpoint-<step>.h5 beside `path`. Failing to remove harms nothing. */
static void remove_old(const char *path, int64_t keep)
{
    char *folder = folder_of(path);
    int64_t *steps = NULL, count = 0;
    if (checkpoint_name_step(path) < 0 || checkpoint_list_steps(folder, &steps, &count) != ST_OK) count = 0;
    for (int64_t i = keep; i < count; i++) {
        char *old = text_format("%s/checkpoint-%lld.h5", folder, (long long)steps[i]);
        unlink(old);
        free(old);
    }
    free(steps);
    free(folder);
}

/* ---- the whole ---- */

static enum status writer_allocate(struct writer *w, const struct param_table *params, const char *path)
{
    enum status st = ST_OK;
    w->partial = text_format("%s.partial", path);
    TRY(checkpoint_map_of(params, &w->map));
    int64_t largest = 1, datasets = w->map.parts * w->map.tensor_count;
    for (int64_t b = 0; b < w->map.block_count; b++) {
        int64_t reals = checkpoint_block_reals(&w->map, &w->map.blocks[b]);
        if (reals > largest) largest = reals;
    }
    TRY(NEW_ARRAY(w->staged, largest));
    TRY(NEW_ARRAY(w->sum, w->map.block_count));
    TRY(NEW_ARRAY(w->place, datasets));
    TRY(NEW_ARRAY(w->owner, w->map.block_count));
done:
    return st;
}

/* The owner of a piece writes it; a copy is written by another stage. */
static void find_owners(struct writer *w)
{
    for (int64_t b = 0; b < w->map.block_count; b++) {
        const struct checkpoint_block *block = &w->map.blocks[b];
        const struct piece *piece = checkpoint_block_piece(&w->map, block, w->params, block->tensor);
        w->owner[b] = w->params->rows[block->tensor].copy ? -1 : piece->owner;
    }
}

static void writer_free(struct writer *w)
{
    if (w->fd >= 0) close(w->fd);
    free(w->partial);
    free(w->staged);
    free(w->sum);
    free(w->place);
    free(w->owner);
    checkpoint_map_free(&w->map);
}

/* All ranks' bytes are on disk. */
static enum status close_file(struct comm *comm, struct writer *w)
{
    enum status shared = file_close(comm, &w->shared), st = ST_OK;
    if (fsync(w->fd) != 0) st = fail(ST_OUTPUT, "%s: cannot be put on disk: %s", w->partial, strerror(errno));
    if (close(w->fd) != 0 && st == ST_OK) st = fail(ST_OUTPUT, "%s: closing failed: %s", w->partial, strerror(errno));
    w->fd = -1;
    st = comm_agree(comm, st);
    return shared != ST_OK ? shared : st;
}

/* Plain calls suffice, and are quicker, when one host holds all ranks. */
static bool uses_posix(const struct comm *comm, const char *driver)
{
    return strcmp(driver, "posix") == 0 || (strcmp(driver, "auto") == 0 && comm->node_size == comm->size);
}

enum status checkpoint_write(struct mesh *mesh, const char *path, const struct param_table *params,
                             const struct config *config, const struct vocab *vocab, const char *model_name,
                             const struct train_state *state)
{
    struct comm *comm = &mesh->world;
    const char *driver = config_text(config, "run.io");
    struct writer w = {
        .params = params, .fd = -1, .shared = {.handle = MPI_FILE_NULL}, .posix = uses_posix(comm, driver)};
    struct contents c = {.model_name = model_name,
                         .config_text = config_yaml(config, "data model train run.cells"),
                         .vocab = vocab,
                         .state = state};
    signal(SIGXFSZ, SIG_IGN); /* a file size limit must be an error here, not a signal */
    enum status st = writer_allocate(&w, params, path);
    if (st == ST_OK) find_owners(&w);
    TRY(comm_agree(comm, st));
    TRY(open_laid_out(comm, &w, &c, driver));
    st =
        comm_agree(comm, write_share(&w, params->shard.rank)); /* a failed rank still closes the file with the others */
    enum status closed = close_file(comm, &w);
    if (st == ST_OK) st = closed;
    if (st != ST_OK) goto done;
    TRY(comm_agree(comm, comm->rank == 0 ? rename_synced(w.partial, path) : ST_OK));
    if (comm->rank == 0) remove_old(path, config_int(config, "train.keep"));
done:
    if (st != ST_OK && comm->rank == 0 && w.partial) unlink(w.partial);
    free(c.config_text);
    writer_free(&w);
    return st;
}
