/* Speed of one ERetNet block at CellFM's width, as a share of what plain oneDNN products reach in the
 * same run.
 *
 * Width 1536, 2,048 tokens of one cell, layer 1 of 2 (dropout on when training). FLOPs are those
 * executed, which the tape counts. Yardstick: 2048 x 1536 x 1536, weights packed, same type in and
 * out, rows shared among the same threads. Each figure is the median of rounds in which yardstick
 * and block take turns (7, or as many as the argument says). In fp32 and bf16; where the processor does not
 * multiply bf16, nor therefore the library, the row says "emulated" and the yardstick is that of fp32. */
#include "bench.h"
#include "kernel/multiply.h"
#include "model/block.h"

enum { WIDTH = 1536, TOKENS = 2048, ROUNDS = 7 };

/* ---- the yardstick ---- */

struct yardstick {
    struct multiply *multiply;
    int threads;
    enum dtype type;
    int64_t rows; /* of one thread */
    void *x, *y, *packed, *scratch;
    size_t scratch_bytes;
};

static void yardstick_open(struct yardstick *s, int threads, enum dtype type)
{
    *s = (struct yardstick){.threads = threads, .type = type, .rows = TOKENS / threads};
    struct multiply_spec spec = {
        .m = s->rows, .n = WIDTH, .k = WIDTH, .type = type, .c_type = type, .plain = true, .threads = threads};
    require(multiply_create(&spec, &s->multiply));
    s->scratch_bytes = (multiply_scratch_bytes(s->multiply) + 63) / 64 * 64;
    s->x = block_of(TOKENS * WIDTH * dtype_bytes(type));
    s->y = block_of(TOKENS * WIDTH * dtype_bytes(type));
    s->packed = block_of(multiply_packed_bytes(s->multiply));
    s->scratch = block_of(s->scratch_bytes * (size_t)threads);
    void *w = block_of(WIDTH * WIDTH * dtype_bytes(type));
    fill_normal(s->x, TOKENS * WIDTH, type, 1, 1);
    fill_normal(w, WIDTH * WIDTH, type, 2, 0.03);
    multiply_pack(s->multiply, 0, s->packed, w, type, true, s->scratch);
    free(w);
}

static double yardstick_flops_per_s(const struct yardstick *s)
{
    double start = clock_s();
#pragma omp parallel num_threads(s->threads)
    {
        omp_set_num_threads(1);
        int thread = omp_get_thread_num();
        int64_t first = thread * s->rows * WIDTH;
        multiply_run(s->multiply, thread, dtype_at(s->y, first, s->type), dtype_at(s->x, first, s->type), s->packed,
                     (char *)s->scratch + (size_t)thread * s->scratch_bytes);
    }
    return 2.0 * TOKENS * WIDTH * WIDTH / (clock_s() - start);
}

static void yardstick_close(struct yardstick *s)
{
    multiply_destroy(&s->multiply);
    free(s->x), free(s->y), free(s->packed), free(s->scratch);
}

/* ---- the block ---- */

struct scene {
    struct config *config;
    struct param_table params;
    struct linears linears;
    struct block block;
    struct arena packed, memory;
    struct tape *tape;
    int64_t offsets[2], cell_id[TOKENS];
    int32_t position[TOKENS];
    uint8_t keys[TOKENS];
    float value_scale;
    enum dtype type;
    void *x, *dy;
};

/* One pass; measures if the arena has no memory. Returns the FLOPs executed. */
static double pass_block(struct scene *s, bool train)
{
    struct pass pass = {.tape = s->tape,
                        .params = &s->params,
                        .type = s->type,
                        .drops = train,
                        .key_mask = s->keys,
                        .value_scale = &s->value_scale};
    pass.all = pass.read =
        (struct rows){.count = TOKENS, .cells = {1, s->offsets}, .cell_id = s->cell_id, .position = s->position};
    tape_begin(s->tape, train ? TAPE_TRAIN : TAPE_INFER);
    tape_segment(s->tape, "block", 0, NULL);
    struct tensor *x = tape_wrap(s->tape, s->x, s->type, TOKENS, WIDTH);
    x->wants_gradient = train;
    struct tensor *y = block_forward(&s->block, &pass, x, &pass.all);
    if (!train) return tape_forward_flops(s->tape);
    y->gradient = s->dy;
    tape_backward(s->tape);
    return tape_forward_flops(s->tape) + tape_backward_flops(s->tape);
}

