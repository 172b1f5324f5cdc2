/* Numbers for gene sets: every set of 1..order genes of a panel has one number, and back.
 *
 * Singles come first (number = place in the panel), then all pairs, triples, quadruples. Within one
 * size the order is colexicographic (the combinatorial number system): the set c1 < c2 < … < ck has rank
 * sum over i of C(c_i, i), so a set keeps its rank within its size when genes are added at the end of the panel.
 *
 *     TRY(combination_space_create(genes, order, &space));
 *     for (int64_t s = first; s < last; s++) size = combination_unrank(&space, s, members); */
#ifndef CYTOMILL_SCREEN_COMBINATION_H
#define CYTOMILL_SCREEN_COMBINATION_H

#include <stdint.h>

#include "base/status.h"

enum { SET_SIZE_MAX = 4 };

struct combination_space {
    int64_t genes;                   /* panel size m */
    int order;                       /* largest set, 1..SET_SIZE_MAX */
    int64_t first[SET_SIZE_MAX + 2]; /* first[k]: number of the first set of k genes; first[order+1] = all sets */
};

/* C(n, k) for 0 <= k <= SET_SIZE_MAX; -1 if it does not fit in 63 bits. Local. */
int64_t combination_choose(int64_t n, int k);

/* ST_CONFIG if there are more sets than fit in 63 bits, or the arguments are out of range. Local. */
MUST_CHECK enum status combination_space_create(int64_t genes, int order, struct combination_space *out);
static inline int64_t combination_count(const struct combination_space *space)
{
    return space->first[space->order + 1];
}

/* Number of a set given as ascending panel places members[size]. Local. */
int64_t combination_rank(const struct combination_space *space, const int64_t *members, int size);
/* The set with this number: ascending panel places in members[SET_SIZE_MAX]; returns its size. Local. */
int combination_unrank(const struct combination_space *space, int64_t number, int64_t *members);

#endif
