#include "io/chunk_loop.h"

#include "base/progress.h"
#include "base/stop.h"
#include "kernel/product.h"

static void tell(const struct chunk_loop *loop, struct progress *p, int64_t done)
{
    struct metric rate = {loop->rate, (double)(done - p->first) * loop->items_per_chunk / (clock_s() - p->start_s)};
    progress_update(p, done, &rate, 1);
}

/* Rank 0 reads from the ledger what all ranks and jobs have done, about once a second. */
static enum status show_progress(const struct chunk_loop *loop, struct partial *partial, struct progress *p,
                                 double *shown_s)
{
    int64_t done;
    double now = clock_s();
    if (!p->speak || now - *shown_s < 1) return ST_OK;
    *shown_s = now;
    enum status st = partial_progress(partial, &done);
    if (st == ST_OK) tell(loop, p, done);
    return st;
}

static void answer_others(void *queue) { queue_poll(queue); }

static enum status work_through(const struct chunk_loop *loop, struct partial *partial, struct queue *queue,
                                struct progress *p)
{
    enum status st = ST_OK;
    int64_t chunk;
    bool done;
    double shown_s = 0;
    while (st == ST_OK && queue_next(queue, &chunk)) {
        st = partial_look(partial, chunk, &done); /* another job of the array may have done it */
        if (st == ST_OK && !done) st = loop->work(loop->context, chunk);
        if (st == ST_OK) st = show_progress(loop, partial, p, &shown_s);
        if (st != ST_OK || stop_asked()) queue_stop(queue);
    }
    return st;
}

enum status chunk_loop_run(struct comm *comm, struct partial *partial, const struct chunk_loop *loop)
{
    enum status st = ST_OK;
    struct queue *queue = NULL;
    int64_t before = 0;
    TRY(comm_agree(comm, partial_progress(partial, &before)));
    TRY(partial_queue(comm, partial, &queue));
    struct progress p = progress_start(loop->what, "chunk", partial->chunks, before, comm->rank == 0);
    product_set_poll(answer_others, queue);
    st = work_through(loop, partial, queue, &p);
    product_set_poll(NULL, NULL);
    queue_close(comm, &queue);
    TRY(comm_agree(comm, st));
    st = partial_settle(comm, partial);
    if (st == ST_OK) tell(loop, &p, p.total);
    progress_finish(&p);
done:
    return st;
}
