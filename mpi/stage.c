#include "mpi/stage.h"

#include <stdio.h>
#include <stdlib.h>

#include "mpi/expert_line.h"

/* A table and what runs it. */
struct line {
    struct schedule schedule;
    struct pipeline *pipeline;
};

struct stage {
    struct model *model; /* borrowed */
    bool linked, in_turns;
    struct batch empty;
    int64_t no_offsets[1];
    struct comm *expert;         /* the mesh's, which outlives the stage; */
    struct expert_line *experts; /* rows travel over it; NULL if all experts lie here */
    int free_lane;               /* the one of the exchange that was finished last */
    struct line train, loss;
    int train_micros;
    int micros, chunks, slots; /* micros: of a training step or a loss, whichever has more */
    int *slot_of;              /* [micros, chunks] */
    bool *taken;               /* [slots] */
    /* of the call that runs */
    const struct batch *micro;
    int count;
    enum status failed; /* first failure of a linked stage, which goes on all the same */
    struct model_how how;
    struct loss_sum *sum;
    void (*poll)(void *context);
    void *poll_context;
};

/* ---- layout ---- */

static struct schedule_spec train_spec(const struct stage_plan *plan, int stages)
{
    return (struct schedule_spec){.kind = plan->kind,
                                  .stages = stages,
                                  .chunks = plan->chunks,
                                  .micros = plan->micros,
                                  .trips = plan->trips,
                                  .in_turns = plan->in_turns};
}

static struct schedule_spec loss_spec(const struct stage_plan *plan, int stages)
{
    struct schedule_spec spec = train_spec(plan, stages);
    spec.kind = SCHEDULE_FORWARD_ONLY;
    spec.micros = plan->loss_micros;
    return spec;
}

bool stage_takes_turns(const struct config *c, int experts, int stages, int micros)
{
    if (experts == 1 || micros == 1 || config_word_is(c, "mesh.turns", "never")) return false;
    return stages == 1 || config_word_is(c, "mesh.turns", "always");
}

void stage_trips(const struct model *model, int parts, const int *first, int *trips)
{
    for (int i = 0; i < parts; i++) trips[i] = model_expert_layers(model, (struct model_part){first[i], first[i + 1]});
}

/* FLOPs of training blocks [first, first + 1), with the embedding or the heads if they are at an end. */
static enum status block_flops(const struct model *model, const struct model_limits *limits, int block, double *flops)
{
    struct model_cost cost;
    enum status st = model_measure(model, limits, &(struct model_part){block, block + 1}, &cost);
    *flops = cost.train_flops_per_token;
    return st;
}

enum status stage_cut(const struct model *model, const struct model_limits *limits, const struct stage_plan *plan,
                      int stages, int *first)
{
    enum status st = ST_OK;
    int layers = model_layers(model), parts = stages * plan->chunks;
    double block, begin, end;
    if (layers < 3 || parts == 1) return mesh_share_layers(layers, parts, 0, 0, first);
    TRY(block_flops(model, limits, 1, &block));
    TRY(block_flops(model, limits, 0, &begin));
    TRY(block_flops(model, limits, layers - 1, &end));
    TRY(mesh_share_layers(layers, parts, begin / block - 1, end / block - 1, first));
done:
    return st;
}

struct model_hold stage_hold(const struct stage_plan *plan, int stages, int stage, const int *first)
{
    struct schedule_spec spec = train_spec(plan, stages);
    struct model_hold hold = {.count = plan->chunks};
    for (int c = 0; c < plan->chunks; c++) {
        int part = schedule_part(&spec, stage, c);
        hold.part[c] = (struct model_part){first[part], first[part + 1]};
    }
    return hold;
}

int stage_slots(const struct stage_plan *plan, int stages, int stage)
{
    struct schedule_spec spec = train_spec(plan, stages);
    return schedule_limit(&spec, stage);
}

size_t stage_bytes(const struct stage_plan *plan, int stages, int stage, size_t message_bytes)
{
    struct schedule_spec spec = train_spec(plan, stages);
    size_t edges = 0;
    for (int c = 0; c < plan->chunks; c++) {
        int part = schedule_part(&spec, stage, c);
        edges += (part > 0) + (part < schedule_parts(&spec) - 1);
    }
    return edges * 3 * (size_t)schedule_buffers(&spec) *
           message_bytes; /* activation and gradient in training, activation in a loss */
}

