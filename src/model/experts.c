#include "model/experts.h"

#include <stdlib.h>
#include <string.h>

enum status experts_add(struct expert_layers *list, struct expert_layer layer, int experts, int *index)
{
    if (list->count == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 16;
        void *layers = realloc(list->layer, sizeof *list->layer * (size_t)capacity);
        if (layers) list->layer = layers;
        void *load = realloc(list->load, sizeof *list->load * (size_t)capacity * (size_t)experts);
        if (load) list->load = load;
        if (!layers || !load) return fail(ST_MEMORY, "no memory for %d layers of experts", capacity);
        list->capacity = capacity;
    }
    list->experts = experts;
    list->layer[list->count] = layer;
    memset(list->load + list->count * experts, 0, sizeof *list->load * (size_t)experts);
    *index = list->count++;
    return ST_OK;
}

void experts_free(struct expert_layers *list)
{
    free(list->layer);
    free(list->load);
    *list = (struct expert_layers){0};
}

void experts_begin_step(struct expert_layers *list, double tokens)
{
    list->step_tokens = tokens;
    if (list->count) memset(list->load, 0, sizeof *list->load * (size_t)experts_load_count(list));
}

double experts_share(const struct expert_layers *list, int64_t tokens)
{
    return list->step_tokens > 0 ? (double)tokens / list->step_tokens : 0;
}

static int64_t sum_of(const int64_t *load, int experts)
{
    int64_t sum = 0;
    for (int e = 0; e < experts; e++) sum += load[e];
    return sum;
}

void experts_end_step(struct expert_layers *list, struct param_table *params)
{
    for (int l = 0; l < list->count; l++) {
        if (list->layer[l].bias < 0) continue;
        const int64_t *load = list->load + l * list->experts;
        int64_t sum = sum_of(load, list->experts);
        real *bias = param_weight(params, list->layer[l].bias);
        for (int e = 0; e < list->experts; e++) {
            int64_t above = load[e] * list->experts - sum; /* its sign is that of load - mean, exactly */
            bias[e] += (real)(list->rate * ((above < 0) - (above > 0)));
        }
    }
}

double experts_imbalance(const struct expert_layers *list)
{
    double worst = 0;
    for (int l = 0; l < list->count; l++) {
        const int64_t *load = list->load + l * list->experts;
        int64_t sum = sum_of(load, list->experts);
        for (int e = 0; e < list->experts; e++) {
            double over = sum > 0 ? (double)load[e] * list->experts / (double)sum : 0;
            if (over > worst) worst = over;
        }
    }
    return worst;
}
