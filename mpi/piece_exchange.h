/* Gradients to the owners of their pieces (model/shard.h).
 *
 * A piece is sent to its owner as soon as it is final, while other pieces are still being computed; the owner adds the
 * copies in the order of ranks, its own in its place, so every sum has one order. Memory is a ring of RING pieces,
 * whatever the number of ranks. In bf16 copies travel as bf16 and are added in fp32 (one rounding of 2^-8 for each
 * foreign copy).
 *
 *     piece_exchange_start(comm, x, piece, data, reals);      every piece once, on every rank, in one order
 *     piece_exchange_poll(x);                                 now and then
 *     piece_exchange_finish(comm, x);                         own pieces hold sums, others are used up */
#ifndef CYTOMILL_MPI_PIECE_EXCHANGE_H
#define CYTOMILL_MPI_PIECE_EXCHANGE_H

#include "model/param.h"
#include "mpi/comm.h"

struct piece_exchange;

/* For the pieces of `params` (borrowed, shared out over the ranks of comm). Local. ST_MEMORY. */
MUST_CHECK enum status piece_exchange_create(const struct comm *comm, const struct param_table *params, bool bf16,
                                             struct piece_exchange **out);
void piece_exchange_destroy(struct piece_exchange **exchange);
/* Bytes that piece_exchange_create takes on a rank of `ranks`; `params` need not be shared out yet. Local. */
size_t piece_exchange_bytes(const struct param_table *params, int ranks, bool bf16);

/* Start piece number `piece`: data[reals] is this rank's share and stays the exchange's until finish; `reals` is the same
 * on all ranks. Messages start; nobody waits. Collective in that all ranks must do it. */
void piece_exchange_start(struct comm *comm, struct piece_exchange *exchange, int64_t piece, real *data, int64_t reals);
/* Let messages move and add what has arrived. Local. */
void piece_exchange_poll(struct piece_exchange *exchange);
/* Wait for everything started. Collective. */
void piece_exchange_finish(struct comm *comm, struct piece_exchange *exchange);

/* Seconds this rank has waited in finish. Local. */
double piece_exchange_waited_s(const struct piece_exchange *exchange);

#endif
