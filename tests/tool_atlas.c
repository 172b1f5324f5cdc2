/* Sample atlases for test_atlas.sh, made and verified by the same rules:
 *   tool_atlas make OUT ROWS SHARD_ROWS [shuffle|ordered] [STOP]   write; with STOP, die after that many blocks
 *   tool_atlas verify ATLAS                                        compare every row, every way of reading
 *   tool_atlas compress ATLAS LEVEL
 *   tool_atlas select ATLAS EXPRESSION                             print how many cells are selected
 * Two modalities; three sources, of which the middle one has no cells and lacks modality `adt`; with three
 * ranks, rank 1 gets no rows. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/text.h"
#include "io/atlas.h"
#include "io/atlas_write.h"
#include "mpi/comm.h"

enum { GENES = 500, PROTEINS = 7, BLOCK = 23, SOURCES = 4, FIELDS = 8 };
static const int features_of[2] = {GENES, PROTEINS};
static const char *const labels[] = {"B", "T zélle", "日本", "never used"};

/* ---- what lies where ---- */

/* Entries of a source row in a modality: -1 = lacks it. Protein is missing in the last source and in every ninth cell. */
static int32_t entries_of(int m, int64_t row, int64_t rows)
{
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)row, (uint64_t)m);
    if (m == 1) return row % 9 == 4 || row >= rows - rows / 4 ? -1 : (int32_t)rng_below(&r, PROTEINS + 1);
    return row % 13 == 5 ? 0 : (int32_t)rng_below(&r, 60);
}

/* The entries themselves: ascending features, values that name their row. */
static void fill_row(int m, int64_t row, int32_t n, int32_t *feature, float *value)
{
    struct rng r = rng_at(2, RNG_TEST, (uint64_t)row, (uint64_t)m);
    int32_t left = n;
    for (int32_t f = 0, at = 0; left > 0; f++)
        if ((int64_t)rng_below(&r, (uint64_t)(features_of[m] - f)) < left) {
            feature[at] = f;
            value[at++] = (float)(1 + (row * 7 + f) % 1000);
            left--;
        }
}

static int64_t first_row_of(int source, int64_t rows)
{
    const int64_t first[SOURCES + 1] = {0, rows / 3, rows / 3, rows - rows / 4, rows};
    return first[source];
}

static int source_of(int64_t row, int64_t rows)
{
    int k = 0;
    while (row >= first_row_of(k + 1, rows)) k++;
    return k;
}

/* ---- plan ---- */

static const struct h5ad_field *fields(void)
{
    static const char *const names[SOURCES] = {"a.h5ad", "empty.h5ad", "c/ü.h5", "d"};
    static const struct h5ad_field f[FIELDS] = {
        {.name = "source_file", .type = COLUMN_CATEGORY, .category = names, .category_count = SOURCES},
        {.name = "source_row", .type = COLUMN_INT},
        {.name = "source_obs_name", .type = COLUMN_TEXT, .text_bytes = 24},
        {.name = "label", .type = COLUMN_CATEGORY, .category = labels, .category_count = 4},
        {.name = "score", .type = COLUMN_REAL},
        {.name = "flag", .type = COLUMN_BOOL},
        {.name = "age", .type = COLUMN_INT, .nullable = true},
        {.name = "qc_total", .type = COLUMN_REAL}};
    return f;
}

static void add_features(struct feature_table *table, int count, const char *prefix)
{
    for (int k = 0; k < count; k++) {
        /* every hundredth name is repeated, without an id */
        char *name = text_format("%s%d", prefix, k % 100 == 99 ? 1 : k), *id = text_format("ENS%s%05d", prefix, k);
        struct feature f = {.name = name,
                            .id = k % 100 == 99 || k % 100 == 1 ? "" : id,
                            .symbol = name,
                            .start = k % 3 ? k : -1,
                            .end = -1,
                            .rule = k % 2 ? MAP_ID : MAP_NONE};
        if (feature_table_add(table, &f) != ST_OK) abort();
        free(name);
        free(id);
    }
}

