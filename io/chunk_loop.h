/* The loop every long output runs: take chunks from the queue, do them, show progress, stop when asked.
 *
 *     struct chunk_loop loop = {.what = "embed", .rate = "cells_per_s", .items_per_chunk = 256, .work = do_chunk,
 *                               .context = e};
 *     TRY(chunk_loop_run(comm, embedding_partial(e), &loop)); */
#ifndef CYTOMILL_IO_CHUNK_LOOP_H
#define CYTOMILL_IO_CHUNK_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "io/partial.h"

struct chunk_loop {
    const char *what;                                  /* in front of progress lines */
    const char *rate;                                  /* name of the rate: "cells_per_s" */
    double items_per_chunk;                            /* what the rate counts */
    enum status (*work)(void *context, int64_t chunk); /* compute, write, mark; local */
    void *context;
};

/* Do all chunks that are not done, by all ranks of this job and of its Slurm array; messages are answered
 * between the tiles of products. Collective, agreed. ST_REQUEUE: stop_asked(), what is done is kept. The
 * first error of `work` ends all ranks after their chunk. */
MUST_CHECK enum status chunk_loop_run(struct comm *comm, struct partial *partial, const struct chunk_loop *loop);

#endif
