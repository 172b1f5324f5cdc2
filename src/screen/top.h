/* The k best of a long list: largest key first, equal keys by ascending number. The order is total,
 * so the result is the same however the list was cut between ranks. */
#ifndef CYTOMILL_SCREEN_TOP_H
#define CYTOMILL_SCREEN_TOP_H

#include <stdint.h>

#include "base/status.h"

struct hit {
    double key; /* never NaN */
    int64_t number;
};

/* Zero-initialise, then top_create; free with top_free. Memory: at most `capacity` hits. */
struct top {
    int64_t capacity, count, room;
    struct hit *hits; /* [count] a heap, worst on top, until top_sort */
};

void top_create(int64_t capacity, struct top *out);
void top_free(struct top *top);
/* Offer one; O(log k). ST_MEMORY. Local. */
MUST_CHECK enum status top_offer(struct top *top, struct hit hit);
/* Best first; after this only reading is allowed. Local. */
void top_sort(struct top *top);

#endif
