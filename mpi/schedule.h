/* Pipeline schedules as data: for every stage a table of instructions, built the same on every rank.
 *
 * A model of L blocks is cut into p stages, each of v chunks; chunk c of stage s is the part c p + s of p v. A step
 * runs m micro-batches through all parts and back. Forward is F of a part on a micro-batch, backward B gives the
 * gradient of its input, weights W drains the weight gradients that B left (tape.h). Schedules:
 *     gpipe        all F, then all B and W                     Huang et al. 2019
 *     1f1b         a stage holds at most p - s micro-batches   Narayanan et al. 2019
 *     interleaved  the same with v > 1 chunks a stage          Narayanan et al. 2021
 *     zb-h1        W is put off to where the stage would wait  Qi et al. 2023
 * Times that a step stands idle on every stage, with T the time of a whole stage:
 *     gpipe, 1f1b (p - 1) (F + B + W);  interleaved that / v;  zb-h1 (p - 1) (F + B - W)
 *
 * schedule_build makes the order by playing a step in which F, B and W take equally long; schedule_simulate checks
 * any table and says how long it takes. Nothing here communicates.
 *
 * Where ranks share out the experts of a layer, every such layer cuts F into three pieces and B too: rows go to their
 * experts after the first and come back after the second. An exchange is started after a piece and finished before the
 * next one. In turns, two micro-batches go through F, and through B, side by side: while the rows of one are on their way
 * the other computes,
 *     F0.0 start | F1.0 start | finish F0.1 start | finish F1.1 start | ...
 * in a table made for pairs of micro-batches, so that a stage holds twice as many as without. All ranks that exchange run
 * the same stage's table, so they start exchanges in the same order.
 *
 *     TRY(schedule_build(&(struct schedule_spec){SCHEDULE_1F1B, .stages = 4, .chunks = 1, .micros = 8}, &schedule));
 *     TRY(schedule_simulate(&schedule, &(struct schedule_times){1, 1, 1, 0}, 2, &found));     found.bubble is 3 / 11 */
#ifndef CYTOMILL_MPI_SCHEDULE_H
#define CYTOMILL_MPI_SCHEDULE_H

#include <stdbool.h>

#include "base/status.h"

enum schedule_kind {
    SCHEDULE_GPIPE,
    SCHEDULE_1F1B,
    SCHEDULE_INTERLEAVED,
    SCHEDULE_ZB_H1,
    SCHEDULE_FORWARD_ONLY /* for evaluations: no B, no W, any number of chunks */
};

enum schedule_op {
    SCHEDULE_FORWARD,
    SCHEDULE_BACKWARD,
    SCHEDULE_WEIGHTS,
    SCHEDULE_START_EXCHANGE,
    SCHEDULE_FINISH_EXCHANGE, /* of the one started first */
    SCHEDULE_SEND_ACTIVATION, /* may return before it has arrived */
    SCHEDULE_RECEIVE_ACTIVATION,
    SCHEDULE_SEND_GRADIENT,
    SCHEDULE_RECEIVE_GRADIENT,
};

struct instruction {
    enum schedule_op op;
    int micro, chunk; /* a message carries what that micro-batch has at the edge of that chunk of this stage */
    int peer;         /* stage at the other end of a message, else -1 */
    int piece; /* of F or B: exchange k lies between pieces k and k + 1. Of an exchange: its number k, where those
                         of B follow those of F */
    bool last; /* the last piece */
};

/* Seconds, or any unit: of one chunk of a stage on one micro-batch, of a message from send to arrival, and of an
 * exchange, of which one at a time is on the way. */
struct schedule_times {
    double forward, backward, weights, message, exchange;
};

struct schedule_spec {
    enum schedule_kind kind;
    int stages, chunks, micros; /* p, v, m; chunks is 1 but for interleaved */
    const int *trips; /* [parts] layers of each part whose experts lie on several ranks; NULL: none. Borrowed */
    bool recompute;   /* B computes F once more, exchanges too */
    bool in_turns;    /* two micro-batches share the time of their exchanges; needs trips */
};

enum {
    SCHEDULE_EXCHANGES = 2,    /* that are on their way at once in a stage */
    SCHEDULE_MOST_BUFFERS = 16 /* of schedule_buffers: interleaved ends at 94 stages, in turns at 46 */
};

struct schedule {
    struct schedule_spec spec;
    struct instruction *instructions; /* of stage 0, 1, ... one after another */
    int *first;                       /* [stages + 1] where a stage's begin */
};

/* What a play of the table found. Arrays belong to the caller, [stages] each, or NULL. */
struct schedule_found {
    double step_s;     /* until the last stage is done */
    double bubble;     /* idle share of all stages' time */
    double exchange_s; /* of that, waiting for exchanges, of all stages together */
    int *peak;         /* most micro-batch chunks between their F and their W */
    double *busy_s;
};

const char *schedule_name(enum schedule_kind kind);
/* Has it weight gradients that come later than their B? Local. */
bool schedule_splits(enum schedule_kind kind);
/* The part that chunk `chunk` of stage `stage` is, and the number of parts. Local. */
int schedule_part(const struct schedule_spec *spec, int stage, int chunk);
int schedule_parts(const struct schedule_spec *spec);
/* Exchanges of F or B of a part. Local. */
int schedule_exchanges(const struct schedule_spec *spec, int part, enum schedule_op op);
/* Most micro-batch chunks that the schedule lets stage `stage` hold at once: activations to make room for. Local. */
int schedule_limit(const struct schedule_spec *spec, int stage);

/* Messages of a kind between two parts that may have to be on their way at once: 2, more for interleaved on more than 10
 * stages, or 4 in turns, whose stages run far ahead of each other. Local. */
int schedule_buffers(const struct schedule_spec *spec);

/* ST_CONFIG: a spec that no schedule has; ST_MEMORY. The same spec gives the same tables everywhere. Local. */
MUST_CHECK enum status schedule_build(const struct schedule_spec *spec, struct schedule *out);
void schedule_free(struct schedule *schedule);

/* Play the tables, however they were made: every F, B and W (forward only: F) once, each after what it needs; messages
 * received in the order they were sent, at most `buffers` of a kind between two parts on their way (a send waits for
 * room; schedule_buffers are enough for what schedule_build makes); exchanges finished in the order they were started,
 * at most SCHEDULE_EXCHANGES on their way; no stage waits for ever. ST_INTERNAL names the first instruction that breaks
 * this. ST_MEMORY. Local. */
MUST_CHECK enum status schedule_simulate(const struct schedule *schedule, const struct schedule_times *times,
                                         int buffers, struct schedule_found *out);
/* The same with times [parts] of each part its own; a message takes what those of the part that sends it say. Local. */
MUST_CHECK enum status schedule_simulate_parts(const struct schedule *schedule, const struct schedule_times *times,
                                               int buffers, struct schedule_found *out);

#endif
