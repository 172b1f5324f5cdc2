/* Rows on their way to the ranks that hold their experts, and back.
 *
 * k ranks share E experts: rank r holds experts [r E/k, (r+1) E/k). Each rank has rows in the order of their experts
 * ("at home"); an owner has room for `capacity` rows ("away"). What comes to an owner is one sequence: by source rank,
 * and from each source by expert. It is taken in rounds of at most `capacity` rows, each a piece of the sequence that
 * begins at row 0 of the room; the rows of one source for one expert stay together in one round if they fit in one at
 * all, so that a weight gradient, which is added run after run (tape/op.h: expert_runs), does not depend on the
 * capacity. Every rank knows the counts of all, so rounds are agreed without another message.
 *
 *     TRY(expert_exchange_create(&mesh.expert, E, capacity, most_row_bytes, 0, &x));
 *     expert_exchange_count(&mesh.expert, x, counts);            begins; counts[E] may go at once
 *     rounds = expert_exchange_rounds(&mesh.expert, x);
 *     for (round = 0; round < rounds; round++) {
 *         expert_exchange_send(&mesh.expert, x, round, home, away, row_bytes);      begins
 *         ... other work, expert_exchange_poll(x) about every millisecond: MPI moves data while somebody calls it
 *         expert_exchange_finish(&mesh.expert, x);
 *         expert_exchange_runs(x, round, list);                  experts: results of `away` into `results`
 *         expert_exchange_return(&mesh.expert, x, round, results, home_results, row_bytes);
 *         expert_exchange_finish(&mesh.expert, x);
 *     }
 * Gradients travel the same ways: those of results are sent, those of rows return; the counts are kept meanwhile
 * (expert_exchange_counts, _use). One exchange has one transfer on its way; several exchanges may, each in a lane of its
 * own, if every rank begins to tell counts in the same order. Nothing allocates after creation. */
#ifndef CYTOMILL_MPI_EXPERT_EXCHANGE_H
#define CYTOMILL_MPI_EXPERT_EXCHANGE_H

#include "mpi/comm.h"
#include "tape/op.h"

struct expert_exchange;

/* An exchange of rows of at most `most_row_bytes` bytes among the ranks of `expert`; arguments are the same on all, and
 * exchanges that are under way at once differ in `lane`, 0 and up.
 * Collective. ST_CONFIG: the ranks do not divide the experts; ST_MEMORY; both agreed. */
MUST_CHECK enum status expert_exchange_create(struct comm *expert, int experts, int64_t capacity,
                                              int64_t most_row_bytes, int lane, struct expert_exchange **out);
void expert_exchange_destroy(struct expert_exchange **x);

/* Begin to tell all ranks this rank's counts[E], rows for each expert, all 0 if it has none. Collective. */
void expert_exchange_count(struct comm *expert, struct expert_exchange *x, const int64_t *counts);
/* Rounds these counts take, the same on every rank; 0 if there is no row at all. Waits for the counts. Collective. */
int expert_exchange_rounds(struct comm *expert, struct expert_exchange *x);
/* Let counts travel; true when they are here, so that expert_exchange_rounds does not wait. Local. */
bool expert_exchange_counted(struct expert_exchange *x);
/* Copy the counts of all ranks, counts[k, E], and exchange by them again without a message: returns the rounds. Local. */
void expert_exchange_counts(const struct expert_exchange *x, int64_t *counts);
int expert_exchange_use(struct expert_exchange *x, const int64_t *counts);

/* Begin round `round`: this rank's rows home[N] of the round go to their owners, and those for experts here come to
 * away[capacity]. Both stay untouched by others until expert_exchange_finish. Collective. */
void expert_exchange_send(struct comm *expert, struct expert_exchange *x, int round, const void *home, void *away,
                          int64_t row_bytes);
/* The same way back: rows lie in `home` where they were sent from; rows of other rounds are not touched. Collective. */
void expert_exchange_return(struct comm *expert, struct expert_exchange *x, int round, const void *away, void *home,
                            int64_t row_bytes);
/* Let messages move; true when all have. Local. */
bool expert_exchange_poll(struct expert_exchange *x);
/* Wait until all have. Collective. */
void expert_exchange_finish(struct comm *expert, struct expert_exchange *x);

/* Experts held here, and the number of runs of every round: E/k for each of k sources, many of them empty. Local. */
int expert_exchange_held(const struct expert_exchange *x);
int expert_exchange_run_count(const struct expert_exchange *x);
/* The runs of a round by (expert, source): list[expert_exchange_run_count]; `expert` counts from the first one held,
 * `first` is a row of the room. Local. */
void expert_exchange_runs(const struct expert_exchange *x, int round, struct expert_run *list);
/* Seconds this rank has waited in expert_exchange_rounds and expert_exchange_finish. Local. */
double expert_exchange_waited_s(const struct expert_exchange *x);

#endif
