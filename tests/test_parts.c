/* A model in parts, as the stages of a pipeline hold it.
 * plan: ranks=1 limit=90 configs=release,sanitize,double
 * However the blocks are cut, whichever parts share a table, with one micro-batch on its way or all, weight gradients at
 * once or late, activations kept or computed again: the losses and every gradient are those of the whole model, bit for
 * bit, with experts too; also where each module's weights come just before it runs, for which it asks once, and never runs
 * without. A part's table has every row and memory for its own; costs of parts add up to those of the whole. */
#include "kernel_check.h"

#include "cell_scene.h"
#include "golden.h"
#include "model/model.h"

#define OK(call) assert_int_equal((call), ST_OK)

enum { LAYERS = 5, WIDTH = 64, GENES = 300, CELLS = 3, TOKENS = 3 * 160, MICROS = 3, MOST_RANKS = 4, MOST_CUTS = 6 };

/* ---- data ---- */

static struct config *config;
static struct vocab *vocab;
static struct batch micro[MICROS];
static const int lengths[] = {60, 120, 150};

static int open_data(void **state)
{
    static const char *const keys[] = {"model.layers=5",       "model.width=64",    "model.heads=2",
                                       "model.value_width=32", "model.dropout=0.2", "run.seed=3"};
    OK(config_create(&config));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) OK(config_set(config, keys[i], "test"));
    vocab = golden_vocab(GENES);
    for (int m = 0; m < MICROS; m++) {
        OK(batch_create(CELLS, TOKENS, &micro[m]));
        for (int c = 0; c < CELLS - m % 2; c++) add_cell(&micro[m], 10 * m + c, lengths[(m + c) % 3], GENES);
        batch_find_levels(&micro[m]);
    }
    return 0;
}

/* The same with experts in two of the five blocks. */
static int open_experts(void **state)
{
    static const char *const keys[] = {"model.feed_forward=moe", "model.expert_every=2", "model.expert_balance=bias",
                                       "model.experts=4"};
    open_data(state);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) OK(config_set(config, keys[i], "test"));
    return 0;
}

/* ---- a pipeline in one process ---- */

/* Parts in the order of the model, and which rank holds each. */
struct layout {
    int ranks, parts;
    int end[MOST_CUTS], rank[MOST_CUTS];
    bool all_at_once; /* every micro-batch forward before the first goes backward */
    bool splits, recompute, bf16;
    bool late; /* other weights are packed until a pass asks for a module's */
};

struct line {
    struct model *model[MOST_RANKS];
    int index[MOST_CUTS];                                      /* of the part within its rank */
    int asked[MOST_RANKS][LAYERS + 2], last_asked[MOST_RANKS]; /* times for module m, at m + 1; the last one */
    struct loss_sum loss;
};

static struct line uncut[2]; /* the model in one part: fp32, bf16; empty until it is needed */

static struct model_hold hold_of(const struct layout *l, int rank, int *index)
{
    struct model_hold hold = {0};
    for (int p = 0; p < l->parts; p++) {
        if (l->rank[p] != rank) continue;
        index[p] = hold.count;
        hold.part[hold.count++] = (struct model_part){p ? l->end[p - 1] : 0, l->end[p]};
    }
    return hold;
}

static struct model_limits limits_of(const struct layout *l)
{
    return (struct model_limits){.cells = CELLS,
                                 .tokens = TOKENS,
                                 .train = true,
                                 .threads = 1,
                                 .bf16 = l->bf16,
                                 .slots = l->all_at_once ? MICROS * l->parts : l->parts,
                                 .splits = l->splits,
                                 .recompute = l->recompute};
}

static void open_line(struct line *line, const struct layout *l)
{
    struct model_limits limits = limits_of(l);
    *line = (struct line){0};
    for (int r = 0; r < l->ranks; r++) {
        struct model_hold hold = hold_of(l, r, line->index);
        OK(model_create(config, vocab, &hold, &line->model[r]));
        OK(param_allocate(model_params(line->model[r]), true));
        param_initialise(model_params(line->model[r]), 3);
        OK(model_prepare(line->model[r], &limits));
        OK(model_pack(line->model[r]));
        line->last_asked[r] = MODULE_EMBEDDING - 1;
        if (!l->late) continue;
        param_initialise(model_params(line->model[r]), 4);
        OK(model_pack(line->model[r]));
        param_initialise(model_params(line->model[r]), 3);
        model_expire(line->model[r]);
    }
}