struct sample {
    struct feature_table tables[2];
    uint8_t all[GENES], some[GENES], proteins[PROTEINS];
    const uint8_t *measured[2][SOURCES];
    struct atlas_modality_plan modalities[2];
    struct atlas_source sources[SOURCES];
    struct atlas_plan plan;
};

static void make_plan(struct sample *s, int64_t rows, int64_t shard_rows, bool shuffle)
{
    add_features(&s->tables[0], GENES, "gene");
    add_features(&s->tables[1], PROTEINS, "protein");
    memset(s->all, 1, sizeof s->all);
    memset(s->proteins, 1, sizeof s->proteins);
    for (int k = 0; k < GENES; k++) s->some[k] = k % 2;
    for (int k = 0; k < SOURCES; k++) {
        s->measured[0][k] = k == 2 ? s->some : s->all;
        s->measured[1][k] = k == 3 ? NULL : s->proteins;
        int64_t first = first_row_of(k, rows);
        s->sources[k] =
            (struct atlas_source){fields()[0].category[k], "size:1 mtime:2", first, first_row_of(k + 1, rows) - first};
    }
    s->modalities[0] = (struct atlas_modality_plan){"rna", VALUE_COUNTS, &s->tables[0], s->measured[0]};
    s->modalities[1] = (struct atlas_modality_plan){"adt", VALUE_COUNTS, &s->tables[1], s->measured[1]};
    s->plan = (struct atlas_plan){.modalities = s->modalities,
                                  .modality_count = 2,
                                  .sources = s->sources,
                                  .source_count = SOURCES,
                                  .obs = fields(),
                                  .obs_count = FIELDS,
                                  .obs_names_unique = shuffle,
                                  .rows = rows,
                                  .shard_rows = shard_rows,
                                  .seed = 42,
                                  .shuffle = shuffle,
                                  .config = "ingest:\n  shuffle: true\n"};
}

/* Blocks of rows are dealt out to ranks; rank 1 of 3 goes without. */
static int rank_of_block(const struct comm *comm, int64_t block)
{
    if (comm->size == 3) return block % 2 ? 2 : 0;
    return (int)(block % comm->size);
}

struct ranges {
    int count;
    int64_t *first, *rows;
    int32_t *entries[2];
};

static void make_share(const struct comm *comm, int64_t rows, struct ranges *r)
{
    int64_t blocks = (rows + BLOCK - 1) / BLOCK, total = 0;
    r->first = calloc((size_t)blocks + 1, 8);
    r->rows = calloc((size_t)blocks + 1, 8);
    for (int m = 0; m < 2; m++) r->entries[m] = calloc((size_t)rows + 1, 4);
    for (int64_t b = 0; b < blocks; b++) {
        if (rank_of_block(comm, b) != comm->rank) continue;
        r->first[r->count] = b * BLOCK;
        r->rows[r->count] = rows - b * BLOCK < BLOCK ? rows - b * BLOCK : BLOCK;
        for (int64_t i = 0; i < r->rows[r->count]; i++, total++)
            for (int m = 0; m < 2; m++) r->entries[m][total] = entries_of(m, b * BLOCK + i, rows);
        r->count++;
    }
}

/* ---- writing ---- */

static enum status put_cells(struct atlas_writer *w, int m, int64_t first, int64_t count, int64_t rows)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    TRY(cells_reserve(&cells, count, count * 64));
    cells.start[0] = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t n = entries_of(m, first + i, rows);
        cells.id[i] = first + i;
        cells.start[i + 1] = cells.start[i] + (n > 0 ? n : 0);
        fill_row(m, first + i, n, cells.feature + cells.start[i], cells.value + cells.start[i]);
    }
    cells.count = count;
    TRY(atlas_writer_put_cells(w, m, &cells));
done:
    cells_free(&cells);
    return st;
}

static double score_of(int64_t row) { return row % 6 == 1 ? NAN : (double)row / 3; }

