#include "mpi/pipeline.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/product.h"
#include "mpi/watchdog.h"

/* Messages of one kind and chunk at this stage, numbered as they come: number k uses buffer k % buffers. */
struct channel {
    bool exists, receives;
    int peer, tag, count; /* messages of a step */
    int buffers;
    char *buffer[SCHEDULE_MOST_BUFFERS];
    MPI_Request request[SCHEDULE_MOST_BUFFERS];
    int begun, ended; /* receives posted or sends started; messages computed with or filled */
};

enum { ACTIVATION_IN, ACTIVATION_OUT, GRADIENT_IN, GRADIENT_OUT, KINDS };

struct pipeline {
    const struct schedule *schedule;
    int64_t most_bytes;
    struct channel *channels; /* [chunks, KINDS] */
    char *memory;             /* of all buffers */
    double waited_s;
    const struct pipeline_stage *stage; /* of the step that runs */
};

static struct channel *channel_of(const struct pipeline *p, int chunk, int kind)
{
    return &p->channels[chunk * KINDS + kind];
}

/* ---- creation ---- */

static const int kind_of[] = {[SCHEDULE_SEND_ACTIVATION] = ACTIVATION_OUT,
                              [SCHEDULE_RECEIVE_ACTIVATION] = ACTIVATION_IN,
                              [SCHEDULE_SEND_GRADIENT] = GRADIENT_OUT,
                              [SCHEDULE_RECEIVE_GRADIENT] = GRADIENT_IN};

static bool is_message(enum schedule_op op) { return op >= SCHEDULE_SEND_ACTIVATION; }

/* A message is told apart by the part it comes from or goes to above the edge, and by its direction. */
static int tag_of(const struct schedule_spec *s, int stage, const struct instruction *i)
{
    int part = schedule_part(s, stage, i->chunk);
    bool below = i->op == SCHEDULE_RECEIVE_ACTIVATION || i->op == SCHEDULE_SEND_GRADIENT;
    bool gradient = i->op == SCHEDULE_SEND_GRADIENT || i->op == SCHEDULE_RECEIVE_GRADIENT;
    return 2 * (below ? part : part + 1) + gradient;
}

static int find_channels(struct pipeline *p, int stage)
{
    const struct schedule *s = p->schedule;
    int found = 0;
    for (int i = s->first[stage]; i < s->first[stage + 1]; i++) {
        const struct instruction *in = &s->instructions[i];
        if (!is_message(in->op)) continue;
        struct channel *c = channel_of(p, in->chunk, kind_of[in->op]);
        if (!c->exists) {
            *c = (struct channel){.exists = true,
                                  .buffers = schedule_buffers(&s->spec),
                                  .receives =
                                      in->op == SCHEDULE_RECEIVE_ACTIVATION || in->op == SCHEDULE_RECEIVE_GRADIENT,
                                  .peer = in->peer,
                                  .tag = tag_of(&s->spec, stage, in)};
            found++;
        }
        c->count++;
    }
    return found;
}

static enum status take_buffers(struct pipeline *p, struct comm *pipe, int channels)
{
    enum status st = ST_OK;
    int64_t stride = (p->most_bytes + 63) / 64 * 64;
    TRY(NEW_ARRAY(p->memory, stride * channels * schedule_buffers(&p->schedule->spec) + 1));
    char *next = p->memory;
    for (int i = 0; i < p->schedule->spec.chunks * KINDS; i++) {
        struct channel *c = &p->channels[i];
        for (int b = 0; b < c->buffers; b++, next += stride) {
            c->buffer[b] = next;
            c->request[b] = MPI_REQUEST_NULL;
            if (c->receives)
                MPI_Recv_init(next, (int)p->most_bytes, MPI_BYTE, c->peer, c->tag, pipe->handle, &c->request[b]);
        }
    }
done:
    return st;
}

static enum status create(struct comm *pipe, const struct schedule *schedule, int64_t most_bytes, struct pipeline *p)
{
    enum status st = ST_OK;
    *p = (struct pipeline){.schedule = schedule, .most_bytes = most_bytes};
    if (schedule->spec.stages != pipe->size)
        return fail(ST_INTERNAL, "a schedule of %d stages on %d ranks", schedule->spec.stages, pipe->size);
    if (most_bytes > INT_MAX)
        return fail(ST_CONFIG, "a micro-batch hands %.2f GiB from stage to stage, 2 are the most; use fewer tokens",
                    (double)most_bytes / (1 << 30));
    TRY(NEW_ARRAY(p->channels, schedule->spec.chunks * KINDS));
    TRY(take_buffers(p, pipe, find_channels(p, pipe->rank)));
done:
    return st;
}

enum status pipeline_create(struct comm *pipe, const struct schedule *schedule, int64_t most_bytes,
                            struct pipeline **out)
{
    struct pipeline *p = NULL;
    enum status st = NEW_ARRAY(p, 1);
    if (st == ST_OK) st = create(pipe, schedule, most_bytes, p);
    st = comm_agree(pipe, st);
    if (st != ST_OK) pipeline_destroy(&p);
    *out = p;
    return st;
}

