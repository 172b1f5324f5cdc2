#include "jobs/pretrain_cost.h"

#include <stdlib.h>

#include "base/text.h"
#include "jobs/layout_keys.h"
#include "kernel/product.h"

/* FLOP/s of a [512, D] x [D, D] product on this rank's threads, over a tenth of a second. */
static enum status trial_rate(int64_t width, bool bf16_products, int threads, double *flops_per_s)
{
    enum { ROWS = 512 };
    enum status st = ST_OK;
    struct product *product = NULL;
    struct product_weight weight;
    struct arena arena = {0};
    real *master = NULL;
    enum dtype type = bf16_products ? DTYPE_BF16 : DTYPE_REAL;
    size_t bytes = (size_t)(ROWS * width) * dtype_bytes(type);
    void *x = NULL, *y = NULL;
    TRY(product_create(&(struct product_spec){.in = width, .out = width, .type = type, .threads = threads}, &product));
    TRY(arena_create(&arena,
                     product_weight_bytes(product) + product_scratch_bytes(product) + 2 * bytes + 4 * ARENA_ALIGN));
    TRY(NEW_ARRAY(master, width * width));
    for (int64_t i = 0; i < width * width; i++) master[i] = (real)(i % 17) * (real)0.01;
    weight = product_weight_take(product, &arena);
    product_set_scratch(product, arena_take(&arena, product_scratch_bytes(product)));
    x = arena_take(&arena, bytes);
    y = arena_take(&arena, bytes);
    product_pack(product, &weight, (const real *[]){master});
    product_forward(product, y, x, &weight, ROWS);
    double start = clock_s(), flops = 0;
    while (clock_s() - start < 0.1) {
        product_forward(product, y, x, &weight, ROWS);
        flops += 2.0 * ROWS * (double)(width * width);
    }
    *flops_per_s = flops / (clock_s() - start);
done:
    free(master);
    product_destroy(&product);
    arena_destroy(&arena);
    return st;
}

/* Of the rank that needs most. */
static void print_memory(const struct job *job, const struct model_cost *cost, size_t exchanged, size_t copied)
{
    const struct pretrain *p = job->state;
    char all[32], weights[32], moments[32], activations[32], exchange[32], copy[32], parameters[32];
    size_t states = cost->gradient_bytes + cost->moment_bytes, packed = cost->weight_bytes + cost->packed_bytes;
    text_bytes((double)(states + packed + cost->activation_bytes + exchanged + copied), all);
    text_bytes((double)packed, weights);
    text_bytes((double)states, moments);
    text_bytes((double)cost->activation_bytes, activations);
    text_bytes((double)exchanged, exchange);
    text_bytes((double)copied, copy);
    comm_note(&job->world,
              "model: %s parameters; %s a rank (weights %s, gradients and moments %s, activations %s, exchange %s with "
              "gradients in %s, copy for checkpoints %s)",
              text_count(cost->parameters, parameters), all, weights, moments, activations, exchange,
              layout_exchange_bf16(job->config, p->limits.bf16) ? "bf16" : "fp32", copy);
}

static void print_time(const struct job *job, const struct model_cost *cost, double flops_per_s)
{
    const struct pretrain *p = job->state;
    int64_t cells = p->survey.train_count + p->survey.held_out_count, batch = config_int(job->config, "train.batch");
    int64_t steps = config_int(job->config, "train.steps") - p->state.step;
    double tokens = (double)batch * (p->survey.genes / (double)(cells ? cells : 1) + 1);
    double flops = tokens * cost->train_flops_per_token, step_s = flops / flops_per_s; /* rates of all ranks together */
    char step[32], run[32], each[32];
    snprintf(step, sizeof step, "%.2g s", step_s);
    text_duration(step_s * (double)(steps > 0 ? steps : 0), run);
    text_count((int64_t)tokens, each);
    comm_note(&job->world,
              "step: %lld cells, about %s tokens, %.3g TFLOP; at the %.0f GFLOP/s of a trial product about %s, or %s "
              "for %lld steps",
              (long long)batch, each, flops * 1e-12, flops_per_s * 1e-9,
              step_s < 60 ? step : text_duration(step_s, step), run, (long long)(steps > 0 ? steps : 0));
}

static size_t exchange_bytes(const struct job *job, size_t message_bytes)
{
    const struct pretrain *p = job->state;
    bool in_bf16 = layout_exchange_bf16(job->config, p->limits.bf16);
    return reducer_bytes(model_params(p->model), p->mesh.dense.size, in_bf16) +
           hand_out_bytes(model_params(p->model), p->mesh.dense.size, p->mesh.data.size, p->sharers[PACK_DENSE],
                          p->limits.bf16) +
           stage_bytes(&p->plan, p->mesh.pipe.size, p->mesh.pipe.rank, message_bytes);
}

/* Each figure's largest over the ranks. */
static void take_largest(struct comm *world, struct model_cost *cost, int64_t *exchange, int64_t *copy)
{
    int64_t x[7] = {(int64_t)cost->weight_bytes,
                    (int64_t)cost->packed_bytes,
                    (int64_t)cost->gradient_bytes,
                    (int64_t)cost->moment_bytes,
                    (int64_t)cost->activation_bytes,
                    *exchange,
                    *copy};
    comm_max_i64(world, x, 7);
    cost->weight_bytes = (size_t)x[0], cost->packed_bytes = (size_t)x[1], cost->gradient_bytes = (size_t)x[2];
    cost->moment_bytes = (size_t)x[3], cost->activation_bytes = (size_t)x[4], *exchange = x[5], *copy = x[6];
}

enum status pretrain_print_cost(struct job *job)
{
    struct pretrain *p = job->state;
    struct model_cost cost;
    double rate = 0;
    int64_t copy = 0;
    enum status st = model_measure(p->model, &p->limits, NULL, &cost);
    if (st == ST_OK) st = checkpoint_saver_bytes(&p->mesh, model_params(p->model), job->config, &copy);
    if (st == ST_OK) st = trial_rate(model_width(p->model), p->limits.bf16, p->limits.threads, &rate);
    TRY(comm_agree(&job->world, st));
    comm_sum_f64(&job->world, &rate, 1);
    comm_sum_f64(&p->mesh.pipe, &cost.train_flops_per_token, 1);
    int64_t exchange = (int64_t)exchange_bytes(job, cost.message_bytes);
    size_t shared = cost.weight_bytes - cost.routed_bytes; /* each replica looks after its share */
    cost.weight_bytes = (size_t)model_params(p->model)->weight_size * sizeof(real);
    cost.packed_bytes = (cost.packed_bytes - cost.packed_routed) / (size_t)p->sharers[PACK_DENSE] +
                        cost.packed_routed / (size_t)p->sharers[PACK_ROUTED];
    cost.moment_bytes = 2 * (shared / (size_t)p->mesh.dense.size + cost.routed_bytes / (size_t)p->mesh.data.size);
    take_largest(&job->world, &cost, &exchange, &copy);
    print_memory(job, &cost, (size_t)exchange, (size_t)copy);
    print_time(job, &cost, rate);
done:
    return st;
}
