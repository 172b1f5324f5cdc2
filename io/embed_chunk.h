/* Embed a run of cells: tokens, micro-batches filled by length, one row of z for each cell. */
#ifndef CYTOMILL_IO_EMBED_CHUNK_H
#define CYTOMILL_IO_EMBED_CHUNK_H

#include <stdint.h>

#include "io/cell_input.h"
#include "io/inference.h"

/* Memory for chunks of up to `capacity` cells. */
struct embed_chunk {
    int64_t capacity, count;
    struct cells cells; /* as read */
    struct token_cell cell;
    uint64_t *order; /* [count] (tokens << 32 | cell), shortest first */
    int *slot;       /* [cells of a micro-batch] cell of each row of z_batch */
    float *z_batch;  /* [cells of a micro-batch, D] */
    float *z;        /* [count, D] result */
    uint8_t *reason; /* [count] enum embed_reason */
    int64_t tokens;  /* tokens computed so far, over all chunks */
};

/* Local. ST_MEMORY. */
MUST_CHECK enum status embed_chunk_create(const struct inference *inference, int64_t capacity, struct embed_chunk *out);
void embed_chunk_free(struct embed_chunk *work);

/* Cells [first, first+count) of the input into work->z and work->reason (rows without embedding are
 * not written). The result depends on the cells and the model alone. Local. */
MUST_CHECK enum status embed_chunk_run(struct inference *inference, struct cell_input *input, int64_t first,
                                       int64_t count, struct embed_chunk *work);

#endif
