/* Parts of a model: what a rank holds of it when a pipeline shares it out.
 *
 * A model of L blocks is a row of modules: the embedding (MODULE_EMBEDDING), blocks 0 .. L-1, and the heads (module
 * L). A part is a run of blocks; the part with block 0 has the embedding too, the one with block L-1 the heads. */
#ifndef CYTOMILL_MODEL_PART_H
#define CYTOMILL_MODEL_PART_H

#include <stdbool.h>

enum { MODULE_EMBEDDING = -1, MODEL_MAX_PARTS = 32 };

struct model_part {
    int first, end; /* blocks [first, end), at least one */
};

/* The parts that a rank holds, in the order of the model. */
struct model_hold {
    int count;
    struct model_part part[MODEL_MAX_PARTS];
    int expert_rank, expert_ranks; /* of each layer's experts an equal share, in rank order; 0 ranks: all */
};

static inline struct model_hold model_hold_all(int layers)
{
    return (struct model_hold){.count = 1, .part = {{0, layers}}};
}

static inline bool model_part_has(struct model_part part, int module, int layers)
{
    if (module == MODULE_EMBEDDING) return part.first == 0;
    if (module == layers) return part.end == layers;
    return module >= part.first && module < part.end;
}

static inline bool model_hold_has(const struct model_hold *hold, int module, int layers)
{
    for (int i = 0; i < hold->count; i++)
        if (model_part_has(hold->part[i], module, layers)) return true;
    return false;
}

/* Has it expert number `expert` of `experts`, which the ranks divide? */
static inline bool model_hold_has_expert(const struct model_hold *hold, int expert, int experts)
{
    return hold->expert_ranks <= 1 || expert / (experts / hold->expert_ranks) == hold->expert_rank;
}

#endif
