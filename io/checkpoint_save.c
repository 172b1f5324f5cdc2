/* Writing a checkpoint while training goes on: a thread of each rank copies and hashes the rank's blocks, lets the
 * training change them, and then writes the copy to its places. It calls neither MPI nor HDF5. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/text.h"
#include "io/checkpoint_writer.h"
#include "io/coherence.h"
#include "io/place.h"
#include "mpi/placement.h"

/* A block of this rank: where it lies in the copy and in the file. */
struct chunk {
    int64_t block, place, bytes;
    float *at;
};

enum stage { IDLE, COPYING, WRITING, WRITTEN };

struct checkpoint_saver {
    struct arena copy; /* for all chunks; empty where checkpoints are written at once */
    struct chunk *chunks;
    int64_t chunk_count;
    struct checkpoint_writer writer;
    bool reserves; /* this rank makes sure of the space */
    bool unsure;   /* hosts have not yet been seen to share the file system */
    bool joinable;
    pthread_t thread;
    pthread_mutex_t lock; /* of `stage` */
    pthread_cond_t moved;
    enum stage stage;
    int error; /* number of what went wrong in the thread, while doing: */
    const char *doing;
    double stall_s, thread_s;
};

/* ---- memory ---- */

/* A block begins within a page of the copy where it does in the file, so that whole pages go straight to the disk. */
static enum status count_chunks(const struct mesh *mesh, const struct param_table *params, int64_t *count,
                                int64_t *bytes)
{
    enum status st = ST_OK;
    struct shard shard;
    *count = *bytes = 0;
    TRY(shard_cut(params, mesh->dense.rank, mesh->dense.size, mesh->expert.size, &shard));
    for (int64_t i = 0; i < shard.count; i++) {
        const struct piece *piece = &shard.piece[i];
        if (!shard_owns(&shard, piece) || params->rows[piece->tensor].copy) continue;
        *count += PART_COUNT;
        *bytes += PART_COUNT * (piece->reals * (int64_t)sizeof(float) + PLACE_PAGE);
    }
    *bytes += PLACE_PAGE;
    shard_free(&shard);
done:
    return st;
}

static bool goes_beside(const struct config *config)
{
    return config_bool(config, "train.checkpoint_async") && checkpoint_may_use_posix(config);
}

enum status checkpoint_saver_bytes(const struct mesh *mesh, const struct param_table *params,
                                   const struct config *config, int64_t *bytes)
{
    int64_t count;
    *bytes = 0;
    return goes_beside(config) ? count_chunks(mesh, params, &count, bytes) : ST_OK;
}

/* All ranks write beside the training, or none. */
static enum status take_memory(struct comm *world, struct checkpoint_saver *s, int64_t bytes)
{
    enum status st = arena_create(&s->copy, (size_t)bytes);
    if (st == ST_OK) st = NEW_ARRAY(s->chunks, s->chunk_count);
    int64_t lacks = st != ST_OK;
    comm_max_i64(world, &lacks, 1);
    if (!lacks) return ST_OK;
    status_clear();
    arena_destroy(&s->copy);
    char size[32];
    comm_note(world, "no memory for a copy of %s: training waits while a checkpoint is written",
              text_bytes((double)bytes, size));
    return ST_OK;
}

enum status checkpoint_saver_create(struct mesh *mesh, const struct param_table *params, const struct config *config,
                                    struct checkpoint_saver **out)
{
    enum status st = NEW_ARRAY(*out, 1);
    int64_t bytes = 0;
    if (st == ST_OK && goes_beside(config)) st = count_chunks(mesh, params, &(*out)->chunk_count, &bytes);
    TRY(comm_agree(&mesh->world, st));
    struct checkpoint_saver *s = *out;
    s->writer.fd = -1;
    s->reserves = mesh->world.rank == 0;
    s->unsure = !checkpoint_uses_posix(&mesh->world, config);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    if (bytes > 0) TRY(take_memory(&mesh->world, s, bytes));
    else if (config_bool(config, "train.checkpoint_async"))
        comm_note(&mesh->world, "run.io %s: training waits while a checkpoint is written; with posix it would not",
                  config_text(config, "run.io"));
done:
    return st;
}

static void join(struct checkpoint_saver *s)
{
    if (s->joinable) pthread_join(s->thread, NULL);
    s->joinable = false;
}

void checkpoint_saver_destroy(struct checkpoint_saver **saver)
{
    struct checkpoint_saver *s = *saver;
    if (!s) return;
    join(s);
    checkpoint_writer_free(&s->writer);
    arena_destroy(&s->copy);
    free(s->chunks);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    free(s);
    *saver = NULL;
}

/* ---- the thread ---- */

static void move_to(struct checkpoint_saver *s, enum stage stage)
{
    pthread_mutex_lock(&s->lock);
    s->stage = stage;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
}

static void copy_chunks(struct checkpoint_saver *s)
{
    _Static_assert(sizeof(real) == sizeof(float), "values lie in the file as in memory");
    struct checkpoint_writer *w = &s->writer;
    for (int64_t i = 0; i < s->chunk_count; i++) {
        const struct chunk *p = &s->chunks[i];
        const struct checkpoint_block *block = &w->map.blocks[p->block];
        w->sum[block->index] = hash_copy(p->at, checkpoint_writer_values(w, block), (size_t)p->bytes, 0);
    }
}

