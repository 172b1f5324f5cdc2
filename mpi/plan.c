#include "mpi/plan_inside.h"

#include <math.h>
#include <stdlib.h>

#include "mpi/mesh.h"

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
    TRY(NEW_ARRAY(p->block, p->layers));
    for (int block = 0; block < p->layers; block++) {
        TRY(model_measure(p->model, &limits, &(struct model_part){block, block + 1}, &cost));
        p->block[block] = (struct plan_block){.flops = cost.train_flops_per_token};
        p->cell_flops += cost.train_flops_per_token * p->step_tokens;
    }
done:
    return st;
}

static void find_experts(struct plan *p)
{
    const struct expert_layers *layers = model_experts(p->model);
    const struct param_table *table = model_params(p->model);
    p->chosen = (int)config_int(p->job->config, "model.experts_per_token");
    for (int i = 0; i < layers->count; i++) {
        p->experts = layers->experts;
        p->block[layers->layer[i].block].has_experts = true;
    }
    for (int i = 0; i < table->count; i++)
        *(table->rows[i].routed ? &p->routed : &p->dense) += (double)param_reals(&table->rows[i]);
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
    find_experts(p);
done:
    if (st != ST_OK) plan_close(&p);
    *out = p;
    return st;
}

void plan_close(struct plan **plan)
{
    if (!*plan) return;
    model_destroy(&(*plan)->model);
    free((*plan)->block);
    free(*plan);
    *plan = NULL;
}

double plan_cell_flops(const struct plan *p) { return p->cell_flops; }

int64_t plan_parameters(const struct plan *p) { return (int64_t)(p->dense + p->routed); }

/* ---- times of parts ---- */

static struct schedule_times block_times(const struct plan *p, int block, double tokens)
{
    const struct plan_machine *m = p->machine;
    double share = block == 0                    ? m->first_share
                   : block == p->layers - 1      ? m->last_share
                   : p->block[block].has_experts ? m->expert_share
                                                 : m->block_share;
    double all_s = tokens * p->block[block].flops / (m->flops_per_s * share);
    return (struct schedule_times){.forward = m->pass_s + all_s * m->forward_part,
                                   .backward = m->pass_s + all_s * (1 - m->forward_part - m->weights_part),
                                   .weights = m->pass_s + all_s * m->weights_part};
}

static double sum_s(struct schedule_times t) { return t.forward + t.backward + t.weights; }

/* Rows of a micro-batch that go to the experts of a layer and come back: as many bytes each way. */
static double row_bytes(const struct plan *p, double tokens)
{
    return tokens * p->chosen * model_width(p->model) * (p->job->bf16 ? 2 : 4);
}

/* Trips of rows, there or back, in a training pass through a block: results of the experts and gradients of them. */
static int backward_trips(const struct plan_layout *l) { return l->recompute ? 4 : 2; }

bool plan_crosses(const struct plan *p, const struct plan_layout *l)
{
    return plan_near(p->machine, plan_experts(l), 1) < plan_experts(l);
}

/* A trip of rows as part of what a stage computes, and as an exchange beside that: one after another it is all the former. */
struct trip {
    double own_s, exchange_s;
};

static struct trip trip_of(const struct plan *p, const struct plan_layout *l, double tokens)
{
    struct plan_travel t = plan_travel(p->machine, row_bytes(p, tokens), plan_experts(l));
    if (!l->in_turns) return (struct trip){fmax(t.link_s, t.copy_s) + t.start_s, 0};
    return (struct trip){t.copy_s + (1 - PLAN_HIDDEN_SHARE) * t.link_s, t.link_s + t.start_s};
}

/* All blocks of a part, a micro-batch of `tokens` tokens, and what of it is trips of rows. Recomputed, a block runs
 * forward once more, and leaves no weight gradients for later. */
static struct schedule_times part_times(const struct plan *p, const struct plan_layout *l, const int *first, int part,
                                        double tokens, double *travel_s)
{
    struct trip trip = trip_of(p, l, tokens);
    struct schedule_times sum = {.exchange = trip.exchange_s};
    for (int block = first[part]; block < first[part + 1]; block++) {
        struct schedule_times t = block_times(p, block, tokens);
        double own_s = p->block[block].has_experts ? trip.own_s : 0;
        sum.forward += t.forward + 2 * own_s;
        sum.backward += t.backward + (l->recompute ? t.forward + t.weights : 0) + backward_trips(l) * own_s;
        sum.weights += l->recompute ? 0 : t.weights;
        *travel_s += (2 + backward_trips(l)) * own_s;
    }
    return sum;
}

