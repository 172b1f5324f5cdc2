/* Writes a sample .h5ad for test_h5ad.sh: tool_h5ad OUT csr|dense [compress]. Rows are dealt out to ranks
 * in a pattern that leaves one of three ranks without any. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/h5ad_write.h"
#include "mpi/comm.h"

enum { ROWS = 11, COLUMNS = 4, EMBED = 3, ENTRIES = ROWS * 2 };

static const char *const types[] = {"B", "Zelle mit ä", "日本"};
static const char *const var_names[COLUMNS] = {"ENSG01", "ENSG02",
                                               "a gene with a rather long name, longer than all others", "µ"};

static const struct h5ad_field fields[] = {
    {.name = "type", .type = COLUMN_CATEGORY, .category = types, .category_count = 3},
    {.name = "depth", .type = COLUMN_INT},
    {.name = "age", .type = COLUMN_INT, .nullable = true},
    {.name = "share", .type = COLUMN_REAL},
    {.name = "good", .type = COLUMN_BOOL},
    {.name = "maybe", .type = COLUMN_BOOL, .nullable = true},
    {.name = "note", .type = COLUMN_TEXT, .text_bytes = 12},
    {.name = "nested/name", .type = COLUMN_REAL},
};
enum { FIELDS = sizeof fields / sizeof *fields };

/* Value of row `row` for each field, the same in test_h5ad.sh. */
static enum status write_row(struct h5ad_file *file, int64_t row)
{
    enum status st = ST_OK;
    int32_t code = (int32_t)(row % 4) - 1;
    int64_t depth = row * 1000003, age = row % 3 == 0 ? INT64_MIN : row, good = row % 2,
            maybe = row % 5 == 0 ? INT64_MIN : row % 2;
    double share = row % 4 == 0 ? NAN : (double)row / 7;
    char *note = text_format("é%lld", (long long)row), *name = text_format("cell-%lld", (long long)row);
    struct column values[FIELDS] = {
        {.type = COLUMN_CATEGORY, .count = 1, .code = &code}, {.type = COLUMN_INT, .count = 1, .i = &depth},
        {.type = COLUMN_INT, .count = 1, .i = &age},          {.type = COLUMN_REAL, .count = 1, .r = &share},
        {.type = COLUMN_BOOL, .count = 1, .i = &good},        {.type = COLUMN_BOOL, .count = 1, .i = &maybe},
        {.type = COLUMN_TEXT, .count = 1, .text = &note},     {.type = COLUMN_REAL, .count = 1, .r = &share}};
    for (int k = 0; k < FIELDS; k++) TRY(h5ad_write_column(file, k, row, &values[k]));
    TRY(h5ad_write_names(file, row, 1, (const char *[]){name}));
    float embedding[EMBED] = {(float)row, -1.5f, (float)row / 3};
    TRY(h5ad_write(file, h5ad_find(file, "obsm/X_model"), row, 1, embedding));
done:
    free(note);
    free(name);
    return st;
}

static enum status write_x(struct h5ad_file *file, enum h5ad_x x, int64_t row)
{
    enum status st = ST_OK;
    float dense[COLUMNS] = {(float)row, 1, 2, 3}, two[2] = {(float)row + 1, 5};
    int32_t at[2] = {(int32_t)(row % 3), 3};
    int32_t start = 2 * (int32_t)row, end = ENTRIES;
    if (x == H5AD_DENSE) return h5ad_write(file, h5ad_find(file, "X"), row, 1, dense);
    TRY(h5ad_write(file, h5ad_find(file, "X/data"), start, 2, two));
    TRY(h5ad_write(file, h5ad_find(file, "X/indices"), start, 2, at));
    TRY(h5ad_write(file, h5ad_find(file, "X/indptr"), row, 1, &start));
    if (row == ROWS - 1) TRY(h5ad_write(file, h5ad_find(file, "X/indptr"), ROWS, 1, &end));
done:
    return st;
}

static struct h5ad_layout make_layout(enum h5ad_x x)
{
    static double length[COLUMNS] = {1.5, 2.5, 3.5, NAN};
    static const struct h5ad_field var_fields[] = {{.name = "length", .type = COLUMN_REAL}};
    static const struct column var_values[] = {{.type = COLUMN_REAL, .count = COLUMNS, .r = length}};
    static const struct h5ad_matrix obsm[] = {{"X_model", EMBED}};
    static const struct h5ad_note uns[] = {{.name = "model/hash", .text = "abc"},
                                           {.name = "model/width", .number = 1536},
                                           {.name = "licence", .text = "© CC BY"}};
    return (struct h5ad_layout){.obs = {.rows = ROWS, .index_bytes = 8, .fields = fields, .field_count = FIELDS},
                                .var = {.rows = COLUMNS,
                                        .index_bytes = 60,
                                        .fields = var_fields,
                                        .field_count = 1,
                                        .index = var_names,
                                        .values = var_values},
                                .x = x,
                                .entries = ENTRIES,
                                .obsm = obsm,
                                .obsm_count = 1,
                                .uns = uns,
                                .uns_count = 3};
}

/* Half of the rows, then the file is left and opened again, as after a killed run. */
static enum status write_file(struct comm *world, const char *path, enum h5ad_x x)
{
    enum status st = ST_OK;
    struct h5ad_layout layout = make_layout(x);
    struct h5ad_file *file = NULL;
    char *partial = text_format("%s.partial", path);
    TRY(h5ad_create(world, partial, &layout, &file));
    for (int64_t row = 0; row < ROWS; row++) {
        if (row == ROWS / 2) {
            h5ad_close(&file);
            TRY(h5ad_reopen(world, partial, &layout, &file));
        }
        if (row % 2 != world->rank % 3 && world->size > 1) continue; /* ranks 0 and 1 share the rows */
        TRY(write_row(file, row));
        TRY(write_x(file, x, row));
    }
    TRY(h5ad_commit(world, &file, path));
done:
    h5ad_close(&file);
    free(partial);
    return comm_agree(world, st);
}

int main(int argc, char **argv)
{
    struct comm world;
    enum status st = comm_open(&argc, &argv, &world);
    comm_set_program("tool_h5ad");
    st = write_file(&world, argv[1], strcmp(argv[2], "dense") == 0 ? H5AD_DENSE : H5AD_CSR);
    if (st == ST_OK && argc > 3 && world.rank == 0) st = h5ad_compress(argv[1], 4);
    if (st == ST_OK && argc > 3) st = comm_agree(&world, st);
    comm_close(&world);
    return (int)st;
}
