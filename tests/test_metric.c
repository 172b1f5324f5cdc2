/* Neighbours, votes, confusion, cell types, maps.
 * plan: ranks=1,2,3 limit=60
 * Neighbours over ranks equal a brute-force sort, ties included, for queries among and apart from the
 * references; votes and F1 equal values worked out by hand; a tiny data set of two types is called
 * right and its unclear cells are left unassigned; maps and communities repeat to the byte, split two
 * far groups, and follow the seed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours records a status */

#include "base/rng.h"
#include "metric/celltype.h"
#include "metric/classify.h"
#include "metric/knn.h"
#include "metric/umap.h"
#include "mpi/neighbours.h"

static struct comm world;

enum { POINTS = 203, OTHERS = 71, WIDTH = 5, NEAR = 6 };

/* Coordinates on a coarse lattice, so that equal distances abound. */
static void fill(float *x, int64_t n, uint64_t key)
{
    for (int64_t i = 0; i < n * WIDTH; i++) {
        struct rng r = rng_at(2, RNG_TEST, key, (uint64_t)i);
        x[i] = (float)rng_below(&r, 4);
    }
}

static const float *sort_query, *sort_reference;
static int nearer(const void *a, const void *b)
{
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    float di = 0, dj = 0;
    for (int c = 0; c < WIDTH; c++) {
        di += powf(sort_query[c] - sort_reference[i * WIDTH + c], 2);
        dj += powf(sort_query[c] - sort_reference[j * WIDTH + c], 2);
    }
    return di != dj ? (di < dj ? -1 : 1) : i < j ? -1 : 1;
}

static void check_neighbours(const struct knn *s, const float *query, int64_t query_first, const float *reference,
                             bool same)
{
    int64_t order[POINTS];
    for (int64_t q = 0; q < s->queries; q++) {
        int64_t n = 0;
        for (int64_t i = 0; i < POINTS; i++)
            if (!same || i != query_first + q) order[n++] = i;
        sort_query = query + q * WIDTH;
        sort_reference = reference;
        qsort(order, (size_t)n, sizeof *order, nearer);
        for (int j = 0; j < NEAR; j++) assert_int_equal(s->row[q * NEAR + j], order[j]);
    }
}

static void neighbours_equal_brute_force(void **state)
{
    float reference[POINTS * WIDTH], query[OTHERS * WIDTH];
    int64_t first, count, qfirst, qcount;
    struct knn *s = NULL;
    fill(reference, POINTS, 1);
    fill(query, OTHERS, 2);
    comm_share(&world, POINTS, &first, &count);
    comm_share(&world, OTHERS, &qfirst, &qcount);
    struct spread_rows all = {first, count, WIDTH, reference + first * WIDTH},
                       mine = {qfirst, qcount, WIDTH, query + qfirst * WIDTH};
    assert_int_equal(neighbours_find(&world, &mine, &all, false, NEAR, &s), ST_OK);
    check_neighbours(s, mine.values, qfirst, reference, false);
    knn_destroy(&s);
    assert_int_equal(neighbours_find(&world, &all, &all, true, NEAR, &s), ST_OK);
    check_neighbours(s, all.values, first, reference, true);
    knn_destroy(&s);
}

static void fewer_references_than_neighbours(void **state)
{
    float two[2 * WIDTH] = {0}, one[WIDTH] = {1};
    static const int32_t codes[] = {4, 4};
    struct knn *s = NULL;
    assert_int_equal(knn_create(1, 5, &s), ST_OK);
    knn_add(s, one, -1, two, 2, 0, WIDTH);
    knn_finish(s);
    assert_int_equal(s->found[0], 2);
    assert_int_equal(s->row[2], -1);
    assert_float_equal(s->distance[0], 1, 0);
    assert_int_equal(knn_vote(s, 0, codes), 4);
    knn_destroy(&s);
}

static void votes_by_hand(void **state)
{
    static const int32_t codes[] = {0, 1, 1, 2, 0, 2, 2};
    int64_t majority[] = {0, 3, 5, 6, 1}, tie[] = {1, 0, 4, 2, 3};
    int five = 5;
    struct knn s = {.queries = 1, .k = 5, .row = majority, .found = &five};
    assert_int_equal(knn_vote(&s, 0, codes), 2);
    s.row = tie; /* 1, 0, 0, 1, 2: both have two, 1 is nearest */
    assert_int_equal(knn_vote(&s, 0, codes), 1);
}

static void scores_by_hand(void **state)
{
    /* truth a a a b b c; predicted a a b b c b; d is in no cell and drops out of the mean */
    static const int truth[] = {0, 0, 0, 1, 1, 2}, said[] = {0, 0, 1, 1, 2, 1};
    struct confusion c = {0};
    assert_int_equal(confusion_create(4, &c), ST_OK);
    for (int i = 0; i < 6; i++) confusion_add(&c, truth[i], said[i]);
    struct label_score a = confusion_label(&c, 0), b = confusion_label(&c, 1), last = confusion_label(&c, 2);
    assert_true(fabs(a.f1 - 0.8) < 1e-12 && fabs(a.precision - 1) < 1e-12 && fabs(a.recall - 2.0 / 3) < 1e-12);
    assert_true(fabs(b.f1 - 0.4) < 1e-12 && last.f1 == 0 && last.cells == 1 && last.predicted == 1);
    struct overall_score all = confusion_overall(&c);
    assert_int_equal(all.labels, 3);
    assert_int_equal(all.cells, 6);
    assert_true(fabs(all.macro_f1 - 0.4) < 1e-12 && fabs(all.accuracy - 0.5) < 1e-12);
    confusion_free(&c);
}

