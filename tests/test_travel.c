/* A model whose experts lie on several ranks, cut at its exchanges and run piece by piece in one process.
 * plan: ranks=1 limit=90 configs=release,sanitize,double
 * Models of 2, 3 and 4 ranks, of which each holds a share of the experts, run a micro-batch each; plain loops move the
 * rows. Losses and gradients are those of one model that has all experts and never stops, bit for bit: activations kept or
 * computed again, weight gradients at once or late, one micro-batch after another or two in turns; with room for few rows
 * an expert's gradient agrees to rounding. A model that must stop says so to a caller who does not ask. */
#include "kernel_check.h"

#include "cell_scene.h"
#include "golden.h"
#include "model/model.h"

#define OK(call) assert_int_equal((call), ST_OK)

enum { LAYERS = 3, E = 12, GENES = 200, TOKENS = 2 * 120, MICROS = 2, MOST_RANKS = 4, MOST_ROWS = 2 * TOKENS };

static struct config *config;
static struct vocab *vocab;
static struct batch batch[MICROS][MOST_RANKS]; /* [1][1] is empty */
static const int lengths[] = {50, 100, 110};

static int open_data(void **state)
{
    static const char *const keys[] = {"model.layers=3",           "model.width=48",       "model.heads=2",
                                       "model.value_width=16",     "model.dropout=0.2",    "run.seed=3",
                                       "model.feed_forward=moe",   "model.expert_every=2", "model.experts=12",
                                       "model.expert_balance=none"};
    OK(config_create(&config));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) OK(config_set(config, keys[i], "test"));
    vocab = golden_vocab(GENES);
    for (int m = 0; m < MICROS; m++)
        for (int r = 0; r < MOST_RANKS; r++) {
            OK(batch_create(2, TOKENS, &batch[m][r]));
            batch_clear(&batch[m][r]);
            for (int c = 0, id = 10 * m + 2 * r; c < 2 && 2 * m + r != 3; c++, id++)
                add_cell(&batch[m][r], id, lengths[id % 3], GENES);
            batch_find_levels(&batch[m][r]);
        }
    return 0;
}

static int close_data(void **state)
{
    for (int m = 0; m < MICROS; m++)
        for (int r = 0; r < MOST_RANKS; r++) batch_destroy(&batch[m][r]);
    vocab_destroy(&vocab);
    config_destroy(&config);
    return 0;
}

/* ---- rows, moved by plain loops ---- */

struct group {
    int ranks;
    bool splits, recompute, in_turns;
    int64_t capacity; /* 0: what the model takes */
    struct model *model[MOST_RANKS];
    struct loss_sum loss[MOST_RANKS];
    int most_rounds;
};

static int64_t capacity_of(const struct group *g) { return model_expert_ranks(g->model[0]).capacity; }

/* Every row of an owner's sequence, by source and from each source by expert: calls with the place at home and in the
 * sequence. */
static int64_t for_rows(const struct travel_move *m, int ranks, int owner,
                        void (*row)(void *context, int source, int expert, int64_t home, int64_t at), void *context)
{
    int64_t at = 0;
    for (int s = 0; s < ranks; s++) {
        int64_t home = 0;
        for (int e = 0; e < E; e++)
            for (int64_t i = 0; i < m->count[s * E + e]; i++, home++)
                if (e / (E / ranks) == owner) row(context, s, e, home, at++);
    }
    return at;
}

struct moving {
    const struct group *g;
    struct travel_move **moves;
    int owner;
};

static void no_row(void *context, int source, int expert, int64_t home, int64_t at) {}

static void move_row(void *context, int source, int expert, int64_t home, int64_t at)
{
    const struct moving *c = context;
    const struct travel_move *from = c->moves[source], *to = c->moves[c->owner];
    int64_t capacity = capacity_of(c->g), bytes = from->row_bytes;
    if (at / capacity != from->round) return;
    char *there = (char *)to->away + at % capacity * bytes, *here = (char *)from->home + home * bytes;
    memcpy(from->out ? there : here, from->out ? here : there, (size_t)bytes);
    if (!to->runs) return;
    int held = E / c->g->ranks;
    struct expert_run *run = &to->runs[expert % held * c->g->ranks + source];
    if (run->rows++ == 0) run->first = at % capacity;
}

