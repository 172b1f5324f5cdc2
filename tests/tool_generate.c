/* Makes cells like those of a real atlas, as many as one wants, for benchmarks:
 *   tool_generate atlas FROM OUT CELLS [SHARD_ROWS]    an atlas, through the atlas writer
 *   tool_generate h5ad  FROM DIR CELLS FILES [LEVEL]   .h5ad inputs of unequal size, as anndata writes them
 * Runs under mpirun; every rank makes its share, and the bytes do not depend on the number of ranks.
 *
 * Generated cell g: draw a real cell a and one of its nearest cells b; add their counts; keep each count
 * with probability T_a / (T_a + T_b). If a and b are Poisson draws of the same rates, the result is a draw
 * of these rates too: depth, non-zeros and the correlations of genes stay those of real cells, and no two
 * cells are equal. A pure function of (seed, g); test_generate.sh checks all of it. */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/rng.h"
#include "base/text.h"
#include "io/atlas.h"
#include "io/atlas_write.h"
#include "io/h5.h"
#include "mpi/comm.h"

enum { NEIGHBOURS = 8, AXES = 32, BLOCK = 1024, MOST_REAL = 20000, SEED = 1 };

struct generator {
    struct cells real;
    int64_t features;
    double *total; /* [real.count] counts of a cell */
    int32_t *near; /* [real.count x NEIGHBOURS] its most similar cells */
    float *mixed;  /* [features] scratch: counts of a + b */
};

/* ---- neighbours ---- */

/* ln(1 + 1e4 x / T) of a cell, projected on random axes and scaled to length 1. */
static void project(const struct generator *g, int64_t cell, float axes[AXES])
{
    double sum[AXES] = {0}, length = 0;
    for (int64_t k = g->real.start[cell]; k < g->real.start[cell + 1]; k++) {
        struct rng r = rng_at(SEED, RNG_GENERATE, (uint64_t)g->real.feature[k], 1);
        uint32_t signs = rng_u32(&r);
        double x = log1p(1e4 * g->real.value[k] / g->total[cell]);
        for (int j = 0; j < AXES; j++) sum[j] += signs >> j & 1 ? x : -x;
    }
    for (int j = 0; j < AXES; j++) length += sum[j] * sum[j];
    for (int j = 0; j < AXES; j++) axes[j] = (float)(sum[j] / (sqrt(length) + 1e-30));
}

static void keep_nearest(int32_t *near, float *score, int32_t cell, float similarity)
{
    if (similarity <= score[NEIGHBOURS - 1]) return;
    int at = NEIGHBOURS - 1;
    for (; at > 0 && score[at - 1] < similarity; at--) {
        score[at] = score[at - 1];
        near[at] = near[at - 1];
    }
    score[at] = similarity;
    near[at] = cell;
}

static enum status find_neighbours(struct generator *g)
{
    enum status st = ST_OK;
    float(*axes)[AXES] = NULL;
    TRY(mem_alloc((void **)&axes, (size_t)g->real.count, sizeof *axes, "projections"));
    TRY(NEW_ARRAY(g->near, g->real.count * NEIGHBOURS));
    for (int64_t i = 0; i < g->real.count; i++) project(g, i, axes[i]);
    for (int64_t i = 0; i < g->real.count; i++) {
        float score[NEIGHBOURS];
        for (int k = 0; k < NEIGHBOURS; k++) {
            score[k] = -2;
            g->near[i * NEIGHBOURS + k] = (int32_t)i;
        }
        for (int64_t j = 0; j < g->real.count; j++) {
            float dot = 0;
            for (int a = 0; a < AXES; a++) dot += axes[i][a] * axes[j][a];
            if (j != i) keep_nearest(g->near + i * NEIGHBOURS, score, (int32_t)j, dot);
        }
    }
done:
    free(axes);
    return st;
}

static enum status generator_create(struct atlas *atlas, struct generator *g)
{
    enum status st = ST_OK;
    int64_t count = atlas_cell_count(atlas) < MOST_REAL ? atlas_cell_count(atlas) : MOST_REAL;
    const struct modality *m = atlas_modality(atlas, 0);
    if (m->kind != VALUE_COUNTS)
        TRY(fail(ST_INPUT, "%s: modality %s is %s; counts are needed", atlas_path(atlas), m->name,
                 value_kind_word(m->kind)));
    g->features = m->features.count;
    TRY(atlas_read(atlas, 0, 0, count, &g->real));
    TRY(NEW_ARRAY(g->total, count));
    TRY(NEW_ARRAY(g->mixed, g->features));
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = g->real.start[i]; k < g->real.start[i + 1]; k++) g->total[i] += g->real.value[k];
    TRY(find_neighbours(g));
