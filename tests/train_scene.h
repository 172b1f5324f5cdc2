/* What the tests of training steps share: ranks, a small model laid out over them, and its cells. */
#ifndef CYTOMILL_TESTS_TRAIN_SCENE_H
#define CYTOMILL_TESTS_TRAIN_SCENE_H

#include "kernel_check.h"

#include "base/hash.h"
#include "base/text.h"
#include "cell/tokenize.h"
#include "mpi/train_step.h"

/* Under sanitizers, which take ten times as long, each kind of layout once. */
#ifdef __SANITIZE_ADDRESS__
static const bool brief = true;
#else
static const bool brief = false;
#endif

static struct comm world;
static struct comm alone; /* this rank by itself */

enum { MOE_CHOSEN = 2 };
enum { GENES = 500, BATCH = 7, MICRO = 2, SHARE_MICROS = 4, MOST_PARTS = 16 };

/* Models: with experts, which lie on one rank or several, and deep. */
#define EXPERTS "model.feed_forward=moe model.experts=4 "
#define ROUTED  "model.layers=4 model.feed_forward=moe model.experts=12 model.expert_balance=bias "
#define DEEP    "model.layers=8 model.width=32 "

/* How a fixture is laid out; zeros are one stage that keeps everything. */
struct layout {
    int stages, experts;
    enum schedule_kind kind;
    int chunks;
    bool in_turns, recompute, tight; /* tight: room for few rows of other ranks, so that trips take several rounds */
    bool bf16, whole;                /* whole: every rank keeps all weights */
    int domains;                     /* groups of ranks that share packed weights; 0: one of all; PACK_ALONE: none */
};

struct fixture {
    struct mesh mesh;
    struct config *config;
    struct vocab *vocab;
    int trips[MOST_PARTS];
    struct model *model;
    struct trainer trainer;
    struct guard_state guard_state;
    struct batch micro[SHARE_MICROS];
    int count;
};

static inline void open_model(struct fixture *f, const struct layout *l)
{
    struct stage_plan plan = {l->kind,
                              l->chunks > 0 ? l->chunks : 1,
                              SHARE_MICROS,
                              SHARE_MICROS + 1,
                              f->mesh.expert.size > 1,
                              l->in_turns && f->mesh.expert.size > 1,
                              NULL};
    struct model_limits limits = {.cells = MICRO, .tokens = MICRO * (GENES + 1), .train = true, .threads = 1};
    int first[MOST_PARTS + 1], stages = f->mesh.pipe.size;
    struct model *whole;
    assert_int_equal(model_create(f->config, f->vocab, NULL, &whole), ST_OK);
    assert_int_equal(stage_cut(whole, &limits, &plan, stages, first), ST_OK);
    stage_trips(whole, stages * plan.chunks, first, f->trips);
    if (plan.linked) plan.trips = f->trips;
    model_destroy(&whole);
    struct model_hold hold = stage_hold(&plan, stages, f->mesh.pipe.rank, first);
    hold.expert_rank = f->mesh.expert.rank;
    hold.expert_ranks = f->mesh.expert.size;
    assert_int_equal(model_create(f->config, f->vocab, &hold, &f->model), ST_OK);
    assert_int_equal(param_share(model_params(f->model), f->mesh.dense.rank, f->mesh.dense.size, f->mesh.expert.size),
                     ST_OK);
    if (!l->whole) param_split(model_params(f->model));
    assert_int_equal(param_allocate(model_params(f->model), true), ST_OK);
    param_initialise(model_params(f->model), 5);
    limits.slots = stage_slots(&plan, stages, f->mesh.pipe.rank);
    limits.splits = schedule_splits(l->kind);
    limits.recompute = l->recompute;
    if (l->tight) limits.expert_rows = 2 * limits.tokens * MOE_CHOSEN / 8;
    limits.bf16 = l->bf16;
    limits.packed_apart = true;
    assert_int_equal(model_prepare(f->model, &limits), ST_OK);
    int domain = l->domains > 0 ? f->mesh.world.rank % l->domains : l->domains;
    assert_int_equal(hand_out_create(&f->mesh, f->model, domain, &f->trainer.hand_out), ST_OK);
    hand_out_start(&f->mesh, f->trainer.hand_out);
    assert_int_equal(stage_create(&f->mesh, f->model, &limits, &plan, &f->trainer.stage), ST_OK);
}

