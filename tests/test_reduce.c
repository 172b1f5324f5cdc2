/* The exchange of gradients.
 * plan: ranks=1,2,3 limit=60
 * A gradient cut over the ranks sums on the owners of its pieces to the same tensor, whoever sends early or late, 2e-6 of
 * its largest entry in fp32 and 4e-3 in bf16; a sparse tensor's untouched rows stay zero and touched ones of any rank
 * arrive; its memory is known before; the report sums in rank order and a failure on the last rank is everybody's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "base/rng.h"
#include "model/part.h"
#include "mpi/reduce.h"

static struct comm world;
static struct mesh mesh;

enum { GENES = 700, WIDTH = 96, CELLS = 12 };

/* dense, sparse, dense. The last tensor is larger than all receiving places together. */
static struct param_table table_of(void)
{
    static const struct param rows[] = {
        {.name = "first", .rows = 5, .cols = 7, .trainable = true},
        {.name = "gene_emb",
         .module = MODULE_EMBEDDING,
         .rows = GENES,
         .cols = WIDTH,
         .trainable = true,
         .sparse_rows = true},
        {.name = "last", .module = 1, .rows = 2100, .cols = 2001, .trainable = true},
    };
    struct param_table t = {0};
    for (int i = 0; i < 3; i++) assert_int_equal(param_add(&t, &rows[i], NULL), ST_OK);
    assert_int_equal(param_share(&t, world.rank, world.size, 1), ST_OK);
    assert_int_equal(param_allocate(&t, true), ST_OK);
    return t;
}

/* One cell's share of the gradient, the same on any rank. Cell c touches genes c, c+50, c+100, … */
static void add_cell(struct param_table *t, int cell)
{
    struct rng r = rng_at(7, RNG_TEST, (uint64_t)cell, 0);
    for (int i = 0; i < t->count; i++) {
        const struct param *p = &t->rows[i];
        for (int64_t row = 0; row < p->rows; row++) {
            if (p->sparse_rows && row % 50 != cell) continue;
            for (int64_t k = 0; k < p->cols; k++)
                param_gradient(t, i)[row * p->cols + k] += (real)((rng_u32(&r) >> 8) * 0x1p-24 - 0.5);
        }
    }
}

static void touch_cell(struct batch *b, int cell)
{
    b->token_count = 0;
    for (int32_t gene = cell; gene < GENES; gene += 50) b->feature[b->token_count++] = gene;
}

static void gradients_agree(bool bf16_exchange, double tolerance)
{
    struct param_table t = table_of(), whole = table_of();
    struct reducer *r;
    struct batch b;
    assert_int_equal(reducer_create(&mesh, &t, bf16_exchange, &r), ST_OK);
    assert_int_equal(batch_create(1, GENES, &b), ST_OK);
    int64_t first, count;
    comm_share(&world, CELLS, &first, &count);
    for (int round = 0; round < 2; round++) { /* the second finds the marks cleared */
        memset(t.gradient, 0, sizeof(real) * (size_t)t.size);
        memset(whole.gradient, 0, sizeof(real) * (size_t)t.size);
        for (int64_t c = first; c < first + count; c++) {
            add_cell(&t, (int)c + round);
            touch_cell(&b, (int)c + round);
            reducer_touch(r, &b);
        }
        for (int c = 0; c < CELLS; c++) add_cell(&whole, c + round);
        if (world.rank != 1) reducer_start(&mesh, r, 1); /* the others send all at once, later */
        if (world.rank != 1) reducer_poll(r);
        reducer_sum_gradients(&mesh, r);
        double largest[3] = {0}, worst[3] = {0};
        for (int64_t i = 0; i < t.shard.count; i++) {
            const struct piece *p = &t.shard.piece[i];
            for (int64_t k = p->at; k < p->at + p->reals; k++) {
                double difference = fabs(whole.gradient[k] - t.gradient[k]);
                largest[p->tensor] = fmax(largest[p->tensor], fabs(whole.gradient[k]));
                if (shard_owns(&t.shard, p)) worst[p->tensor] = fmax(worst[p->tensor], difference);
            }
        }
        for (int i = 0; i < t.count; i++) assert_true(largest[i] > 0.1 && worst[i] <= tolerance * largest[i]);
    }
    batch_destroy(&b);
    reducer_destroy(&r);
    param_free(&t);
    param_free(&whole);
}

static void gradients_agree_in_fp32(void **state) { gradients_agree(false, 2e-6); }
static void gradients_agree_in_bf16(void **state) { gradients_agree(true, 4e-3); }

/* What a table takes before it is shared out is what it takes afterwards; a tensor of another rank takes nothing. */
static void memory_is_known_before_pieces_are_cut(void **state)
{
    struct param_table t = table_of(), uncut = t;
    uncut.shard = (struct shard){0};
    int64_t largest = 0;
    for (int64_t i = 0; i < t.shard.count; i++)
        if (t.shard.piece[i].reals > largest) largest = t.shard.piece[i].reals;
    assert_int_equal(shard_piece_count(&uncut), t.shard.count);
    assert_int_equal(shard_largest_piece(&uncut), largest);
    assert_int_equal(reducer_bytes(&uncut, 3, false), reducer_bytes(&t, 3, false));
    assert_true(reducer_bytes(&uncut, 3, false) > 16 * sizeof(real) * (size_t)largest); /* a ring of pieces */
    for (int i = 0; i < t.count; i++) t.rows[i].elsewhere = i != 0;
    assert_int_equal(shard_largest_piece(&t), 5 * 7);
    param_free(&t);
}

static void reports_sum_and_failures_spread(void **state)
{
    struct param_table t = table_of();
    struct reducer *r;
    assert_int_equal(reducer_create(&mesh, &t, false, &r), ST_OK);
    struct step_report report = {
        .loss = {.genewise = 1, .weight = 2 + world.rank}, .cells = 4, .stop = world.rank == world.size - 1};
    assert_int_equal(reducer_agree(&mesh, r, ST_OK, &report), ST_OK);
    assert_true(report.loss.genewise == world.size && report.cells == 4 * world.size && report.stop);
    assert_true(report.loss.weight == 2 * world.size + world.size * (world.size - 1) / 2);
    report = (struct step_report){0};
    assert_int_equal(reducer_agree(&mesh, r, ST_OK, &report), ST_OK);
    assert_false(report.stop);
    bool last = world.rank == world.size - 1;
    assert_non_null(freopen("/dev/null", "w", stderr));
    enum status local = last ? fail(ST_NUMERIC, "test of a failing rank") : ST_OK;
    assert_int_equal(reducer_agree(&mesh, r, local, &report), ST_NUMERIC);
    reducer_destroy(&r);
    param_free(&t);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    if (mesh_open(&world, (struct mesh_shape){0, 1, 1}, &mesh) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_agree_in_fp32),
        cmocka_unit_test(gradients_agree_in_bf16),
        cmocka_unit_test(memory_is_known_before_pieces_are_cut),
        cmocka_unit_test(reports_sum_and_failures_spread),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mesh_close(&mesh);
    comm_close(&world);
    return failed;
}
