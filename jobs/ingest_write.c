#include "jobs/ingest_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/stop.h"

/* Limits and lookups of the quality figures. */
struct quality {
    uint8_t *is_mt; /* [features of the first modality] */
    int64_t min_features;
    double max_pct_mt, max_total;
};

/* Buffers of one rank. */
struct work {
    struct ingest_inputs *in;
    const struct ingest_obs *obs;
    struct atlas_writer *writer;
    struct ingest_figures *figures;
    struct quality quality;
    struct cells cells;
    struct column *columns; /* [obs->count] */
};

enum status ingest_figures_create(const struct ingest_inputs *in, struct ingest_figures *f)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(f->feature_total, in->modalities[0].features.count));
    TRY(NEW_ARRAY(f->source_flags, 4 * in->count));
    TRY(NEW_ARRAY(f->source_total, in->count));
    TRY(NEW_ARRAY(f->source_entries, in->count));
done:
    return st;
}

void ingest_figures_free(struct ingest_figures *f)
{
    free(f->feature_total);
    free(f->source_flags);
    free(f->source_total);
    free(f->source_entries);
    *f = (struct ingest_figures){0};
}

static bool is_mitochondrial(const struct feature *f)
{
    return strcmp(f->chromosome, "MT") == 0 || strncmp(f->symbol, "MT-", 3) == 0 || strncmp(f->name, "MT-", 3) == 0 ||
           strncmp(f->name, "mt-", 3) == 0;
}

static enum status quality_create(const struct config *config, const struct feature_table *features, struct quality *q)
{
    enum status st = ST_OK;
    q->min_features = config_int(config, "ingest.min_features");
    q->max_pct_mt = config_real(config, "ingest.max_pct_mt");
    q->max_total = config_real(config, "ingest.max_total");
    TRY(NEW_ARRAY(q->is_mt, features->count));
    for (int64_t f = 0; f < features->count; f++) q->is_mt[f] = is_mitochondrial(&features->rows[f]);
done:
    return st;
}

/* ---- features of the union ---- */

struct entry {
    int32_t feature;
    float value;
};

static int by_feature(const void *a, const void *b)
{
    int32_t x = ((const struct entry *)a)->feature, y = ((const struct entry *)b)->feature;
    return (x > y) - (x < y);
}

static enum status sort_row(int32_t *feature, float *value, int64_t n)
{
    enum status st = ST_OK;
    struct entry *entries = NULL;
    TRY(NEW_ARRAY(entries, n));
    for (int64_t e = 0; e < n; e++) entries[e] = (struct entry){feature[e], value[e]};
    qsort(entries, (size_t)n, sizeof *entries, by_feature);
    for (int64_t e = 0; e < n; e++) {
        feature[e] = entries[e].feature;
        value[e] = entries[e].value;
    }
done:
    free(entries);
    return st;
}

/* Features of the source → of the union, ascending again; rows of the source → global rows. */
static enum status rename_features(struct cells *cells, const int32_t *map, int64_t first_row)
{
    enum status st = ST_OK;
    for (int64_t r = 0; r < cells->count; r++) {
        bool ascending = true;
        int64_t start = cells->start[r], n = cells->start[r + 1] - start;
        int32_t *feature = cells->feature + start;
        cells->id[r] += first_row;
        for (int64_t e = 0; e < n; e++) {
            feature[e] = map[feature[e]];
            ascending &= e == 0 || feature[e - 1] < feature[e];
        }
        if (!ascending) TRY(sort_row(feature, cells->value + start, n));
    }
done:
    return st;
}

/* ---- quality ---- */

static int flags_of(const struct quality *q, double total, int64_t features, double pct_mt)
{
    return (features < q->min_features ? QC_LOW_FEATURES : 0) | (pct_mt > q->max_pct_mt ? QC_HIGH_MT : 0) |
           (total > q->max_total ? QC_HIGH_TOTAL : 0);
}