done:
    return st;
}

static void generator_free(struct generator *g)
{
    cells_free(&g->real);
    free(g->total);
    free(g->near);
    free(g->mixed);
}

/* ---- cells ---- */

/* How many of n counts stay, each with probability limit / 2^32. */
static float thin(struct rng *r, float n, uint32_t limit)
{
    float kept = 0;
    for (float k = 0; k < n; k++) kept += rng_u32(r) < limit;
    return kept;
}

static int64_t parent_of(const struct generator *g, int64_t cell)
{
    struct rng r = rng_at(SEED, RNG_GENERATE, (uint64_t)cell, 2);
    return (int64_t)rng_below(&r, (uint64_t)g->real.count);
}

/* The cell's entries to feature[] and value[], which hold the entries of two real cells. Returns their number. */
static int32_t generate(const struct generator *g, int64_t cell, int32_t *feature, float *value)
{
    const struct cells *real = &g->real;
    struct rng r = rng_at(SEED, RNG_GENERATE, (uint64_t)cell, 3);
    int64_t a = parent_of(g, cell), b = g->near[a * NEIGHBOURS + (int64_t)rng_below(&r, NEIGHBOURS)];
    int64_t i = real->start[a], j = real->start[b];
    double share = g->total[a] / (g->total[a] + g->total[b] + 1e-30);
    uint32_t limit = (uint32_t)(share * 4294967295.0);
    int32_t n = 0;
    while (i < real->start[a + 1] || j < real->start[b + 1]) {
        int32_t x = i < real->start[a + 1] ? real->feature[i] : INT32_MAX,
                y = j < real->start[b + 1] ? real->feature[j] : INT32_MAX;
        float counts = (x <= y ? real->value[i] : 0) + (y <= x ? real->value[j] : 0);
        feature[n] = x < y ? x : y;
        i += x <= y;
        j += y <= x;
        value[n] = thin(&r, counts, limit);
        n += value[n] > 0;
    }
    return n;
}

/* Cells [first, first+count) to `out`, ids first, first+1, … */
static enum status generate_block(const struct generator *g, int64_t first, int64_t count, struct cells *out)
{
    enum status st = ST_OK;
    TRY(cells_reserve(out, count, g->features));
    out->count = 0;
    out->start[0] = 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t at = out->start[k];
        if (at + g->features > out->entry_capacity) TRY(cells_reserve(out, count, (at + g->features) * 2));
        out->id[k] = first + k;
        out->start[k + 1] = at + generate(g, first + k, out->feature + at, out->value + at);
        out->count++;
    }
done:
    return st;
}

/* ---- obs of an atlas: the parent's columns beside where the cell comes from ---- */

struct parent_columns {
    struct column *columns;    /* [count] of the real cells */
    struct h5ad_field *fields; /* source_file, source_row, source_obs_name, then the parent's */
    int count;
};

static bool is_inherited(const char *name)
{
    return strncmp(name, "source_", 7) != 0 && strncmp(name, "qc_", 3) != 0 && strncmp(name, "has_", 4) != 0;
}

static enum status parent_read(struct atlas *atlas, int64_t count, struct parent_columns *p)
{
    static const char *const sources[] = {"generated"};
    enum status st = ST_OK;
    TRY(NEW_ARRAY(p->columns, atlas_obs_count(atlas)));
    TRY(NEW_ARRAY(p->fields, atlas_obs_count(atlas) + 3));
    p->fields[0] =
        (struct h5ad_field){.name = "source_file", .type = COLUMN_CATEGORY, .category = sources, .category_count = 1};
    p->fields[1] = (struct h5ad_field){.name = "source_row", .type = COLUMN_INT};
    p->fields[2] = (struct h5ad_field){.name = "source_obs_name", .type = COLUMN_TEXT, .text_bytes = 32};
    for (int k = 0; k < atlas_obs_count(atlas); k++) {
        const char *name = atlas_obs_name(atlas, k);
        if (!is_inherited(name)) continue;
        struct column *c = &p->columns[p->count];
        TRY(atlas_obs_read(atlas, name, 0, count, c));
        struct h5ad_field *f = &p->fields[3 + p->count++];
        *f = (struct h5ad_field){.name = name,
                                 .type = c->type,
                                 .nullable = true,
                                 .category = (const char *const *)c->category,
                                 .category_count = c->category_count};
        for (int64_t i = 0; c->text && i < count; i++)
            if (c->text[i] && (int)strlen(c->text[i]) > f->text_bytes) f->text_bytes = (int32_t)strlen(c->text[i]);
    }
done:
    return st;
}

