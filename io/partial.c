#include "io/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/progress.h"
#include "base/text.h"

/* ---- what lies at the final name ---- */

static enum status refuse_any(const char *path)
{
    char *work = text_format("%s.partial", path);
    bool exists = access(path, F_OK) == 0, unfinished = access(work, F_OK) == 0;
    enum status st = ST_OK;
    if (exists || unfinished)
        st = fail(ST_OUTPUT, "%s: already there; remove it or leave out --fresh", exists ? path : work);
    free(work);
    return st;
}

static enum status compare_final(const char *path, const char *key, const char *what, partial_read_key read_key,
                                 bool *complete)
{
    char *found = NULL;
    if (access(path, F_OK) != 0) return ST_OK;
    *complete = read_key(path, &found) == ST_OK && strcmp(found, key) == 0;
    status_clear(); /* a file that cannot be read is one of another kind */
    free(found);
    if (*complete) return ST_OK;
    return fail(ST_OUTPUT, "%s: exists and is not %s; choose another --out or remove it", path, what);
}

enum status partial_find_final(struct comm *comm, const char *path, const char key[SHA256_HEX], const char *what,
                               bool fresh, partial_read_key read_key, bool *complete)
{
    enum status st = ST_OK;
    *complete = false;
    if (comm->rank == 0) st = fresh ? refuse_any(path) : compare_final(path, key, what, read_key, complete);
    st = comm_agree(comm, st);
    comm_bcast(comm, complete, sizeof *complete, 0);
    return st;
}

/* ---- open ---- */

/* Lay out under a name of this process, then let it appear: of several jobs one wins. */
static enum status lay_out_once(struct partial *p, partial_lay_out lay_out, void *context)
{
    enum status st = ST_OK;
    bool mine;
    char host[64] = "host";
    if (access(p->work, F_OK) == 0) return ST_OK;
    gethostname(host, sizeof host - 1);
    char *temporary = text_format("%s.%s.%d", p->work, host, (int)getpid());
    TRY(lay_out(temporary, context));
    TRY(ledger_publish(temporary, p->work, &mine));
done:
    if (st != ST_OK) unlink(temporary);
    free(temporary);
    return st;
}

/* Refuse another job's work before touching it. A ledger that outlived its file does no harm: what
 * it calls done is verified. */
static enum status check_ledger(const struct partial *p, const char key[SHA256_HEX])
{
    struct ledger *ledger = NULL;
    if (access(p->ledger_path, F_OK) != 0) return ST_OK;
    enum status st = ledger_open(p->ledger_path, p->chunks, key, &ledger);
    ledger_close(&ledger);
    return st;
}

static enum status open_work(struct partial *p)
{
    if (p->fd >= 0) close(p->fd);
    p->fd = open(p->work, O_RDWR | O_CLOEXEC);
    return p->fd < 0 ? fail(ST_OUTPUT, "%s: cannot be opened for writing: %s", p->work, strerror(errno)) : ST_OK;
}

static enum status open_files(struct partial *p, const char key[SHA256_HEX])
{
    enum status st = open_work(p);
    p->synced_s = clock_s();
    return st == ST_OK ? ledger_open(p->ledger_path, p->chunks, key, &p->ledger) : st;
}

enum status partial_open(struct comm *comm, const char *path, int64_t chunks, const char key[SHA256_HEX],
                         partial_lay_out lay_out, void *context, struct partial *p)
{
    enum status st = ST_OK;
    *p = (struct partial){.path = text_copy(path),
                          .work = text_format("%s.partial", path),
                          .chunks = chunks,
                          .fd = -1,
                          .ledger_path = text_format("%s.partial.ledger", path)};
    if (comm->rank == 0) {
        st = check_ledger(p, key);
        if (st == ST_OK) st = lay_out_once(p, lay_out, context);
    }
    TRY(comm_agree(comm, st));
    TRY(comm_agree(comm, open_files(p, key)));
done:
    if (st != ST_OK) partial_close(p);
    return st;
}

enum status partial_open_final(const char *path, struct partial *p)
{
    *p = (struct partial){.path = text_copy(path), .work = text_copy(path), .fd = open(path, O_RDONLY | O_CLOEXEC)};
    return p->fd < 0 ? fail(ST_INPUT, "%s: cannot be opened: %s", path, strerror(errno)) : ST_OK;
}

void partial_close(struct partial *p)
{
    if (!p->path) return;
    if (p->fd >= 0) close(p->fd);
    ledger_close(&p->ledger);
    free(p->path);
    free(p->work);
    free(p->ledger_path);
    *p = (struct partial){0};
}

