#include "mpi/plan_inside.h"

#include <math.h>
#include <stdlib.h>

#include "mpi/mesh.h"
#include "mpi/reduce.h"
#include "mpi/stage.h"

/* ---- the model ---- */

/* Training FLOPs of a token in each block, the first with the embedding and the last with the heads, when cells have
 * their mean length. */
static enum status measure_flops(struct plan *p)
{
    enum status st = ST_OK;
    struct model_cost cost;
    struct model_limits limits = {.cells = 1,
                                  .tokens = (int64_t)p->step_tokens,
                                  .train = true,
                                  .threads = p->machine->threads,
                                  .bf16 = p->job->bf16};
    TRY(NEW_ARRAY(p->flops, p->layers));
    for (int block = 0; block < p->layers; block++) {
        TRY(model_measure(p->model, &limits, &(struct model_part){block, block + 1}, &cost));
        p->flops[block] = cost.train_flops_per_token;
        p->cell_flops += p->flops[block] * p->step_tokens;
    }
done:
    return st;
}

enum status plan_open(const struct plan_job *job, const struct plan_machine *machine, struct plan **out)
{
    enum status st = ST_OK;
    struct plan *p = NULL;
    TRY(NEW_ARRAY(p, 1));
    *p = (struct plan){.job = job, .machine = machine, .step_tokens = job->genes + 1};
    TRY(model_create(job->config, job->vocab, NULL, &p->model));
    p->layers = model_layers(p->model);
    TRY(measure_flops(p));
done:
    if (st != ST_OK) plan_close(&p);
    *out = p;
    return st;
}

void plan_close(struct plan **plan)
{
    if (!*plan) return;
    model_destroy(&(*plan)->model);
    free((*plan)->flops);
    free(*plan);
    *plan = NULL;
}

double plan_cell_flops(const struct plan *p) { return p->cell_flops; }

int64_t plan_parameters(const struct plan *p)
{
    const struct param_table *table = model_params(p->model);
    int64_t count = 0;
    for (int i = 0; i < table->count; i++) count += param_reals(&table->rows[i]);
    return count;
}

/* ---- times of parts ---- */

/* A training pass of `tokens` tokens. */
static struct schedule_times block_times(const struct plan *p, double flops, double share, double tokens)
{
    const struct plan_machine *m = p->machine;
    double all_s = tokens * flops / (m->flops_per_s * share);
    return (struct schedule_times){.forward = m->pass_s + all_s * m->forward_part,
                                   .backward = m->pass_s + all_s * (1 - m->forward_part - m->weights_part),
                                   .weights = m->pass_s + all_s * m->weights_part};
}

static struct schedule_times times_of_block(const struct plan *p, int block, double tokens)
{
    const struct plan_machine *m = p->machine;
    double share = block == 0 ? m->first_share : block == p->layers - 1 ? m->last_share : m->block_share;
    return block_times(p, p->flops[block], share, tokens);
}

static double sum_s(struct schedule_times t) { return t.forward + t.backward + t.weights; }

/* All blocks of a stage, a micro-batch of `tokens` tokens. Recomputed, a block runs forward once more, and leaves no
 * weight gradients for later. */
static struct schedule_times times_of_stage(const struct plan *p, const struct plan_layout *l, const int *first,
                                            int stage, double tokens)
{
    struct schedule_times sum = {0};
    for (int chunk = 0; chunk < l->chunks; chunk++) {
        int part = chunk * l->pipe + stage;
        for (int block = first[part]; block < first[part + 1]; block++) {
            struct schedule_times t = times_of_block(p, block, tokens);
            sum.forward += t.forward;
            sum.backward += t.backward + (l->recompute ? t.forward + t.weights : 0);
            sum.weights += l->recompute ? 0 : t.weights;
        }
    }
    return sum;
}