static int write_chunks(struct checkpoint_saver *s, int direct)
{
    struct checkpoint_writer *w = &s->writer;
    int error = 0;
    for (int64_t i = 0, end; i < s->chunk_count && !error; i = end) { /* those side by side at once */
        const struct chunk *p = &s->chunks[i];
        int64_t bytes = 0;
        for (end = i; end < s->chunk_count && s->chunks[end].place == p->place + bytes; end++)
            bytes += s->chunks[end].bytes;
        error = place_put(w->fd, direct, p->place, p->at, bytes);
    }
    for (int64_t first, last = 0; !error && checkpoint_writer_next(w, &first, &last);)
        error = place_put(w->fd, -1, w->checksum_place + first * 8, w->sum + first, (last - first) * 8);
    return error;
}

static void write_copy(struct checkpoint_saver *s)
{
    struct checkpoint_writer *w = &s->writer;
    s->doing = "making room";
    if (s->reserves && (s->error = place_try_reserve(w->fd, w->file_bytes)) != 0) return;
    s->doing = "writing";
    int direct = open(w->partial, O_WRONLY | O_DIRECT | O_CLOEXEC); /* -1 where there is no such thing */
    s->error = write_chunks(s, direct);
    if (direct >= 0) close(direct);
    if (s->error) return;
    s->doing = "putting it on disk";
    if (fsync(w->fd) != 0) s->error = errno;
}

/* Processor time of this thread so far. */
static double processor_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *save(void *saver)
{
    struct checkpoint_saver *s = saver;
    double began = processor_s();
    copy_chunks(s);
    move_to(s, WRITING);
    write_copy(s);
    s->thread_s = processor_s() - began;
    move_to(s, WRITTEN);
    return NULL;
}

/* Without a thread it is done here. */
static void start(struct checkpoint_saver *s)
{
    s->stage = COPYING;
    s->error = 0;
    s->joinable = placement_start_thread(&s->thread, save, s);
    if (!s->joinable) save(s);
}

/* ---- for the training loop ---- */

static void place_chunks(struct checkpoint_saver *s)
{
    const struct checkpoint_writer *w = &s->writer;
    uintptr_t at = (uintptr_t)s->copy.base;
    int64_t i = 0;
    for (int64_t b = 0; b < w->map.block_count; b++) {
        if (!w->own[b]) continue;
        const struct checkpoint_block *block = &w->map.blocks[b];
        int64_t place = checkpoint_writer_place(w, block), bytes = 4 * checkpoint_block_reals(&w->map, block);
        at += ((uintptr_t)place - at) % PLACE_PAGE;
        s->chunks[i++] = (struct chunk){b, place, bytes, (float *)at};
        at += (uintptr_t)bytes;
    }
}

/* Before the first file: where hosts do not see each other's writes as they should, files are written at once. */
static enum status make_sure(struct comm *world, struct checkpoint_saver *s, const char *path)
{
    enum status st = ST_OK;
    bool coherent = true;
    char *probe = text_format("%s" CHECKPOINT_PROBE, path);
    TRY(coherence_probe(world, probe, &coherent));
    s->unsure = false;
    if (coherent) goto done;
    arena_destroy(&s->copy);
    comm_note(world,
              "%s: hosts do not see there what others write beside them: training waits while a checkpoint is "
              "written, through MPI-IO",
              path);
done:
    free(probe);
    return st;
}

enum status checkpoint_begin(struct mesh *mesh, struct checkpoint_saver *s, const char *path,
                             const struct param_table *params, const struct config *config, const struct vocab *vocab,
                             const char *model_name, const struct train_state *state)
{
    struct checkpoint_contents contents = {config, vocab, model_name, state};
    enum status st = ST_OK;
    double began = comm_now_s();
    s->stall_s = s->thread_s = 0;
    if (s->copy.base && s->unsure) TRY(make_sure(&mesh->world, s, path));
    if (!s->copy.base) TRY(checkpoint_write(mesh, path, params, config, vocab, model_name, state));
    else {
        TRY(checkpoint_writer_open(&mesh->world, &s->writer, path, params, &contents));
        place_chunks(s);
        start(s);
    }
done:
    s->stall_s += comm_now_s() - began;
    return st;
}

void checkpoint_hold(void *saver)
{
    struct checkpoint_saver *s = saver;
    double began = comm_now_s();
    pthread_mutex_lock(&s->lock);
    while (s->stage == COPYING) pthread_cond_wait(&s->moved, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (checkpoint_under_way(s)) s->stall_s += comm_now_s() - began;
}

bool checkpoint_poll(struct checkpoint_saver *s)
{
    pthread_mutex_lock(&s->lock);
    bool writes = s->stage == COPYING || s->stage == WRITING;
    pthread_mutex_unlock(&s->lock);
    return writes;
}

bool checkpoint_under_way(const struct checkpoint_saver *s) { return s->writer.path != NULL; }

double checkpoint_stall_s(const struct checkpoint_saver *s) { return s->stall_s; }

double checkpoint_thread_s(const struct checkpoint_saver *s) { return s->thread_s; }

enum status checkpoint_finish(struct mesh *mesh, struct checkpoint_saver *s)
{
    enum status st = ST_OK;
    if (!checkpoint_under_way(s)) return ST_OK;
    double began = comm_now_s();
    join(s);
    s->stage = IDLE;
    if (s->error)
        st = fail(ST_OUTPUT, "%s: %s failed: %s; free some space and run again", s->writer.partial, s->doing,
                  strerror(s->error));
    st = checkpoint_writer_commit(&mesh->world, &s->writer, comm_agree(&mesh->world, st));
    s->stall_s += comm_now_s() - began;
    return st;
}
