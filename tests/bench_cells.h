/* Made-up cells for the benchmarks of whole steps: as many tokens each as asked, every fifth gene hidden. */
#ifndef CYTOMILL_TESTS_BENCH_CELLS_H
#define CYTOMILL_TESTS_BENCH_CELLS_H

#include <math.h>

#include "bench.h"
#include "cell/batch.h"

static inline void add_cell(struct batch *b, int64_t id, int64_t tokens, int genes)
{
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)id, 0);
    int64_t first = b->token_count;
    b->cell_id[b->cell_count++] = id;
    b->token_count = b->offsets[b->cell_count] = first + tokens;
    for (int64_t i = 0, t = first; i < tokens; i++, t++) {
        bool cls = i == 0, hidden = i % 5 == 1;
        float value = cls ? 0 : logf((float)(2 + rng_below(&r, 20)));
        b->feature[t] = cls ? 0 : (int32_t)(1 + (id * 100 + i * 3) % genes);
        b->role[t] = cls ? TOKEN_CLS : TOKEN_FEATURE;
        b->value[t] = hidden ? 0 : value;
        b->target[t] = value;
        b->modality[t] = 0;
        b->visible[t] = !cls && !hidden;
        b->loss_weight[t] = hidden;
        b->position[t] = (int32_t)i;
    }
}

/* Cells id, id + 1, ...; the caller destroys the batch. */
static inline void fill_cells(struct batch *b, int cells, int64_t id, int64_t tokens, int genes)
{
    require(batch_create(cells, cells * tokens, b));
    batch_clear(b);
    for (int c = 0; c < cells; c++) add_cell(b, id + c, tokens, genes);
    batch_find_levels(b);
}

#endif
