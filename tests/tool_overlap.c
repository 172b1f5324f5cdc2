/* tool_overlap BLOCKS TOKENS ROUNDS: how much of the exchange of gradients between ranks the backward pass hides, and how
 * much of the hand-out of weights the forward pass.
 *
 * A model of BLOCKS ERetNet blocks of width 1536 on each rank, one micro-batch of one cell of TOKENS tokens, fp32. The
 * medians of ROUNDS rounds, in each of which the ranks
 *   exchange     gradients, nothing is computed: reducer_sum_gradients, from the first message to the last sum
 *   follow       compute, then exchange
 *   compute      nothing is sent
 *   overlap      compute, each module's gradients leaving as soon as they are final, then wait for the rest
 *   hand out     weights, nothing is computed: from the first message until all modules are packed
 *   pack         the same without messages
 *   forward      hand out, and compute while the weights come, each module's until it is needed
 * A time is that of the slowest rank. The hidden share is 1 - (overlap - compute) / exchange; of the hand-out
 * 1 - (forward - compute - pack) / (hand out - pack), packing being work that nothing hides. `compute` is run before and
 * after each time that it is taken from, which gets the mean of the two: a machine's speed drifts by as much as is to be
 * measured. tests/bench_overlap.sh gives two ranks a link of known rate. */
#include "bench.h"
#include "base/text.h"
#include "mpi/hand_out.h"
#include "mpi/reduce.h"
#include "mpi/stage.h"

enum { GENES = 24000, MOST_ROUNDS = 25, LINK_BYTES = 64 << 20 };

struct scene {
    struct mesh mesh;
    struct config *config;
    struct vocab *vocab;
    struct model *model;
    struct stage *stage;
    struct reducer *reducer;
    struct hand_out *hand_out;
    struct batch micro;
};

static void set(struct config *config, const char *key, int value)
{
    char text[64];
    snprintf(text, sizeof text, "%s=%d", key, value);
    require(config_set(config, text, "benchmark"));
}

static void open_model(struct scene *s, int blocks, int64_t tokens)
{
    struct text tsv = {0};
    struct model_limits limits = {
        .cells = 1, .tokens = tokens, .train = true, .threads = 1, .slots = 1, .packed_apart = true};
    struct stage_plan plan = {.kind = SCHEDULE_1F1B, .chunks = 1, .micros = 1, .loss_micros = 1};
    require(config_create(&s->config));
    set(s->config, "model.layers", blocks);
    set(s->config, "model.width", 1536);
    text_add(&tsv, "id\tsymbol\tensembl\thgnc\n");
    for (int g = 1; g <= GENES; g++) text_add(&tsv, "%d\tGENE%d\tENSG%011d\tHGNC:%d\n", g, g, g, g);
    require(vocab_parse(tsv.data, tsv.length, "benchmark", &s->vocab));
    text_free(&tsv);
    require(model_create(s->config, s->vocab, NULL, &s->model));
    struct param_table *params = model_params(s->model);
    require(param_share(params, s->mesh.dense.rank, s->mesh.dense.size, 1));
    param_split(params);
    require(param_allocate(params, true));
    param_initialise(params, 5);
    require(model_prepare(s->model, &limits));
    require(hand_out_create(&s->mesh, s->model, PACK_ALONE, &s->hand_out));
    hand_out_start(&s->mesh, s->hand_out);
    hand_out_finish(&s->mesh, s->hand_out);
    require(stage_create(&s->mesh, s->model, &limits, &plan, &s->stage));
    require(reducer_create(&s->mesh, params, false, &s->reducer));
}

/* A cell of other genes on every rank; one in three is hidden. */
static void make_cell(struct scene *s, int64_t tokens)
{
    struct batch *b = &s->micro;
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)s->mesh.world.rank, 0);
    require(batch_create(1, tokens, b));
    batch_clear(b);
    b->cell_count = 1;
    b->token_count = b->offsets[1] = tokens;
    b->cell_id[0] = s->mesh.world.rank;
    for (int64_t t = 0; t < tokens; t++) {
        int64_t room = GENES / (tokens - 1);
        bool hidden = t > 0 && t % 3 == 0;
        b->feature[t] = t == 0 ? 0 : (int32_t)((t - 1) * room + 1 + (int64_t)rng_below(&r, (uint64_t)room));
        b->role[t] = t == 0 ? TOKEN_CLS : TOKEN_FEATURE;
        b->modality[t] = 0;
        b->position[t] = (int32_t)t;
        b->target[t] = t == 0 ? 0 : (float)(1 + rng_below(&r, 40)) / 10;
        b->value[t] = hidden ? 0 : b->target[t];
        b->visible[t] = t > 0 && !hidden;
        b->loss_weight[t] = t > 0;
    }
    batch_find_levels(b);
}

