/* A micro-batch: cells of unequal length as one ragged list of tokens.
 *
 * Token 0 of every cell is its cls token (role TOKEN_CLS, feature 0). Nothing is padded here; a
 * kernel that wants tiles pads inside. Sizes: B cells, S tokens in all, N distinct values in all.
 * A batch owns its arrays, sized once for the largest batch (batch_create), so a step allocates
 * nothing. */
#ifndef CYTOMILL_CELL_BATCH_H
#define CYTOMILL_CELL_BATCH_H

#include <stdint.h>

#include "base/status.h"

enum token_role { TOKEN_CLS = 0, TOKEN_FEATURE = 1 };

struct batch {
    int cell_count;      /* B */
    int64_t token_count; /* S */
    int64_t level_count; /* N */
    int64_t *offsets;    /* [B+1] first token of each cell; offsets[B] = S */
    int64_t *cell_id;    /* [B] global cell id, the key of this cell's random numbers */
    int32_t *feature;    /* [S] vocabulary id, 1-based; 0 for cls */
    float *value;        /* [S] model input (0 where hidden and for cls) */
    float *target;       /* [S] what the heads should say (0 for cls) */
    uint8_t *modality;   /* [S] index of the modality */
    uint8_t *role;       /* [S] enum token_role */
    uint8_t *visible;    /* [S] 1 = value shown; 0 = hidden (and for cls) */
    float *loss_weight;  /* [S] 1 on positions of the loss, else 0 */
    int32_t *position;   /* [S] order within the cell, cls = 0 */
    /* distinct visible values per cell: the value encoder runs once per level, not per token */
    int64_t *level_offsets; /* [B+1] first level of each cell; level_offsets[B] = N */
    float *level_value;     /* [N] ascending within a cell */
    int32_t *level;         /* [S] level of a visible feature token (absolute, 0..N-1), else -1 */
    int cell_capacity;
    int64_t token_capacity;
};

/* Room for `cells` cells and `tokens` tokens in all. Local. */
MUST_CHECK enum status batch_create(int cells, int64_t tokens, struct batch *out);
void batch_destroy(struct batch *batch);
/* Empty it, keeping the memory. */
void batch_clear(struct batch *batch);
/* Fill level, level_value and level_offsets from value and visible. Local. */
void batch_find_levels(struct batch *batch);

#endif
