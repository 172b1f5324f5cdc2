#include "io/screen_results.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/h5.h"
#include "io/place.h"

/* ---- the columns of /sets ---- */

enum column_kind { KIND_SIZE, KIND_GENES, KIND_COUNT, KIND_SUM, KIND_MEAN, KIND_ERROR, KIND_READOUT };

/* KIND_COUNT and KIND_SUM copy the field at `field`; KIND_MEAN and KIND_ERROR estimate from the sum at
 * `field` and the squares at `squares`. */
static const struct set_column {
    const char *name;
    enum column_kind kind;
    size_t field, squares;
    const char *unit, *description;
} columns[] = {
#define AT(f) offsetof(struct score_sum, f)
    {"size", KIND_SIZE, 0, 0, "genes", "genes of the set"},
    {"genes", KIND_GENES, 0, 0, "", "places of its genes in /panel, -1 beyond its size"},
    {"cells", KIND_COUNT, AT(cells), 0, "cells",
     "cells in the sums: the set was done to them and their scores are finite"},
    {"carriers", KIND_COUNT, AT(carriers), 0, "cells",
     "cells of the group that carry every gene of the set, whether the set was done to them or not"},
    {"not_finite", KIND_COUNT, AT(not_finite), 0, "cells", "cells left out because a score was not finite"},
    {"sum_effect", KIND_SUM, AT(effect), 0, "", "sum over cells of the effect"},
    {"sum_effect_squared", KIND_SUM, AT(effect_squared), 0, "", "sum of its squares"},
    {"sum_expected", KIND_SUM, AT(expected), 0, "", "sum over cells of the effect expected from the single genes"},
    {"sum_expected_squared", KIND_SUM, AT(expected_squared), 0, "", "sum of its squares"},
    {"sum_interaction", KIND_SUM, AT(interaction), 0, "", "sum over cells of effect - expected"},
    {"sum_interaction_squared", KIND_SUM, AT(interaction_squared), 0, "", "sum of its squares"},
    {"effect", KIND_MEAN, AT(effect), AT(effect_squared), "",
     "mean effect: 1 - cos(z_S, z), or the shift of the cosine to the goal"},
    {"effect_se", KIND_ERROR, AT(effect), AT(effect_squared), "", "its standard error over cells"},
    {"expected", KIND_MEAN, AT(expected), AT(expected_squared), "",
     "mean of the same score of z + sum_i (z_i - z), on the same cells"},
    {"expected_se", KIND_ERROR, AT(expected), AT(expected_squared), "", "its standard error"},
    {"interaction", KIND_MEAN, AT(interaction), AT(interaction_squared), "",
     "mean of effect - expected; 0 for a single gene"},
    {"interaction_se", KIND_ERROR, AT(interaction), AT(interaction_squared), "", "its standard error"},
    {"readout_sum", KIND_READOUT, /* the last: read_readout */ 0, 0, "ln(1 + scaled count)",
     "sum over cells of the shift of each read-out gene's prediction"}};
enum { COLUMN_COUNT = sizeof columns / sizeof *columns };

static int64_t row_items(const struct results *r, int c)
{
    if (columns[c].kind == KIND_GENES) return r->plan.space.order;
    return columns[c].kind == KIND_READOUT ? r->plan.readout_count : 1;
}

static bool is_int32(int c) { return columns[c].kind == KIND_SIZE || columns[c].kind == KIND_GENES; }
static int64_t row_bytes(const struct results *r, int c) { return row_items(r, c) * (is_int32(c) ? 4 : 8); }

static hid_t disk_type(int c)
{
    return is_int32(c) ? H5T_STD_I32LE : columns[c].kind == KIND_COUNT ? H5T_STD_I64LE : H5T_IEEE_F64LE;
}

/* ---- layout ---- */

static enum status lay_out_columns(hid_t file, const struct results *r)
{
    enum status st = ST_OK;
    hid_t sets = H5_NONE, dataset = H5_NONE;
    TRY(h5_group_create(file, "sets", &sets));
    for (int c = 0; c < COLUMN_COUNT; c++) {
        int64_t dims[2] = {combination_count(&r->plan.space), row_items(r, c)};
        bool matrix = columns[c].kind == KIND_GENES || columns[c].kind == KIND_READOUT;
        TRY(h5_dataset_create(sets, columns[c].name, disk_type(c), matrix ? 2 : 1, dims, &dataset));
        TRY(h5_attr_write_text(dataset, "description", columns[c].description));
        TRY(h5_attr_write_text(dataset, "unit", columns[c].unit));
        h5_drop(&dataset);
    }
done:
    h5_drop(&dataset);
    h5_drop(&sets);
    return st;
}

