/* A mixture of experts shared out between two ranks beside a dense feed-forward of the same FLOPs.
 * plan: ranks=2
 * Width 1536, 8 experts of which a token takes 2, half of them on each rank; two micro-batches of 2 cells of 2,048 tokens on
 * each, forward and backward, a core a rank. Dense is a plain SGLU over twice the rows: the same products. `Alone` has all
 * experts on every rank, so nothing travels; with the experts shared out, rows travel for one micro-batch after another, or
 * the two take turns. What turns hide is the share of what travelling adds. Hot: every token takes the two experts that
 * rank 0 holds first, so that it does all the work. Median of rounds in which all take turns (3, or as many as the
 * argument says). */
#include "bench.h"
#include "model/ffn.h"
#include "mpi/expert_line.h"

enum { WIDTH = 1536, TOKENS = 2 * 2048, CHOSEN = 2, EXPERTS = 8, MICROS = 2, MOST_ROUNDS = 9 };

/* A micro-batch's pass. */
struct lane {
    struct arena memory;
    struct tape *tape;
    struct pass pass;
    struct stop stop;
    struct tensor *y;
    bool backward, waits;
};

struct scene {
    struct config *config;
    struct param_table params;
    struct linears linears;
    struct expert_layers experts;
    struct ffn *ffn;
    struct arena packed;
    struct lane lane[MICROS];
    enum dtype type;
    int64_t rows;
    void *x, *dy;
};

static struct comm world;

/* ---- a pass, from stop to stop ---- */

static void advance(struct scene *s, struct lane *l)
{
    if (!l->backward) {
        l->y = l->waits ? s->ffn->kind->resume(s->ffn, &l->pass) : l->y;
        l->waits = !l->y;
        if (l->waits) return;
        l->y->gradient = s->dy;
        l->backward = true;
    } else if (!travel_turn_on(&l->stop.travel)) {
        return;
    }
    l->waits = !tape_backward_segment(l->tape, 0);
    if (l->waits) travel_turn(&l->stop.travel, tape_stopped_at(l->tape));
    else tape_drain_segment(l->tape, 0);
}

static void begin(struct scene *s, struct lane *l)
{
    tape_begin(l->tape, TAPE_TRAIN);
    tape_segment(l->tape, "feed-forward", 0, NULL);
    struct tensor *x = tape_wrap(l->tape, s->x, s->type, s->rows, WIDTH);
    x->wants_gradient = true;
    l->backward = false;
    l->y = s->ffn->kind->run(s->ffn, &l->pass, x);
    l->waits = !l->y;
    if (!l->waits) advance(s, l);
}

static void start(struct expert_line *line, struct scene *s, int i)
{
    struct lane *l = &s->lane[i];
    if (!l->waits) return;
    expert_line_start(&world, line, i, &l->stop.travel.move);
    if (l->backward) tape_drain_early(l->tape);
}

static void one_after_another(struct expert_line *line, struct scene *s)
{
    for (int i = 0; i < MICROS; i++) {
        begin(s, &s->lane[i]);
        while (s->lane[i].waits) {
            start(line, s, i);
            expert_line_finish(&world, line, i);
            advance(s, &s->lane[i]);
        }
    }
}

static void in_turns(struct expert_line *line, struct scene *s)
{
    for (int i = 0; i < MICROS; i++) {
        begin(s, &s->lane[i]);
        start(line, s, i);
    }
    for (int i = 0; s->lane[i].waits; i = (i + 1) % MICROS) {
        expert_line_finish(&world, line, i);
        advance(s, &s->lane[i]);
        start(line, s, i);
    }
}

/* ---- scenes ---- */

static void open_lane(struct scene *s, struct lane *l, bool shared)
{
    struct arena nothing = {0};
    l->pass = (struct pass){.params = &s->params, .type = s->type, .stop = shared ? &l->stop : NULL};
    l->stop.travel.ranks =
        (struct expert_ranks){.ranks = 2, .rank = world.rank, .experts = EXPERTS, .capacity = 2 * s->rows * CHOSEN};
    require(tape_create(&nothing, 64, &l->tape));
    l->pass.tape = l->tape;
    begin(s, l);
    tape_destroy(&l->tape);
    require(arena_create(&l->memory, nothing.high_bytes));
    require(tape_create(&l->memory, 64, &l->tape));
    l->pass.tape = l->tape;
}

static void open_scene(struct scene *s, const char *kind, int64_t rows, enum dtype type, bool shared)
{
    struct model_hold hold = model_hold_all(2);
    if (shared) hold.expert_rank = world.rank, hold.expert_ranks = 2;
    *s = (struct scene){.rows = rows, .type = type};
    require(config_create(&s->config));
    require(config_put(s->config, "model.feed_forward", kind, "bench"));
    require(config_put(s->config, "model.expert_balance", "bias", "bench"));
    struct build build = {.config = s->config,
                          .params = &s->params,
                          .linears = &s->linears,
                          .experts = &s->experts,
                          .hold = &hold,
                          .layers = 2,
                          .width = WIDTH};
    require(ffn_create(&build, "ffn", &s->ffn));
    require(param_allocate(&s->params, true));
    param_initialise(&s->params, 1);
    require(linears_prepare(&s->linears, &s->params, type, true, 1));
    linears_take(&s->linears, &s->params, &s->packed);
    require(arena_create(&s->packed, s->packed.high_bytes));
    linears_take(&s->linears, &s->params, &s->packed);
    linears_pack(&s->linears, &s->params);
    s->x = block_of((size_t)rows * WIDTH * dtype_bytes(type));
    s->dy = block_of((size_t)rows * WIDTH * dtype_bytes(type));
    fill_normal(s->x, rows * WIDTH, type, 3 + (uint64_t)world.rank, 1);
    fill_normal(s->dy, rows * WIDTH, type, 5 + (uint64_t)world.rank, 1e-3);
    for (int i = 0; i < MICROS; i++) open_lane(s, &s->lane[i], shared);
}