/* One value of a parent's column to row `to` of a block's column, whose arrays lie ready. */
static void inherit(const struct column *from, int64_t row, struct column *to, int64_t at)
{
    if (from->i) to->i[at] = from->i[row];
    if (from->r) to->r[at] = from->r[row];
    if (from->code) to->code[at] = from->code[row];
    if (from->text) to->text[at] = from->text[row] ? text_copy(from->text[row]) : NULL;
}

static enum status block_columns(const struct generator *g, const struct parent_columns *p, int64_t first,
                                 int64_t count, struct column *out)
{
    enum status st = ST_OK;
    for (int k = 0; k < 3 + p->count; k++) {
        out[k] = (struct column){.type = p->fields[k].type, .count = count};
        if (out[k].type == COLUMN_INT || out[k].type == COLUMN_BOOL) TRY(NEW_ARRAY(out[k].i, count));
        if (out[k].type == COLUMN_REAL) TRY(NEW_ARRAY(out[k].r, count));
        if (out[k].type == COLUMN_CATEGORY) TRY(NEW_ARRAY(out[k].code, count));
        if (out[k].type == COLUMN_TEXT) TRY(NEW_ARRAY(out[k].text, count));
    }
    for (int64_t i = 0; i < count; i++) {
        out[1].i[i] = first + i;
        out[2].text[i] = text_format("generated-%lld", (long long)(first + i));
        for (int k = 0; k < p->count; k++) inherit(&p->columns[k], parent_of(g, first + i), &out[3 + k], i);
    }
done:
    return st;
}

/* ---- an atlas ---- */

static enum status count_share(const struct generator *g, int64_t first, int64_t count, int32_t *entries)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    for (int64_t at = 0; at < count && st == ST_OK; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        st = generate_block(g, first + at, n, &cells);
        for (int64_t k = 0; st == ST_OK && k < n; k++) entries[at + k] = (int32_t)(cells.start[k + 1] - cells.start[k]);
    }
    cells_free(&cells);
    return st;
}

static enum status write_share(struct atlas_writer *w, const struct generator *g, const struct parent_columns *p,
                               int64_t first, int64_t count)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    struct column *columns = NULL;
    TRY(NEW_ARRAY(columns, 3 + p->count));
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        if (atlas_writer_has(w, first + at, n)) continue;
        TRY(generate_block(g, first + at, n, &cells));
        TRY(atlas_writer_put_cells(w, 0, &cells));
        TRY(block_columns(g, p, first + at, n, columns));
        TRY(atlas_writer_put_obs(w, first + at, columns));
        for (int k = 0; k < 3 + p->count; k++) column_free(&columns[k]);
    }
done:
    free(columns);
    cells_free(&cells);
    return st;
}

