/* Speed of a mixture of experts beside a dense feed-forward of the same FLOPs.
 *
 * Width 1536, 2 cells of 2,048 tokens, 8 experts of which a token takes 2, all on this rank; the dense one is a plain
 * SGLU over twice the rows, which is the same products. What the mixture does beside them is the router, the way of rows
 * there and back, and tiles that experts do not fill. Median of rounds in which both take turns (3, or as many
 * as the argument says). */
#include "bench.h"
#include "model/ffn.h"
#include "part_scene.h"

enum { WIDTH = 1536, TOKENS = 2 * 2048, CHOSEN = 2, ROUNDS = 7 };

struct scene {
    struct part_scene part;
    struct ffn *ffn;
    struct arena memory;
    struct tape *tape;
    enum dtype type;
    int64_t rows;
    void *x, *dy;
};

/* One pass; measures if the arena has no memory. */
static void pass_ffn(struct scene *s, bool train)
{
    struct pass pass = {.tape = s->tape, .params = &s->part.params, .type = s->type, .balance_scale = 1};
    tape_begin(s->tape, train ? TAPE_TRAIN : TAPE_INFER);
    tape_segment(s->tape, "feed-forward", 0, NULL);
    struct tensor *x = tape_wrap(s->tape, s->x, s->type, s->rows, WIDTH);
    x->wants_gradient = train;
    struct tensor *y = s->ffn->kind->run(s->ffn, &pass, x);
    if (!train) return;
    y->gradient = s->dy;
    tape_backward(s->tape);
}

static void scene_open(struct scene *s, const char *kind, int64_t rows, enum dtype type, int threads)
{
    struct arena nothing = {0};
    struct model_hold hold = model_hold_all(2);
    *s = (struct scene){.rows = rows, .type = type};
    require(config_create(&s->part.config));
    require(config_put(s->part.config, "model.feed_forward", kind, "bench"));
    struct build build = part_build(&s->part, &hold, WIDTH);
    require(ffn_create(&build, "ffn", &s->ffn));
    require(param_allocate(&s->part.params, true));
    param_initialise(&s->part.params, 1);
    require(part_pack(&s->part, type, threads));
    s->x = block_of((size_t)rows * WIDTH * dtype_bytes(type));
    s->dy = block_of((size_t)rows * WIDTH * dtype_bytes(type));
    fill_normal(s->x, rows * WIDTH, type, 3, 1);
    fill_normal(s->dy, rows * WIDTH, type, 4, 1e-3);
    require(tape_create(&nothing, 64, &s->tape));
    pass_ffn(s, true);
    tape_destroy(&s->tape);
    require(arena_create(&s->memory, nothing.high_bytes));
    require(tape_create(&s->memory, 64, &s->tape));
    pass_ffn(s, true);
}

static void scene_close(struct scene *s)
{
    ffn_destroy(&s->ffn);
    tape_destroy(&s->tape);
    arena_destroy(&s->memory);
    part_close(&s->part);
    free(s->x), free(s->dy);
}

static double time_of(struct scene *s, bool train)
{
    double start = clock_s();
    pass_ffn(s, train);
    return clock_s() - start;
}

static void bench_experts(int threads, enum dtype type, int rounds)
{
    struct scene mixture, dense;
    double forward[ROUNDS], both[ROUNDS];
    omp_set_num_threads(threads);
    scene_open(&mixture, "moe", TOKENS, type, threads);
    scene_open(&dense, "sglu", TOKENS * CHOSEN, type, threads);
    for (int i = 0; i < rounds; i++) {
        double dense_s = time_of(&dense, false), mixture_s = time_of(&mixture, false);
        forward[i] = dense_s / mixture_s;
        dense_s = time_of(&dense, true), mixture_s = time_of(&mixture, true);
        both[i] = dense_s / mixture_s;
    }
    report("mixture of 8 experts, 2 taken, forward", threads, type, median(forward, rounds), "of dense", 0);
    report("mixture of 8 experts, 2 taken, forward + backward", threads, type, median(both, rounds), "of dense", 0);
    scene_close(&mixture);
    scene_close(&dense);
}

int main(int argc, char **argv)
{
    bind_threads(argv);
    int rounds = argc > 1 ? atoi(argv[1]) : 3;
    if (rounds < 1 || rounds > ROUNDS) rounds = ROUNDS;
    for (int threads = 1; threads <= 2; threads++) {
        if (threads > omp_get_num_procs()) {
            report_not_run("mixture of experts", threads, "one core");
            continue;
        }
        bench_experts(threads, DTYPE_F32, rounds);
        bench_experts(threads, DTYPE_BF16, rounds);
    }
    return 0;
}