enum status plan_share_layers(const struct plan *p, const struct plan_layout *l, int *first)
{
    int last = p->layers - 1;
    if (plan_parts(l) == 1 || p->layers < 3) return mesh_share_layers(p->layers, plan_parts(l), 0, 0, first);
    double block = sum_s(times_of_block(p, 1, p->step_tokens));
    double before = sum_s(times_of_block(p, 0, p->step_tokens)) / block - 1;
    double after = sum_s(times_of_block(p, last, p->step_tokens)) / block - 1;
    return mesh_share_layers(p->layers, plan_parts(l), before, after, first);
}

/* ---- what a stage holds ---- */

static bool holds(const struct plan *p, const struct plan_layout *l, const int *first, int stage, int module)
{
    for (int chunk = 0; chunk < l->chunks; chunk++) {
        int part = chunk * l->pipe + stage;
        if (model_part_has((struct model_part){first[part], first[part + 1]}, module, p->layers)) return true;
    }
    return false;
}

struct plan_held plan_held_by(const struct plan *p, const struct plan_layout *l, const int *first, int stage)
{
    const struct param_table *table = model_params(p->model);
    struct plan_held held = {0};
    for (int i = 0; i < table->count; i++) {
        const struct param *row = &table->rows[i];
        bool here = holds(p, l, first, stage, row->module);
        if (row->tied && holds(p, l, first, stage, p->layers)) here = true;
        if (!here) continue;
        if (row->sparse_rows) held.sparse += (double)param_reals(row), held.sparse_cols = (double)row->cols;
        else held.dense += (double)param_reals(row);
    }
    return held;
}

/* Parameters of sparse rows that the cells of a step touch: cells share most genes, so the union grows like a square
 * root of their number (PBMC 3k: 850 genes a cell, 2,700 cells, 13,700 genes), up to all. */
static double touched(const struct plan *p, const struct plan_held *held)
{
    double rows = p->job->genes * sqrt((double)p->job->batch) * held->sparse_cols;
    return rows < held->sparse ? rows : held->sparse;
}

/* ---- times of a step ---- */

/* Gradients of the rows that were touched go to their owners, weights of all rows come back. */
static double wire_bytes(const struct plan *p, const struct plan_held *held)
{
    double gradient = held->dense + touched(p, held), weights = held->dense + held->sparse;
    return (p->job->exchange_bf16 ? 2 : 4) * gradient + 4 * weights;
}

static void add_exchange(const struct plan *p, const int *first, struct plan_estimate *e)
{
    const struct plan_layout *l = &e->layout;
    const struct plan_machine *m = p->machine;
    for (int stage = 0; stage < l->pipe; stage++) {
        struct plan_held held = plan_held_by(p, l, first, stage);
        double bytes = 4 * (held.dense + touched(p, &held)), wire = wire_bytes(p, &held);
        double s = plan_exchange_s(m, bytes, wire, l->data);
        if (s > e->time.exchange) e->time.exchange = s;
        double sent = wire * (l->data - 1) / l->data;
        if (sent > e->traffic.gradients) e->traffic.gradients = sent;
        double moved = (held.dense + held.sparse) * plan_update_bytes(l->data);
        double update = moved / (m->memory_bytes_per_s * m->update_share);
        if (update > e->time.update) e->time.update = update;
        bool end = l->pipe > 1 && (stage == 0 || stage == l->pipe - 1);
        if (end && held.sparse > 0) e->traffic.tied = 4 * touched(p, &held);
    }
}

/* Rate between two ranks of different stages, when all ranks of a node send at once. */
static double stage_rate(const struct plan_machine *m)
{
    return (m->nodes > 1 ? m->link_bytes_per_s : m->shared_bytes_per_s) / m->ranks_per_node;
}

static double message_bytes(const struct plan *p, double tokens)
{
    return tokens * model_width(p->model) * (p->job->bf16 ? 2 : 4);
}

