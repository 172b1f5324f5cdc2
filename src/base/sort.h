/* Sorting without memory: nothing allocates inside a training step, and glibc's qsort may. */
#ifndef CYTOMILL_BASE_SORT_H
#define CYTOMILL_BASE_SORT_H

#include <stdint.h>

/* Sort ascending, in place, O(n log n) always (heap sort). Local. */
void sort_u64(uint64_t *keys, int64_t count);

#endif
