/* cytomill-analyze score: kNN macro-F1 of labels, each embedding beside PCA, depth alone and further ones. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stop.h"
#include "base/text.h"
#include "jobs/analyze.h"
#include "jobs/analyze_labels.h"
#include "metric/expression.h"
#include "mpi/label_score.h"

/* One way to see the cells: rows spread over ranks. */
struct view {
    char *name; /* "embeddings.h5ad X_cellfm", "PCA (50)", "depth alone" */
    struct spread_rows rows;
    float *values; /* owned baseline values; NULL when they are the file's */
    int table;     /* whose labels and cells it is scored with */
};

struct table_facts {
    struct embedding_table *file;
    struct label_list labels;
    uint8_t *train, *test; /* [rows] */
};

struct state {
    int tables, views;
    struct table_facts *table; /* [tables] */
    struct view *view;         /* [tables + 2] */
    struct cell_input input;
    bool has_input;
    struct text overall, by_label; /* the two TSVs */
};

/* ---- prepare ---- */

static enum status select_cells(struct job *job, struct table_facts *t, const char *key, uint8_t **out)
{
    enum status st = ST_OK;
    int64_t rows = t->file->rows;
    TRY(NEW_ARRAY(*out, rows));
    TRY(embedding_table_select(t->file, config_text(job->config, key), *out));
    int64_t chosen = 0;
    for (int64_t i = 0; i < rows; i++) chosen += (*out)[i] = (*out)[i] && t->file->usable[i];
    if (chosen == 0)
        TRY(fail(ST_INPUT, "%s: none of %lld embedded cells matches --%s \"%s\"", t->file->path,
                 (long long)t->file->usable_count, strrchr(key, '.') + 1, config_text(job->config, key)));
done:
    return st;
}

static enum status open_table(struct job *job, struct state *s, int index)
{
    enum status st = ST_OK;
    struct table_facts *t = &s->table[index];
    TRY(analyze_open_embedding(job, index, &t->file));
    st = label_list_read(t->file, config_text(job->config, "analyze.label"), &t->labels);
    if (st == ST_OK) st = select_cells(job, t, "analyze.train", &t->train);
    if (st == ST_OK) st = select_cells(job, t, "analyze.test", &t->test);
    TRY(comm_agree(&job->world, st));
    const char *file = strrchr(t->file->path, '/') ? strrchr(t->file->path, '/') + 1 : t->file->path;
    s->view[s->views++] = (struct view){text_format("%s %s", file, t->file->name),
                                        {t->file->first, t->file->count, t->file->width, t->file->values},
                                        NULL,
                                        index};
done:
    return st;
}

static enum status check_request(const struct job *job)
{
    bool train = *config_text(job->config, "analyze.train"), test = *config_text(job->config, "analyze.test");
    if (analyze_embedding_count(job) == 0) return fail(ST_USAGE, "no embedding given; name one or more .h5ad files");
    if (train != test)
        return fail(ST_USAGE, "--%s is missing; give both --train and --test, or neither for leave-one-out",
                    train ? "test" : "train");
    return analyze_need_out(job);
}

static enum status prepare(struct job *job)
{
    enum status st = ST_OK;
    struct state *s = job->state;
    TRY(comm_agree(&job->world, check_request(job)));
    s->tables = analyze_embedding_count(job);
    st = NEW_ARRAY(s->table, s->tables);
    if (st == ST_OK) st = NEW_ARRAY(s->view, s->tables + 2);
    TRY(comm_agree(&job->world, st));
    for (int i = 0; i < s->tables; i++) TRY(open_table(job, s, i));
    if (analyze_has_counts(job)) {
        TRY(analyze_open_counts(job, &s->input));
        s->has_input = true;
        TRY(analyze_check_rows(job, s->table[0].file, &s->input));
    }
done:
    return st;
}

/* ---- baselines: of the first file's cells ---- */

static enum status add_view(struct state *s, char *name, int width, struct view **out)
{
    struct view *v = &s->view[s->views++];
    const struct embedding_table *t = s->table[0].file;
    *v = (struct view){.name = name, .rows = {t->first, t->count, width, NULL}};
    enum status st = NEW_ARRAY(v->values, t->count * width);
    v->rows.values = v->values;
    *out = v;
    return st;
}

/* What a baseline says of a block of cells, out[cells->count, width]. */
typedef void (*describe)(const void *context, const struct cells *cells, float *out);

static void project(const void *pca, const struct cells *cells, float *out) { pca_project(pca, cells, out); }

static void log_total(const void *unused, const struct cells *cells, float *out)
{
    (void)unused;
    for (int64_t r = 0; r < cells->count; r++) out[r] = (float)log1p(expression_total(cells, r));
}