static enum status make_atlas(struct comm *world, struct atlas *from, const struct generator *g, const char *out,
                              int64_t rows, int64_t shard_rows)
{
    struct parent_columns p = {0};
    struct atlas_writer *w = NULL;
    int32_t *entries = NULL;
    int64_t first, count;
    uint8_t *measured = NULL;
    const struct modality *m = atlas_modality(from, 0);
    comm_share(world, rows, &first, &count);
    enum status st = parent_read(from, g->real.count, &p);
    if (st == ST_OK) st = NEW_ARRAY(entries, count);
    if (st == ST_OK) st = NEW_ARRAY(measured, g->features);
    if (st == ST_OK) memset(measured, 1, (size_t)g->features);
    if (st == ST_OK) st = count_share(g, first, count, entries);
    TRY(comm_agree(world, st));
    const struct atlas_modality_plan modality = {m->name, m->kind, &m->features, (const uint8_t *const[]){measured}};
    const struct atlas_source source = {"generated", atlas_hash(from), 0, rows};
    const struct atlas_plan plan = {.modalities = &modality,
                                    .modality_count = 1,
                                    .sources = &source,
                                    .source_count = 1,
                                    .obs = p.fields,
                                    .obs_count = 3 + p.count,
                                    .obs_names_unique = true,
                                    .rows = rows,
                                    .shard_rows = shard_rows,
                                    .seed = SEED,
                                    .shuffle = true,
                                    .config = atlas_config(from)};
    const struct atlas_share share = {1, &first, &count, (const int32_t *const[]){entries}};
    TRY(atlas_writer_create(world, out, &plan, &share, &w));
    TRY(comm_agree(world, write_share(w, g, &p, first, count)));
    st = atlas_writer_commit(world, &w);
done:
    atlas_writer_destroy(&w);
    for (int k = 0; p.columns && k < p.count; k++) column_free(&p.columns[k]);
    free(p.columns);
    free(p.fields);
    free(measured);
    free(entries);
    return st;
}

/* ---- .h5ad inputs ---- */

struct input {
    hid_t file, data, indices;
    int64_t entries, *indptr;
};

static enum status encode(hid_t object, const char *type, const char *version)
{
    enum status st = h5_attr_write_text(object, "encoding-type", type);
    return st == ST_OK ? h5_attr_write_text(object, "encoding-version", version) : st;
}

/* A dataset that grows, in chunks of 65,536, shuffled and deflated. */
static hid_t growing(hid_t parent, const char *name, hid_t type, int level)
{
    hsize_t none = 0, most = H5S_UNLIMITED, chunk = 65536;
    hid_t space = H5Screate_simple(1, &none, &most), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, &chunk);
    H5Pset_shuffle(list);
    if (level > 0) H5Pset_deflate(list, (unsigned)level);
    H5Pset_obj_track_times(list, false);
    hid_t dataset = H5Dcreate2(parent, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    h5_drop(&list);
    h5_drop(&space);
    return dataset;
}

static enum status append(hid_t dataset, hid_t type, int64_t before, int64_t count, const void *values)
{
    hsize_t size = (hsize_t)(before + count);
    if (H5Dset_extent(dataset, &size) < 0) return h5_fail(ST_OUTPUT, "a dataset does not grow");
    return h5_write_rows(dataset, type, before, count, values);
}

static enum status write_frame(hid_t file, const char *name, const char *const *index, int64_t count,
                               const char *column, const char *const *values)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE, dataset = H5_NONE;
    TRY(h5_group_create(file, name, &group));
    TRY(encode(group, "dataframe", "0.2.0"));
    TRY(h5_attr_write_text(group, "_index", "_index"));
    TRY(h5_attr_write_texts(group, "column-order", &column, values ? 1 : 0));
    TRY(h5_write_texts(group, "_index", index, count));
    dataset = H5Dopen2(group, "_index", H5P_DEFAULT);
    TRY(encode(dataset, "string-array", "0.2.0"));
    if (!values) goto done;
    TRY(h5_write_texts(group, column, values, count));
    h5_drop(&dataset);
    dataset = H5Dopen2(group, column, H5P_DEFAULT);
    TRY(encode(dataset, "string-array", "0.2.0"));
done:
    h5_drop(&dataset);
    h5_drop(&group);
    return st;
}

static enum status write_var(hid_t file, const struct feature_table *table)
{
    enum status st = ST_OK;
    const char **names = NULL, **ids = NULL;
    TRY(NEW_ARRAY(names, table->count));
    TRY(NEW_ARRAY(ids, table->count));
    for (int64_t i = 0; i < table->count; i++) {
        names[i] = table->rows[i].name;
        ids[i] = table->rows[i].id;
    }
    TRY(write_frame(file, "var", names, table->count, "gene_ids", ids));
done:
    free(ids);
    free(names);
    return st;
}

static enum status write_obs(hid_t file, int64_t first, int64_t count)
{
    enum status st = ST_OK;
    char **names = NULL;
    TRY(NEW_ARRAY(names, count));
    for (int64_t i = 0; i < count; i++) names[i] = text_format("cell-%lld", (long long)(first + i));
    TRY(write_frame(file, "obs", (const char *const *)names, count, NULL, NULL));
done:
    for (int64_t i = 0; names && i < count; i++) free(names[i]);
    free(names);
    return st;
}

