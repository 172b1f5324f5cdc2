/* plan: ranks=1,3 limit=120
 * A sweep of a small panel against the slow way: every cell edited by hand, embedded alone, scored by
 * formulas written out here. Knock-out and over-expression, shift and goal, read-out; the same bits for other
 * micro-batches; cells without a gene are in no sum; a set that removes all of a cell's genes breaks nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours records a status */

#include "base/rng.h"
#include "base/text.h"
#include "io/checkpoint.h"
#include "io/screening.h"

enum { GENES = 40, CELLS = 9, PANEL = 4, READOUT = 2 };
static const int32_t panel[PANEL] = {7, 3, 30, 12}, readout[READOUT] = {20, 21};
static const float raised[PANEL] = {50, 2, 9, 0}; /* nobody expresses the last */
static struct comm world;
static char folder[64], *checkpoint;

/* ---- a model and some cells ---- */

static struct config *make_config(const char *tokens)
{
    struct config *config;
    const char *settings[] = {"model.layers=2",     "model.width=32",  "model.heads=2",     "model.value_width=16",
                              "model.max_genes=12", "model.name=tiny", "run.precision=fp32"};
    assert_int_equal(config_create(&config), ST_OK);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        assert_int_equal(config_set(config, settings[i], "test"), ST_OK);
    assert_int_equal(config_put(config, "embed.tokens", tokens, "test"), ST_OK);
    assert_int_equal(config_put(config, "run.model", checkpoint, "test"), ST_OK);
    return config;
}

static void write_model(void)
{
    struct text tsv = {0};
    struct vocab *vocab;
    struct model *model;
    struct config *config = make_config("64");
    text_add(&tsv, "id\tsymbol\tensembl\thgnc\n");
    for (int g = 1; g <= GENES; g++) text_add(&tsv, "%d\tG%d\tENSG%011d\tHGNC:%d\n", g, g, g, g);
    assert_int_equal(vocab_parse(tsv.data, tsv.length, "test", &vocab), ST_OK);
    assert_int_equal(model_create(config, vocab, NULL, &model), ST_OK);
    struct param_table *t = model_params(model);
    assert_int_equal(param_allocate(t, false), ST_OK);
    param_initialise(t, 5);
    for (int64_t i = 0; i < t->size; i++) t->weight[i] *= 4; /* cells at the usual start are all alike */
    struct train_state state = {.best_loss = NAN};
    struct mesh mesh;
    assert_int_equal(mesh_open(&world, (struct mesh_shape){0, 1, 1}, &mesh), ST_OK);
    assert_int_equal(checkpoint_write(&mesh, checkpoint, t, config, vocab, "tiny", &state), ST_OK);
    mesh_close(&mesh);
    model_destroy(&model);
    vocab_destroy(&vocab);
    config_destroy(&config);
    text_free(&tsv);
}

/* Cell c has genes where (c * 7 + g * 5) % 4 != 0; the last cell has nothing but the first two panel genes. */
static void make_cells(const struct token_rules *rules, const uint8_t *hidden, struct cohort *cells)
{
    *cells = (struct cohort){0};
    for (int64_t c = 0; c < CELLS; c++) {
        struct token_cell cell = {0};
        assert_int_equal(token_cell_reserve(&cell, GENES), ST_OK);
        for (int g = 1; g <= GENES; g++) {
            bool has = c == CELLS - 1 ? g == 3 || g == 7 : (c * 7 + g * 5) % 4 != 0 && g != 12;
            if (!has) continue;
            cell.gene[cell.count] = g;
            cell.counts[cell.count++] = (float)(1 + (c * g) % 6);
            cell.total += 1 + (double)((c * g) % 6);
        }
        assert_int_equal(cohort_add(cells, &cell, rules, hidden, 100 + c), ST_OK);
        token_cell_free(&cell);
    }
}

/* ---- the slow way ---- */