static enum status fill_view(struct state *s, struct view *v, describe how, const void *context)
{
    enum { BLOCK = 2048 };
    enum status st = ST_OK;
    struct cells cells = {0};
    for (int64_t at = 0; at < v->rows.count; at += BLOCK) {
        int64_t n = v->rows.count - at < BLOCK ? v->rows.count - at : BLOCK;
        TRY(stop_asked() ? ST_REQUEUE : cell_input_read(&s->input, v->rows.first + at, n, &cells));
        how(context, &cells, v->values + at * v->rows.width);
    }
done:
    cells_free(&cells);
    return st;
}

static enum status add_counted_baselines(struct job *job, struct state *s)
{
    enum status st = ST_OK;
    struct pca *p = NULL;
    struct view *v = NULL;
    TRY(analyze_fit_pca(job, &s->input, &p));
    st = add_view(s, text_format("PCA (%d)", p->components), p->components, &v);
    if (st == ST_OK) st = fill_view(s, v, project, p);
    TRY(comm_agree(&job->world, st));
    st = add_view(s, text_copy("depth alone"), 1, &v);
    if (st == ST_OK) st = fill_view(s, v, log_total, NULL);
    TRY(comm_agree(&job->world, st));
done:
    pca_destroy(&p);
    return st;
}

/* Without counts, depth comes from an obs column if there is one. */
static enum status add_depth_column(struct job *job, struct state *s)
{
    enum status st = ST_OK;
    struct column c = {0};
    struct view *v = NULL;
    struct embedding_table *t = s->table[0].file;
    const char *name = config_text(job->config, "analyze.depth");
    if (!embedding_table_has(t, name)) {
        comm_note(&job->world, "no counts given (--atlas) and no obs column '%s': PCA and depth alone are left out",
                  name);
        return ST_OK;
    }
    comm_note(&job->world, "no counts given (--atlas): PCA is left out, depth is obs column '%s'", name);
    TRY(embedding_table_column(t, name, &c));
    TRY(add_view(s, text_copy("depth alone"), 1, &v));
    for (int64_t i = 0; i < t->count; i++) {
        double x = c.r ? c.r[t->first + i] : c.i ? (double)c.i[t->first + i] : NAN;
        if (!(x >= 0))
            TRY(fail(ST_INPUT, "%s: obs column '%s' is not a count in row %lld; name another with --depth", t->path,
                     name, (long long)(t->first + i)));
        v->values[i] = (float)log1p(x);
    }
done:
    column_free(&c);
    return st;
}

/* ---- scores ---- */

struct direction {
    const uint8_t *train, *test;
    const char *train_words, *test_words;
};

static void add_overall(struct job *job, struct state *s, const struct view *v, const struct direction *d,
                        const struct confusion *c, int64_t train_cells)
{
    struct overall_score all = confusion_overall(c);
    struct text line = {0};
    text_add(&line, "%s\t%s\t%s\t%lld\t%lld\t%d\t%.4f\t%.4f\n", v->name, d->train_words, d->test_words,
             (long long)train_cells, (long long)all.cells, all.labels, all.macro_f1, all.accuracy);
    comm_print(&job->world, "%s", line.data);
    text_add(&s->overall, "%s", line.data);
    text_free(&line);
}

static void add_by_label(struct state *s, const struct view *v, const struct direction *d, const struct confusion *c)
{
    const struct label_list *labels = &s->table[v->table].labels;
    for (int l = 0; l < labels->count; l++) {
        struct label_score x = confusion_label(c, l);
        if (x.cells + x.predicted == 0) continue;
        text_add(&s->by_label, "%s\t%s\t%s\t%s\t%lld\t%lld\t%.4f\t%.4f\t%.4f\n", v->name, d->train_words, d->test_words,
                 labels->name[l], (long long)x.cells, (long long)x.predicted, x.precision, x.recall, x.f1);
    }
}

static enum status score_direction(struct job *job, struct state *s, const struct view *v, const struct direction *d)
{
    enum status st = ST_OK;
    struct table_facts *t = &s->table[v->table];
    struct labelled labelled = {t->file->rows, t->labels.count, t->labels.code, d->train, d->test};
    struct confusion c = {0};
    int64_t train_cells = 0;
    TRY(label_score(&job->world, &v->rows, &labelled, (int)config_int(job->config, "analyze.neighbours"), &c));
    for (int64_t i = 0; i < labelled.rows; i++) train_cells += d->train[i] && labelled.code[i] >= 0;
    add_overall(job, s, v, d, &c, train_cells);
    add_by_label(s, v, d, &c);
done:
    confusion_free(&c);
    return st;
}

