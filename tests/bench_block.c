/* Speed of one ERetNet block at CellFM's width, as a share of what plain oneDNN products reach in the
 * same run.
 *
 * Width 1536, 2,048 tokens of one cell, layer 1 of 2 (dropout on when training). FLOPs are those
 * executed, which the tape counts. Each figure is the median of rounds in which yardstick
 * and block take turns (7, or as many as the argument says). In fp32 and bf16; where the processor does not
 * multiply bf16, nor therefore the library, the row says "emulated" and the yardstick is that of fp32. */
#include "model/block.h"
#include "part_scene.h"
#include "yardstick.h"

enum { WIDTH = YARDSTICK_WIDTH, TOKENS = YARDSTICK_ROWS, ROUNDS = 7 };

/* ---- the block ---- */

struct scene {
    struct part_scene part;
    struct block block;
    struct arena memory;
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
                        .params = &s->part.params,
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
    require(config_create(&s->part.config));
    struct model_hold hold = model_hold_all(2);
    struct build build = part_build(&s->part, &hold, WIDTH);
    require(block_create(&build, "encoder.1", &s->block));
    require(param_allocate(&s->part.params, true));
    param_initialise(&s->part.params, 1);
    require(part_pack(&s->part, type, threads));
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
    arena_destroy(&s->memory);
    part_close(&s->part);
    free(s->x), free(s->dy);
}

/* A figure of each round. */
struct rounds {
    double share[ROUNDS], ms[ROUNDS], outside[ROUNDS]; /* of the yardstick; time; share of the time outside products */
};

/* Returns FLOPs per second. */
static double time_block(struct scene *s, bool train, struct rounds *r, int i)
{
    double start = clock_s(), busy = product_busy_s();
    double flops = pass_block(s, train), taken_s = clock_s() - start;
    r->ms[i] = 1e3 * taken_s;
    r->outside[i] = 1 - (product_busy_s() - busy) / taken_s;
    return flops / taken_s;
}

static void report_rounds(const char *what, int threads, enum dtype type, struct rounds *r, int rounds, double bar)
{
    char row[120];
    double outside = median(r->outside, rounds);
    report(what, threads, type, median(r->share, rounds), "of yardstick", bar);
    snprintf(row, sizeof row, "%s, time", what);
    report(row, threads, type, median(r->ms, rounds), "ms", 0);
    printf("BENCH\t%s, outside products, %s, %d thread%s\t%.3f\tof the time\t<= 0.08\t%s\n", what, type_text(type),
           threads, threads > 1 ? "s" : "", outside, outside <= 0.08 ? "yes" : "no");
}

static void bench_block(int threads, enum dtype type, int rounds)
{
    struct yardstick stick;
    struct scene scene;
    double rate[ROUNDS];
    struct rounds forward, both;
    omp_set_num_threads(threads);
    yardstick_open(&stick, threads, product_bf16_native() ? type : DTYPE_F32);
    scene_open(&scene, threads, type);
    pass_block(&scene, true);
    for (int i = 0; i < rounds; i++) {
        double before = yardstick_flops_per_s(&stick);
        forward.share[i] = time_block(&scene, false, &forward, i);
        double between = yardstick_flops_per_s(&stick);
        both.share[i] = time_block(&scene, true, &both, i);
        double after = yardstick_flops_per_s(&stick);
        rate[i] = between;
        forward.share[i] /= (before + between) / 2;
        both.share[i] /= (between + after) / 2;
    }
    report("yardstick product 2048x1536x1536", threads, type, median(rate, rounds) / 1e9, "GFLOP/s", 0);
    report_rounds("ERetNet block, forward", threads, type, &forward, rounds, 0.90);
    report_rounds("ERetNet block, forward + backward", threads, type, &both, rounds, 0.85);
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
