/* For which groups of cells (cell types) each expert of a model works: slots routed, by block, expert and group, counted
 * while the table hangs at the model. The last block routes only rows that somebody reads.
 *
 *     TRY(expert_usage_create(blocks, experts, groups, cells of a micro-batch, &u));
 *     u.cell = ids, u.group = groups of cells, u.cells = how many;
 *     model_experts(model)->usage = &u;
 *     passes without training
 *     model_experts(model)->usage = NULL;
 *     comm_sum_i64(comm, u.slots, expert_usage_length(&u));    each rank counts the blocks and cells it has */
#ifndef CYTOMILL_MODEL_EXPERT_USAGE_H
#define CYTOMILL_MODEL_EXPERT_USAGE_H

#include "model/experts.h"
#include "model/pass.h"

struct expert_usage {
    int blocks, experts, groups; /* blocks of the whole model, E */
    int64_t *slots;              /* [blocks, E, groups] owned; 0 in blocks without experts */
    int32_t *of_pass;            /* [most_cells] groups of the cells of a pass; owned */
    int64_t cells;
    const int64_t *cell;  /* [cells] ids, ascending; borrowed */
    const int32_t *group; /* [cells] -1: none; borrowed. Cells without a group or not listed are in the last one */
};

/* An empty table that lists no cell yet, for passes over at most `most_cells` cells. Local. ST_MEMORY. */
MUST_CHECK enum status expert_usage_create(int blocks, int experts, int groups, int most_cells,
                                           struct expert_usage *out);
void expert_usage_free(struct expert_usage *usage);
/* Count from 0 again. Local. */
void expert_usage_clear(struct expert_usage *usage);
static inline int64_t expert_usage_length(const struct expert_usage *u)
{
    return (int64_t)u->blocks * u->experts * u->groups;
}
/* Slots of an expert for a group; of all experts of the block. Local. */
int64_t expert_usage_slots(const struct expert_usage *usage, int block, int expert, int group);
int64_t expert_usage_sum(const struct expert_usage *usage, int block, int group);

/* What the router of layer number `layer` counts in this pass, over `rows` rows: all tokens or those that are read. Good
 * until the next call. Nothing without layers->usage and while measuring. Local. */
struct expert_count expert_usage_count(const struct expert_layers *layers, int layer, const struct pass *pass,
                                       int64_t rows);

#endif