static enum status write_genes(hid_t file, const char *name, const struct results *r, const int32_t *genes,
                               int64_t count, hid_t *group)
{
    enum status st = ST_OK;
    const char **symbols = NULL, **ids = NULL;
    TRY(NEW_ARRAY(symbols, count));
    TRY(NEW_ARRAY(ids, count));
    for (int64_t g = 0; g < count; g++) {
        symbols[g] = r->plan.vocab->genes[genes[g] - 1].symbol;
        ids[g] = r->plan.vocab->genes[genes[g] - 1].ensembl;
    }
    TRY(h5_group_create(file, name, group));
    TRY(h5_write_texts(*group, "symbol", symbols, count));
    TRY(h5_write_texts(*group, "ensembl", ids, count));
    TRY(h5_write(*group, "vocabulary_id", H5T_NATIVE_INT32, 1, &count, genes));
done:
    free(symbols);
    free(ids);
    return st;
}

static enum status lay_out_genes(hid_t file, const struct results *r)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t genes = r->plan.space.genes;
    TRY(write_genes(file, "panel", r, r->plan.panel, genes, &group));
    TRY(h5_write(group, "cells", H5T_NATIVE_INT64, 1, &genes, r->plan.carriers));
    if (r->plan.raised) TRY(h5_write(group, "raised_to", H5T_NATIVE_FLOAT, 1, &genes, r->plan.raised));
    h5_drop(&group);
    TRY(write_genes(file, "readout", r, r->plan.readout, r->plan.readout_count, &group));
done:
    h5_drop(&group);
    return st;
}

static enum status lay_out(const char *temporary, void *context)
{
    enum status st = ST_OK;
    const struct results *r = context;
    hid_t file = H5_NONE;
    TRY(h5_create(temporary, &file));
    TRY(h5_attr_write_text(file, "key", r->plan.key));
    for (int n = 0; n < r->plan.note_count; n++) {
        const struct h5ad_note *note = &r->plan.notes[n];
        if (note->text) TRY(h5_attr_write_text(file, note->name, note->text));
        else TRY(h5_attr_write_real(file, note->name, note->number));
    }
    TRY(lay_out_genes(file, r));
    TRY(lay_out_columns(file, r));
    TRY(h5_close(&file));
done:
    h5_drop(&file);
    if (st != ST_OK) status_prefix("%s: ", r->plan.path);
    return st;
}

static enum status find_offsets(const char *path, struct results *r)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    TRY(h5_open(path, &file));
    for (int c = 0; c < COLUMN_COUNT; c++) {
        char *name = text_format("sets/%s", columns[c].name);
        hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
        r->offset[c] = dataset >= 0 && row_bytes(r, c) > 0 ? h5_dataset_offset(dataset) : -1;
        if (dataset < 0 || (row_bytes(r, c) > 0 && r->offset[c] < 0))
            st = fail(ST_OUTPUT, "%s: dataset %s is missing or not contiguous; remove the file to start again", path,
                      name);
        h5_drop(&dataset);
        free(name);
        if (st != ST_OK) break;
    }
done:
    h5_drop(&file);
    return st;
}

/* ---- open ---- */

static enum status read_key(const char *path, char **key)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    *key = NULL;
    TRY(h5_open(path, &file));
    TRY(h5_attr_read_text(file, "key", key));
done:
    h5_drop(&file);
    return st;
}

void results_chunk_sets(const struct results *r, int64_t chunk, int64_t *first, int64_t *count)
{
    *first = chunk * r->plan.chunk_sets;
    int64_t left = combination_count(&r->plan.space) - *first;
    *count = left < r->plan.chunk_sets ? left : r->plan.chunk_sets;
}

static uint64_t hash_rows(const struct results *r, const struct score_sum *sums, const double *readout, int64_t count)
{
    uint64_t h = hash_block(sums, (size_t)count * sizeof *sums, 0);
    return hash_block(readout, (size_t)(count * r->plan.readout_count) * sizeof *readout, h);
}

static enum status read_readout(struct results *r, int64_t first, int64_t count, double *readout)
{
    int64_t bytes = row_bytes(r, COLUMN_COUNT - 1);
    if (bytes == 0) return ST_OK;
    return place_read(r->partial.fd, r->partial.work, r->offset[COLUMN_COUNT - 1] + first * bytes, readout,
                      count * bytes);
}

static enum status chunk_matches(void *context, int64_t chunk, uint64_t hash, bool *matches)
{
    enum status st = ST_OK;
    struct results *r = context;
    struct score_sum *sums = NULL;
    double *readout = NULL;
    int64_t first, count;
    results_chunk_sets(r, chunk, &first, &count);
    TRY(NEW_ARRAY(sums, count));
    TRY(NEW_ARRAY(readout, count * r->plan.readout_count));
    TRY(results_read(r, first, count, sums));
    TRY(read_readout(r, first, count, readout));
    *matches = hash_rows(r, sums, readout, count) == hash;
done:
    free(sums);
    free(readout);
    return st;
}