static char *name_of(int64_t row) { return text_format("bärcode-%lld", (long long)row); }

static enum status put_obs(struct atlas_writer *w, int64_t first, int64_t count, int64_t rows)
{
    int32_t source[BLOCK], label[BLOCK];
    int64_t source_row[BLOCK], flag[BLOCK], age[BLOCK];
    double score[BLOCK];
    char *name[BLOCK];
    for (int64_t i = 0; i < count; i++) {
        int64_t row = first + i;
        source[i] = source_of(row, rows);
        source_row[i] = row - first_row_of(source[i], rows);
        name[i] = name_of(row);
        label[i] = (int32_t)(row % 4) - 1;
        score[i] = score_of(row);
        flag[i] = row % 2;
        age[i] = row % 5 == 0 ? INT64_MIN : row;
    }
    struct column columns[FIELDS] = {{.type = COLUMN_CATEGORY, .count = count, .code = source},
                                     {.type = COLUMN_INT, .count = count, .i = source_row},
                                     {.type = COLUMN_TEXT, .count = count, .text = name},
                                     {.type = COLUMN_CATEGORY, .count = count, .code = label},
                                     {.type = COLUMN_REAL, .count = count, .r = score},
                                     {.type = COLUMN_BOOL, .count = count, .i = flag},
                                     {.type = COLUMN_INT, .count = count, .i = age},
                                     {.type = COLUMN_REAL, .count = count, .r = score}};
    enum status st = atlas_writer_put_obs(w, first, columns);
    for (int64_t i = 0; i < count; i++) free(name[i]);
    return st;
}

static enum status put_blocks(struct atlas_writer *w, const struct ranges *share, int64_t rows, int64_t stop)
{
    enum status st = ST_OK;
    for (int k = 0; k < share->count; k++) {
        if (k == stop) kill(getpid(), SIGKILL);
        if (atlas_writer_has(w, share->first[k], share->rows[k])) continue;
        for (int m = 0; m < 2; m++) TRY(put_cells(w, m, share->first[k], share->rows[k], rows));
        TRY(put_obs(w, share->first[k], share->rows[k], rows));
    }
done:
    return st;
}

static enum status make(struct comm *world, int argc, char **argv)
{
    enum status st = ST_OK;
    int64_t rows = atoll(argv[3]), stop = argc > 6 ? atoll(argv[6]) : -1;
    static struct sample s;
    struct ranges r = {0};
    struct atlas_writer *w = NULL;
    make_plan(&s, rows, atoll(argv[4]), argc <= 5 || strcmp(argv[5], "shuffle") == 0);
    make_share(world, rows, &r);
    struct atlas_share share = {r.count, r.first, r.rows, (const int32_t *const[]){r.entries[0], r.entries[1]}};
    TRY(atlas_writer_create(world, argv[2], &s.plan, &share, &w));
    int64_t resumed = atlas_writer_resumed_rows(w);
    comm_sum_i64(world, &resumed, 1);
    if (resumed) comm_print(world, "resumed with %lld rows\n", (long long)resumed);
    TRY(comm_agree(world, put_blocks(w, &r, rows, stop)));
    st = atlas_writer_commit(world, &w);
done:
    atlas_writer_destroy(&w);
    for (int m = 0; m < 2; m++) {
        feature_table_free(&s.tables[m]);
        free(r.entries[m]);
    }
    free(r.first);
    free(r.rows);
    return st;
}

/* ---- verifying ---- */

static enum status wrong(const char *what, int64_t row)
{
    return fail(ST_INPUT, "%s of row %lld is wrong", what, (long long)row);
}

/* Does row i of what was read hold source row `row`? */
static bool same_row(const struct cells *cells, int64_t i, int m, int64_t row, int64_t rows)
{
    int32_t feature[64], n = entries_of(m, row, rows);
    float value[64];
    if (n < 0) n = 0;
    if (cells->start[i + 1] - cells->start[i] != n) return false;
    fill_row(m, row, n, feature, value);
    return memcmp(cells->feature + cells->start[i], feature, (size_t)n * 4) == 0 &&
           memcmp(cells->value + cells->start[i], value, (size_t)n * 4) == 0;
}