static inline void open_layout(struct fixture *f, struct comm *comm, const char *extra, struct layout l)
{
    static const char *const sets[] = {"model.layers=2",  "model.width=64",    "model.heads=2", "model.value_width=32",
                                       "train.rate=1e-3", "model.dropout=0.1", "run.seed=5"};
    struct text tsv = {0};
    *f = (struct fixture){0};
    assert_int_equal(
        mesh_open(comm, (struct mesh_shape){0, l.stages > 0 ? l.stages : 1, l.experts > 0 ? l.experts : 1}, &f->mesh),
        ST_OK);
    assert_int_equal(config_create(&f->config), ST_OK);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        assert_int_equal(config_set(f->config, sets[i], "test"), ST_OK);
    char text[512], *rest = text;
    snprintf(text, sizeof text, "%s", extra ? extra : "");
    for (char *one; (one = strtok_r(rest, " ", &rest)) != NULL;)
        assert_int_equal(config_set(f->config, one, "test"), ST_OK);
    text_add(&tsv, "id\tsymbol\tensembl\thgnc\n");
    for (int g = 1; g <= GENES; g++) text_add(&tsv, "%d\tGENE%d\tENSG%011d\tHGNC:%d\n", g, g, g, g);
    assert_int_equal(vocab_parse(tsv.data, tsv.length, "test", &f->vocab), ST_OK);
    text_free(&tsv);
    open_model(f, &l);
    assert_int_equal(optimiser_create(f->config, model_params(f->model), &f->trainer.optimiser), ST_OK);
    assert_int_equal(reducer_create(&f->mesh, model_params(f->model),
                                    config_word_is(f->config, "train.exchange", "bf16"), &f->trainer.reducer),
                     ST_OK);
    f->trainer.model = f->model;
    f->trainer.guard_state = &f->guard_state;
    f->trainer.loss_over_rank = config_word_is(f->config, "train.loss_over", "rank");
    for (int i = 0; i < SHARE_MICROS; i++)
        assert_int_equal(batch_create(MICRO, MICRO * (GENES + 1), &f->micro[i]), ST_OK);
}

static inline void open_fixture(struct fixture *f, struct comm *comm, const char *extra)
{
    open_layout(f, comm, extra, (struct layout){.kind = SCHEDULE_1F1B});
}

static inline void close_fixture(struct fixture *f)
{
    hand_out_finish(&f->mesh, f->trainer.hand_out);
    hand_out_destroy(&f->trainer.hand_out);
    stage_destroy(&f->trainer.stage);
    reducer_destroy(&f->trainer.reducer);
    optimiser_destroy(&f->trainer.optimiser);
    model_destroy(&f->model);
    vocab_destroy(&f->vocab);
    config_destroy(&f->config);
    for (int i = 0; i < SHARE_MICROS; i++) batch_destroy(&f->micro[i]);
    mesh_close(&f->mesh);
}

/* Cell `id`: 3 to 420 genes, counts mostly 1, its own whichever rank makes it. */
static inline void append_cell(struct batch *b, int64_t id, int64_t step)
{
    struct token_rules rules = {.max_genes = GENES, .scale = 1e4, .select_fraction = 0.2, .hide_fraction = 0.8};
    struct token_cell cell = {0};
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)id, 0);
    assert_int_equal(token_cell_reserve(&cell, GENES), ST_OK);
    double density = id == 3 ? 0.01 : 0.3 + 0.08 * (double)id;
    for (int g = 1; g <= GENES; g++) {
        if (rng_uniform(&r) > density) continue;
        cell.gene[cell.count] = g;
        cell.counts[cell.count] = (float)(1 + (rng_below(&r, 4) == 0) * rng_below(&r, 9));
        cell.total += cell.counts[cell.count++];
    }
    token_append_train(b, &cell, &rules, id, 1, (uint64_t)step);
    token_cell_free(&cell);
}

/* This replica's share of the global batch, in micro-batches. */
static inline void load(struct fixture *f, int64_t step)
{
    int64_t first, count;
    comm_share(&f->mesh.dense, BATCH, &first, &count);
    f->count = 0;
    for (int64_t i = 0; i < count; i++) {
        if (i % MICRO == 0) batch_clear(&f->micro[f->count++]);
        append_cell(&f->micro[f->count - 1], first + i, step);
    }
    for (int i = 0; i < f->count; i++) batch_find_levels(&f->micro[i]);
}

static inline struct step_result step_ok(struct fixture *f, int64_t step)
{
    struct step_result result;
    load(f, step);
    assert_int_equal(
        train_step(&f->mesh, &f->trainer, f->micro, f->count, ST_OK, (struct train_asked){0}, step, &result), ST_OK);
    return result;
}

/* Of all that this rank computes with. */
static inline uint64_t hash_used(struct fixture *f)
{
    uint64_t hash[256];
    int count = model_params(f->model)->count;
    assert_true(count <= 256);
    hand_out_finish(&f->mesh, f->trainer.hand_out);
    model_hash(f->model, hash);
    return hash_block(hash, sizeof *hash * (size_t)count, 0);
}

/* And of the weights that it keeps. */
static inline uint64_t hash_all(struct fixture *f)
{
    const struct param_table *params = model_params(f->model);
    return hash_block(params->weight, sizeof(real) * (size_t)params->weight_size, hash_used(f));
}

#endif
