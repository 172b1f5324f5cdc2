/* How often each (gene, count) pair occurs: exact percentiles of many genes in little memory.
 * Counts of a gene take few distinct values, so the list of distinct pairs stays short.
 *
 *     for each entry: TRY(tally_add(&t, gene, count));
 *     tally_compress(&t);                         then t.pairs may travel to other ranks
 *     v = tally_percentile(&t, gene, 0.99); */
#ifndef CYTOMILL_SCREEN_TALLY_H
#define CYTOMILL_SCREEN_TALLY_H

#include <stdint.h>

#include "base/status.h"

struct tally_pair {
    int32_t gene;
    float count;
    int64_t times;
};

/* Zero-initialise; free with tally_free. */
struct tally {
    int64_t size, capacity;
    struct tally_pair *pairs; /* [size] */
};

MUST_CHECK enum status tally_add(struct tally *tally, int32_t gene, float count, int64_t times);
/* Sort by gene, then count, and join equal pairs. Local. */
void tally_compress(struct tally *tally);
/* Smallest count that at least `share` of the gene's entries do not exceed; 0 if it has none.
 * The tally must be compressed. Local. */
float tally_percentile(const struct tally *tally, int32_t gene, double share);
/* Entries of the gene. The tally must be compressed. Local. */
int64_t tally_times(const struct tally *tally, int32_t gene);
void tally_free(struct tally *tally);

#endif
