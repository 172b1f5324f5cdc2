/* A checkpoint file's beginning and end: which rank writes what, the layout, and what makes it final. */
#include "io/checkpoint_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "io/h5.h"
#include "io/place.h"
#include "mpi/placement.h"

/* ---- who writes what ---- */

/* The owner of a piece writes it; a copy is written by another stage. */
static void find_own(struct checkpoint_writer *w)
{
    for (int64_t b = 0; b < w->map.block_count; b++) {
        const struct checkpoint_block *block = &w->map.blocks[b];
        const struct piece *piece = checkpoint_block_piece(&w->map, block, w->params, block->tensor);
        w->own[b] = shard_owns(&w->params->shard, piece) && !w->params->rows[block->tensor].copy;
    }
}

const real *checkpoint_writer_values(const struct checkpoint_writer *w, const struct checkpoint_block *b)
{
    return checkpoint_block_values(b, checkpoint_block_piece(&w->map, b, w->params, b->tensor), w->params);
}

int64_t checkpoint_writer_place(const struct checkpoint_writer *w, const struct checkpoint_block *b)
{
    return w->place[b->part * w->map.tensor_count + b->tensor] +
           b->first_row * w->map.tensors[b->tensor].row_reals * (int64_t)sizeof(float);
}

bool checkpoint_writer_next(const struct checkpoint_writer *w, int64_t *first, int64_t *last)
{
    for (*first = *last; *first < w->map.block_count && !w->own[*first];) ++*first;
    for (*last = *first; *last < w->map.block_count && w->own[*last];) ++*last;
    return *last > *first;
}

/* Plain calls suffice, and are quicker, when one host holds all ranks. */
bool checkpoint_uses_posix(const struct comm *comm, const struct config *config)
{
    return config_word_is(config, "run.io", "posix") ||
           (config_word_is(config, "run.io", "auto") && comm->node_size == comm->size);
}

bool checkpoint_may_use_posix(const struct config *config)
{
    return config_word_is(config, "run.io", "posix") || config_word_is(config, "run.io", "auto");
}

/* ---- layout ---- */

static enum status write_history(hid_t state, const char *name, const struct history *h)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE;
    int64_t dims[] = {h->count, HISTORY_VALUES};
    TRY(h5_write(state, name, H5T_NATIVE_DOUBLE, 2, dims, h->point));
    dataset = H5Dopen2(state, name, H5P_DEFAULT);
    TRY(h5_attr_write_int(dataset, "offered", h->offered));
    TRY(h5_attr_write_int(dataset, "halvings", h->halvings));
done:
    h5_drop(&dataset);
    return st;
}

static enum status write_state(hid_t file, const struct checkpoint_contents *c, const char *config_text)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    const struct train_state *s = c->state;
    uint64_t check = checkpoint_small_check(config_text, c->vocab->text, c->vocab->text_bytes, c->model_name, s);
    TRY(h5_group_create(file, "state", &group));
    TRY(h5_attr_write_int(group, "step", s->step));
    TRY(h5_attr_write_int(group, "cells_seen", s->cells_seen));
    TRY(h5_attr_write_int(group, "global_batch", s->global_batch));
    TRY(h5_attr_write_int(group, "seed", (int64_t)s->seed));
    TRY(h5_attr_write_real(group, "best_loss", s->best_loss));
    TRY(h5_attr_write_text(group, "atlas_hash", s->atlas_hash));
    TRY(h5_attr_write_int(group, "guard_accepted", s->guard.accepted));
    TRY(h5_attr_write_int(group, "guard_skipped_in_a_row", s->guard.skipped_in_a_row));
    TRY(h5_attr_write_int(group, "guard_skipped", s->guard.skipped));
    TRY(h5_write(group, "guard_norm", H5T_NATIVE_DOUBLE, 1, &(int64_t){GUARD_NORMS}, s->guard.norm));
    TRY(write_history(group, "trained", &s->trained));
    TRY(write_history(group, "evaluated", &s->evaluated));
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
static enum status create_tensors(struct checkpoint_writer *w, hid_t file)
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

static enum status lay_out(struct checkpoint_writer *w, const struct checkpoint_contents *c)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    struct stat info;
    char *config_text = config_yaml(c->config, "data model train run.cells");
    int64_t bytes = (int64_t)c->vocab->text_bytes + (1 << 20); /* and what HDF5 adds */
    for (int64_t b = 0; b < w->map.block_count; b++) bytes += 4 * checkpoint_block_reals(&w->map, &w->map.blocks[b]);
    TRY(place_check_limit(w->partial, bytes));
    TRY(h5_create(w->partial, &file));
    TRY(h5_attr_write_text(file, "format", CHECKPOINT_FORMAT));
    TRY(h5_attr_write_int(file, "format_version", CHECKPOINT_VERSION));
    TRY(h5_attr_write_text(file, "model_name", c->model_name));
    TRY(h5_write_text(file, "config", config_text));
    TRY(write_vocabulary(file, c->vocab));
    TRY(write_state(file, c, config_text));
    TRY(create_tensors(w, file));
    TRY(h5_close(&file));
    if (stat(w->partial, &info) != 0) TRY(fail(ST_OUTPUT, "%s: vanished while being written", w->partial));
    w->file_bytes = info.st_size;