static void tell_counts(const struct group *g, struct travel_move **moves)
{
    for (int r = 0; r < g->ranks; r++)
        for (int s = 0; s < g->ranks; s++)
            memcpy(moves[r]->count + s * E, moves[s]->count + s * E, E * sizeof *moves[s]->count);
    int rounds = 0;
    for (int r = 0; r < g->ranks; r++) {
        int64_t rows = for_rows(moves[r], g->ranks, r, no_row, NULL), capacity = capacity_of(g);
        int takes = (int)((rows + capacity - 1) / capacity);
        moves[r]->come = rows < capacity ? rows : capacity;
        rounds = takes > rounds ? takes : rounds;
    }
    for (int r = 0; r < g->ranks; r++) moves[r]->rounds = rounds;
}

/* What all ranks' passes in `slot` wait for. */
static void move_rows(struct group *g, int slot)
{
    struct travel_move *moves[MOST_RANKS] = {0};
    for (int r = 0; r < g->ranks; r++) moves[r] = model_move(g->model[r], slot);
    for (int r = 1; r < g->ranks; r++)
        assert_true(moves[r]->out == moves[0]->out && moves[r]->round == moves[0]->round &&
                    moves[r]->counts == moves[0]->counts);
    if (moves[0]->counts) tell_counts(g, moves);
    if (moves[0]->counts && moves[0]->rounds > g->most_rounds) g->most_rounds = moves[0]->rounds;
    for (int owner = 0; owner < g->ranks; owner++) {
        for (int i = 0; moves[owner]->runs && i < E; i++)
            moves[owner]->runs[i] = (struct expert_run){.expert = i / g->ranks};
        for_rows(moves[owner], g->ranks, owner, move_row, &(struct moving){g, moves, owner});
    }
}

/* To the next exchange, with all rounds of the one before. False when the passes are through. */
static bool go_on(struct group *g, int slot)
{
    if (!model_move(g->model[0], slot)) return false;
    do {
        move_rows(g, slot);
        for (int r = 0; r < g->ranks; r++) {
            model_go_on(g->model[r], slot);
            model_meanwhile(g->model[r], slot);
        }
    } while (model_move(g->model[0], slot) && model_move(g->model[0], slot)->round > 0);
    return true;
}

/* ---- passes ---- */

static struct model *open_model(const struct model_hold *hold, const struct group *g)
{
    struct model *m;
    struct model_limits limits = {.cells = 2,
                                  .tokens = TOKENS,
                                  .train = true,
                                  .threads = 1,
                                  .slots = MICROS,
                                  .splits = g->splits,
                                  .recompute = g->recompute,
                                  .expert_rows = g->capacity};
    OK(model_create(config, vocab, hold, &m));
    OK(param_allocate(model_params(m), true));
    param_initialise(model_params(m), 3);
    OK(model_prepare(m, &limits));
    OK(model_pack(m));
    return m;
}

static const struct model_how how = {.train = true, .scale = 0.01, .step = 4};

static void begin(struct group *g, int m, bool backward)
{
    for (int r = 0; r < g->ranks; r++)
        if (backward) model_begin_backward(g->model[r], m, NULL);
        else OK(model_begin_forward(g->model[r], m, 0, &batch[m][r], &how, NULL));
}

static void end(struct group *g, int m, bool backward)
{
    for (int r = 0; r < g->ranks; r++)
        if (backward) model_end_backward(g->model[r], m, NULL);
        else OK(model_end_forward(g->model[r], m, NULL, &g->loss[r]));
}

/* Both micro-batches, one after another or exchange by exchange in turns. */
static void run_all(struct group *g, bool backward)
{
    if (g->in_turns) {
        for (int m = 0; m < MICROS; m++) begin(g, m, backward);
        while (go_on(g, 0) | go_on(g, 1)) {}
        for (int m = 0; m < MICROS; m++) end(g, m, backward);
        return;
    }
    for (int m = 0; m < MICROS; m++) {
        begin(g, m, backward);
        while (go_on(g, m)) {}
        end(g, m, backward);
    }
}

static void run_group(struct group *g)
{
    for (int r = 0; r < g->ranks; r++) {
        struct model_hold hold = model_hold_all(LAYERS);
        hold.expert_rank = r, hold.expert_ranks = g->ranks;
        g->model[r] = open_model(&hold, g);
    }
    run_all(g, false);
    run_all(g, true);
    for (int m = 0; m < MICROS; m++)
        for (int r = 0; r < g->ranks; r++) model_weights_part(g->model[r], m);
    for (int r = 0; r < g->ranks; r++) param_join(model_params(g->model[r]));
}