static void scene_close(struct scene *s)
{
    batch_destroy(&s->micro);
    reducer_destroy(&s->reducer);
    hand_out_destroy(&s->hand_out);
    stage_destroy(&s->stage);
    model_destroy(&s->model);
    vocab_destroy(&s->vocab);
    config_destroy(&s->config);
    mesh_close(&s->mesh);
}

/* ---- what is timed ---- */

static void send_module(void *context, int module)
{
    struct scene *s = context;
    reducer_start(&s->mesh, s->reducer, module);
}

static void need_weights(void *context, int module)
{
    struct scene *s = context;
    hand_out_need(&s->mesh, s->hand_out, module);
}

static void poll_both(void *context)
{
    struct scene *s = context;
    hand_out_poll(s->hand_out);
    reducer_poll(s->reducer);
}

static void compute_gradients(struct scene *s, bool send)
{
    struct loss_sum loss = {0};
    struct param_table *params = model_params(s->model);
    struct model_how how = {
        .train = true, .scale = 1e-4, .ready = send ? send_module : NULL, .need = need_weights, .context = s};
    memset(params->gradient, 0, sizeof(real) * (size_t)params->size);
    stage_set_poll(s->stage, poll_both, s);
    require(stage_gradient(&s->mesh.pipe, s->stage, &s->micro, 1, &how, &loss));
    stage_set_poll(s->stage, NULL, NULL);
}

static void exchange_gradients(struct scene *s)
{
    reducer_touch(s->reducer, &s->micro);
    reducer_join_ends(&s->mesh, s->reducer);
    reducer_sum_gradients(&s->mesh, s->reducer);
}

static void compute(struct scene *s) { compute_gradients(s, false); }
static void overlap(struct scene *s)
{
    compute_gradients(s, true);
    exchange_gradients(s);
}
static void follow(struct scene *s)
{
    compute_gradients(s, false);
    exchange_gradients(s);
}
static void hand_out(struct scene *s)
{
    hand_out_start(&s->mesh, s->hand_out);
    hand_out_finish(&s->mesh, s->hand_out);
}
/* From anywhere: it takes as long. */
static void pack(struct scene *s)
{
    const struct param_table *params = model_params(s->model);
    const void *from[512] = {0};
    for (int i = 0; i < params->count && i < 512; i++) from[i] = params->rows[i].split ? params->gradient : NULL;
    for (int module = MODULE_EMBEDDING; module <= model_layers(s->model); module++)
        model_pack_module(s->model, module, from);
}
static void forward(struct scene *s)
{
    hand_out_start(&s->mesh, s->hand_out);
    compute_gradients(s, false);
    hand_out_finish(&s->mesh, s->hand_out);
}

/* Rank 0's bytes to the last rank and back. */
static void cross_link(struct scene *s)
{
    struct comm *world = &s->mesh.world;
    real *bytes = model_params(s->model)->gradient;
    int last = world->size - 1;
    if (world->rank == 0) comm_send(world, bytes, LINK_BYTES, last, 1), comm_receive(world, bytes, LINK_BYTES, last, 2);
    if (world->rank == last) comm_receive(world, bytes, LINK_BYTES, 0, 1), comm_send(world, bytes, LINK_BYTES, 0, 2);
}

static double timed(struct scene *s, void (*work)(struct scene *s))
{
    comm_barrier(&s->mesh.world);
    double start = clock_s();
    work(s);
    int64_t ns = (int64_t)(1e9 * (clock_s() - start));
    comm_max_i64(&s->mesh.world, &ns, 1);
    return 1e-9 * (double)ns;
}

/* ---- figures ---- */

/* The first ones are each between two of COMPUTE. */
enum { OVERLAP, FOLLOW, FORWARD, BESIDE, COMPUTE = BESIDE, EXCHANGE, PACK, HAND_OUT, LINK, KINDS };

struct times {
    double took[KINDS][MOST_ROUNDS];
    double added[BESIDE][MOST_ROUNDS]; /* to computing alone */
};