done:
    free(config_text);
    h5_drop(&file);
    return st;
}

/* ---- opening ---- */

static enum status writer_allocate(struct checkpoint_writer *w, const char *path)
{
    enum status st = ST_OK;
    w->path = text_copy(path);
    w->partial = text_format("%s.partial", path);
    TRY(checkpoint_map_of(w->params, &w->map));
    TRY(NEW_ARRAY(w->own, w->map.block_count));
    find_own(w);
    TRY(NEW_ARRAY(w->sum, w->map.block_count));
    TRY(NEW_ARRAY(w->place, w->map.parts * w->map.tensor_count));
done:
    return st;
}

static enum status open_partial(struct checkpoint_writer *w)
{
    /* Not for reading: a network file system then does not read the page around a piece, and write back more of it. */
    w->fd = open(w->partial, O_WRONLY | O_CLOEXEC);
    if (w->fd >= 0) return ST_OK;
    return fail(ST_OUTPUT, "%s: cannot be opened for writing: %s", w->partial, strerror(errno));
}

enum status checkpoint_writer_open(struct comm *world, struct checkpoint_writer *w, const char *path,
                                   const struct param_table *params, const struct checkpoint_contents *c)
{
    *w = (struct checkpoint_writer){.params = params, .fd = -1, .keep = config_int(c->config, "train.keep")};
    signal(SIGXFSZ, SIG_IGN); /* a file size limit must be an error here, not a signal */
    enum status st = writer_allocate(w, path);
    TRY(comm_agree(world, st));
    TRY(comm_agree(world, world->rank == 0 ? lay_out(w, c) : ST_OK));
    comm_bcast(world, w->place, (int64_t)sizeof *w->place * w->map.parts * w->map.tensor_count, 0);
    comm_bcast(world, &w->checksum_place, sizeof w->checksum_place, 0);
    TRY(comm_agree(world, open_partial(w)));
done:
    if (st != ST_OK && world->rank == 0 && w->partial) unlink(w->partial);
    if (st != ST_OK) checkpoint_writer_free(w);
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
    return slash ? text_format("%.*s", (int)(slash - path + 1), path) : text_copy("./");
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

static void *close_slowly(void *fd)
{
    close((int)(intptr_t)fd);
    return NULL;
}

/* Remove a file's name now, and let a thread give its space back: a gigabyte takes some file systems half a second. */
static void remove_file(const char *path)
{
    pthread_t thread;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    unlink(path);
    if (fd < 0) return;
    if (placement_start_thread(&thread, close_slowly, (void *)(intptr_t)fd)) pthread_detach(thread);
    else close(fd);
}

/* Remove the files of `folder` named checkpoint-<step>ENDING, but the `keep` newest. Failing to remove harms nothing. */
static void remove_but(const char *folder, const char *ending, int64_t keep)
{
    int64_t *steps = NULL, count = 0;
    if (checkpoint_list_steps(folder, ending, &steps, &count) != ST_OK) count = 0;
    for (int64_t i = keep; i < count; i++) {
        char *old = text_format("%scheckpoint-%lld%s", folder, (long long)steps[i], ending);
        remove_file(old);
        free(old);
    }
    free(steps);
}

/* In a run's folder: older checkpoints, and what killed runs left half-written. */
static void remove_old(const char *path, int64_t keep)
{
    char *folder = folder_of(path);
    if (checkpoint_name_step(path, CHECKPOINT_ENDING) >= 0) {
        remove_but(folder, CHECKPOINT_ENDING, keep);
        remove_but(folder, CHECKPOINT_ENDING ".partial", 0);
        remove_but(folder, CHECKPOINT_ENDING CHECKPOINT_PROBE, 0);
    }
    free(folder);
}

enum status checkpoint_writer_commit(struct comm *world, struct checkpoint_writer *w, enum status written)
{
    enum status st = ST_OK, closed = ST_OK;
    if (close(w->fd) != 0) closed = fail(ST_OUTPUT, "%s: closing failed: %s", w->partial, strerror(errno));
    w->fd = -1;
    TRY(written);
    TRY(comm_agree(world, closed));
    TRY(comm_agree(world, world->rank == 0 ? rename_synced(w->partial, w->path) : ST_OK));
    if (world->rank == 0) remove_old(w->path, w->keep);
done:
    if (st != ST_OK && world->rank == 0) unlink(w->partial);
    checkpoint_writer_free(w);
    return st;
}

void checkpoint_writer_free(struct checkpoint_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    free(w->path);
    free(w->partial);
    free(w->sum);
    free(w->place);
    free(w->own);
    checkpoint_map_free(&w->map);
    *w = (struct checkpoint_writer){.fd = -1};
}