/* Embed one list of tokens alone. */
static void embed_alone(struct inference *inf, const int32_t *gene, const float *value, int count, float *z)
{
    struct batch *b = &inf->batch;
    batch_clear(b);
    b->cell_id[0] = 0;
    for (int t = 0; t <= count; t++) {
        b->feature[t] = t == 0 ? 0 : gene[t - 1];
        b->value[t] = b->target[t] = t == 0 ? 0 : value[t - 1];
        b->role[t] = t == 0 ? TOKEN_CLS : TOKEN_FEATURE;
        b->visible[t] = t > 0;
        b->modality[t] = 0;
        b->loss_weight[t] = 0;
        b->position[t] = t;
    }
    b->cell_count = 1;
    b->token_count = b->offsets[1] = count + 1;
    batch_find_levels(b);
    assert_int_equal(model_embed(inf->model, b, z), ST_OK);
}

static bool in_set(int32_t gene, const int64_t *members, int size)
{
    for (int i = 0; i < size; i++)
        if (panel[members[i]] == gene) return true;
    return false;
}

/* Embedding of cell c with a set done to it; false if it cannot be. */
static bool embed_edited(struct inference *inf, const struct cohort *cells, int64_t c, enum edit_mode mode,
                         const int64_t *members, int size, float *z)
{
    struct token_list list = cohort_tokens(cells, c);
    int32_t gene[GENES + 8];
    float value[GENES + 8];
    int count = 0, found = 0, room = inf->rules.max_genes;
    bool usable = true;
    for (int t = 0; t < list.count; t++) found += in_set(list.gene[t], members, size);
    for (int i = 0; i < size; i++) usable = usable && raised[members[i]] > 0;
    if (mode == EDIT_KNOCK_OUT ? found < size : !usable) return false;
    int excess = mode == EDIT_KNOCK_OUT ? 0 : list.count + size - found - room;
    for (int32_t g = 1; g <= GENES; g++) {
        int at = token_list_find(&list, g);
        bool member = in_set(g, members, size);
        if (at >= 0 && !member) { /* drawn among the last `excess` of those not in the set? */
            int later = 0;
            for (int t = 0; t < list.count; t++)
                later += !in_set(list.gene[t], members, size) && list.drawn[t] > list.drawn[at];
            if (later < excess) continue;
            gene[count] = g;
            value[count++] = list.value[at];
        } else if (member && mode == EDIT_OVER_EXPRESS) {
            float up = 0;
            for (int i = 0; i < PANEL; i++)
                if (panel[i] == g) up = (float)log1p(raised[i] / cells->total[c] * 1e4);
            gene[count] = g;
            value[count++] = at >= 0 && list.value[at] > up ? list.value[at] : up;
        }
    }
    embed_alone(inf, gene, value, count, z);
    return true;
}

static double cosine(const double *a, const float *b, int width)
{
    double ab = 0, aa = 0, bb = 0;
    for (int d = 0; d < width; d++) {
        ab += a[d] * b[d];
        aa += a[d] * a[d];
        bb += (double)b[d] * b[d];
    }
    return ab / sqrt(aa) / sqrt(bb);
}

static double score(const double *moved, const float *z, const float *goal, int width)
{
    double start[64];
    for (int d = 0; d < width; d++) start[d] = z[d];
    return goal ? cosine(moved, goal, width) - cosine(start, goal, width) : 1 - cosine(moved, z, width);
}

struct naive {
    struct score_sum sum;
    double readout[READOUT];
};

/* One set over all cells, from nothing. */
static struct naive score_naively(struct inference *inf, const struct cohort *cells, enum edit_mode mode,
                                  const float *goal, const int64_t *members, int size)
{
    struct naive out = {0};
    int width = inf->width;
    float z[64], z_set[64], z_one[64], vectors[READOUT * 64];
    model_read_out(inf->model, readout, READOUT, vectors);
    for (int64_t c = 0; c < cells->count; c++) {
        struct token_list list = cohort_tokens(cells, c);
        double moved[64], expected[64];
        int found = 0;
        for (int t = 0; t < list.count; t++) found += in_set(list.gene[t], members, size);
        out.sum.carriers += found == size;
        if (!embed_edited(inf, cells, c, mode, members, size, z_set)) continue;
        embed_alone(inf, list.gene, list.value, list.count, z);
        for (int d = 0; d < width; d++) moved[d] = z_set[d], expected[d] = z[d];
        for (int i = 0; i < size; i++) {
            assert_true(embed_edited(inf, cells, c, mode, &members[i], 1, z_one));
            for (int d = 0; d < width; d++) expected[d] += (double)z_one[d] - z[d];
        }
        double effect = score(moved, z, goal, width);
        if (!isfinite(effect)) continue;
        score_sum_add(&out.sum, effect, score(expected, z, goal, width));
        for (int r = 0; r < READOUT; r++)
            for (int d = 0; d < width; d++) out.readout[r] += vectors[r * width + d] * (moved[d] - z[d]);
    }
    return out;
}