/* What a pass on rank `rank` asks with. */
struct asking {
    struct line *line;
    int rank;
};

static void pack_module(void *context, int module)
{
    const struct asking *a = context;
    assert_true(module > a->line->last_asked[a->rank]); /* in the order of the model */
    a->line->last_asked[a->rank] = module;
    a->line->asked[a->rank][module + 1]++;
    model_pack_module(a->line->model[a->rank], module, NULL);
}

static void check_asked(const struct line *line, const struct layout *l)
{
    for (int p = 0; p < l->parts; p++)
        for (int module = MODULE_EMBEDDING; module <= LAYERS; module++) {
            struct model_part part = {p ? l->end[p - 1] : 0, l->end[p]};
            bool here = model_part_has(part, module, LAYERS);
            if (here) assert_int_equal(line->asked[l->rank[p]][module + 1], l->late);
        }
}

static void close_line(struct line *line)
{
    for (int r = 0; r < MOST_RANKS; r++) model_destroy(&line->model[r]);
}

static int close_data(void **state)
{
    for (int i = 0; i < 2; i++) close_line(&uncut[i]);
    for (int m = 0; m < MICROS; m++) batch_destroy(&micro[m]);
    vocab_destroy(&vocab);
    config_destroy(&config);
    return 0;
}

static int slot_of(const struct layout *l, int m, int p) { return l->all_at_once ? m * l->parts + p : p; }

static void forward(struct line *line, const struct layout *l, int m)
{
    static double wire[2][TOKENS * WIDTH];
    for (int p = 0; p < l->parts; p++) {
        struct asking asking = {line, l->rank[p]};
        struct model_how how = {.train = true, .scale = 0.01, .step = 4, .need = pack_module, .context = &asking};
        void *in = p ? wire[p % 2] : NULL, *out = p + 1 < l->parts ? wire[(p + 1) % 2] : NULL;
        OK(model_forward_part(line->model[l->rank[p]], slot_of(l, m, p), line->index[p], &micro[m], &how, in, out,
                              &line->loss));
        if (in) memset(in, 0xff, sizeof wire[0]); /* nobody may need it any more */
    }
}

static void backward(struct line *line, const struct layout *l, int m)
{
    static double wire[2][TOKENS * WIDTH];
    for (int p = l->parts - 1; p >= 0; p--) {
        void *d_out = p + 1 < l->parts ? wire[(p + 1) % 2] : NULL, *d_in = p ? wire[p % 2] : NULL;
        OK(model_backward_part(line->model[l->rank[p]], slot_of(l, m, p), d_out, d_in));
        if (d_out) memset(d_out, 0xff, sizeof wire[0]);
    }
}

static void weights(struct line *line, const struct layout *l, int m)
{
    for (int p = l->parts - 1; p >= 0; p--) model_weights_part(line->model[l->rank[p]], slot_of(l, m, p));
}

static void run(struct line *line, const struct layout *l)
{
    for (int m = 0; m < MICROS; m++) {
        forward(line, l, m);
        if (l->all_at_once) continue;
        backward(line, l, m);
        weights(line, l, m);
    }
    for (int m = 0; l->all_at_once && m < MICROS; m++) backward(line, l, m);
    for (int m = 0; l->all_at_once && m < MICROS; m++) weights(line, l, m);
    for (int r = 0; r < l->ranks; r++) param_join(model_params(line->model[r]));
}

/* The gradient of row i, entry k: of the tied table, what both ends found. */
static real gradient(struct line *line, const struct layout *l, int i, int64_t k)
{
    real home = 0, copy = 0;
    bool found = false;
    for (int r = 0; r < l->ranks; r++) {
        struct param_table *t = model_params(line->model[r]);
        if (t->rows[i].elsewhere) continue;
        assert_true(t->rows[i].copy || !found);
        if (t->rows[i].copy) copy = param_gradient(t, i)[k];
        else home = param_gradient(t, i)[k], found = true;
    }
    assert_true(found);
    return home + copy;
}

