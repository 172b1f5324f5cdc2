#include "mpi/neighbours.h"

#include <stdlib.h>
#include <string.h>

#include "base/stop.h"

enum { BLOCK_BYTES = 32 << 20 };

/* Offer the run of rank `owner`, one block at a time. ST_REQUEUE: asked to stop. */
static enum status offer_run(struct comm *comm, struct knn *s, const struct spread_rows *queries,
                             const struct spread_rows *references, int64_t self_first, int owner, float *block)
{
    enum status st = ST_OK;
    int64_t run[2] = {references->first, references->count};
    comm_bcast(comm, run, sizeof run, owner);
    int64_t row_bytes = (int64_t)sizeof(float) * references->width;
    int64_t step = BLOCK_BYTES / row_bytes > 0 ? BLOCK_BYTES / row_bytes : 1;
    for (int64_t at = 0; at < run[1]; at += step) {
        int64_t rows = run[1] - at < step ? run[1] - at : step;
        TRY(comm_agree(comm, stop_asked() ? ST_REQUEUE : ST_OK));
        if (owner == comm->rank) memcpy(block, references->values + at * references->width, (size_t)(rows * row_bytes));
        comm_bcast(comm, block, rows * row_bytes, owner);
        knn_add(s, queries->values, self_first, block, rows, run[0] + at, references->width);
    }
done:
    return st;
}

enum status neighbours_find(struct comm *comm, const struct spread_rows *queries, const struct spread_rows *references,
                            bool same, int k, struct knn **out)
{
    enum status st = ST_OK;
    struct knn *s = NULL;
    float *block = NULL;
    st = knn_create(queries->count, k, &s);
    if (st == ST_OK)
        st = mem_alloc((void **)&block, BLOCK_BYTES + (size_t)references->width * sizeof *block, 1,
                       "a block of neighbours");
    TRY(comm_agree(comm, st));
    for (int owner = 0; owner < comm->size; owner++)
        TRY(offer_run(comm, s, queries, references, same ? queries->first : -1, owner, block));
    knn_finish(s);
    *out = s;
    s = NULL;
done:
    free(block);
    knn_destroy(&s);
    return st;
}