static void add_traffic(const struct plan *p, struct plan_estimate *e, double tokens)
{
    const struct plan_layout *l = &e->layout;
    const struct plan_machine *m = p->machine;
    int edges = l->chunks > 1 || l->pipe > 2 ? 2 : 1;
    if (l->pipe > 1) e->traffic.messages = edges * l->chunks * e->micros * message_bytes(p, tokens);
    if (l->pipe > 1) e->time.tied = 2 * (e->traffic.tied / stage_rate(m) + m->latency_s);
    if (m->nodes < 2) return;
    int near = l->data > m->ranks_per_node ? m->ranks_per_node : 1;
    double far = l->data > 1 ? (double)(l->data - near) / (l->data - 1) : 0;
    e->traffic.off_node = m->ranks_per_node * (far * e->traffic.gradients + e->traffic.messages + e->traffic.tied);
}

/* The dearest stage, and the mean of all. */
static struct schedule_times dearest_stage(const struct plan *p, const struct plan_layout *l, const int *first,
                                           double tokens, double *mean_s)
{
    struct schedule_times dearest = {0};
    *mean_s = 0;
    for (int stage = 0; stage < l->pipe; stage++) {
        struct schedule_times t = times_of_stage(p, l, first, stage, tokens);
        if (sum_s(t) > sum_s(dearest)) dearest = t;
        *mean_s += sum_s(t) / l->pipe;
    }
    return dearest;
}

static enum status add_compute(const struct plan *p, const int *first, struct plan_estimate *e, double tokens)
{
    const struct plan_layout *l = &e->layout;
    enum status st = ST_OK;
    double mean_s, pipeline_s;
    struct schedule_times t = dearest_stage(p, l, first, tokens, &mean_s), chunk = t;
    struct schedule_found found = {0};
    e->time.forward = e->micros * t.forward;
    e->time.backward = e->micros * t.backward;
    e->time.weights = e->micros * t.weights;
    pipeline_s = e->micros * sum_s(t);
    if (l->pipe > 1) {
        chunk.forward /= l->chunks, chunk.backward /= l->chunks, chunk.weights /= l->chunks;
        chunk.message = p->machine->latency_s + message_bytes(p, tokens) / stage_rate(p->machine);
        struct schedule_spec spec = {l->schedule, l->pipe, l->chunks, e->micros};
        TRY(plan_play(&spec, &chunk, &found));
        pipeline_s = found.step_s;
    }
    e->time.idle = pipeline_s - e->micros * sum_s(t);
    e->bubble = pipeline_s > 0 ? 1 - e->micros * mean_s / pipeline_s : 0;
    double cells = (double)p->job->batch / l->data;
    e->time.spread = pipeline_s * plan_longest(l->data) * p->job->genes_sd / (p->step_tokens * sqrt(cells));
done:
    return st;
}

/* ---- the whole run ---- */

static void add_run(const struct plan *p, struct plan_estimate *e)
{
    const struct plan_machine *m = p->machine;
    const struct plan_time *t = &e->time;
    const double restart_s = 180; /* a job back in the queue: Slurm alone waits 150 s */
    e->step_s = t->forward + t->backward + t->weights + t->idle + t->spread + t->exchange + t->tied + t->update;
    e->checkpoint_bytes = 12.0 * (double)plan_parameters(p);
    e->checkpoint_s = e->checkpoint_bytes / m->disk_bytes_per_s;
    double fails_s = m->node_mtbf_s / m->nodes, work_s = e->step_s * (double)p->job->steps;
    e->interval_s = plan_interval_s(e->checkpoint_s, fails_s);
    double lost = e->checkpoint_s / e->interval_s + (e->interval_s / 2 + restart_s) / fails_s;
    e->run_s = work_s * (1 + lost);
}

static enum status check_layout(const struct plan *p, const struct plan_layout *l)
{
    if (l->data < 1 || l->pipe < 1 || l->chunks < 1 || l->micro_batch < 1)
        return fail(ST_CONFIG, "a layout of %d replicas, %d stages, %d chunks and %d cells; all are at least 1",
                    l->data, l->pipe, l->chunks, l->micro_batch);
    if (l->data > p->job->batch)
        return fail(ST_CONFIG, "%d replicas, but the global batch has %lld cells (train.batch); each needs one",
                    l->data, (long long)p->job->batch);
    if (l->chunks > MODEL_MAX_PARTS)
        return fail(ST_CONFIG, "%d chunks a stage; %d are the most", l->chunks, MODEL_MAX_PARTS);
    if (plan_parts(l) <= p->layers) return ST_OK;
    return fail(ST_CONFIG, "%d stages of %d chunks need as many blocks; the model has %d (model.layers)", l->pipe,
                l->chunks, p->layers);
}