/* ---- against the screening ---- */

static void do_all_singles(struct screening *s, const char *key_text)
{
    char key[SHA256_HEX];
    struct queue *queue;
    int64_t chunk;
    hash_sha256(key_text, strlen(key_text), key);
    assert_int_equal(screening_open_singles(&world, s, folder, key), ST_OK);
    assert_int_equal(partial_queue(&world, screening_singles(s), &queue), ST_OK);
    while (queue_next(queue, &chunk)) assert_int_equal(screening_do_singles(s, chunk), ST_OK);
    queue_close(&world, &queue);
    assert_int_equal(partial_settle(&world, screening_singles(s)), ST_OK);
}

static void mean_embedding(struct inference *inf, const struct cohort *cells, float *mean)
{
    double sum[64] = {0};
    float z[64];
    for (int64_t c = 0; c < cells->count; c++) {
        struct token_list list = cohort_tokens(cells, c);
        embed_alone(inf, list.gene, list.value, list.count, z);
        for (int d = 0; d < inf->width; d++) sum[d] += z[d];
    }
    for (int d = 0; d < inf->width; d++) mean[d] = (float)(sum[d] / (double)cells->count);
}

static void compare_set(struct inference *inf, const struct cohort *cells, enum edit_mode mode, const float *goal,
                        const struct combination_space *space, int64_t set, const struct score_sum *sum,
                        const double *reads)
{
    int64_t members[SET_SIZE_MAX];
    int size = combination_unrank(space, set, members);
    struct naive slow = score_naively(inf, cells, mode, goal, members, size);
    assert_int_equal(sum->cells, slow.sum.cells);
    assert_int_equal(sum->carriers, slow.sum.carriers);
    assert_float_equal(sum->effect, slow.sum.effect, 1e-12);
    assert_float_equal(sum->effect_squared, slow.sum.effect_squared, 1e-12);
    assert_float_equal(sum->expected, slow.sum.expected, 1e-12);
    assert_float_equal(sum->interaction, slow.sum.interaction, 1e-12);
    assert_float_equal(sum->interaction_squared, slow.sum.interaction_squared, 1e-12);
    for (int r = 0; r < READOUT; r++) assert_float_equal(reads[r], slow.readout[r], 1e-9);
}

enum { SETS = 14 }; /* 4 singles, 6 pairs, 4 triples */

static void run_screen(enum edit_mode mode, bool with_goal, const char *tokens, bool compare,
                       struct score_sum sums[SETS], double reads[SETS * READOUT])
{
    struct inference inf;
    struct cohort cells, goal_cells;
    struct screening *s;
    uint8_t hidden[GENES + 1] = {0};
    float goal[64];
    struct config *config = make_config(tokens);
    char *key = text_format("%d %d %s", mode, with_goal, tokens);
    for (int r = 0; r < READOUT; r++) hidden[readout[r]] = 1;
    assert_int_equal(inference_open(&world, config, 1, &inf), ST_OK);
    make_cells(&inf.rules, hidden, &cells);
    make_cells(&inf.rules, NULL, &goal_cells);
    assert_int_equal(cells.count, CELLS);
    struct screening_plan plan = {.inference = &inf,
                                  .cells = &cells,
                                  .goal = with_goal ? &goal_cells : NULL,
                                  .panel = panel,
                                  .mode = mode,
                                  .raised = mode == EDIT_OVER_EXPRESS ? raised : NULL,
                                  .readout = readout,
                                  .readout_count = READOUT};
    assert_int_equal(combination_space_create(PANEL, 3, &plan.space), ST_OK);
    assert_int_equal(combination_count(&plan.space), SETS);
    assert_int_equal(screening_create(&world, &plan, &s), ST_OK);
    do_all_singles(s, key);
    assert_int_equal(screening_do_sets(s, 0, 5, sums, reads), ST_OK); /* cut anywhere */
    assert_int_equal(screening_do_sets(s, 5, SETS - 5, sums + 5, reads + 5 * READOUT), ST_OK);
    mean_embedding(&inf, &goal_cells, goal);
    for (int64_t set = 0; compare && set < SETS; set++)
        compare_set(&inf, &cells, mode, with_goal ? goal : NULL, &plan.space, set, &sums[set], reads + set * READOUT);
    assert_int_equal(partial_discard(&world, screening_singles(s)), ST_OK);
    screening_destroy(&s);
    cohort_free(&cells);
    cohort_free(&goal_cells);
    inference_close(&inf);
    config_destroy(&config);
    free(key);
}