/* 60 cells of 4 genes: 25 of type A (g0, g1), 25 of type B (g2), 10 that express only g3. */
static void types_are_called(void **state)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/cytomill-markers-%d.tsv", (int)getpid());
    FILE *f = fopen(path, "w");
    fputs("type\tgene\tcitation\n# remark\nA\tG0\tx\nA\tENSG1\tx\nB\tG2\tx\nB\tABSENT\tx\n", f);
    fclose(f);
    struct feature_table features = {0};
    static const struct feature rows[] = {
        {.name = "old0", .symbol = "G0"}, {.name = "n1", .id = "ENSG1"}, {.name = "G2"}, {.name = "G3"}};
    for (int i = 0; i < 4; i++) assert_int_equal(feature_table_add(&features, &rows[i]), ST_OK);
    struct marker_table table = {0};
    struct marker_map map = {0};
    assert_int_equal(marker_table_read(path, &table), ST_OK);
    unlink(path);
    assert_int_equal(table.type_count, 2);
    assert_int_equal(marker_map_create(&table, &features, &map), ST_OK);
    assert_int_equal(map.found[0], 2);
    assert_int_equal(map.found[1], 1);
    struct cells cells = {0};
    assert_int_equal(cells_reserve(&cells, 60, 180), ST_OK);
    cells.count = 60;
    int64_t at = 0;
    for (int i = 0; i < 60; i++) {
        cells.start[i] = at;
        if (i < 25) {
            cells.feature[at] = 0;
            cells.value[at++] = 2;
            cells.feature[at] = 1;
            cells.value[at++] = 1;
        } else if (i < 50) {
            cells.feature[at] = 2;
            cells.value[at++] = 3;
        }
        cells.feature[at] = 3;
        cells.value[at++] = 50;
    }
    cells.start[60] = at;
    float score[120];
    int32_t type[60];
    celltype_score(&map, &cells, score);
    assert_true(fabs(score[0] - (log(1 + 1e4 * 2 / 53) + log(1 + 1e4 / 53)) / 2) < 1e-5);
    assert_int_equal(celltype_call(2, 60, score, type), ST_OK);
    for (int i = 0; i < 60; i++) assert_int_equal(type[i], i < 25 ? 0 : i < 50 ? 1 : -1);
    cells_free(&cells);
    marker_map_free(&map);
    marker_table_free(&table);
    feature_table_free(&features);
}

/* Two groups of 40 points far apart, 8 neighbours each. */
static void maps_repeat_and_split(void **state)
{
    enum { N = 80, K = 8 };
    float x[N * 2];
    double start[N * 2], xy[3][N * 2];
    struct knn *s = NULL;
    for (int i = 0; i < N; i++) {
        struct rng r = rng_at(4, RNG_TEST, (uint64_t)i, 9);
        for (int a = 0; a < 2; a++) start[i * 2 + a] = x[i * 2 + a] = (float)(rng_normal(&r) + (i < N / 2 ? 0 : 60));
    }
    assert_int_equal(knn_create(N, K, &s), ST_OK);
    knn_add(s, x, 0, x, N, 0, 2);
    knn_finish(s);
    struct neighbour_graph g = {N, K, s->row, s->distance};
    for (int run = 0; run < 3; run++) assert_int_equal(umap_layout(&g, start, run == 2 ? 8 : 7, xy[run]), ST_OK);
    assert_memory_equal(xy[0], xy[1], sizeof xy[0]);
    assert_memory_not_equal(xy[0], xy[2], sizeof xy[0]);
    double centre[2][2] = {{0}}, radius = 0;
    for (int i = 0; i < N; i++)
        for (int a = 0; a < 2; a++) centre[i / (N / 2)][a] += xy[0][i * 2 + a] / (N / 2);
    for (int i = 0; i < N; i++)
        radius = fmax(radius, hypot(xy[0][i * 2] - centre[i / (N / 2)][0], xy[0][i * 2 + 1] - centre[i / (N / 2)][1]));
    assert_true(hypot(centre[0][0] - centre[1][0], centre[0][1] - centre[1][1]) > radius);
    int32_t cluster[N], again[N], clusters;
    assert_int_equal(umap_communities(&g, 0.1, 3, cluster, &clusters), ST_OK);
    assert_int_equal(umap_communities(&g, 0.1, 3, again, &clusters), ST_OK);
    assert_memory_equal(cluster, again, sizeof cluster);
    assert_int_equal(clusters, 2);
    for (int i = 0; i < N; i++) assert_int_equal(cluster[i], i / (N / 2));
    knn_destroy(&s);
}

static void bad_marker_tables_are_refused(void **state)
{
    char path[64];
    struct marker_table table = {0};
    snprintf(path, sizeof path, "/tmp/cytomill-markers-%d.tsv", (int)getpid());
    FILE *f = fopen(path, "w");
    fputs("type\tgene\tcitation\nB cell CD79A\n", f);
    fclose(f);
    assert_int_equal(marker_table_read(path, &table), ST_INPUT);
    assert_non_null(strstr(status_message(), "line 2"));
    status_clear();
    unlink(path);
    assert_int_equal(marker_table_read(path, &table), ST_INPUT);
    status_clear();
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {cmocka_unit_test(neighbours_equal_brute_force),
                                       cmocka_unit_test(fewer_references_than_neighbours),
                                       cmocka_unit_test(votes_by_hand),
                                       cmocka_unit_test(scores_by_hand),
                                       cmocka_unit_test(types_are_called),
                                       cmocka_unit_test(maps_repeat_and_split),
                                       cmocka_unit_test(bad_marker_tables_are_refused)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
