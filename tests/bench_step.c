/* Speed of a whole training step as a share of what plain oneDNN products reach in the same run: 16 cells of 2,048 tokens
 * through forward, backward, norm, clipping, Adam and packing, on one rank.
 *     cellfm-80m                all of it, in micro-batches of 4 cells as its configuration has them
 *     a stage of cellfm-800m    2 blocks of the 40 in the middle of a pipeline of 20 stages, a cell at a time
 * FLOPs are those executed, which the tape counts; the vocabulary has 24,000 genes. The yardstick is taken between
 * micro-batches and before and after. Figures are medians over rounds (1, or as many as the argument says: a round of
 * one thread takes minutes). In fp32 and bf16, as bench_block. */
#include "bench_cells.h"
#include "golden.h"
#include "model/model.h"
#include "optim/optimiser.h"
#include "yardstick.h"

enum { CELLS = 16, TOKENS = 2048, GENES = 24000, MOST_ROUNDS = 5, FIRST_BLOCK = 18, STAGE_BLOCKS = 2 };

struct subject {
    const char *name, *file;
    int micro_cells;
    bool stage; /* of a pipeline: a part with neighbours on both sides */
    double bar;
};

static const struct subject subjects[] = {
    {"training step, cellfm-80m", "configs/cellfm-80m.yaml", 4, false, 0.78},
    {"training step, stage of cellfm-800m", "configs/cellfm-800m.yaml", 1, true, 0.82},
};

struct scene {
    const struct subject *subject;
    struct config *config;
    struct vocab *vocab;
    struct model *model;
    struct optimiser *optimiser;
    struct batch micro[CELLS];
    int micros;
    double flops;   /* of a step */
    void *in, *out; /* activations and gradients at the edges of a stage */
};

static void scene_open(struct scene *s, const struct subject *subject, int threads, enum dtype type)
{
    *s = (struct scene){.subject = subject, .micros = CELLS / subject->micro_cells};
    struct model_hold middle = {.count = 1, .part = {{FIRST_BLOCK, FIRST_BLOCK + STAGE_BLOCKS}}};
    struct model_limits limits = {.cells = subject->micro_cells,
                                  .tokens = (int64_t)subject->micro_cells * TOKENS,
                                  .train = true,
                                  .threads = threads,
                                  .bf16 = type == DTYPE_BF16};
    struct model_cost cost;
    require(config_create(&s->config));
    require(config_read(s->config, subject->file));
    s->vocab = golden_vocab(GENES);
    require(model_create(s->config, s->vocab, subject->stage ? &middle : NULL, &s->model));
    require(model_measure(s->model, &limits, NULL, &cost));
    require(param_share(model_params(s->model), 0, 1, 1));
    require(param_allocate(model_params(s->model), true));
    param_initialise(model_params(s->model), 1);
    require(model_prepare(s->model, &limits));
    require(model_pack(s->model));
    require(optimiser_create(s->config, model_params(s->model), &s->optimiser));
    for (int i = 0; i < s->micros; i++)
        fill_cells(&s->micro[i], subject->micro_cells, i * subject->micro_cells, TOKENS, GENES);
    s->flops = cost.train_flops_per_token * CELLS * TOKENS;
    s->in = block_of((size_t)model_message_bytes(s->model, limits.tokens));
    s->out = block_of((size_t)model_message_bytes(s->model, limits.tokens));
    fill_normal(s->in, limits.tokens * model_width(s->model), type, 3, 1);
}

static void scene_close(struct scene *s)
{
    for (int i = 0; i < s->micros; i++) batch_destroy(&s->micro[i]);
    free(s->in), free(s->out);
    optimiser_destroy(&s->optimiser);
    model_destroy(&s->model);
    vocab_destroy(&s->vocab);
    config_destroy(&s->config);
}

static void run_micro(struct scene *s, int i)
{
    struct loss_sum loss = {0};
    struct model_how how = {.train = true, .scale = 1e-4};
    bool stage = s->subject->stage;
    require(model_forward_part(s->model, 0, 0, &s->micro[i], &how, stage ? s->in : NULL, stage ? s->out : NULL, &loss));
    require(model_backward_part(s->model, 0, stage ? s->in : NULL, stage ? s->out : NULL));
    model_weights_part(s->model, 0);
}

/* Adds what it took to *taken_s, and to *stick_s what the same FLOPs would have taken at the yardstick's rate around it. */
struct clocks {
    double taken_s, stick_s, rate;
};

static void add_time(struct clocks *c, const struct yardstick *stick, double start, double flops)
{
    double taken = clock_s() - start, after = yardstick_flops_per_s(stick);
    c->taken_s += taken;
    c->stick_s += flops / ((c->rate + after) / 2);
    c->rate = after;
}

static struct clocks run_step(struct scene *s, const struct yardstick *stick, int64_t step)
{
    struct param_table *params = model_params(s->model);
    struct clocks clocks = {.rate = yardstick_flops_per_s(stick)};
    for (int i = 0; i < s->micros; i++) {
        double start = clock_s();
        if (i == 0) memset(params->gradient, 0, sizeof(real) * (size_t)params->size);
        run_micro(s, i);
        add_time(&clocks, stick, start, s->flops / s->micros);
    }
    double start = clock_s();
    param_join(params);
    optimiser_measure(s->optimiser);
    optimiser_step(s->optimiser, step);
    require(model_pack(s->model));
    add_time(&clocks, stick, start, 0);
    return clocks;
}

static void bench_step(const struct subject *subject, int threads, enum dtype type, int rounds)
{
    struct yardstick stick;
    struct scene scene;
    double share[MOST_ROUNDS], taken[MOST_ROUNDS];
    char row[160];
    omp_set_num_threads(threads);
    yardstick_open(&stick, threads, product_bf16_native() ? type : DTYPE_F32);
    scene_open(&scene, subject, threads, type);
    run_micro(&scene, 0);
    for (int i = 0; i < rounds; i++) {
        struct clocks c = run_step(&scene, &stick, i);
        taken[i] = c.taken_s;
        share[i] = c.stick_s / c.taken_s;
    }
    report(subject->name, threads, type, median(share, rounds), "of yardstick", subject->bar);
    snprintf(row, sizeof row, "%s, 16 cells", subject->name);
    report(row, threads, type, CELLS / median(taken, rounds), "cells/s", 0);
    scene_close(&scene);
    yardstick_close(&stick);
}

int main(int argc, char **argv)
{
    bind_threads(argv);
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    if (rounds < 1 || rounds > MOST_ROUNDS) rounds = 1;
    for (int threads = 1; threads <= 2; threads++)
        for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) {
            if (threads > omp_get_num_procs()) {
                report_not_run(subjects[i].name, threads, "one core");
                continue;
            }
            bench_step(&subjects[i], threads, DTYPE_F32, rounds);
            bench_step(&subjects[i], threads, DTYPE_BF16, rounds);
        }
    return 0;
}