static enum status take_given(const struct plan *p, const struct plan_layout *l, int *first)
{
    first[0] = 0;
    for (int i = 0; i < plan_parts(l); i++) first[i + 1] = first[i] + l->blocks[i];
    if (first[plan_parts(l)] == p->layers) return ST_OK;
    return fail(ST_CONFIG, "%d blocks are shared out (mesh.layers), the model has %d (model.layers)",
                first[plan_parts(l)], p->layers);
}

/* Blocks between the ends count as their mean. */
enum status plan_share_layers(const struct plan *p, const struct plan_layout *l, int *first)
{
    double block = 0, between = p->layers - 2;
    if (l->blocks) return take_given(p, l, first);
    if (plan_parts(l) == 1 || p->layers < 3) return mesh_share_layers(p->layers, plan_parts(l), 0, 0, first);
    for (int i = 1; i < p->layers - 1; i++) block += sum_s(block_times(p, i, p->step_tokens)) / between;
    double before = sum_s(block_times(p, 0, p->step_tokens)) / block - 1;
    double after = sum_s(block_times(p, p->layers - 1, p->step_tokens)) / block - 1;
    return mesh_share_layers(p->layers, plan_parts(l), before, after, first);
}

/* ---- what a stage holds ---- */

/* Parameters of a rank of a stage; those of rows that travel as touched rows, and their width; those of experts. Of the
 * dense ones, those whose weights travel as products have them; so do all of experts. */
struct held {
    double dense, sparse, sparse_cols, routed, packed;
};

static bool holds(const struct plan *p, const struct plan_layout *l, const int *first, int stage, int module)
{
    for (int chunk = 0; chunk < l->chunks; chunk++) {
        int part = chunk * l->pipe + stage;
        if (model_part_has((struct model_part){first[part], first[part + 1]}, module, p->layers)) return true;
    }
    return false;
}

static struct held held_by(const struct plan *p, const struct plan_layout *l, const int *first, int stage)
{
    const struct param_table *table = model_params(p->model);
    struct held held = {0};
    for (int i = 0; i < table->count; i++) {
        const struct param *row = &table->rows[i];
        bool here = holds(p, l, first, stage, row->module);
        if (row->tied && holds(p, l, first, stage, p->layers)) here = true;
        if (!here) continue;
        if (row->sparse_rows) held.sparse += (double)param_reals(row), held.sparse_cols = (double)row->cols;
        else if (row->routed) held.routed += (double)param_reals(row) / plan_experts(l);
        else held.dense += (double)param_reals(row);
        if (row->packed && !row->fine && !row->routed) held.packed += (double)param_reals(row);
    }
    return held;
}

/* Parameters of sparse rows that the cells of a step touch: cells share most genes, so the union grows like a square
 * root of their number (PBMC 3k: 850 genes a cell, 2,700 cells, 13,700 genes), up to all. */
static double touched(const struct plan *p, const struct held *held)
{
    double rows = p->job->genes * sqrt((double)p->job->batch) * held->sparse_cols;
    return rows < held->sparse ? rows : held->sparse;
}

/* ---- times of a step ---- */

/* What travels between the ranks that have the same parameters: gradients to their owners, weights back, of which `packed`
 * as products have them, once for the ranks that share these. */
struct exchanged {
    int ranks, stride;
    double gradients, gradient_wire, weight_wire; /* parameters; bytes */
};

static struct exchanged exchanged_by(const struct plan *p, double gradients, double weights, double packed, int ranks,
                                     int stride)
{
    double back = 4 * (weights - packed) + (p->job->bf16 ? 2 : 4) * packed / plan_sharers(p->machine, ranks, stride);
    return (struct exchanged){ranks, stride, gradients, (p->job->exchange_bf16 ? 2 : 4) * gradients, back};
}

/* *hides_s is what the backward pass can still hide. */
static void add_group(const struct plan *p, const struct exchanged *x, double *hides_s, struct plan_estimate *sum)
{
    const struct plan_machine *m = p->machine;
    double up_s = plan_exchange_s(m, 4 * x->gradients, x->gradient_wire, x->ranks, x->stride);
    double down_s = plan_exchange_s(m, 0, x->weight_wire, x->ranks, x->stride);
    double hidden_s = m->nodes > 1 ? fmin(PLAN_HIDDEN_SHARE * up_s, *hides_s) : 0;
    double wire = x->gradient_wire + x->weight_wire;
    *hides_s -= hidden_s;
    sum->time.exchange += up_s - hidden_s + down_s;
    sum->traffic.gradients += wire * (x->ranks - 1) / x->ranks;
    if (m->nodes > 1) sum->traffic.off_node += wire * (x->ranks - plan_near(m, x->ranks, x->stride)) / x->ranks;
}

/* What all ranks of a stage have is summed over all, experts over the ranks that have the same ones. Of sparse rows only
 * those that were touched go to their owners, and all come back. */