static enum status score_view(struct job *job, struct state *s, const struct view *v)
{
    enum status st = ST_OK;
    struct table_facts *t = &s->table[v->table];
    const char *train = config_text(job->config, "analyze.train"), *test = config_text(job->config, "analyze.test");
    if (!*train) {
        TRY(score_direction(job, s, v, &(struct direction){t->train, t->train, "all other cells", "each cell"}));
    } else {
        TRY(score_direction(job, s, v, &(struct direction){t->train, t->test, train, test}));
        TRY(score_direction(job, s, v, &(struct direction){t->test, t->train, test, train}));
    }
done:
    return st;
}

static enum status run(struct job *job)
{
    enum status st = ST_OK;
    struct state *s = job->state;
    if (s->has_input) TRY(add_counted_baselines(job, s));
    else TRY(comm_agree(&job->world, add_depth_column(job, s)));
    text_add(&s->overall,
             "# kNN, k = %lld, Euclidean; label: obs column "
             "'%s'\nrepresentation\ttrain\ttest\ttrain_cells\ttest_cells\tlabels\tmacro_f1\taccuracy\n",
             (long long)config_int(job->config, "analyze.neighbours"), config_text(job->config, "analyze.label"));
    text_add(&s->by_label, "representation\ttrain\ttest\tlabel\tcells\tpredicted\tprecision\trecall\tf1\n");
    comm_print(&job->world, "%s", s->overall.data);
    for (int v = 0; v < s->views; v++) TRY(score_view(job, s, &s->view[v]));
done:
    return st;
}

/* ---- commit ---- */

static enum status commit(struct job *job)
{
    enum status st = ST_OK;
    struct state *s = job->state;
    const char *out = config_text(job->config, "run.out");
    size_t stem = strlen(out) - (strlen(out) > 4 && strcmp(out + strlen(out) - 4, ".tsv") == 0 ? 4 : 0);
    char *labels = text_format("%.*s.labels.tsv", (int)stem, out);
    if (job->world.rank == 0) st = analyze_write_text(labels, &s->by_label);
    if (job->world.rank == 0 && st == ST_OK) st = analyze_write_text(out, &s->overall);
    st = comm_agree(&job->world, st);
    free(labels);
    return st;
}

static void release(struct job *job)
{
    struct state *s = job->state;
    for (int v = 0; v < s->views; v++) {
        free(s->view[v].name);
        free(s->view[v].values);
    }
    for (int i = 0; s->table && i < s->tables; i++) {
        embedding_table_close(&s->table[i].file);
        label_list_free(&s->table[i].labels);
        free(s->table[i].train);
        free(s->table[i].test);
    }
    if (s->has_input) cell_input_close(&s->input);
    text_free(&s->overall);
    text_free(&s->by_label);
    free(s->view);
    free(s->table);
}

static const struct job_option options[] = {
    {"embedding", "FILE", "analyze.embedding", "embedding file; several go without the option's name"},
    {"obsm", "NAME", "analyze.obsm", "which obsm entry of the files"},
    {"label", "COLUMN", "analyze.label", "obs column of labels"},
    {"train", "EXPR", "analyze.train", "training cells, e.g. \"technology == 'celseq2'\""},
    {"test", "EXPR", "analyze.test", "test cells; both directions are scored"},
    {"neighbours", "K", "analyze.neighbours", "neighbours that vote"},
    {"components", "K", "analyze.components", "components of the PCA baseline"},
    {"depth", "COLUMN", "analyze.depth", "obs column of totals, when no counts are given"},
    {0}};

const struct job_spec analyze_score = {
    .program = "cytomill-analyze score",
    .purpose = "kNN macro-F1 of labels: embeddings beside PCA and depth alone",
    .usage = "EMBEDDING.h5ad... --label COLUMN [--train EXPR --test EXPR] [--atlas ATLAS] --out FILE.tsv",
    .reads = "embedding files (of cytomill-embed, cytomill-analyze pca, scanpy); the counts they were made of for the "
             "baselines",
    .writes = "FILE.tsv, one line a representation and direction; FILE.labels.tsv, one line a label",
    .example = "cytomill-analyze score e.h5ad --label cell_line --train \"batch == 'a'\" --test \"batch == 'b'\" --out "
               "scores.tsv",
    .sections = "run data analyze",
    .positional = "analyze.embedding",
    .options = options,
    .takes = TAKES_ATLAS | TAKES_CELLS,
    .stop_beside = true,
    .state_bytes = sizeof(struct state),
    .prepare = prepare,
    .run = run,
    .commit = commit,
    .release = release,
};