static void check_mode(enum edit_mode mode, bool with_goal)
{
    struct score_sum sums[SETS], others[SETS];
    double reads[SETS * READOUT], other_reads[SETS * READOUT];
    run_screen(mode, with_goal, "4096", true, sums, reads);
    run_screen(mode, with_goal, "64", false, others, other_reads);
    assert_memory_equal(sums, others, sizeof sums); /* other micro-batches: the same bits */
    assert_memory_equal(reads, other_reads, sizeof reads);
    assert_int_equal(comm_same(&world, sums, sizeof sums, "sums"), ST_OK);
}

static void knock_out_shift(void **state) { check_mode(EDIT_KNOCK_OUT, false); }
static void knock_out_towards_a_goal(void **state) { check_mode(EDIT_KNOCK_OUT, true); }
static void over_expression_shift(void **state) { check_mode(EDIT_OVER_EXPRESS, false); }

static void counts_are_those_of_the_carriers(void **state)
{
    struct score_sum sums[SETS];
    double reads[SETS * READOUT];
    run_screen(EDIT_KNOCK_OUT, false, "4096", false, sums, reads);
    assert_int_equal(sums[3].cells, 0); /* gene 12: in no cell */
    assert_true(sums[0].cells > 0 && sums[0].cells < CELLS);
    assert_true(sums[4].cells <= sums[0].cells && sums[4].cells <= sums[1].cells);
    for (int s = 0; s < PANEL; s++) assert_true(sums[s].interaction == 0);
    run_screen(EDIT_OVER_EXPRESS, false, "4096", false, sums, reads);
    assert_int_equal(sums[3].cells, 0); /* no level is known for it */
    assert_int_equal(sums[0].cells, CELLS);
}

/* The vectors of the read-out predict what the cell-wise head predicts. */
static void read_out_is_the_cellwise_head(void **state)
{
    struct inference inf;
    struct cohort cells;
    struct config *config = make_config("64");
    float z[64], predicted[64], vectors[64 * 16];
    assert_int_equal(inference_open(&world, config, 1, &inf), ST_OK);
    make_cells(&inf.rules, NULL, &cells);
    struct token_list list = cohort_tokens(&cells, 1);
    embed_alone(&inf, list.gene, list.value, list.count, z);
    assert_int_equal(model_predict(inf.model, &inf.batch, NULL, predicted), ST_OK);
    model_read_out(inf.model, list.gene, list.count, vectors);
    for (int t = 0; t < list.count; t++) {
        double sum = 0;
        for (int d = 0; d < inf.width; d++) sum += (double)vectors[t * inf.width + d] * z[d];
        assert_float_equal(sum, predicted[t + 1], 1e-4 * (1 + fabs(sum)));
    }
    cohort_free(&cells);
    inference_close(&inf);
    config_destroy(&config);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(knock_out_shift), cmocka_unit_test(knock_out_towards_a_goal),
                                       cmocka_unit_test(over_expression_shift),
                                       cmocka_unit_test(counts_are_those_of_the_carriers),
                                       cmocka_unit_test(read_out_is_the_cellwise_head)};
    if (comm_open(&argc, &argv, &world) != ST_OK) return 1;
    strcpy(folder, "/tmp/cytomill-screening-XXXXXX");
    if (world.rank == 0 && !mkdtemp(folder)) return 1;
    comm_bcast(&world, folder, sizeof folder, 0);
    checkpoint = text_format("%s/model.h5", folder);
    write_model();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_barrier(&world);
    if (world.rank == 0) {
        unlink(checkpoint);
        rmdir(folder);
    }
    free(checkpoint);
    comm_close(&world);
    return failed;
}
