/* The way of rows to experts on other ranks and back, seen from the rank that has the rows. No op communicates: at the two
 * ends of the way the tape has cuts (tape.h), where the pass stops and says which rows must move (struct travel_move);
 * who knows the ranks moves them (mpi/expert_line.h) and lets it go on.
 *
 *     travel_begin(&t, tape, rows, &routing, &experts);           forward: t.move is to be done
 *     while (!(results = travel_on(&t, tape))) ... t.move ...     then what the experts gave, where the rows were
 *     while (!tape_backward_segment(tape, s)) {
 *         travel_turn(&t, tape_stopped_at(tape));                 backward: t.move is to be done
 *         while (!travel_turn_on(&t)) ... t.move ...
 *     }
 *
 * There is room for `capacity` rows of all ranks here. What does not fit comes in further rounds, each on the spare tape
 * and run forward once more in the backward pass: memory does not grow with what an unlucky rank is sent. Every rank
 * makes the same moves in the same order, also one without rows. While measuring nothing stops. */
#ifndef CYTOMILL_TAPE_TRAVEL_H
#define CYTOMILL_TAPE_TRAVEL_H

#include "tape/op.h"

/* How ranks share out the E experts of a layer: an equal number each, in rank order. */
struct expert_ranks {
    int ranks, rank, experts; /* k, this one, E */
    int64_t capacity;         /* rows that come here in a round, at most */
    struct tape *spare;       /* runs the experts of the rounds after the first; NULL while the rest is measured */
};

/* Rows [row_bytes each] between where they are at home, in the order of their experts, and away, where their experts
 * lie. Whoever moves them writes what is marked so. */
struct travel_move {
    bool counts;       /* ranks first tell each other how many rows they have; then come, rounds: */
    bool out;          /* from home, else back */
    int round;         /* moves of rounds after 0 follow at once on what they belong to */
    void *home, *away; /* [N], [capacity] */
    int64_t row_bytes;
    int64_t *count;          /* [k, E] rows of each rank for each expert; with `counts` those of others are written */
    struct expert_run *runs; /* [E] written: runs of the round by (expert, source), `expert` from the first held here;
                                 NULL if they are known */
    int64_t come;            /* written with `counts`: rows that come here in round 0, */
    int rounds;              /* and rounds that the way takes, the same on all ranks */
};

/* The experts that lie here, on rows that came. */
struct travel_experts {
    struct tensor *(*run)(const void *self, const void *pass, struct tape *tape, struct tensor *rows,
                          struct expert_runs runs);
    const void *self, *pass; /* must live until the backward pass */
};

/* Where a pass stands on the way: `ranks` belongs to the caller, `move` says what to do, the rest is its own. */
struct travel {
    struct expert_ranks ranks;
    struct travel_move move;
    int at, rounds;
    struct travel_experts experts;
    struct tensor *rows, *here, *home, *x, *y;
    struct node *cut;
};

/* Forward, rows[R K, D] in the order of their experts: routing->order. Local. */
void travel_begin(struct travel *travel, struct tape *tape, struct tensor *rows, const struct routing *routing,
                  const struct travel_experts *experts);
/* When the move is done: results [R K, D], or NULL if there is another move. Local. */
struct tensor *travel_on(struct travel *travel, struct tape *tape);
/* Backward, at a cut. Local. */
void travel_turn(struct travel *travel, struct node *cut);
/* When the move is done: true if the tape may go on, false if there is another move. Local. */
bool travel_turn_on(struct travel *travel);

#endif