/* Global source row of every atlas row, from obs; checks that each comes once. */
static enum status read_origins(struct atlas *atlas, int64_t rows, int64_t *origin)
{
    enum status st = ST_OK;
    struct column file = {0}, row = {0}, name = {0};
    char *seen = calloc((size_t)rows, 1);
    TRY(atlas_obs_read(atlas, "source_file", 0, rows, &file));
    TRY(atlas_obs_read(atlas, "source_row", 0, rows, &row));
    TRY(atlas_obs_read(atlas, "source_obs_name", 0, rows, &name));
    for (int64_t i = 0; i < rows; i++) {
        origin[i] = first_row_of(file.code[i], rows) + row.i[i];
        char *expected = name_of(origin[i]);
        bool good = origin[i] >= 0 && origin[i] < rows && !seen[origin[i]]++ && name.text[i] &&
                    strcmp(name.text[i], expected) == 0;
        free(expected);
        if (!good) TRY(wrong("origin", i));
    }
done:
    column_free(&file);
    column_free(&row);
    column_free(&name);
    free(seen);
    return st;
}

static enum status verify_obs(struct atlas *atlas, int64_t rows, const int64_t *origin)
{
    enum status st = ST_OK;
    struct column label = {0}, score = {0}, flag = {0}, age = {0}, has = {0};
    int64_t first = rows / 7, count = rows - first; /* a slice that begins inside a shard */
    TRY(atlas_obs_read(atlas, "label", first, count, &label));
    TRY(atlas_obs_read(atlas, "score", first, count, &score));
    TRY(atlas_obs_read(atlas, "flag", first, count, &flag));
    TRY(atlas_obs_read(atlas, "age", first, count, &age));
    TRY(atlas_obs_read(atlas, "has_adt", first, count, &has));
    for (int64_t i = 0; i < count; i++) {
        int64_t row = origin[first + i];
        bool same_score = isnan(score.r[i]) ? isnan(score_of(row)) : score.r[i] == score_of(row);
        if (label.code[i] != row % 4 - 1) TRY(wrong("label", first + i));
        if (!same_score) TRY(wrong("score", first + i));
        if (flag.i[i] != row % 2) TRY(wrong("flag", first + i));
        if (age.i[i] != (row % 5 == 0 ? INT64_MIN : row)) TRY(wrong("age", first + i));
        if (has.i[i] != (entries_of(1, row, rows) >= 0)) TRY(wrong("has_adt", first + i));
    }
    if (label.category_count != 4 || strcmp(label.category[1], labels[1]) != 0) TRY(wrong("category", 1));
done:
    column_free(&label);
    column_free(&score);
    column_free(&flag);
    column_free(&age);
    column_free(&has);
    return st;
}

/* All rows in blocks, then rows in a wild order with repeats, into the same memory. */
static enum status verify_cells(struct atlas *atlas, int m, int64_t rows, const int64_t *origin)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    int64_t wild[200];
    for (int64_t at = 0; at < rows; at += 777) {
        int64_t n = rows - at < 777 ? rows - at : 777;
        TRY(atlas_read(atlas, m, at, n, &cells));
        if (cells.count != n) TRY(wrong("count", at));
        for (int64_t i = 0; i < n; i++)
            if (cells.id[i] != at + i || !same_row(&cells, i, m, origin[at + i], rows)) TRY(wrong("cell", at + i));
    }
    struct rng r = rng_at(3, RNG_TEST, 0, 0);
    for (int i = 0; i < 200; i++)
        wild[i] = i % 10 && wild[i - 1] + 1 < rows ? wild[i - 1] + 1 : (int64_t)rng_below(&r, (uint64_t)rows);
    TRY(atlas_read_rows(atlas, m, wild, 200, &cells));
    for (int i = 0; i < 200; i++)
        if (cells.id[i] != wild[i] || !same_row(&cells, i, m, origin[wild[i]], rows))
            TRY(wrong("chosen cell", wild[i]));
    TRY(atlas_read_rows(atlas, m, wild, 0, &cells));
    TRY(atlas_read(atlas, m, rows, 0, &cells));
    if (cells.count != 0) TRY(wrong("empty read", 0));
