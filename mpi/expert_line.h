/* Moves rows (tape/travel.h) over the ranks of mesh.expert: two may be on their way at once, each in a lane of its own
 * (mpi/expert_exchange.h).
 *
 *     expert_line_start(&mesh.expert, line, 0, model_move(model, slot));
 *     ... other work, expert_line_poll(line) about every millisecond: MPI moves data while somebody calls it
 *     expert_line_finish(&mesh.expert, line, 0);
 *     model_go_on(model, slot); */
#ifndef CYTOMILL_MPI_EXPERT_LINE_H
#define CYTOMILL_MPI_EXPERT_LINE_H

#include "mpi/comm.h"
#include "tape/travel.h"

enum { EXPERT_LANES = 2 }; /* for SCHEDULE_EXCHANGES (mpi/schedule.h) at once */

struct expert_line;

/* For rows of at most `most_row_bytes` and experts shared out as `ranks` says. Collective. ST_CONFIG: the ranks do not
 * divide the experts; ST_MEMORY; both agreed. */
MUST_CHECK enum status expert_line_create(struct comm *expert, const struct expert_ranks *ranks, int64_t most_row_bytes,
                                          struct expert_line **out);
void expert_line_destroy(struct expert_line **line);

/* Begin a move, which is the caller's until it is finished and is written to until then. All ranks start and finish in
 * the same order. Collective. */
void expert_line_start(struct comm *expert, struct expert_line *line, int lane, struct travel_move *move);
/* Let messages move; where counts have come, their rows leave. Local. */
void expert_line_poll(struct expert_line *line);
/* Wait until the lane's move is done. Collective. */
void expert_line_finish(struct comm *expert, struct expert_line *line, int lane);
/* Seconds this rank has waited for rows. Local. */
double expert_line_waited_s(const struct expert_line *line);

#endif