static enum status write_cells(const struct generator *g, int64_t first, int64_t count, hid_t x, int level)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    int64_t *indptr = NULL;
    hid_t data = growing(x, "data", H5T_IEEE_F32LE, level), indices = growing(x, "indices", H5T_STD_I32LE, level);
    TRY(NEW_ARRAY(indptr, count + 1));
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK, before = indptr[at];
        TRY(generate_block(g, first + at, n, &cells));
        TRY(append(data, H5T_NATIVE_FLOAT, before, cells.start[n], cells.value));
        TRY(append(indices, H5T_NATIVE_INT32, before, cells.start[n], cells.feature));
        for (int64_t k = 1; k <= n; k++) indptr[at + k] = before + cells.start[k];
    }
    count++;
    TRY(h5_write(x, "indptr", H5T_NATIVE_INT64, 1, &count, indptr));
done:
    h5_drop(&data);
    h5_drop(&indices);
    cells_free(&cells);
    free(indptr);
    return st;
}

static enum status write_input(const struct generator *g, const struct feature_table *features, const char *path,
                               int64_t first, int64_t count, int level)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE, x = H5_NONE;
    TRY(h5_create_on_disk(path, &file));
    TRY(encode(file, "anndata", "0.1.0"));
    TRY(h5_group_create(file, "X", &x));
    TRY(encode(x, "csr_matrix", "0.1.0"));
    TRY(h5_attr_write_ints(x, "shape", (int64_t[]){count, features->count}, 2));
    TRY(write_cells(g, first, count, x, level));
    TRY(write_obs(file, first, count));
    TRY(write_var(file, features));
    TRY(h5_close(&file));
done:
    if (st != ST_OK) status_prefix("%s: ", path);
    h5_drop(&x);
    h5_drop(&file);
    return st;
}

/* Sizes 1 : 2 : 3 : 4 : 5 : 6 : 7 : 1 … of a whole, the rest in the last file. Files are dealt out to ranks. */
static enum status make_inputs(struct comm *world, struct atlas *from, const struct generator *g, const char *folder,
                               int64_t rows, int files, int level)
{
    enum status st = world->rank == 0 ? text_make_folder(folder) : ST_OK;
    int64_t parts = 0, before = 0;
    TRY(comm_agree(world, st));
    for (int k = 0; k < files; k++) parts += 1 + k % 7;
    for (int k = 0; k < files; k++) {
        int64_t first = rows * before / parts, end = rows * (before + 1 + k % 7) / parts;
        before += 1 + k % 7;
        if (k % world->size != world->rank || st != ST_OK) continue;
        char *path = text_format("%s/cells-%03d.h5ad", folder, k);
        st = write_input(g, &atlas_modality(from, 0)->features, path, first, end - first, level);
        free(path);
    }
    st = comm_agree(world, st);
done:
    return st;
}

static enum status usage(void)
{
    fprintf(stderr, "usage: tool_generate atlas FROM OUT CELLS [SHARD_ROWS]\n"
                    "       tool_generate h5ad FROM DIR CELLS FILES [LEVEL]\n");
    return ST_USAGE;
}

int main(int argc, char **argv)
{
    struct comm world;
    struct atlas *from = NULL;
    struct generator g = {0};
    enum status st = comm_open(&argc, &argv, &world);
    comm_set_program("tool_generate");
    bool atlas = argc >= 5 && strcmp(argv[1], "atlas") == 0, inputs = argc >= 6 && strcmp(argv[1], "h5ad") == 0;
    int64_t rows = 0;
    if (!(atlas || inputs) || !text_to_int(argv[4], &rows) || rows < 1) st = usage();
    if (st == ST_OK) st = atlas_open(&world, argv[2], &from);
    if (st == ST_OK) st = comm_agree(&world, generator_create(from, &g));
    if (st == ST_OK && atlas) st = make_atlas(&world, from, &g, argv[3], rows, argc > 5 ? atoll(argv[5]) : 65536);
    if (st == ST_OK && inputs)
        st = make_inputs(&world, from, &g, argv[3], rows, atoi(argv[5]), argc > 6 ? atoi(argv[6]) : 4);
    generator_free(&g);
    atlas_close(&from);
    comm_close(&world);
    return (int)st;
}