/* Quality columns of the rows in w->cells (first modality), and the figures of the report. */
static void note_quality(struct work *w, int input)
{
    const struct cells *c = &w->cells;
    for (int64_t r = 0; r < c->count; r++) {
        double total = 0, mt = 0;
        int64_t n = c->start[r + 1] - c->start[r];
        for (int64_t e = c->start[r]; e < c->start[r + 1]; e++) {
            total += c->value[e];
            mt += w->quality.is_mt[c->feature[e]] ? c->value[e] : 0;
            w->figures->feature_total[c->feature[e]] += c->value[e];
        }
        double pct_mt = total > 0 ? 100 * mt / total : 0;
        int flags = flags_of(&w->quality, total, n, pct_mt);
        w->columns[OBS_TOTAL].r[r] = total;
        w->columns[OBS_FEATURES].i[r] = n;
        w->columns[OBS_PCT_MT].r[r] = pct_mt;
        w->columns[OBS_FLAGS].code[r] = flags;
        w->figures->source_total[input] += total;
        for (int b = 0; b < 3; b++) w->figures->source_flags[4 * input + b] += flags >> b & 1;
        w->figures->source_flags[4 * input + 3] += flags == 0;
    }
}

/* ---- rows ---- */

static enum status write_block(struct work *w, int i, int64_t first, int64_t count)
{
    enum status st = ST_OK;
    struct ingest_input *input = &w->in->inputs[i];
    int64_t global = input->first_row + first;
    bool written = atlas_writer_has(w->writer, global, count);
    TRY(ingest_obs_read(w->obs, w->in, i, first, count, w->columns));
    for (int m = 0; m < w->in->modality_count; m++) {
        if (input->view[m] < 0) continue;
        TRY(source_read(input->source, input->view[m], first, count, &w->cells));
        TRY(rename_features(&w->cells, input->feature[m], input->first_row));
        if (m == 0) note_quality(w, i);
        w->figures->source_entries[i] += w->cells.start[count];
        if (!written) TRY(atlas_writer_put_cells(w->writer, m, &w->cells));
    }
    if (!written) TRY(atlas_writer_put_obs(w->writer, global, w->columns));
done:
    for (int c = 0; c < w->obs->count; c++) column_free(&w->columns[c]);
    return st;
}

static enum status write_input(struct work *w, struct job *job, struct progress *p, int i, int64_t *rows_done)
{
    enum status st = ST_OK;
    struct ingest_input *input = &w->in->inputs[i];
    for (int64_t at = 0, n; at < input->my_count; at += n) {
        TRY(source_block(input->source, input->my_first + at, input->my_first + input->my_count, &n));
        TRY(write_block(w, i, input->my_first + at, n));
        *rows_done += n;
        struct metric rate = {"cells_per_s", (double)*rows_done / (clock_s() - p->start_s)};
        progress_update(p, *rows_done, &rate, 1);
        if (stop_asked()) return ST_REQUEUE;
    }
    source_rest(input->source);
done:
    return st;
}

static void sum_figures(struct comm *comm, const struct ingest_inputs *in, struct ingest_figures *f)
{
    comm_sum_f64(comm, f->feature_total, in->modalities[0].features.count);
    comm_sum_f64(comm, f->source_total, in->count);
    comm_sum_i64(comm, f->source_flags, 4 * in->count);
    comm_sum_i64(comm, f->source_entries, in->count);
}

enum status ingest_write_rows(struct comm *comm, struct job *job, struct ingest_inputs *in,
                              const struct ingest_obs *obs, struct atlas_writer *writer, struct ingest_figures *figures)
{
    enum status st = ST_OK;
    struct work w = {.in = in, .obs = obs, .writer = writer, .figures = figures};
    int64_t mine = 0, rows_done = 0;
    for (int i = 0; i < in->count; i++) mine += in->inputs[i].my_count;
    TRY(comm_agree(comm, quality_create(job->config, &in->modalities[0].features, &w.quality)));
    TRY(comm_agree(comm, NEW_ARRAY(w.columns, obs->count)));
    /* rank 0's share stands for all: they are cut to equal work */
    struct progress p = progress_start("write", "rank0_cells", mine, 0, comm->rank == 0);
    for (int i = 0; i < in->count && st == ST_OK; i++) st = write_input(&w, job, &p, i, &rows_done);
    progress_finish(&p);
    TRY(comm_agree(comm, st));
    sum_figures(comm, in, figures);
done:
    cells_free(&w.cells);
    free(w.quality.is_mt);
    free(w.columns);
    return st;
}