/* ---- creation ---- */

static void line_close(struct line *line)
{
    pipeline_destroy(&line->pipeline);
    schedule_free(&line->schedule);
}

static enum status line_open(struct comm *pipe, struct line *line, struct schedule_spec spec, int64_t most_bytes)
{
    enum status st = schedule_build(&spec, &line->schedule);
    TRY(comm_agree(pipe, st));
    TRY(pipeline_create(pipe, &line->schedule, most_bytes, &line->pipeline));
done:
    return st;
}

static enum status allocate(struct stage *s)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(s->slot_of, s->micros * s->chunks));
    TRY(NEW_ARRAY(s->taken, s->slots));
    for (int i = 0; i < s->slots; i++) s->taken[i] = false;
done:
    return st;
}

enum status stage_create(struct mesh *mesh, struct model *model, const struct model_limits *limits,
                         const struct stage_plan *plan, struct stage **out)
{
    struct stage *s = NULL;
    struct comm *pipe = &mesh->pipe;
    struct expert_ranks ranks = model_expert_ranks(model);
    int64_t bytes = model_message_bytes(model, limits->tokens);
    enum status st = NEW_ARRAY(s, 1);
    if (st == ST_OK) {
        *s = (struct stage){.model = model,
                            .micros = plan->micros > plan->loss_micros ? plan->micros : plan->loss_micros,
                            .train_micros = plan->micros,
                            .linked = plan->linked,
                            .in_turns = plan->in_turns,
                            .expert = &mesh->expert,
                            .chunks = plan->chunks,
                            .slots = stage_slots(plan, pipe->size, pipe->rank)};
        s->empty = (struct batch){.offsets = s->no_offsets, .level_offsets = s->no_offsets};
        st = allocate(s);
    }
    TRY(comm_agree(&mesh->world, st));
    if (ranks.ranks > 1) TRY(expert_line_create(&mesh->expert, &ranks, model_message_bytes(model, 1), &s->experts));
    struct schedule_spec train = train_spec(plan, pipe->size);
    train.recompute = limits->recompute;
    TRY(line_open(pipe, &s->train, train, bytes));
    TRY(line_open(pipe, &s->loss, loss_spec(plan, pipe->size), bytes));
done:
    if (st != ST_OK) stage_destroy(&s);
    *out = s;
    return st;
}

void stage_destroy(struct stage **stage)
{
    struct stage *s = *stage;
    if (!s) return;
    line_close(&s->train);
    line_close(&s->loss);
    expert_line_destroy(&s->experts);
    free(s->slot_of), free(s->taken), free(s);
    *stage = NULL;
}

double stage_waited_s(const struct stage *s)
{
    double rows_s = s->experts ? expert_line_waited_s(s->experts) : 0;
    return rows_s + pipeline_waited_s(s->train.pipeline) + pipeline_waited_s(s->loss.pipeline);
}

/* ---- what the pipeline calls; micro-batches beyond the count are empty and, unless rows of other ranks' cells come
 * here, cost nothing ---- */

static bool passes(const struct stage *s, int micro) { return micro < s->count || s->linked; }

static const struct batch *batch_of(const struct stage *s, int micro)
{
    return micro < s->count ? &s->micro[micro] : &s->empty;
}

/* The status that the pipeline sees. */
static enum status note(struct stage *s, enum status st)
{
    if (!s->linked) return st;
    if (s->failed == ST_OK) s->failed = st;
    return ST_OK;
}

static int *slot_of(struct stage *s, int micro, int chunk) { return &s->slot_of[micro * s->chunks + chunk]; }

static int take_slot(struct stage *s)
{
    int slot = 0;
    while (s->taken[slot]) slot++; /* the schedule's limit holds */
    s->taken[slot] = true;
    return slot;
}

/* Rounds after the first of the exchange that was finished last. */
static void further_rounds(struct stage *s, int slot)
{
    struct travel_move *move;
    while ((move = model_move(s->model, slot)) != NULL && move->round > 0) {
        expert_line_start(s->expert, s->experts, s->free_lane, move);
        expert_line_finish(s->expert, s->experts, s->free_lane);
        model_go_on(s->model, slot);
    }
}