done:
    cells_free(&cells);
    return st;
}

static enum status verify_index(const struct atlas *atlas, int64_t rows)
{
    const struct modality *rna = atlas_modality(atlas, 0);
    if (atlas_modality_count(atlas) != 2 || atlas_find_modality(atlas, "adt") != 1 ||
        atlas_find_modality(atlas, "x") != -1)
        return wrong("modality", 0);
    if (rna->features.count != GENES || strcmp(rna->features.rows[3].id, "ENSgene00003") != 0 ||
        rna->features.rows[3].rule != MAP_ID || rna->features.rows[3].start != -1 || rna->features.rows[4].start != 4)
        return wrong("feature", 3);
    if (atlas_source_count(atlas) != SOURCES || atlas_source_rows(atlas, 1) != 0) return wrong("source", 1);
    if (atlas_measured(atlas, 1, 3) || !atlas_measured(atlas, 0, 0)[2] || atlas_measured(atlas, 0, 2)[2])
        return wrong("mask", 2);
    if (strcmp(atlas_config(atlas), "ingest:\n  shuffle: true\n") != 0) return wrong("configuration", 0);
    return ST_OK;
}

static enum status verify(struct comm *world, const char *path)
{
    enum status st = ST_OK;
    struct atlas *atlas = NULL;
    int64_t *origin = NULL, *chosen = NULL, count = 0, expected = 0;
    TRY(atlas_open(world, path, &atlas));
    int64_t rows = atlas_cell_count(atlas);
    st = NEW_ARRAY(origin, rows);
    if (st == ST_OK) st = verify_index(atlas, rows);
    if (st == ST_OK) st = read_origins(atlas, rows, origin);
    if (st == ST_OK) st = verify_obs(atlas, rows, origin);
    for (int m = 0; m < 2 && st == ST_OK; m++) st = verify_cells(atlas, m, rows, origin);
    TRY(comm_agree(world, st));
    TRY(atlas_select(world, atlas, "label in ('B', '日本') and not score > 30 and age >= 3", &chosen, &count));
    for (int64_t i = 0, k = 0; i < rows; i++) {
        bool take = origin[i] % 2 == 1 && !(score_of(origin[i]) > 30) && origin[i] % 5 != 0 && origin[i] >= 3;
        if (take && chosen[k++] != i) st = wrong("selection", i);
        expected += take;
    }
    if (count != expected) st = wrong("size of selection", count);
    st = comm_agree(world, st);
done:
    free(origin);
    free(chosen);
    atlas_close(&atlas);
    return st;
}

static enum status count_selected(struct comm *world, const char *path, const char *expression)
{
    struct atlas *atlas = NULL;
    int64_t *rows = NULL, count = 0;
    enum status st = atlas_open(world, path, &atlas);
    if (st == ST_OK) st = atlas_select(world, atlas, expression, &rows, &count);
    if (st == ST_OK) comm_print(world, "%lld\n", (long long)count);
    free(rows);
    atlas_close(&atlas);
    return st;
}

int main(int argc, char **argv)
{
    struct comm world;
    enum status st = comm_open(&argc, &argv, &world);
    comm_set_program("tool_atlas");
    if (argc < 3) return ST_USAGE;
    if (strcmp(argv[1], "make") == 0) st = make(&world, argc, argv);
    if (strcmp(argv[1], "verify") == 0) st = verify(&world, argv[2]);
    if (strcmp(argv[1], "compress") == 0) st = atlas_compress(&world, argv[2], atoi(argv[3]));
    if (strcmp(argv[1], "select") == 0) st = count_selected(&world, argv[2], argv[3]);
    comm_close(&world);
    return (int)st;
}
