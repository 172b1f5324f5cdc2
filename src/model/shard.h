/* Who of the ranks that hold the same parameters looks after which of them (ZeRO-1, Rajbhandari et al. 2020).
 *
 * The tensors are cut into pieces of whole rows. A piece has one owner: it adds up the gradients of all ranks, keeps the
 * moments, updates the weights and hands them to the others (mpi/hand_out.h), which need not keep them (param_split). The
 * cut is the same on every rank of a job, whatever it holds, so a piece has one number everywhere; owners are chosen among
 * the ranks that hold it, evenly. */
#ifndef CYTOMILL_MODEL_SHARD_H
#define CYTOMILL_MODEL_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct param_table;

enum { PIECE_REALS = 1 << 18 }; /* most values of a piece, or one row */

struct piece {
    int tensor;          /* row of the parameter table */
    int64_t first, rows; /* of its rows */
    int64_t at, reals;   /* where it lies in the flat arrays */
    int owner;           /* of the shard's ranks; -1 if it lies elsewhere */
    int64_t weight;      /* where its weights lie, if they do here, */
    int64_t moment;      /* and its moments */
};

struct shard {
    int rank, ranks;
    int experts; /* neighbouring ranks with different experts: a routed row lies on every `experts`-th rank */
    int64_t count;
    struct piece *piece; /* [count] in the order of the table */
    int64_t *first;      /* [tensors] a tensor's first piece */
    int64_t reals;       /* values this rank owns, with gaps for alignment */
};

/* Cut `table` for rank `rank` of the `ranks` ranks that hold the same rows, see param_share. Local. */
MUST_CHECK enum status shard_cut(const struct param_table *table, int rank, int ranks, int experts, struct shard *out);
void shard_free(struct shard *shard);
/* How many pieces that makes, and the values of the largest one that lies here, before it is done. Local. */
int64_t shard_piece_count(const struct param_table *table);
int64_t shard_largest_piece(const struct param_table *table);

static inline bool shard_owns(const struct shard *shard, const struct piece *piece)
{
    return piece->owner == shard->rank;
}

/* The ranks that hold a row: *first, *first + *step, ... below shard->ranks. Local. */
static inline void shard_holders(const struct shard *shard, bool routed, int *first, int *step)
{
    *step = routed ? shard->experts : 1;
    *first = routed ? shard->rank % shard->experts : 0;
}

#endif