static void measure_block(struct scene *s, size_t *bytes)
{
    struct arena nothing = {0};
    require(tape_create(&nothing, 64, &s->tape));
    pass_block(s, true);
    tape_destroy(&s->tape);
    *bytes = nothing.high_bytes;
}

static void scene_open(struct scene *s, int threads, enum dtype type)
{
    size_t bytes;
    *s = (struct scene){.offsets = {0, TOKENS}, .value_scale = 0.022f, .type = type};
    for (int i = 0; i < TOKENS; i++) s->cell_id[i] = 1, s->position[i] = i, s->keys[i] = i % 6 != 3;
    require(config_create(&s->config));
    struct model_hold hold = model_hold_all(2);
    struct build build = {.config = s->config,
                          .params = &s->params,
                          .linears = &s->linears,
                          .hold = &hold,
                          .module = 1,
                          .layer = 1,
                          .layers = 2,
                          .width = WIDTH};
    require(block_create(&build, "encoder.1", &s->block));
    require(param_allocate(&s->params, true));
    param_initialise(&s->params, 1);
    require(linears_prepare(&s->linears, &s->params, type, true, threads));
    linears_take(&s->linears, &s->packed);
    require(arena_create(&s->packed, s->packed.high_bytes));
    linears_take(&s->linears, &s->packed);
    linears_pack(&s->linears);
    s->x = block_of(TOKENS * WIDTH * dtype_bytes(type));
    s->dy = block_of(TOKENS * WIDTH * dtype_bytes(type));
    fill_normal(s->x, TOKENS * WIDTH, type, 3, 1);
    fill_normal(s->dy, TOKENS * WIDTH, type, 4, 1e-3);
    measure_block(s, &bytes);
    require(arena_create(&s->memory, bytes));
    require(tape_create(&s->memory, 64, &s->tape));
}

static void scene_close(struct scene *s)
{
    block_destroy(&s->block);
    tape_destroy(&s->tape);
    linears_free(&s->linears);
    param_free(&s->params);
    arena_destroy(&s->packed);
    arena_destroy(&s->memory);
    config_destroy(&s->config);
    free(s->x), free(s->dy);
}

static double block_flops_per_s(struct scene *s, bool train, double *ms)
{
    double start = clock_s();
    double flops = pass_block(s, train), taken_s = clock_s() - start;
    *ms = 1e3 * taken_s;
    return flops / taken_s;
}

static void bench_block(int threads, enum dtype type, int rounds)
{
    struct yardstick stick;
    struct scene scene;
    double rate[ROUNDS], forward[ROUNDS], both[ROUNDS], forward_ms[ROUNDS], both_ms[ROUNDS];
    omp_set_num_threads(threads);
    yardstick_open(&stick, threads, product_bf16_native() ? type : DTYPE_F32);
    scene_open(&scene, threads, type);
    pass_block(&scene, true);
    for (int i = 0; i < rounds; i++) {
        double before = yardstick_flops_per_s(&stick);
        forward[i] = block_flops_per_s(&scene, false, &forward_ms[i]);
        double between = yardstick_flops_per_s(&stick);
        both[i] = block_flops_per_s(&scene, true, &both_ms[i]);
        double after = yardstick_flops_per_s(&stick);
        rate[i] = between;
        forward[i] /= (before + between) / 2;
        both[i] /= (between + after) / 2;
    }
    report("yardstick product 2048x1536x1536", threads, type, median(rate, rounds) / 1e9, "GFLOP/s", 0);
    report("ERetNet block, forward", threads, type, median(forward, rounds), "of yardstick", 0.88);
    report("ERetNet block, forward + backward", threads, type, median(both, rounds), "of yardstick", 0.80);
    report("ERetNet block, forward, time", threads, type, median(forward_ms, rounds), "ms", 0);
    report("ERetNet block, forward + backward, time", threads, type, median(both_ms, rounds), "ms", 0);
    scene_close(&scene);
    yardstick_close(&stick);
}

int main(int argc, char **argv)
{
    bind_threads(argv);
    int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS;
    if (rounds < 1 || rounds > ROUNDS) rounds = ROUNDS;
    for (int threads = 1; threads <= 2; threads++) {
        if (threads > omp_get_num_procs()) {
            report_not_run("ERetNet block", threads, "one core");
            continue;
        }
        bench_block(threads, DTYPE_F32, rounds);
        bench_block(threads, DTYPE_BF16, rounds);
    }
    return 0;
}
