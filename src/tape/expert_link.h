/* How rows reach experts that lie on other ranks: what the ops at the two ends of a trip (op_travel.c) call, and somebody
 * who knows the ranks provides (mpi/expert_line.h). Rows that come here have room for `capacity`; if more come, the trip
 * takes several rounds. Every rank makes the same calls in the same order, also one without rows. */
#ifndef CYTOMILL_TAPE_EXPERT_LINK_H
#define CYTOMILL_TAPE_EXPERT_LINK_H

#include <stdint.h>

struct tape;
struct expert_run;

struct expert_link {
    void *context;
    int experts, first, held; /* E; experts [first, first + held) lie here */
    int run_count;            /* runs of a round: held for each rank */
    int64_t capacity;         /* rows that come here in a round, at most */
    struct tape *spare;       /* runs the experts of the rounds after the first; NULL while the rest is measured */
    /* Begin a trip of counts[E] rows; the rounds it takes, the same on all ranks. */
    int (*begin)(void *context, const int64_t *counts);
    /* Runs of a round by (expert, source), `expert` counted from `first`: list[run_count]. */
    void (*runs)(void *context, int round, struct expert_run *list);
    /* Rows home[N] in the order of experts to away[capacity], and the way back. They return when it is done. */
    void (*send)(void *context, int round, const void *home, void *away, int64_t row_bytes);
    void (*back)(void *context, int round, const void *away, void *home, int64_t row_bytes);
};

#endif
