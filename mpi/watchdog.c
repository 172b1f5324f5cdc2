#include "mpi/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/progress.h"
#include "mpi/comm.h"

/* What a rank is in; written by that rank alone. */
struct note {
    uint32_t turn; /* counts what the main thread entered and left; odd while it writes the note */
    bool inside;
    int rank;
    double since_s; /* clock_s() at which it entered or left */
    double beat_s;  /* last sign of its watchdog */
    int64_t step;   /* -1: none noted */
    char name[40];  /* the exchange, or the last one */
};

/* One for all ranks of a host. */
struct board {
    int speaker; /* node rank + 1 of the one that tells the lines of this hang, 0: nobody yet */
    struct note notes[];
};

static struct note unwatched; /* where notes go without a watchdog */
static struct note *mine = &unwatched;
static int depth; /* of nested exchanges */

static struct {
    struct board *board;
    size_t board_bytes;
    int ranks, node_ranks, node_rank; /* of the job; of the board; this one on it */
    char host[64];
    const char *program;
    double limit_s, look_s; /* time between two looks */
    pthread_t thread;
    bool running, ending; /* under `lock` */
    pthread_mutex_t lock;
    pthread_cond_t wake;
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- notes of the main thread ---- */

static void write_note(const char *name, bool inside)
{
    uint32_t turn = mine->turn;
    __atomic_store_n(&mine->turn, turn + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    mine->inside = inside;
    mine->since_s = clock_s();
    if (name) memccpy(mine->name, name, 0, sizeof mine->name - 1); /* the last byte stays 0 */
    __atomic_store_n(&mine->turn, turn + 2, __ATOMIC_RELEASE);
}

void watchdog_enter(const char *name)
{
    if (depth++ == 0) write_note(name, true);
}

void watchdog_leave(void)
{
    if (--depth == 0) write_note(NULL, false);
}

void watchdog_step(int64_t step) { __atomic_store_n(&mine->step, step, __ATOMIC_RELAXED); }

/* A note as it was at one moment; one that is never whole (its process died while writing) as it is. */
static struct note read_note(const struct note *from)
{
    struct note copy = {0};
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t before = __atomic_load_n(&from->turn, __ATOMIC_ACQUIRE);
        copy = *from;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (before % 2 == 0 && before == __atomic_load_n(&from->turn, __ATOMIC_RELAXED)) break;
    }
    copy.name[sizeof copy.name - 1] = '\0';
    return copy;
}

/* ---- lines: with write(2), because the main thread may hang in stdio with its lock held ---- */

__attribute__((format(printf, 2, 3))) static void tell(int rank, const char *format, ...)
{
    char line[400];
    int n = snprintf(line, sizeof line, "%s: watchdog: rank %d of %d on %s: ", dog.program, rank, dog.ranks, dog.host);
    va_list args;
    va_start(args, format);
    n += vsnprintf(line + n, sizeof line - 1 - (size_t)n, format, args);
    va_end(args);
    if (n > (int)sizeof line - 2) n = (int)sizeof line - 2;
    line[n] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n + 1) < 0) return; /* nobody to tell */
}

static void tell_note(const struct note *n)
{
    char step[40] = "";
    double now = clock_s();
    bool still = now - n->beat_s > 5 * dog.look_s;
    if (n->step >= 0) snprintf(step, sizeof step, ", step %lld", (long long)n->step);
    if (n->inside)
        tell(n->rank, "in %s for %.0f s%s%s", n->name, now - n->since_s, step, still ? "; the process is stopped" : "");
    else
        tell(n->rank, "in no exchange since %.0f s, last: %s%s%s", now - n->since_s, *n->name ? n->name : "none", step,
             still ? "; the process is stopped" : "; others may wait for it");
}