/* The model in one part, run once for each precision. */
static struct line *uncut_line(bool in_bf16)
{
    struct line *line = &uncut[in_bf16];
    struct layout l = {.ranks = 1, .parts = 1, .end = {LAYERS}, .bf16 = in_bf16};
    if (line->model[0]) return line;
    open_line(line, &l);
    run(line, &l);
    return line;
}

static void compare(const struct layout *l)
{
    struct line one = *uncut_line(l->bf16), cut;
    open_line(&cut, l);
    run(&cut, l);
    check_asked(&cut, l);
    assert_true(one.loss.genewise == cut.loss.genewise && one.loss.cellwise == cut.loss.cellwise);
    assert_true(one.loss.weight == cut.loss.weight && one.loss.hidden == cut.loss.hidden);
    struct param_table *t = model_params(one.model[0]);
    for (int i = 0; i < t->count; i++) {
        double largest = 0;
        for (int64_t k = 0; k < param_reals(&t->rows[i]); k++) {
            real expected = param_gradient(t, i)[k], found = gradient(&cut, l, i, k);
            if (expected != found)
                print_message("%s[%lld]: %g, not %g\n", t->rows[i].name, (long long)k, found, expected);
            assert_true(expected == found);
            largest = fmax(largest, fabs(expected));
        }
        assert_true(largest > 0 || !t->rows[i].trainable || strcmp(t->rows[i].name, "zero_emb") == 0);
    }
    close_line(&cut);
}

static void compare_all(struct layout l)
{
    compare(&l);
    l.all_at_once = true;
    compare(&l);
    l.splits = true;
    compare(&l);
    l.splits = false, l.recompute = l.late = true;
    compare(&l);
#ifndef CYTOMILL_DOUBLE
    l.bf16 = true;
    compare(&l);
    l.recompute = false;
    compare(&l);
#endif
}

/* The same in the two ways that differ most. */
static void compare_some(struct layout l)
{
    compare(&l);
    l.all_at_once = l.splits = l.late = true;
    compare(&l);
}

/* ---- tests ---- */

static void one_rank(void **state) { compare_some((struct layout){.ranks = 1, .parts = 1, .end = {LAYERS}}); }
static void two_ranks(void **state)
{
    compare_all((struct layout){.ranks = 2, .parts = 2, .end = {2, 5}, .rank = {0, 1}});
}
static void uneven_ranks(void **state)
{
    compare_some((struct layout){.ranks = 4, .parts = 4, .end = {1, 3, 4, 5}, .rank = {0, 1, 2, 3}});
}
static void chunks(void **state)
{
    compare_some((struct layout){.ranks = 2, .parts = 4, .end = {1, 2, 4, 5}, .rank = {0, 1, 0, 1}});
}
static void both_ends_on_one_rank(void **state)
{
    compare_some((struct layout){.ranks = 2, .parts = 3, .end = {1, 4, 5}, .rank = {0, 1, 0}});
}

static void expired_weights_are_refused(void **state)
{
    static float z[CELLS * WIDTH];
    struct layout l = {.ranks = 1, .parts = 1, .end = {LAYERS}};
    struct line line;
    struct loss_sum loss;
    open_line(&line, &l);
    struct model *m = line.model[0];
    model_expire(m);
    for (int module = MODULE_EMBEDDING; module <= LAYERS; module++) {
        assert_int_equal(model_loss(m, &micro[0], &loss), ST_INTERNAL);
        assert_int_equal(model_embed(m, &micro[0], z), ST_INTERNAL);
        assert_false(model_is_packed(m, module));
        model_pack_module(m, module, NULL);
    }
    OK(model_loss(m, &micro[0], &loss));
    OK(model_embed(m, &micro[0], z));
    close_line(&line);
}