/* A model with all experts on the micro-batches of ranks [first, end). */
static struct model *run_straight(int first, int last, struct loss_sum *loss)
{
    struct model *model = open_model(NULL, &(struct group){0});
    for (int m = 0; m < MICROS; m++)
        for (int r = first; r < last; r++) {
            OK(model_forward_part(model, 0, 0, &batch[m][r], &how, NULL, NULL, loss));
            OK(model_backward_part(model, 0, NULL, NULL));
        }
    param_join(model_params(model));
    return model;
}

static void same_gradients(struct param_table *found, struct param_table *expected, bool routed, double tolerance)
{
    for (int i = 0; i < found->count; i++) {
        if (found->rows[i].elsewhere || found->rows[i].routed != routed) continue;
        double largest = 0;
        for (int64_t k = 0; k < param_reals(&found->rows[i]); k++)
            largest = fmax(largest, fabs(param_gradient(expected, i)[k]));
        for (int64_t k = 0; k < param_reals(&found->rows[i]); k++)
            if (!(fabs(param_gradient(found, i)[k] - param_gradient(expected, i)[k]) <= tolerance * largest))
                fail_msg("%s[%lld]: %g, not %g", found->rows[i].name, (long long)k, param_gradient(found, i)[k],
                         param_gradient(expected, i)[k]);
    }
}

static void compare(struct group g)
{
    struct loss_sum all = {0};
    struct model *summed = run_straight(0, g.ranks, &all);
    run_group(&g);
    assert_true((g.capacity > 0) == (g.most_rounds > 2));
    for (int r = 0; r < g.ranks; r++) {
        struct loss_sum own = {0};
        struct model *alone = run_straight(r, r + 1, &own);
        assert_true(own.genewise == g.loss[r].genewise && own.cellwise == g.loss[r].cellwise && own.weight > 0);
        same_gradients(model_params(g.model[r]), model_params(alone), false, 0);
        same_gradients(model_params(g.model[r]), model_params(summed), true, g.capacity ? 1e-5 : 0);
        model_destroy(&alone);
        model_destroy(&g.model[r]);
    }
    model_destroy(&summed);
}

/* ---- tests ---- */

static void compare_ranks(struct group g)
{
    for (g.ranks = 2; g.ranks <= MOST_RANKS; g.ranks++) compare(g);
}

static void kept(void **state) { compare_ranks((struct group){0}); }
static void computed_again(void **state) { compare((struct group){.ranks = 3, .recompute = true}); }
static void weights_later(void **state) { compare((struct group){.ranks = 2, .splits = true, .in_turns = true}); }
static void in_turns(void **state)
{
    compare_ranks((struct group){.in_turns = true});
    compare((struct group){.ranks = 3, .in_turns = true, .recompute = true});
}
static void in_little_room(void **state)
{
    compare((struct group){.ranks = 3, .capacity = 41});
    compare((struct group){.ranks = 2, .capacity = 67, .recompute = true});
}

/* Also with several rounds, taking turns leaves every bit as it is. */
static void turns_change_nothing(void **state)
{
    struct group one = {.ranks = 3, .capacity = 41}, turns = {.ranks = 3, .capacity = 41, .in_turns = true};
    run_group(&one);
    run_group(&turns);
    for (int r = 0; r < one.ranks; r++) {
        assert_true(one.loss[r].genewise == turns.loss[r].genewise);
        same_gradients(model_params(turns.model[r]), model_params(one.model[r]), true, 0);
        same_gradients(model_params(turns.model[r]), model_params(one.model[r]), false, 0);
        model_destroy(&one.model[r]);
        model_destroy(&turns.model[r]);
    }
}

static void a_stop_is_not_missed(void **state)
{
    struct model_hold hold = model_hold_all(LAYERS);
    struct loss_sum loss;
    hold.expert_ranks = 2;
    struct model *m = open_model(&hold, &(struct group){0});
    assert_int_equal(model_loss(m, &batch[0][0], &loss), ST_INTERNAL);
    status_clear();
    model_destroy(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kept),
                                       cmocka_unit_test(computed_again),
                                       cmocka_unit_test(weights_later),
                                       cmocka_unit_test(in_turns),
                                       cmocka_unit_test(in_little_room),
                                       cmocka_unit_test(turns_change_nothing),
                                       cmocka_unit_test(a_stop_is_not_missed)};
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    return cmocka_run_group_tests(tests, open_data, close_data);
}