static void add_exchange_of(const struct plan *p, const struct held *held, struct plan_estimate *e)
{
    const struct plan_layout *l = &e->layout;
    const struct plan_machine *m = p->machine;
    struct plan_estimate sum = {0};
    int wide = plan_wide(l);
    double all = held->dense + held->sparse, hides_s = (e->time.backward + e->time.weights) / e->micros;
    struct exchanged common = exchanged_by(p, held->dense + touched(p, held), all, held->packed, wide, 1);
    struct exchanged routed = exchanged_by(p, held->routed, held->routed, held->routed, l->data, plan_experts(l));
    add_group(p, &common, &hides_s, &sum);
    add_group(p, &routed, &hides_s, &sum);
    double moved = all * plan_update_bytes(wide, plan_sharers(m, wide, 1)) +
                   held->routed * plan_update_bytes(l->data, plan_sharers(m, l->data, plan_experts(l)));
    e->time.exchange = fmax(e->time.exchange, sum.time.exchange);
    e->time.update = fmax(e->time.update, moved / (m->memory_bytes_per_s * m->update_share));
    e->traffic.gradients = fmax(e->traffic.gradients, sum.traffic.gradients);
    e->traffic.off_node = fmax(e->traffic.off_node, m->ranks_per_node * sum.traffic.off_node);
}