/* ---- chunks ---- */

enum status partial_verify(struct comm *comm, struct partial *p, partial_matches matches, void *context)
{
    enum status st = ST_OK;
    for (int64_t c = comm->rank; c < p->chunks && st == ST_OK; c += comm->size) {
        bool good = true;
        if (!ledger_is_done(p->ledger, c)) continue;
        st = matches(context, c, ledger_hash(p->ledger, c), &good);
        if (st == ST_OK && !good) st = ledger_unmark(p->ledger, c);
    }
    TRY(comm_agree(comm, st));
    TRY(comm_agree(comm, ledger_refresh(p->ledger))); /* see what the others took back */
done:
    return st;
}

enum status partial_queue(struct comm *comm, struct partial *p, struct queue **out)
{
    enum status st = ST_OK;
    int64_t *chunks = NULL, count = 0;
    int job, jobs;
    queue_array_place(&job, &jobs);
    st = NEW_ARRAY(chunks, p->chunks);
    for (int64_t c = 0; st == ST_OK && c < p->chunks; c++)
        if (!ledger_is_done(p->ledger, c)) chunks[count++] = c;
    if (st == ST_OK) st = queue_order_for_array(chunks, count, job, jobs);
    TRY(comm_agree(comm, st));
    /* the ledger may have grown between two ranks' looks: rank 0's list is everybody's */
    comm_bcast(comm, &count, sizeof count, 0);
    comm_bcast(comm, chunks, count * (int64_t)sizeof *chunks, 0);
    if (count < p->chunks)
        comm_note(comm, "%s: resuming, %ld of %ld chunks are done", p->work, (long)(p->chunks - count),
                  (long)p->chunks);
    TRY(queue_open(comm, chunks, count, out));
done:
    free(chunks);
    return st;
}

enum status partial_look(struct partial *p, int64_t chunk, bool *done) { return ledger_look(p->ledger, chunk, done); }

enum status partial_progress(struct partial *p, int64_t *done)
{
    enum status st = ledger_refresh(p->ledger);
    *done = ledger_done_count(p->ledger);
    return st;
}

static enum status sync_files(struct partial *p)
{
    p->synced_s = clock_s();
    if (fdatasync(p->fd) != 0) return fail(ST_OUTPUT, "%s: flush to disk failed: %s", p->work, strerror(errno));
    return ledger_sync(p->ledger);
}

enum status partial_mark(struct partial *p, int64_t chunk, uint64_t hash)
{
    enum { SYNC_S = 5 };
    enum status st = ledger_mark(p->ledger, chunk, hash);
    return st == ST_OK && clock_s() - p->synced_s > SYNC_S ? sync_files(p) : st;
}

enum status partial_settle(struct comm *comm, struct partial *p)
{
    enum status st = ST_OK;
    int64_t done = 0;
    TRY(comm_agree(comm, sync_files(p)));
    if (access(p->work, F_OK) == 0) st = open_work(p); /* else another job has renamed it: what is open stays good */
    if (st == ST_OK) st = partial_progress(p, &done);
    if (st == ST_OK && done < p->chunks) st = ST_REQUEUE;
    st = comm_agree(comm, st);
done:
    return st;
}

/* ---- commit ---- */

static enum status check_complete(struct partial *p)
{
    int64_t done = 0;
    enum status st = partial_progress(p, &done);
    if (st == ST_OK && done != p->chunks)
        st = fail(ST_INTERNAL, "%s: %ld of %ld chunks are done at the commit", p->work, (long)done, (long)p->chunks);
    return st == ST_OK ? sync_files(p) : st;
}

/* Another job of the array may have renamed it already: the same bytes. */
static enum status rename_to_final(const struct partial *p)
{
    if (rename(p->work, p->path) != 0 && !(errno == ENOENT && access(p->path, F_OK) == 0))
        return fail(ST_OUTPUT, "%s: cannot be renamed to %s: %s", p->work, p->path, strerror(errno));
    unlink(p->ledger_path);
    return ST_OK;
}

enum status partial_commit(struct comm *comm, struct partial *p)
{
    enum status st = ST_OK;
    TRY(comm_agree(comm, check_complete(p)));
    TRY(comm_agree(comm, comm->rank == 0 ? rename_to_final(p) : ST_OK));
done:
    partial_close(p);
    return st;
}

enum status partial_discard(struct comm *comm, struct partial *p)
{
    comm_barrier(comm); /* nobody reads it any more */
    if (comm->rank == 0) {
        unlink(p->work);
        unlink(p->ledger_path);
    }
    partial_close(p);
    return comm_agree(comm, ST_OK);
}
