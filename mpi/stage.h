/* A rank's stage of a pipeline: its parts of a model, and the tables that run micro-batches through all stages.
 *
 * Every stage of a pipeline loads the same micro-batches; activations travel, cells do not. One stage is the plain
 * case: the same tables without messages.
 *
 *     TRY(stage_cut(whole, &limits, &plan, stages, first));                  which blocks each part has
 *     stage_trips(whole, stages * plan.chunks, first, trips);                where plan.linked: plan.trips = trips
 *     hold = stage_hold(&plan, stages, stage, first);                        model_create(config, vocab, &hold, &model)
 *     limits.slots = stage_slots(&plan, stages, stage); ...                  model_prepare(model, &limits)
 *     TRY(stage_create(&mesh, model, &limits, &plan, &stage));
 *     st = stage_gradient(&mesh.pipe, stage, micro, count, &how, &loss);     then agree on st */
#ifndef CYTOMILL_MPI_STAGE_H
#define CYTOMILL_MPI_STAGE_H

#include "model/model.h"
#include "mpi/mesh.h"
#include "mpi/pipeline.h"

struct stage_plan {
    enum schedule_kind kind; /* of training */
    int chunks;              /* of a stage */
    int micros;              /* most micro-batches of a step, */
    int loss_micros;         /* and of a call of stage_loss */
    bool linked;             /* experts lie on other ranks, too: */
    bool in_turns;           /* two micro-batches share the time of their exchanges (mpi/schedule.h) */
    const int *trips;        /* [parts] layers of each part with experts. Borrowed */
};

/* What mesh.turns says of stages that share out experts among `experts` ranks and have `micros` micro-batches: `auto`
 * means where there is one stage, since a pipeline would fill and empty in pairs. Local. */
bool stage_takes_turns(const struct config *config, int experts, int stages, int micros);

/* Share the blocks of `model`, which holds all and needs no memory, so that the dearest part costs least, from the FLOPs
 * of embedding, block and heads: first[parts + 1], parts = stages * chunks. ST_CONFIG if there are too few blocks. Local. */
MUST_CHECK enum status stage_cut(const struct model *model, const struct model_limits *limits,
                                 const struct stage_plan *plan, int stages, int *first);
/* Layers with experts of each part of `model`, which holds all: trips[parts]. Local. */
void stage_trips(const struct model *model, int parts, const int *first, int *trips);
/* The parts of stage `stage`; the micro-batch chunks that it keeps on their way. Local. */
struct model_hold stage_hold(const struct stage_plan *plan, int stages, int stage, const int *first);
int stage_slots(const struct stage_plan *plan, int stages, int stage);
/* Bytes of the buffers for messages of up to `message_bytes`. Local. */
size_t stage_bytes(const struct stage_plan *plan, int stages, int stage, size_t message_bytes);

struct stage;

/* A stage of the model (borrowed), which holds and was prepared for what stage_hold and stage_slots say. Collective.
 * ST_CONFIG, ST_MEMORY agreed. */
MUST_CHECK enum status stage_create(struct mesh *mesh, struct model *model, const struct model_limits *limits,
                                    const struct stage_plan *plan, struct stage **out);
void stage_destroy(struct stage **stage);

/* Gradients of micro-batches [count], added to those of this stage's parameters (the two ends of a tied tensor apart:
 * reducer_join_ends); the losses are added to *loss on the last stage. The status is this rank's: agree on it. count is
 * the same on all stages, at most plan.micros; how->ready is called with the last micro-batch. Collective over the
 * pipeline; with experts on other ranks (plan.linked) over mesh->expert too: every rank of it goes through all
 * micro-batches of the plan, with empty ones beyond its count, and computes on after a failure of its own, since
 * somebody waits for its rows. */
MUST_CHECK enum status stage_gradient(struct comm *pipe, struct stage *stage, const struct batch *micro, int count,
                                      const struct model_how *how, struct loss_sum *loss);
/* Called at the products' poll points while gradients are computed, beside what moves the pipeline's own messages. NULL
 * for none. Local. */
void stage_set_poll(struct stage *stage, void (*poll)(void *context), void *context);
/* Losses alone, of at most plan.loss_micros. Collective over the pipeline. */
MUST_CHECK enum status stage_loss(struct comm *pipe, struct stage *stage, const struct batch *micro, int count,
                                  struct loss_sum *loss);
/* Seconds this rank has waited for messages of other stages and for rows of experts. Local. */
double stage_waited_s(const struct stage *stage);

#endif
