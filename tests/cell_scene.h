/* Made-up cells for tests of models; cell `id` is the same whenever and by whomever it is made. */
#ifndef CYTOMILL_TESTS_CELL_SCENE_H
#define CYTOMILL_TESTS_CELL_SCENE_H

#include <math.h>
#include <stdbool.h>

#include "base/rng.h"
#include "cell/batch.h"

/* Append a cell of `length` of the genes 1 to `genes`, in their order, after its cls token: counts 1 to 6, a fifth hidden;
 * the hidden ones count in the loss, and an eighth of the others. */
static inline void add_cell(struct batch *b, int64_t id, int length, int genes)
{
    struct rng r = rng_at(11, RNG_TEST, (uint64_t)id, 0);
    int position = 0;
    b->cell_id[b->cell_count] = id;
    for (int gene = 0; position <= length; gene++) {
        int left = genes - gene + 1, wanted = length - position + 1;
        if (gene > 0 && rng_below(&r, (uint64_t)left) >= (uint64_t)wanted) continue;
        int64_t t = b->token_count++;
        bool hidden = gene && rng_below(&r, 5) == 0;
        b->feature[t] = gene;
        b->role[t] = gene ? TOKEN_FEATURE : TOKEN_CLS;
        b->target[t] = gene ? log1pf((float)(1 + rng_below(&r, 6))) : 0;
        b->value[t] = hidden ? 0 : b->target[t];
        b->visible[t] = gene && !hidden;
        b->loss_weight[t] = gene && (hidden || rng_below(&r, 8) == 0);
        b->modality[t] = 0;
        b->position[t] = position++;
    }
    b->offsets[++b->cell_count] = b->token_count;
}

#endif