static enum status begin_forward(struct stage *s, int micro, int chunk, const void *in)
{
    int slot = s->how.train ? take_slot(s) : s->in_turns * (micro % 2);
    *slot_of(s, micro, chunk) = slot;
    struct model_how how = s->how;
    if (micro + 1 < (s->linked ? s->train_micros : s->count)) how.ready = NULL;
    return model_begin_forward(s->model, slot, chunk, batch_of(s, micro), &how, in);
}

static enum status forward(void *context, const struct instruction *i, const void *in, void *out)
{
    struct stage *s = context;
    enum status st = ST_OK;
    if (!passes(s, i->micro)) return ST_OK;
    if (i->piece == 0) st = begin_forward(s, i->micro, i->chunk, in);
    if (st != ST_OK) return note(s, st);
    int slot = *slot_of(s, i->micro, i->chunk);
    if (i->piece > 0) model_go_on(s->model, slot);
    further_rounds(s, slot);
    return i->last ? note(s, model_end_forward(s->model, slot, out, s->sum)) : ST_OK;
}

static enum status backward(void *context, const struct instruction *i, const void *d_out, void *d_in)
{
    struct stage *s = context;
    if (!passes(s, i->micro)) return ST_OK;
    int slot = *slot_of(s, i->micro, i->chunk);
    if (i->piece == 0) model_begin_backward(s->model, slot, d_out);
    else model_go_on(s->model, slot);
    further_rounds(s, slot);
    if (i->last) model_end_backward(s->model, slot, d_in);
    return ST_OK;
}

/* The table says that rows must move; a model that says otherwise is a broken invariant. */
static void start(void *context, const struct instruction *i, int lane)
{
    struct stage *s = context;
    int slot = *slot_of(s, i->micro, i->chunk);
    struct travel_move *move = model_move(s->model, slot);
    if (!move) {
        fprintf(stderr, "stage: broken invariant: the schedule has an exchange where the model has none\n");
        MPI_Abort(s->expert->handle, ST_INTERNAL);
    }
    expert_line_start(s->expert, s->experts, lane, move);
    model_meanwhile(s->model, slot);
}

static void finish(void *context, const struct instruction *i, int lane)
{
    struct stage *s = context;
    expert_line_finish(s->expert, s->experts, lane);
    s->free_lane = lane;
}

static enum status weights(void *context, int micro, int chunk)
{
    struct stage *s = context;
    if (!passes(s, micro)) return ST_OK;
    model_weights_part(s->model, *slot_of(s, micro, chunk));
    s->taken[*slot_of(s, micro, chunk)] = false;
    return ST_OK;
}

static void poll(void *context)
{
    struct stage *s = context;
    if (s->poll) s->poll(s->poll_context);
    if (s->experts) expert_line_poll(s->experts);
}

static int64_t message_bytes(void *context, int micro)
{
    const struct stage *s = context;
    return micro < s->count ? model_message_bytes(s->model, s->micro[micro].token_count) : 0;
}

static enum status run(struct comm *pipe, struct stage *s, struct line *line, const struct batch *micro, int count,
                       struct model_how how, struct loss_sum *loss)
{
    s->micro = micro;
    s->count = count;
    s->how = how;
    s->sum = loss;
    s->failed = ST_OK;
    struct pipeline_stage calls = {s, forward, backward, weights, message_bytes, poll, start, finish};
    enum status st = pipeline_run(pipe, line->pipeline, &calls);
    for (int i = 0; i < s->slots; i++) s->taken[i] = false; /* a failed step leaves some */
    return st != ST_OK ? st : s->failed;
}

enum status stage_gradient(struct comm *pipe, struct stage *s, const struct batch *micro, int count,
                           const struct model_how *how, struct loss_sum *loss)
{
    return run(pipe, s, &s->train, micro, count, *how, loss);
}

void stage_set_poll(struct stage *s, void (*function)(void *context), void *context)
{
    s->poll = function;
    s->poll_context = context;
}

enum status stage_loss(struct comm *pipe, struct stage *s, const struct batch *micro, int count, struct loss_sum *loss)
{
    return run(pipe, s, &s->loss, micro, count, (struct model_how){0}, loss);
}
