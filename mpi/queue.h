/* Which rank does which chunk. Every rank begins with a cyclic share of the list and takes it from the front; one
 * that has run out asks the others, in turn, for the last of theirs. Requests are small messages that a working rank answers
 * whenever it polls (between micro-batches): a one-sided counter would wait for a target that is computing.
 *
 *     TRY(queue_open(comm, chunks, count, &queue));
 *     while (st == ST_OK && queue_next(queue, &chunk)) st = work(chunk, queue);   calls queue_poll() now and then
 *     if (st != ST_OK) queue_stop(queue);                                         the others end after their chunk
 *     queue_close(comm, &queue);                                                  answers until all have ended
 *     st = comm_agree(comm, st);
 *
 * Jobs of a Slurm array share one list too: queue_order_for_array() puts a job's own share first and those of the
 * others behind, last ones first, so a lost job's work is done by the rest (ask the ledger before each chunk). */
#ifndef CYTOMILL_MPI_QUEUE_H
#define CYTOMILL_MPI_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/comm.h"

struct queue;

/* chunks[count], the same list on every rank (copied). Collective. ST_MEMORY agreed. */
MUST_CHECK enum status queue_open(struct comm *comm, const int64_t *chunks, int64_t count, struct queue **out);
/* The next chunk of this rank: its own, else one given by another rank; false if no rank has any left or queue_stop
 * was called anywhere. Local; may wait for an answer, and answers while it waits. */
bool queue_next(struct queue *queue, int64_t *chunk);
/* Answer requests that have come. About a microsecond; call at least every second. Local. */
void queue_poll(struct queue *queue);
/* No rank takes another chunk after this. Local. */
void queue_stop(struct queue *queue);
/* Did any rank stop the queue? Local. */
bool queue_stopped(const struct queue *queue);
/* Chunks this rank was given by others. Local. */
int64_t queue_stolen(const struct queue *queue);
/* Serve the others until every rank is here, then free. Collective. */
void queue_close(struct comm *comm, struct queue **queue);

/* Place of this job in its Slurm array (0 of 1 outside one), from SLURM_ARRAY_TASK_ID, _MIN, _STEP
 * and _COUNT. Local. */
void queue_array_place(int *job, int *jobs);
/* Reorder chunks[count]: those with chunk % jobs == job first, in order; then the others from the
 * last to the first. Local. */
MUST_CHECK enum status queue_order_for_array(int64_t *chunks, int64_t count, int job, int jobs);

#endif
