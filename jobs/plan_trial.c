#include "jobs/plan_trial.h"

#include <math.h>
#include <stdlib.h>

#include "base/progress.h"
#include "base/rng.h"
#include "cell/tokenize.h"
#include "mpi/pipeline.h"

/* Seconds of one pass through all parts. */
typedef double part_times[KINDS][PASSES];

double trial_median(double *x, int count)
{
    for (int i = 1; i < count; i++)
        for (int k = i; k > 0 && x[k] < x[k - 1]; k--) {
            double t = x[k];
            x[k] = x[k - 1], x[k - 1] = t;
        }
    return x[count / 2];
}

/* ---- the trial ---- */

/* Genes spread over the vocabulary, counts as they are: half of them 1. */
static enum status add_cell(struct trial *t, const struct plan_job *job, const struct token_rules *rules, int which,
                            int genes)
{
    struct token_cell cell = {0};
    enum status st = ST_OK;
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)which, 0);
    int64_t all = job->vocab->count;
    TRY(token_cell_reserve(&cell, genes));
    for (int i = 0; i < genes; i++) {
        cell.gene[i] = (int32_t)(1 + (i * all + which * 37 % all) / genes);
        cell.counts[i] = 1 + floorf((float)(-log(1 - rng_uniform(&r)) / log(2)));
        cell.total += cell.counts[i];
    }
    cell.count = genes;
    token_append_train(&t->batch, &cell, rules, which, 1, 0);
done:
    token_cell_free(&cell);
    return st;
}

enum status trial_fill(struct trial *t, const struct plan_job *job, int cells, int genes)
{
    enum status st = ST_OK;
    struct token_rules rules = token_rules_from(job->config);
    batch_clear(&t->batch);
    for (int c = 0; c < cells; c++) TRY(add_cell(t, job, &rules, c, genes));
    batch_find_levels(&t->batch);
done:
    return st;
}

static bool has_experts(const struct expert_layers *layers, int block)
{
    for (int i = 0; i < layers->count; i++)
        if (layers->layer[i].block == block) return true;
    return false;
}

static void add_kind(struct trial *t, enum kind kind, int block)
{
    t->kind[t->count] = kind;
    t->block[t->count++] = block;
}

/* Of a model of fewer than three blocks another one is taken that has three. */
static enum status choose_blocks(struct job *job, struct trial *t)
{
    const struct planning *p = job->state;
    enum status st = ST_OK;
    struct model *whole = NULL;
    int plain = 0, mixture = 0;
    if (config_int(job->config, "model.layers") < 3) TRY(config_put(job->config, "model.layers", "3", "calibration"));
    TRY(model_create(job->config, p->vocab, NULL, &whole));
    int last = model_layers(whole) - 1;
    for (int block = last - 1; block > 0; block--)
        *(has_experts(model_experts(whole), block) ? &mixture : &plain) = block;
    add_kind(t, FIRST, 0);
    if (plain) add_kind(t, BETWEEN, plain);
    if (mixture) add_kind(t, EXPERTS, mixture);
    add_kind(t, LAST, last);
done:
    model_destroy(&whole);
    return st;
}

enum status trial_open(struct job *job, struct trial *t)
{
    const struct planning *p = job->state;
    enum status st = ST_OK;
    int64_t micro = config_int(job->config, "train.micro_batch");
    int cells = (int)(micro < p->job.batch ? micro : p->job.batch);
    TRY(choose_blocks(job, t));
    struct model_hold hold = {.count = t->count};
    for (int i = 0; i < t->count; i++) hold.part[i] = (struct model_part){t->block[i], t->block[i] + 1};
    t->limits = (struct model_limits){.cells = cells,
                                      .tokens = (int64_t)cells * (p->job.max_genes + 1),
                                      .train = true,
                                      .threads = job->placement.threads,
                                      .bf16 = p->job.bf16,
                                      .slots = t->count,
                                      .splits = true};
    TRY(model_create(job->config, p->vocab, &hold, &t->model));
    TRY(param_share(model_params(t->model), job->world.rank, job->world.size, 1));
    TRY(param_allocate(model_params(t->model), true));
    param_initialise(model_params(t->model), 1);
    TRY(model_prepare(t->model, &t->limits));
    TRY(model_pack(t->model));
    TRY(batch_create(cells, t->limits.tokens, &t->batch));
    TRY(mem_alloc(&t->activation, (size_t)model_message_bytes(t->model, t->limits.tokens), 1, "an activation"));
    TRY(mem_alloc(&t->gradient, (size_t)model_message_bytes(t->model, t->limits.tokens), 1, "a gradient"));
done:
    return st;
}

void trial_close(struct trial *t)
{
    free(t->activation), free(t->gradient);
    batch_destroy(&t->batch);
    model_destroy(&t->model);
    *t = (struct trial){0};
}