/* Bytes of gradients that leave this rank. */
static double sent_bytes(const struct scene *s)
{
    const struct param_table *params = model_params(s->model);
    double reals = 0;
    for (int64_t i = 0; i < params->shard.count; i++) {
        const struct piece *p = &params->shard.piece[i];
        if (!params->rows[p->tensor].sparse_rows && !shard_owns(&params->shard, p)) reals += (double)p->reals;
    }
    return reals * sizeof(real);
}

static void row(const char *what, const char *scene, double value, const char *unit, double bar)
{
    printf("BENCH\tgradient exchange, %s: %s\t%.3f\t%s\t", scene, what, value, unit);
    if (bar > 0) printf(">= %.2f\t%s\n", bar, value >= bar ? "yes" : "no");
    else printf("-\t-\n");
}

static double median_of(const double *took, int rounds)
{
    double sorted[MOST_ROUNDS];
    memcpy(sorted, took, sizeof *sorted * (size_t)rounds);
    return median(sorted, rounds);
}

/* Packing costs the same with and without messages. */
static void tell_hand_out(const char *scene, struct times *t, int rounds)
{
    double packing = median_of(t->took[PACK], rounds), all = median_of(t->took[HAND_OUT], rounds);
    double added = median_of(t->added[FORWARD], rounds) - packing;
    row("weights, packing alone", scene, packing, "s", 0);
    row("weights, hand-out alone, with packing", scene, all, "s", 0);
    row("weights, hand-out ahead of use, and computing", scene, median_of(t->took[FORWARD], rounds), "s", 0);
    row("weights, hidden", scene, 1 - added / (all - packing), "of the hand-out", 0);
}

static void tell(const struct scene *s, int blocks, int64_t tokens, struct times *t, int rounds)
{
    char scene[80];
    double exchange = median_of(t->took[EXCHANGE], rounds);
    snprintf(scene, sizeof scene, "%d blocks, %lld tokens, %d ranks", blocks, (long long)tokens, s->mesh.world.size);
    row("link, one way", scene, 2 * LINK_BYTES / median_of(t->took[LINK], rounds) * 8e-9, "Gbit/s", 0);
    row("sent by rank 0, but for gene rows", scene, sent_bytes(s) * 1e-6, "MB", 0);
    row("computing alone", scene, median_of(t->took[COMPUTE], rounds), "s", 0);
    row("exchange alone", scene, exchange, "s", 0);
    row("both, overlapped", scene, median_of(t->took[OVERLAP], rounds), "s", 0);
    row("both, one after the other", scene, median_of(t->took[FOLLOW], rounds), "s", 0);
    row("hidden, overlapped", scene, 1 - median_of(t->added[OVERLAP], rounds) / exchange, "of the exchange", 0.6);
    row("hidden, one after the other", scene, 1 - median_of(t->added[FOLLOW], rounds) / exchange, "of the exchange", 0);
    tell_hand_out(scene, t, rounds);
}

static void measure(struct scene *s, struct times *t, int round)
{
    static void (*const works[KINDS])(struct scene *) = {
        [EXCHANGE] = exchange_gradients, [FOLLOW] = follow,   [COMPUTE] = compute, [OVERLAP] = overlap, [PACK] = pack,
        [HAND_OUT] = hand_out,           [FORWARD] = forward, [LINK] = cross_link};
    double before = timed(s, compute), after = before;
    for (int k = 0; k < BESIDE; k++, before = after) {
        t->took[k][round] = timed(s, works[k]);
        after = timed(s, compute);
        t->added[k][round] = t->took[k][round] - (before + after) / 2;
    }
    t->took[COMPUTE][round] = after;
    for (int k = COMPUTE + 1; k < KINDS; k++) t->took[k][round] = timed(s, works[k]);
}

int main(int argc, char **argv)
{
    static struct times times;
    struct comm world;
    struct scene s = {0};
    if (comm_open(&argc, &argv, &world) != ST_OK || argc != 4) return ST_USAGE;
    int blocks = atoi(argv[1]), tokens = atoi(argv[2]), rounds = atoi(argv[3]);
    if (rounds < 1 || rounds > MOST_ROUNDS) return ST_USAGE;
    require(mesh_open(&world, (struct mesh_shape){0, 1, 1}, &s.mesh));
    open_model(&s, blocks, tokens);
    make_cell(&s, tokens);
    for (int i = -1; i < rounds; i++)
        measure(&s, &times, i < 0 ? 0 : i); /* first pages, connections, products' trials */
    if (world.rank == 0) tell(&s, blocks, tokens, &times, rounds);
    scene_close(&s);
    comm_close(&world);
    return ST_OK;
}
