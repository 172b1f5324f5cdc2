/* The layers with experts of a model, as the trainer sees them: how many slots each expert got in a step, and the two
 * ways to keep that even (model.expert_balance):
 *   loss   a term of the loss pulls the router (kernel/expert.h), weighed by each micro-batch's share of the global
 *          batch's tokens
 *   bias   after a step each expert's bias on the choice goes up by a fixed rate if it got less than the mean, else
 *          down (Wang et al., arXiv:2408.15664); no gradient is bent
 *
 *     experts_begin_step(e, tokens of the global batch);
 *     model_gradient(...) of every micro-batch
 *     comm_sum_i64(comm, e->load, experts_load_count(e));
 *     experts_end_step(e, params); */
#ifndef CYTOMILL_MODEL_EXPERTS_H
#define CYTOMILL_MODEL_EXPERTS_H

#include "model/param.h"

struct expert_usage;

struct expert_layer {
    int block; /* of the model */
    int bias;  /* parameter, [E]; -1 if the choice has none */
};

/* Layers that lie here, in the order of the model; none in a model without experts. Zero-initialise. */
struct expert_layers {
    int count, capacity;
    int experts; /* E, the same in all */
    double rate; /* of the bias */
    struct expert_layer *layer;
    int64_t *load;              /* [count, E] slots routed in training passes since experts_begin_step */
    double step_tokens;         /* of the global batch; 0 before the first step: no balance terms */
    struct expert_usage *usage; /* counts the slots of every pass (model/expert_usage.h); NULL: nobody does. Borrowed */
};

/* Add a layer of `experts` experts; *index is its place. Its load moves when another is added. Local. */
MUST_CHECK enum status experts_add(struct expert_layers *list, struct expert_layer layer, int experts, int *index);
void experts_free(struct expert_layers *list);

/* Start a step whose global batch has so many tokens: loads are 0. Local. */
void experts_begin_step(struct expert_layers *list, double tokens);
/* Share of the global batch that a micro-batch of `tokens` has. Local. */
double experts_share(const struct expert_layers *list, int64_t tokens);
static inline int64_t experts_load_count(const struct expert_layers *list)
{
    return (int64_t)list->count * list->experts;
}
/* Move the biases; `load` is that of all ranks by now. Nothing happens without biases. Local. */
void experts_end_step(struct expert_layers *list, struct param_table *params);
/* Load of the busiest expert over the mean of its layer, the worst of all layers: 1 is even. 0 if nothing was routed.
 * Local. */
double experts_imbalance(const struct expert_layers *list);

#endif