enum status plan_estimate_time(const struct plan *p, const struct plan_layout *l, struct plan_estimate *e)
{
    enum status st = ST_OK;
    int *first = NULL;
    *e = (struct plan_estimate){.layout = *l};
    TRY(check_layout(p, l));
    TRY(NEW_ARRAY(first, plan_parts(l) + 1));
    TRY(plan_share_layers(p, l, first));
    double cells = ceil((double)p->job->batch / l->data);
    e->micros = (int)ceil(cells / l->micro_batch);
    double tokens = (double)p->job->batch / l->data / e->micros * p->step_tokens;
    TRY(add_compute(p, first, e, tokens));
    add_exchange(p, first, e);
    add_traffic(p, e, tokens);
    add_run(p, e);
done:
    free(first);
    return st;
}

/* ---- memory ---- */

/* As cytomill-pretrain has it (jobs/pretrain_layout.c). */
static struct stage_plan stage_plan_of(const struct plan_estimate *e)
{
    const struct plan_layout *l = &e->layout;
    int least = l->pipe > 1 ? 2 * l->pipe : e->micros;
    return (struct stage_plan){.kind = l->schedule,
                               .chunks = l->chunks,
                               .micros = e->micros,
                               .loss_micros = e->micros < least ? least : e->micros};
}

static struct model_limits limits_of(const struct plan *p, const struct plan_estimate *e, int slots)
{
    const struct plan_layout *l = &e->layout;
    int64_t share = (p->job->batch + l->data - 1) / l->data;
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
    return m->weights + m->packed + m->gradients + m->moments + m->activations + m->exchange + m->messages + m->process;
}

/* The stage's model itself is made, without memory, and measured. */
static enum status measure_stage(const struct plan *p, const struct plan_estimate *e, const int *first, int stage,
                                 struct plan_memory *out)
{
    enum status st = ST_OK;
    struct model *model = NULL;
    struct model_cost cost;
    int stages = e->layout.pipe;
    struct stage_plan line = stage_plan_of(e);
    struct model_hold hold = stage_hold(&line, stages, stage, first);
    struct model_limits limits = limits_of(p, e, stage_slots(&line, stages, stage));
    TRY(model_create(p->job->config, p->job->vocab, &hold, &model));
    TRY(model_measure(model, &limits, NULL, &cost));
    *out = (struct plan_memory){
        .weights = (double)cost.weight_bytes,
        .packed = (double)cost.packed_bytes,
        .gradients = (double)cost.gradient_bytes,
        .moments = (double)cost.moment_bytes / e->layout.data, /* each replica looks after its share */
        .activations = (double)cost.activation_bytes,
        .exchange = (double)reducer_bytes(model_params(model), e->layout.data, p->job->exchange_bf16),
        .messages = (double)stage_bytes(&line, stages, stage, cost.message_bytes),
        .process = p->machine->process_bytes};
done:
    model_destroy(&model);
    return st;
}

/* The first stage and the last have the ends of the model; of those between, the first with most blocks holds most. */
enum status plan_estimate_memory(const struct plan *p, struct plan_estimate *e)
{
    enum status st = ST_OK;
    const struct plan_layout *l = &e->layout;
    int *first = NULL, middle = 0;
    TRY(NEW_ARRAY(first, plan_parts(l) + 1));
    TRY(plan_share_layers(p, l, first));
    for (int stage = 1; stage < l->pipe - 1; stage++)
        if (middle == 0 || first[stage + 1] - first[stage] > first[middle + 1] - first[middle]) middle = stage;
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

enum status plan_estimate(const struct plan *p, const struct plan_layout *l, struct plan_estimate *out)
{
    enum status st = ST_OK;
    TRY(plan_estimate_time(p, l, out));
    TRY(plan_estimate_memory(p, out));
done:
    return st;
}