static void close_scene(struct scene *s)
{
    for (int i = 0; i < MICROS; i++) {
        tape_destroy(&s->lane[i].tape);
        arena_destroy(&s->lane[i].memory);
    }
    ffn_destroy(&s->ffn);
    experts_free(&s->experts);
    linears_free(&s->linears);
    param_free(&s->params);
    arena_destroy(&s->packed);
    config_destroy(&s->config);
    free(s->x), free(s->dy);
}

/* What is added to the choice of experts: `more` for the first two. */
static void favour_first(struct scene *s, real more)
{
    real *bias = param_weight(&s->params, param_find(&s->params, "ffn.router.bias"));
    for (int e = 0; e < EXPERTS; e++) bias[e] = e < CHOSEN ? more : 0;
}

/* ---- figures ---- */

static void poll_line(void *line) { expert_line_poll(line); }

/* The slowest rank's seconds. */
static double timed(struct expert_line *line, struct scene *s, void (*work)(struct expert_line *, struct scene *))
{
    comm_barrier(&world);
    double from = clock_s();
    work(line, s);
    int64_t ns = (int64_t)(1e9 * (clock_s() - from));
    comm_max_i64(&world, &ns, 1);
    return 1e-9 * (double)ns;
}

enum { DENSE, ALONE, PLAIN, TURNS, HOT, KINDS };

static void run_round(struct expert_line *line, struct scene *dense, struct scene *alone, struct scene *shared,
                      double took[KINDS])
{
    took[DENSE] = timed(line, dense, one_after_another);
    took[ALONE] = timed(line, alone, one_after_another);
    took[PLAIN] = timed(line, shared, one_after_another);
    took[TURNS] = timed(line, shared, in_turns);
    favour_first(shared, 1000);
    took[HOT] = timed(line, shared, in_turns);
    favour_first(shared, 0);
}

static double median_ratio(double took[MOST_ROUNDS][KINDS], int rounds, int kind)
{
    double ratio[MOST_ROUNDS];
    for (int i = 0; i < rounds; i++) ratio[i] = took[i][DENSE] / took[i][kind];
    return median(ratio, rounds);
}

static void tell(enum dtype type, double took[MOST_ROUNDS][KINDS], int rounds)
{
    double hidden[MOST_ROUNDS], dense_s[MOST_ROUNDS], added[MOST_ROUNDS];
    for (int i = 0; i < rounds; i++) {
        dense_s[i] = took[i][DENSE];
        added[i] = (took[i][PLAIN] - took[i][ALONE]) / took[i][ALONE];
        hidden[i] = (took[i][PLAIN] - took[i][TURNS]) / (took[i][PLAIN] - took[i][ALONE]);
    }
    report("dense feed-forward, two micro-batches", 1, type, median(dense_s, rounds), "s", 0);
    report("mixture, all experts on each of two ranks", 1, type, median_ratio(took, rounds, ALONE), "of dense", 0);
    report("mixture on two ranks, one after another", 1, type, median_ratio(took, rounds, PLAIN), "of dense", 0);
    report("mixture on two ranks, in turns", 1, type, median_ratio(took, rounds, TURNS), "of dense", 0.8);
    report("what travelling adds, one after another", 1, type, median(added, rounds), "of alone", 0);
    report("of that, hidden by turns", 1, type, median(hidden, rounds), "share", 0);
    report("hot experts: all rows to rank 0", 1, type, median_ratio(took, rounds, HOT), "of dense", 0);
    fflush(stdout);
}

static void bench_type(enum dtype type, int rounds)
{
    struct scene dense, alone, shared;
    struct expert_line *line;
    double took[MOST_ROUNDS][KINDS], unused[KINDS];
    open_scene(&dense, "sglu", TOKENS * CHOSEN, type, false);
    open_scene(&alone, "moe", TOKENS, type, false);
    open_scene(&shared, "moe", TOKENS, type, true);
    require(expert_line_create(&world, &shared.lane[0].stop.travel.ranks, WIDTH * (int64_t)dtype_bytes(type), &line));
    product_set_poll(poll_line, line);
    favour_first(&shared, 0);
    run_round(line, &dense, &alone, &shared, unused);
    for (int i = 0; i < rounds; i++) run_round(line, &dense, &alone, &shared, took[i]);
    product_set_poll(NULL, NULL);
    if (world.rank == 0) tell(type, took, rounds);
    expert_line_destroy(&line);
    close_scene(&dense);
    close_scene(&alone);
    close_scene(&shared);
}

int main(int argc, char **argv)
{
    bind_threads(argv);
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    int rounds = argc > 1 ? atoi(argv[1]) : 3;
    if (rounds < 1 || rounds > MOST_ROUNDS) rounds = MOST_ROUNDS;
    omp_set_num_threads(1);
    bench_type(DTYPE_BF16, rounds);
    bench_type(DTYPE_F32, rounds);
    comm_close(&world);
    return 0;
}
