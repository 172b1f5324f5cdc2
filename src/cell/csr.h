/* Checks of sparse rows: what must hold before anybody indexes with them. */
#ifndef CYTOMILL_CELL_CSR_H
#define CYTOMILL_CELL_CSR_H

#include <stdint.h>

#include "base/status.h"

/* start[rows+1] must begin at 0 or more, never fall, and end at most at `entries`. ST_INPUT: the row. Local. */
MUST_CHECK enum status csr_check_starts(const int64_t *start, int64_t rows, int64_t entries);
/* Rows start[0] … start[rows] of feature[] and value[] (both indexed from start[0]): features ascending
 * without repeats and in [0, features), values finite and not 0. ST_INPUT: row, entry, what was found. Local;
 * about 3e9 entries a second when they lie in cache. */
MUST_CHECK enum status csr_check_rows(const int64_t *start, int64_t rows, const int32_t *feature, const float *value,
                                      int64_t features);

#endif