static void a_table_has_all_rows_and_its_own_memory(void **state)
{
    struct layout l = {.ranks = 4, .parts = 4, .end = {1, 3, 4, 5}, .rank = {0, 1, 2, 3}};
    struct model *whole;
    int64_t reals = 0, gene_reals;
    int index[MOST_CUTS];
    OK(model_create(config, vocab, NULL, &whole));
    struct param_table *t = model_params(whole);
    gene_reals = param_room(&t->rows[param_find(t, "gene_emb")]);
    for (int r = 0; r < l.ranks; r++) {
        struct model *m;
        struct model_hold hold = hold_of(&l, r, index);
        OK(model_create(config, vocab, &hold, &m));
        struct param_table *part = model_params(m);
        assert_int_equal(part->count, t->count);
        for (int i = 0; i < t->count; i++) assert_string_equal(part->rows[i].name, t->rows[i].name);
        assert_int_equal(part->second_size, 0);
        reals += part->size;
        model_destroy(&m);
    }
    assert_int_equal(reals, t->size + gene_reals); /* both ends have the table of genes */
    assert_int_equal(t->second_size, gene_reals);
    model_destroy(&whole);
}

static void costs_add_up(void **state)
{
    struct layout l = {.ranks = 3, .parts = 3, .end = {2, 4, 5}, .rank = {0, 1, 2}};
    struct model_limits limits = limits_of(&l);
    struct model *whole;
    struct model_cost all, sum = {0};
    limits.slots = 1;
    OK(model_create(config, vocab, NULL, &whole));
    OK(model_measure(whole, &limits, NULL, &all));
    for (int p = 0; p < l.parts; p++) {
        struct model_part part = {p ? l.end[p - 1] : 0, l.end[p]};
        struct model_cost cost;
        OK(model_measure(whole, &limits, &part, &cost));
        assert_true(cost.activation_bytes < all.activation_bytes && cost.parameters == all.parameters);
        sum.packed_bytes += cost.packed_bytes;
        sum.weight_bytes += cost.weight_bytes;
        sum.forward_flops_per_token += cost.forward_flops_per_token;
        sum.train_flops_per_token += cost.train_flops_per_token;
    }
    struct param_table *t = model_params(whole);
    size_t gene_bytes = (size_t)param_room(&t->rows[param_find(t, "gene_emb")]) * sizeof(real);
    assert_int_equal(sum.packed_bytes, all.packed_bytes);
    assert_int_equal(sum.weight_bytes, all.weight_bytes + gene_bytes);
    assert_true(fabs(sum.forward_flops_per_token / all.forward_flops_per_token - 1) < 1e-9);
    assert_true(fabs(sum.train_flops_per_token / all.train_flops_per_token - 1) < 1e-9);
    model_destroy(&whole);
}

static void recomputing_takes_less_memory_and_more_work(void **state)
{
    struct layout l = {.ranks = 1, .parts = 1, .end = {LAYERS}};
    struct model_limits limits = limits_of(&l);
    struct model *m;
    struct model_cost kept, again;
    OK(model_create(config, vocab, NULL, &m));
    OK(model_measure(m, &limits, NULL, &kept));
    limits.recompute = true;
    OK(model_measure(m, &limits, NULL, &again));
    assert_true(again.activation_bytes < kept.activation_bytes / 2);
    double ratio = again.train_flops_per_token / kept.train_flops_per_token;
    assert_true(ratio > 1.25 && ratio < 4 / 3. + 0.01);
    model_destroy(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank),
        cmocka_unit_test(two_ranks),
        cmocka_unit_test(uneven_ranks),
        cmocka_unit_test(chunks),
        cmocka_unit_test(both_ends_on_one_rank),
        cmocka_unit_test(expired_weights_are_refused),
        cmocka_unit_test(a_table_has_all_rows_and_its_own_memory),
        cmocka_unit_test(costs_add_up),
        cmocka_unit_test(recomputing_takes_less_memory_and_more_work),
    };
    const struct CMUnitTest with_experts[] = {cmocka_unit_test(two_ranks), cmocka_unit_test(chunks),
                                              cmocka_unit_test(costs_add_up)};
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, open_data, close_data);
    return failed + cmocka_run_group_tests(with_experts, open_experts, close_data);
}