/* Each part forward, then back, as a pipeline of one rank would. */
static enum status run_parts(struct trial *t, uint64_t step, part_times seconds)
{
    enum status st = ST_OK;
    const int last = t->count - 1;
    struct model_how how = {.train = true, .scale = 1e-3, .step = step};
    struct loss_sum loss = {0};
    for (int part = 0; part <= last; part++) {
        double start = clock_s();
        TRY(model_forward_part(t->model, part, part, &t->batch, &how, part ? t->activation : NULL,
                               part < last ? t->activation : NULL, &loss));
        seconds[part][FORWARD] = clock_s() - start;
    }
    for (int part = last; part >= 0; part--) {
        double start = clock_s();
        TRY(model_backward_part(t->model, part, part < last ? t->gradient : NULL, part ? t->gradient : NULL));
        double between = clock_s();
        model_weights_part(t->model, part);
        seconds[part][BACKWARD] = between - start;
        seconds[part][WEIGHTS] = clock_s() - between;
    }
done:
    return st;
}

/* As many rounds as take about two seconds; *round is the number of those that were done. */
static enum status run_rounds(struct comm *comm, struct trial *t, part_times *seconds, int *round)
{
    enum status st = run_parts(t, 0, seconds[0]); /* the first one warms up */
    double start = clock_s();
    for (*round = 0; *round < MOST_ROUNDS; ++*round) {
        int64_t late = clock_s() - start > 2 && *round >= ROUNDS;
        comm_max_i64(comm, &late, 1); /* all ranks begin a round together */
        if (late) break;
        if (st == ST_OK) st = run_parts(t, (uint64_t)*round, seconds[*round]);
    }
    return comm_agree(comm, st);
}

enum status trial_time(struct comm *comm, struct trial *t)
{
    enum status st = ST_OK;
    part_times seconds[MOST_ROUNDS];
    double x[MOST_ROUNDS];
    struct model_limits limits = t->limits;
    int rounds;
    limits.cells = t->batch.cell_count;
    limits.tokens = t->batch.token_count;
    TRY(run_rounds(comm, t, seconds, &rounds));
    for (int part = 0; part < t->count; part++) {
        struct model_cost cost;
        TRY(model_measure(t->model, &limits, &(struct model_part){t->block[part], t->block[part] + 1}, &cost));
        t->flops[part] = cost.train_flops_per_token;
        for (int pass = 0; pass < PASSES; pass++) {
            for (int round = 0; round < rounds; round++) x[round] = seconds[round][part][pass];
            t->seconds[part][pass] = trial_median(x, rounds);
        }
    }
    comm_sum_f64(comm, &t->seconds[0][0], KINDS * PASSES);
    for (int i = 0; i < KINDS * PASSES; i++) (&t->seconds[0][0])[i] /= comm->size;
done:
    return st;
}

double trial_train_s(const struct trial *t, int part)
{
    return t->seconds[part][FORWARD] + t->seconds[part][BACKWARD] + t->seconds[part][WEIGHTS];
}

/* ---- as stages of a pipeline ---- */

static struct model_how how_to_train(void) { return (struct model_how){.train = true, .scale = 1e-3}; }

static enum status stage_forward(void *context, const struct instruction *i, const void *in, void *out)
{
    struct trial *t = context;
    struct model_how how = how_to_train();
    struct loss_sum loss = {0};
    return model_forward_part(t->model, i->micro % t->count, 1, &t->batch, &how, in ? in : t->activation,
                              out ? out : t->gradient, &loss);
}

static enum status stage_backward(void *context, const struct instruction *i, const void *d_out, void *d_in)
{
    struct trial *t = context;
    return model_backward_part(t->model, i->micro % t->count, d_out ? d_out : t->gradient, d_in ? d_in : t->activation);
}

static enum status stage_weights(void *context, int micro, int chunk)
{
    struct trial *t = context;
    model_weights_part(t->model, micro % t->count);
    return ST_OK;
}

static int64_t stage_message_bytes(void *context, int micro)
{
    const struct trial *t = context;
    return model_message_bytes(t->model, t->batch.token_count);
}

enum status trial_pipeline(struct mesh *mesh, struct trial *t, const struct schedule *schedule, double *step_s)
{
    enum status st = ST_OK;
    struct pipeline *pipeline = NULL;
    double seconds[ROUNDS];
    const struct pipeline_stage stage = {t,    stage_forward, stage_backward, stage_weights, stage_message_bytes, NULL,
                                         NULL, NULL};
    TRY(pipeline_create(&mesh->pipe, schedule, model_message_bytes(t->model, t->limits.tokens), &pipeline));
    for (int round = -1; round < ROUNDS; round++) { /* the first one warms up */
        comm_barrier(&mesh->world);
        double start = clock_s();
        TRY(comm_agree(&mesh->world, pipeline_run(&mesh->pipe, pipeline, &stage)));
        if (round >= 0) seconds[round] = clock_s() - start;
    }
    *step_s = trial_median(seconds, ROUNDS);
done:
    pipeline_destroy(&pipeline);
    return st;
}