static void add_exchange(const struct plan *p, const int *first, struct plan_estimate *e)
{
    const struct plan_layout *l = &e->layout;
    for (int stage = 0; stage < l->pipe; stage++) {
        struct held held = held_by(p, l, first, stage);
        add_exchange_of(p, &held, e);
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

/* Blocks with experts of a part. */
static int expert_blocks(const struct plan *p, const int *first, int part)
{
    int count = 0;
    for (int block = first[part]; block < first[part + 1]; block++) count += p->block[block].has_experts;
    return count;
}

/* And of the stage that has most. */
static int most_expert_blocks(const struct plan *p, const struct plan_layout *l, const int *first)
{
    int most = 0;
    for (int stage = 0; stage < l->pipe; stage++) {
        int count = 0;
        for (int part = stage; part < plan_parts(l); part += l->pipe) count += expert_blocks(p, first, part);
        if (count > most) most = count;
    }
    return most;
}

static void add_traffic(const struct plan *p, const int *first, struct plan_estimate *e, double tokens)
{
    const struct plan_layout *l = &e->layout;
    const struct plan_machine *m = p->machine;
    int edges = l->chunks > 1 || l->pipe > 2 ? 2 : 1, k = plan_experts(l);
    double rows = most_expert_blocks(p, l, first) * (2 + backward_trips(l)) * e->micros * row_bytes(p, tokens);
    e->traffic.rows = rows * (k - 1) / k;
    if (l->pipe > 1) e->traffic.messages = edges * l->chunks * e->micros * message_bytes(p, tokens);
    if (l->pipe > 1) e->time.tied = 2 * (e->traffic.tied / stage_rate(m) + m->latency_s);
    if (m->nodes < 2) return;
    double far = rows * (k - plan_near(m, k, 1)) / k;
    e->traffic.off_node += m->ranks_per_node * (far + e->traffic.messages + e->traffic.tied);
}

/* Times of every part; time.* gets those of the dearest stage, *mean_s is the mean of all stages. */
static void time_parts(const struct plan *p, const int *first, struct plan_estimate *e, double tokens,
                       struct schedule_times *times, double *mean_s)
{
    const struct plan_layout *l = &e->layout;
    struct plan_time *t = &e->time;
    *mean_s = 0;
    for (int stage = 0; stage < l->pipe; stage++) {
        struct schedule_times sum = {0};
        double travel_s = 0;
        for (int part = stage; part < plan_parts(l); part += l->pipe) {
            times[part] = part_times(p, l, first, part, tokens, &travel_s);
            times[part].message = p->machine->message_s + message_bytes(p, tokens) / stage_rate(p->machine);
            sum.forward += times[part].forward;
            sum.backward += times[part].backward;
            sum.weights += times[part].weights;
        }
        *mean_s += e->micros * sum_s(sum) / l->pipe;
        if (e->micros * sum_s(sum) <= t->forward + t->backward + t->weights + t->experts) continue;
        double forward_s = travel_s * 2 / (2 + backward_trips(l));
        t->experts = e->micros * travel_s;
        t->forward = e->micros * (sum.forward - forward_s);
        t->backward = e->micros * (sum.backward - (travel_s - forward_s));
        t->weights = e->micros * sum.weights;
    }
}

/* The table with the times of its parts; in turns also with the exchanges of those that have experts. */
static enum status play(const struct plan *p, const int *first, const struct plan_estimate *e,
                        const struct schedule_times *times, struct schedule_found *found)
{
    const struct plan_layout *l = &e->layout;
    enum status st = ST_OK;
    int *trips = NULL;
    struct schedule_spec spec = {.kind = l->schedule, .stages = l->pipe, .chunks = l->chunks, .micros = e->micros};
    TRY(NEW_ARRAY(trips, plan_parts(l)));
    for (int part = 0; part < plan_parts(l); part++) trips[part] = expert_blocks(p, first, part);
    if (l->in_turns) spec.trips = trips, spec.recompute = l->recompute, spec.in_turns = true;
    TRY(plan_play(&spec, times, found));
done:
    free(trips);
    return st;
}

/* What stages wait for rows is the mean of all. */
static enum status add_compute(const struct plan *p, const int *first, struct plan_estimate *e, double tokens)
{
    const struct plan_layout *l = &e->layout;
    enum status st = ST_OK;
    struct plan_time *t = &e->time;
    struct schedule_times *times = NULL;
    double mean_s;
    TRY(NEW_ARRAY(times, plan_parts(l)));
    time_parts(p, first, e, tokens, times, &mean_s);
    double busy_s = t->forward + t->backward + t->weights + t->experts;
    struct schedule_found found = {.step_s = busy_s};
    if (l->pipe > 1 || l->in_turns) TRY(play(p, first, e, times, &found));
    double rows_s = fmin(found.exchange_s / l->pipe, found.step_s - busy_s);
    t->experts += rows_s;
    t->idle = l->pipe > 1 ? found.step_s - busy_s - rows_s : 0;
    e->bubble = found.step_s > 0 ? 1 - (mean_s + found.exchange_s / l->pipe) / found.step_s : 0;
    double cells = (double)p->job->batch / plan_wide(l);
    t->spread = found.step_s * plan_longest(plan_wide(l)) * p->job->genes_sd / (p->step_tokens * sqrt(cells));
done:
    free(times);
    return st;
}

/* ---- the whole run ---- */

static void add_run(const struct plan *p, struct plan_estimate *e)
{
    const struct plan_machine *m = p->machine;
    const struct plan_time *t = &e->time;
    const double restart_s = 180; /* a job back in the queue: Slurm alone waits 150 s */
    e->step_s =
        t->forward + t->backward + t->weights + t->experts + t->idle + t->spread + t->exchange + t->tied + t->update;
    e->checkpoint_bytes = 12.0 * (double)plan_parameters(p);
    e->checkpoint_s = e->checkpoint_bytes / m->disk_bytes_per_s;
    double copy_s = 2 * e->checkpoint_bytes / plan_ranks(m) / m->memory_bytes_per_s;
    e->stall_s = e->checkpoint_s;
    if (p->job->copies) e->stall_s = fmin(copy_s + PLAN_STALL_SHARE * e->checkpoint_s, e->checkpoint_s);
    double fails_s = m->node_mtbf_s / m->nodes, work_s = e->step_s * (double)p->job->steps;
    e->interval_s = fmax(plan_interval_s(e->stall_s, fails_s), e->checkpoint_s); /* one is on its way at a time */
    double again_s = e->interval_s / 2 + (e->checkpoint_s - e->stall_s) + restart_s;
    e->run_s = work_s * (1 + e->stall_s / e->interval_s + again_s / fails_s);
}

static enum status check_layout(const struct plan *p, const struct plan_layout *l)
{
    if (l->data < 1 || l->pipe < 1 || l->chunks < 1 || l->micro_batch < 1)
        return fail(ST_CONFIG, "a layout of %d replicas, %d stages, %d chunks and %d cells; all are at least 1",
                    l->data, l->pipe, l->chunks, l->micro_batch);
    if (plan_wide(l) > p->job->batch)
        return fail(ST_CONFIG,
                    "%d replicas of %d expert ranks, but the global batch has %lld cells (train.batch); each "
                    "rank needs one",
                    l->data, plan_experts(l), (long long)p->job->batch);
    if (plan_experts(l) > 1 && (p->experts == 0 || p->experts % plan_experts(l) != 0))
        return fail(ST_CONFIG,
                    "%d ranks cannot share out the %d experts of a layer equally (mesh.expert); take a divisor",
                    plan_experts(l), p->experts);
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
    double cells = ceil((double)p->job->batch / plan_wide(l));
    e->micros = (int)ceil(cells / l->micro_batch);
    double tokens = (double)p->job->batch / plan_wide(l) / e->micros * p->step_tokens;
    TRY(add_compute(p, first, e, tokens));
    add_exchange(p, first, e);
    add_traffic(p, first, e, tokens);
    add_run(p, e);
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
