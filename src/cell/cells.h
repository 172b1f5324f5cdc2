/* A block of cells as read from a file: sparse rows of one modality. */
#ifndef CYTOMILL_CELL_CELLS_H
#define CYTOMILL_CELL_CELLS_H

#include <stdint.h>

#include "base/status.h"

struct cells {
    int64_t count;    /* rows */
    int64_t *id;      /* [count] global cell id: row of the atlas, or row of the foreign input */
    int64_t *start;   /* [count+1] first entry of each row; start[0] = 0 */
    int32_t *feature; /* [start[count]] row of the modality's feature table, ascending in a row */
    float *value;     /* [start[count]] as stored, never 0 */
    int64_t row_capacity, entry_capacity;
};

/* Make room for `rows` rows and `entries` entries in all, keeping what is there. Zero-initialise
 * before the first call. Local. */
MUST_CHECK enum status cells_reserve(struct cells *cells, int64_t rows, int64_t entries);
void cells_free(struct cells *cells);

#endif