enum status results_open(struct comm *comm, const struct results_plan *plan, bool fresh, struct results *r)
{
    enum status st = ST_OK;
    *r = (struct results){.plan = *plan};
    int64_t chunks = (combination_count(&plan->space) + plan->chunk_sets - 1) / plan->chunk_sets;
    TRY(comm_agree(comm, NEW_ARRAY(r->offset, COLUMN_COUNT)));
    TRY(partial_find_final(comm, plan->path, plan->key, "this sweep (same model, cells, panel and options)", fresh,
                           read_key, &r->complete));
    if (r->complete) TRY(comm_agree(comm, partial_open_final(plan->path, &r->partial)));
    else TRY(partial_open(comm, plan->path, chunks, plan->key, lay_out, r, &r->partial));
    TRY(comm_agree(comm, comm->rank == 0 ? find_offsets(r->partial.work, r) : ST_OK));
    comm_bcast(comm, r->offset, COLUMN_COUNT * (int64_t)sizeof *r->offset, 0);
    if (!r->complete) TRY(partial_verify(comm, &r->partial, chunk_matches, r));
done:
    if (st != ST_OK) results_close(r);
    return st;
}

void results_close(struct results *r)
{
    partial_close(&r->partial);
    free(r->offset);
    r->offset = NULL;
}

/* ---- rows ---- */

static double field_of(const struct score_sum *sum, size_t offset)
{
    double x;
    memcpy(&x, (const char *)sum + offset, sizeof x);
    return x;
}

static void pack_set(const struct results *r, int64_t set, int32_t *out, bool genes)
{
    int64_t members[SET_SIZE_MAX];
    int size = combination_unrank(&r->plan.space, set, members);
    if (!genes) *out = size;
    else
        for (int i = 0; i < r->plan.space.order; i++) out[i] = i < size ? (int32_t)members[i] : -1;
}

/* One value of column c as it lies on disk, all little-endian as the machines we run on. */
static void pack_value(const struct results *r, int c, int64_t set, const struct score_sum *sum, void *out)
{
    const struct set_column *column = &columns[c];
    if (is_int32(c)) {
        pack_set(r, set, out, column->kind == KIND_GENES);
    } else if (column->kind == KIND_COUNT || column->kind == KIND_SUM) {
        memcpy(out, (const char *)sum + column->field, 8);
    } else {
        struct estimate e = estimate_from(field_of(sum, column->field), field_of(sum, column->squares), sum->cells);
        memcpy(out, column->kind == KIND_MEAN ? &e.mean : &e.error, 8);
    }
}

static enum status put_column(struct results *r, int c, int64_t first, int64_t count, const struct score_sum *sums,
                              const double *readout, char *packed)
{
    int64_t bytes = row_bytes(r, c);
    if (bytes == 0) return ST_OK;
    const void *rows = columns[c].kind == KIND_READOUT ? (const void *)readout : packed;
    for (int64_t i = 0; rows == packed && i < count; i++) pack_value(r, c, first + i, &sums[i], packed + i * bytes);
    return place_write(r->partial.fd, r->partial.work, r->offset[c] + first * bytes, rows, count * bytes);
}

enum status results_put(struct results *r, int64_t chunk, const struct score_sum *sums, const double *readout)
{
    enum status st = ST_OK;
    char *packed = NULL;
    int64_t first, count;
    results_chunk_sets(r, chunk, &first, &count);
    TRY(NEW_ARRAY(packed, count * 8 * SET_SIZE_MAX));
    for (int c = 0; c < COLUMN_COUNT; c++) TRY(put_column(r, c, first, count, sums, readout, packed));
    TRY(partial_mark(&r->partial, chunk, hash_rows(r, sums, readout, count)));
done:
    free(packed);
    return st;
}

enum status results_read(struct results *r, int64_t first, int64_t count, struct score_sum *sums)
{
    enum status st = ST_OK;
    double *values = NULL;
    TRY(NEW_ARRAY(values, count));
    for (int c = 0; c < COLUMN_COUNT; c++) {
        if (columns[c].kind != KIND_COUNT && columns[c].kind != KIND_SUM) continue;
        TRY(place_read(r->partial.fd, r->partial.work, r->offset[c] + first * 8, values, count * 8));
        for (int64_t i = 0; i < count; i++) memcpy((char *)&sums[i] + columns[c].field, &values[i], 8);
    }
done:
    free(values);
    return st;
}

enum status results_commit(struct comm *comm, struct results *r) { return partial_commit(comm, &r->partial); }

static enum status restate(const char *path, const char *note, double value)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    double held;
    TRY(h5_open(path, &file));
    TRY(h5_attr_read_real(file, note, &held));
    h5_drop(&file);
    if (held == value) return ST_OK;
    TRY(h5_open_rw(path, &file));
    TRY(h5_attr_rewrite_real(file, note, value));
    TRY(h5_close(&file));
done:
    h5_drop(&file);
    if (st != ST_OK) status_prefix("%s: ", path);
    return st;
}

enum status results_restate(struct comm *comm, struct results *r, const char *note, double value)
{
    return comm_agree(comm, comm->rank == 0 ? restate(r->plan.path, note, value) : ST_OK);
}