/* One rank of a host speaks for all of them. */
static void tell_board(double waited_s)
{
    int nobody = 0;
    if (!__atomic_compare_exchange_n(&dog.board->speaker, &nobody, dog.node_rank + 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return;
    tell(mine->rank, "waiting for %.0f s (run.watchdog_s); the job ends after %.0f s", waited_s, 2 * dog.limit_s);
    for (int i = 0; i < dog.node_ranks; i++) {
        struct note n = read_note(&dog.board->notes[i]);
        tell_note(&n);
    }
}

/* ---- the thread ---- */

/* What it has seen of its own main thread. */
struct watch {
    uint32_t turn;
    double looked_s, cpu_s;
    double same_s, idle_s; /* time in the same exchange, or in none; thereof without using a processor, until now */
    bool told;
};

static double processor_s(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec;
}

/* A look that came late, because the job was suspended, counts as two. */
static void count_time(struct watch *w, const struct note *n)
{
    double now = clock_s(), cpu = processor_s(), passed = now - w->looked_s;
    if (passed > 2 * dog.look_s) passed = 2 * dog.look_s;
    bool same = n->turn == w->turn;
    w->same_s = same ? w->same_s + passed : 0;
    w->idle_s = same && cpu - w->cpu_s < 0.01 * passed ? w->idle_s + passed : 0;
    if (!same) {
        int me = dog.node_rank + 1;
        w->told = false;
        __atomic_compare_exchange_n(&dog.board->speaker, &me, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    w->turn = n->turn;
    w->looked_s = now;
    w->cpu_s = cpu;
}

static void look(struct watch *w)
{
    struct note n = read_note(mine);
    double now = clock_s();
    __atomic_store(&mine->beat_s, &now, __ATOMIC_RELAXED);
    count_time(w, &n);
    if (n.inside && w->same_s > 2 * dog.limit_s) {
        tell(n.rank, "in %s for %.0f s: ended by the watchdog, exit %d; see its lines above", n.name, w->same_s,
             ST_COMM);
        _exit(ST_COMM);
    }
    if (w->told) return;
    if (n.inside && w->same_s > dog.limit_s) {
        tell_board(w->same_s);
        w->told = true;
    } else if (!n.inside && w->idle_s > dog.limit_s) {
        tell(n.rank,
             "in no exchange since %.0f s, last: %s, and %.0f s without processor time: a file system that "
             "does not answer?",
             now - n.since_s, *n.name ? n.name : "none", w->idle_s);
        w->told = true;
    }
}

static void *watch_main(void *unused)
{
    struct watch w = {.looked_s = clock_s(), .cpu_s = processor_s()};
    pthread_mutex_lock(&dog.lock);
    while (!dog.ending) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        double at = (double)until.tv_sec + 1e-9 * (double)until.tv_nsec + dog.look_s;
        until = (struct timespec){(time_t)at, (long)((at - (double)(time_t)at) * 1e9)};
        pthread_cond_timedwait(&dog.wake, &dog.lock, &until);
        if (!dog.ending) look(&w);
    }
    pthread_mutex_unlock(&dog.lock);
    return NULL;
}

/* ---- start and end ---- */

/* An unlinked file under /dev/shm, or where temporary files go; -1 without. */
static int open_board(struct comm *node, size_t bytes)
{
    const char *temporary = getenv("TMPDIR");
    char path[256];
    int fd = -1;
    if (node->rank == 0) {
        snprintf(path, sizeof path, "/dev/shm/cytomill-XXXXXX");
        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0) {
            snprintf(path, sizeof path, "%s/cytomill-XXXXXX", temporary ? temporary : "/tmp");
            fd = mkostemp(path, O_CLOEXEC);
        }
        if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) path[0] = '\0';
    }
    comm_bcast(node, path, sizeof path, 0);
    if (node->rank != 0 && path[0]) fd = open(path, O_RDWR | O_CLOEXEC);
    comm_barrier(node);
    if (node->rank == 0 && path[0]) unlink(path);
    return fd;
}

/* The board of this host; of this rank alone if not all can share one. Collective. */
static enum status map_board(struct comm *world)
{
    struct comm node = {0};
    enum status st = ST_OK;
    TRY(comm_split_host(world, &node));
    dog.node_ranks = node.size;
    dog.node_rank = node.rank;
    dog.board_bytes = sizeof *dog.board + sizeof *dog.board->notes * (size_t)node.size;
    int fd = open_board(&node, dog.board_bytes);
    void *board = fd < 0 ? MAP_FAILED : mmap(NULL, dog.board_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    int64_t alone = board == MAP_FAILED;
    comm_max_i64(&node, &alone, 1);
    comm_free(&node);
    if (alone) {
        if (board != MAP_FAILED) munmap(board, dog.board_bytes);
        dog.node_ranks = 1;
        dog.node_rank = 0;
        board = mmap(NULL, dog.board_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (board == MAP_FAILED) TRY(fail(ST_MEMORY, "no memory for the watchdog's notes: %s", strerror(errno)));
    dog.board = board;
done:
    return st;
}

/* Signals stay the main thread's (base/stop.h). */
static enum status start_thread(void)
{
    sigset_t all, before;
    pthread_condattr_t monotonic;
    sigfillset(&all);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&dog.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&dog.thread, NULL, watch_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    dog.running = code == 0;
    return code == 0 ? ST_OK
                     : fail(ST_MEMORY, "the watchdog's thread cannot start: %s; see ulimit -u, or set run.watchdog_s 0",
                            strerror(code));
}

enum status watchdog_start(struct comm *world, const char *program, double limit_s)
{
    enum status st = ST_OK;
    if (limit_s <= 0) return ST_OK;
    dog.program = program;
    dog.ranks = world->size;
    dog.limit_s = limit_s;
    dog.look_s = limit_s < 100 ? limit_s / 20 : 5;
    memcpy(dog.host, world->host, sizeof dog.host);
    TRY(comm_agree(world, map_board(world)));
    mine = &dog.board->notes[dog.node_rank];
    *mine = (struct note){.rank = world->rank, .step = -1, .since_s = clock_s(), .beat_s = clock_s()};
    comm_barrier(world); /* every note is there before anybody reads it */
    TRY(comm_agree(world, start_thread()));
done:
    if (st != ST_OK) watchdog_stop();
    return st;
}

void watchdog_stop(void)
{
    if (dog.running) {
        pthread_mutex_lock(&dog.lock);
        dog.ending = true;
        pthread_cond_signal(&dog.wake);
        pthread_mutex_unlock(&dog.lock);
        pthread_join(dog.thread, NULL);
        pthread_cond_destroy(&dog.wake);
    }
    mine = &unwatched;
    if (dog.board) munmap(dog.board, dog.board_bytes);
    dog.board = NULL;
    dog.running = dog.ending = false;
}
