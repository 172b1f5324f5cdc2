/* Memory of a layout: what measure mode and the modules themselves say of the ranks that hold most. */
#include <stdlib.h>

#include "mpi/hand_out.h"
#include "mpi/plan_inside.h"
#include "mpi/reduce.h"
#include "mpi/stage.h"

/* As cytomill-pretrain has it (jobs/pretrain_layout.c). */
static struct stage_plan stage_plan_of(const struct plan *p, const struct plan_estimate *e)
{
    const struct plan_layout *l = &e->layout;
    int least = l->pipe > 1 ? 2 * l->pipe : e->micros;
    return (struct stage_plan){.kind = l->schedule,
                               .chunks = l->chunks,
                               .micros = e->micros,
                               .linked = plan_experts(l) > 1,
                               .in_turns = l->in_turns,
                               .loss_micros = e->micros < least ? least : e->micros};
}

static struct model_limits limits_of(const struct plan *p, const struct plan_estimate *e, int slots)
{
    const struct plan_layout *l = &e->layout;
    int64_t wide = plan_wide(l), share = (p->job->batch + wide - 1) / wide;
    int cells = l->micro_batch < share ? l->micro_batch : (int)share;
    return (struct model_limits){.cells = cells,
                                 .tokens = (int64_t)cells * (p->job->max_genes + 1),
                                 .train = true,
                                 .threads = p->machine->threads,
                                 .bf16 = p->job->bf16,
                                 .slots = slots,
                                 .splits = schedule_splits(l->schedule),
                                 .recompute = l->recompute};
}

static double sum_bytes(const struct plan_memory *m)
{
    return m->weights + m->packed + m->gradients + m->moments + m->activations + m->exchange + m->messages +
           m->checkpoint + m->process;
}

/* The rank's share of `bytes` that all ranks of a stage look after, and of `routed` that every place among the experts
 * does. */
static double own_share(const struct plan_layout *l, double bytes, double routed)
{
    return (bytes - routed) / plan_wide(l) + routed / l->data;
}

static void fill_memory(const struct plan *p, const struct plan_estimate *e, const struct param_table *table,
                        const struct model_cost *cost, struct plan_memory *out)
{
    const struct plan_layout *l = &e->layout;
    double all = (double)cost->weight_bytes, routed = (double)cost->routed_bytes;
    double packed = (double)cost->packed_bytes, packed_routed = (double)cost->packed_routed;
    *out = (struct plan_memory){.weights = (double)param_split_bytes(table, plan_wide(l), l->data),
                                .packed = (packed - packed_routed) / plan_sharers(p->machine, plan_wide(l), 1) +
                                          packed_routed / plan_sharers(p->machine, l->data, plan_experts(l)),
                                .gradients = (double)cost->gradient_bytes,
                                .moments = 2 * own_share(l, all, routed),
                                .activations = (double)cost->activation_bytes,
                                .process = p->machine->process_bytes};
}

/* Weights and moments that the rank writes, copied; a tied tensor is written by one stage. */
static double copy_bytes(const struct plan_layout *l, const struct param_table *table)
{
    double reals = 0;
    for (int i = 0; i < table->count; i++) {
        const struct param *row = &table->rows[i];
        if (row->elsewhere || row->copy) continue;
        reals += (double)param_reals(row) / (row->routed ? l->data : plan_wide(l));
    }
    return 3 * sizeof(real) * reals;
}

/* The stage's model itself is made, without memory, and measured. */
static enum status measure_stage(const struct plan *p, const struct plan_estimate *e, const int *first, int stage,
                                 struct plan_memory *out)
{
    enum status st = ST_OK;
    struct model *model = NULL;
    struct model_cost cost;
    int stages = e->layout.pipe, wide = plan_wide(&e->layout);
    struct stage_plan line = stage_plan_of(p, e);
    struct model_hold hold = stage_hold(&line, stages, stage, first);
    struct model_limits limits = limits_of(p, e, stage_slots(&line, stages, stage));
    hold.expert_ranks = plan_experts(&e->layout);
    TRY(model_create(p->job->config, p->job->vocab, &hold, &model));
    TRY(model_measure(model, &limits, NULL, &cost));
    fill_memory(p, e, model_params(model), &cost, out);
    if (p->job->copies) out->checkpoint = copy_bytes(&e->layout, model_params(model));
    out->exchange = (double)reducer_bytes(model_params(model), wide, p->job->exchange_bf16) +
                    (double)hand_out_bytes(model_params(model), wide, e->layout.data, plan_sharers(p->machine, wide, 1),
                                           p->job->bf16);
    out->messages = (double)stage_bytes(&line, stages, stage, cost.message_bytes);
done:
    model_destroy(&model);
    return st;
}

/* What a stage's blocks hold, in feed-forwards. */
static int heft(const struct plan *p, const struct plan_layout *l, const int *first, int stage)
{
    int sum = 0;
    for (int part = stage; part < plan_parts(l); part += l->pipe)
        for (int block = first[part]; block < first[part + 1]; block++)
            sum += 1 + p->block[block].has_experts * p->experts / plan_experts(l);
    return sum;
}

/* The first stage and the last have the ends of the model; of those between, the first with the heaviest blocks holds
 * most. */
enum status plan_estimate_memory(const struct plan *p, struct plan_estimate *e)
{
    enum status st = ST_OK;
    const struct plan_layout *l = &e->layout;
    int *first = NULL, middle = 0;
    TRY(NEW_ARRAY(first, plan_parts(l) + 1));
    TRY(plan_share_layers(p, l, first));
    for (int stage = 1; stage < l->pipe - 1; stage++)
        if (middle == 0 || heft(p, l, first, stage) > heft(p, l, first, middle)) middle = stage;
    const int stages[] = {0, middle, l->pipe - 1};
    e->rank_bytes = 0;
    for (int i = 0; i < 3; i++) {
        struct plan_memory memory;
        if (i > 0 && stages[i] == 0) continue;
        TRY(measure_stage(p, e, first, stages[i], &memory));
        if (sum_bytes(&memory) > e->rank_bytes) e->memory = memory, e->rank_bytes = sum_bytes(&memory);
    }
    e->node_bytes = e->rank_bytes * p->machine->ranks_per_node;
    e->fits = e->node_bytes <= PLAN_MEMORY_SHARE * p->machine->node_bytes;
done:
    free(first);
    return st;
}