void pipeline_destroy(struct pipeline **pipeline)
{
    struct pipeline *p = *pipeline;
    if (!p) return;
    for (int i = 0; p->channels && i < p->schedule->spec.chunks * KINDS; i++)
        for (int b = 0; b < p->channels[i].buffers; b++)
            if (p->channels[i].receives && p->memory) MPI_Request_free(&p->channels[i].request[b]);
    free(p->channels), free(p->memory), free(p);
    *pipeline = NULL;
}

double pipeline_waited_s(const struct pipeline *p) { return p->waited_s; }

/* ---- a step ---- */

/* Let messages move while the stage computes. */
static void poll_messages(void *context)
{
    struct pipeline *p = context;
    int arrived;
    if (p->stage->poll) p->stage->poll(p->stage->context);
    for (int i = 0; i < p->schedule->spec.chunks * KINDS; i++)
        for (int b = 0; b < p->channels[i].buffers; b++)
            MPI_Test(&p->channels[i].request[b], &arrived, MPI_STATUS_IGNORE);
}

static void wait_for(struct pipeline *p, MPI_Request *request)
{
    watchdog_enter("a stage's message (pipeline)");
    double start = comm_now_s();
    MPI_Wait(request, MPI_STATUS_IGNORE);
    p->waited_s += comm_now_s() - start;
    watchdog_leave();
}

/* Post receives into the buffers that are free. */
static void post(struct channel *c)
{
    for (; c->begun < c->count && c->begun < c->ended + c->buffers; c->begun++)
        MPI_Start(&c->request[c->begun % c->buffers]);
}

static void start_step(struct pipeline *p)
{
    for (int i = 0; i < p->schedule->spec.chunks * KINDS; i++) {
        struct channel *c = &p->channels[i];
        c->begun = c->ended = 0;
        if (c->exists && c->receives) post(c);
    }
}

static void end_step(struct pipeline *p)
{
    for (int i = 0; i < p->schedule->spec.chunks * KINDS; i++)
        for (int b = 0; b < p->channels[i].buffers; b++)
            if (!p->channels[i].receives) wait_for(p, &p->channels[i].request[b]);
}

/* The buffer that the next computation reads or fills, when what is received is there and what was sent is gone; NULL
 * at the ends of the model. */
static char *buffer_of(struct pipeline *p, struct channel *c)
{
    if (!c->exists) return NULL;
    int b = c->ended % c->buffers;
    wait_for(p, &c->request[b]);
    return c->buffer[b];
}

static void release(struct channel *c)
{
    if (!c->exists) return;
    c->ended++;
    if (c->receives) post(c);
}

/* A piece of F or B; the first takes the incoming message of its chunk, the last fills the outgoing one. */
static enum status compute(struct pipeline *p, const struct pipeline_stage *stage, const struct instruction *i,
                           enum status st)
{
    bool forward = i->op == SCHEDULE_FORWARD;
    struct channel *in = channel_of(p, i->chunk, forward ? ACTIVATION_IN : GRADIENT_IN);
    struct channel *out = channel_of(p, i->chunk, forward ? ACTIVATION_OUT : GRADIENT_OUT);
    const char *from = i->piece == 0 ? buffer_of(p, in) : NULL;
    char *to = i->last ? buffer_of(p, out) : NULL;
    if (st == ST_OK) st = (forward ? stage->forward : stage->backward)(stage->context, i, from, to);
    else if (to) memset(to, 0, (size_t)stage->message_bytes(stage->context, i->micro));
    if (i->piece == 0) release(in);
    if (i->last) release(out);
    return st;
}

static void send(struct pipeline *p, struct comm *pipe, const struct pipeline_stage *stage, const struct instruction *i)
{
    struct channel *c = channel_of(p, i->chunk, kind_of[i->op]);
    int b = c->begun++ % c->buffers;
    MPI_Isend(c->buffer[b], (int)stage->message_bytes(stage->context, i->micro), MPI_BYTE, c->peer, c->tag,
              pipe->handle, &c->request[b]);
}

enum status pipeline_run(struct comm *pipe, struct pipeline *p, const struct pipeline_stage *stage)
{
    const struct schedule *s = p->schedule;
    enum status st = ST_OK;
    int started = 0, finished = 0; /* exchanges, which end in the order they began */
    p->stage = stage;
    start_step(p);
    product_set_poll(poll_messages, p);
    for (int k = s->first[pipe->rank]; k < s->first[pipe->rank + 1]; k++) {
        const struct instruction *i = &s->instructions[k];
        switch (i->op) {
        case SCHEDULE_FORWARD:
        case SCHEDULE_BACKWARD: st = compute(p, stage, i, st); break;
        case SCHEDULE_WEIGHTS:
            if (st == ST_OK) st = stage->weights(stage->context, i->micro, i->chunk);
            break;
        case SCHEDULE_START_EXCHANGE: stage->start(stage->context, i, started++ % SCHEDULE_EXCHANGES); break;
        case SCHEDULE_FINISH_EXCHANGE: stage->finish(stage->context, i, finished++ % SCHEDULE_EXCHANGES); break;
        case SCHEDULE_SEND_ACTIVATION:
        case SCHEDULE_SEND_GRADIENT: send(p, pipe, stage, i); break;
        case SCHEDULE_RECEIVE_ACTIVATION:
        case SCHEDULE_RECEIVE_GRADIENT: buffer_of(p, channel_of(p, i->chunk, kind_of[i->op])); break;
        }
    }
    product_set_poll(NULL, NULL);
    end_step(p);
    return st;
}
