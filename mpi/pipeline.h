/* Runs the tables of schedule.h over the stages of a pipeline.
 *
 * The stage's own work is three functions of the caller; a message is what one of them filled. There are buffers for
 * each kind of message and chunk at either end (schedule_buffers): a receive is posted as soon as its buffer is free,
 * and a send goes on while the stage computes: Open MPI moves data only while somebody looks, so the products' poll
 * point (kernel/product.h) looks about every millisecond.
 *
 * Where ranks share out experts, F and B come in pieces, and exchanges of rows between them are the caller's, too.
 *
 *     struct pipeline_stage stage = {.context = me, forward, backward, weights, message_bytes};
 *     TRY(pipeline_create(&mesh.pipe, &schedule, most_bytes, &pipeline));
 *     st = pipeline_run(&mesh.pipe, pipeline, &stage);            then agree on st
 *     pipeline_destroy(&pipeline); */
#ifndef CYTOMILL_MPI_PIPELINE_H
#define CYTOMILL_MPI_PIPELINE_H

#include "mpi/comm.h"
#include "mpi/schedule.h"

struct pipeline;

/* What a stage computes. `in` is the activation received, which the first piece gets (NULL on the first part), `out` where
 * the activation to send goes, which the last piece fills (NULL on the last part); d_out and d_in their gradients. Valid
 * during the call. */
struct pipeline_stage {
    void *context;
    enum status (*forward)(void *context, const struct instruction *piece, const void *in, void *out);
    enum status (*backward)(void *context, const struct instruction *piece, const void *d_out, void *d_in);
    enum status (*weights)(void *context, int micro, int chunk);
    int64_t (*message_bytes)(void *context, int micro); /* the same on every stage, at most the pipeline's */
    void (*poll)(void *context);                        /* called when messages are looked after; NULL for none */
    /* Exchanges, where the schedule has any, also after a failure: begun, and waited for. `lane` is below
     * SCHEDULE_EXCHANGES, another one for each that is under way. */
    void (*start)(void *context, const struct instruction *exchange, int lane);
    void (*finish)(void *context, const struct instruction *exchange, int lane);
};

/* Buffers for messages of up to `most_bytes` (below 2 GiB). The schedule is borrowed and has as many stages as `pipe`
 * has ranks. Collective. ST_MEMORY agreed. */
MUST_CHECK enum status pipeline_create(struct comm *pipe, const struct schedule *schedule, int64_t most_bytes,
                                       struct pipeline **out);
void pipeline_destroy(struct pipeline **pipeline);

/* One step. After a failure of its own a stage computes no more but still sends, so that no other waits for ever;
 * its status is returned on this rank alone: agree on it before using what was computed. Allocates nothing of its
 * own. Collective. */
MUST_CHECK enum status pipeline_run(struct comm *pipe, struct pipeline *pipeline, const struct pipeline_stage *stage);

/* Seconds this rank has waited for messages since pipeline_create. Local. */
double pipeline_waited_s(const struct pipeline *pipeline);

#endif
