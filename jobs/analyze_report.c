/* cytomill-analyze report: one page that explains a run to a biologist and opens without a server. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/stop.h"
#include "io/figure.h"
#include "io/html.h"
#include "io/report.h"
#include "jobs/analyze_labels.h"
#include "jobs/analyze_map.h"

enum { MOST_VIEWS = 8 };

/* One embedding and what is drawn of it. */
struct view {
    struct embedding_table *table;
    struct cell_map map;
    int32_t *type;            /* [map.n] or NULL */
    struct label_list labels; /* count = 0: none */
    struct label_list groups; /* of data.group_by, the largest; count = 0: none */
    int groups_in_all;
};

struct state {
    char *out;
    struct cell_input input;
    bool has_input;
    struct view *views; /* [view_count] */
    int view_count;
    struct marker_table markers;
    struct text page;
};

/* ---- prepare ---- */

/* --out is a page, or a folder that gets report.html. */
static char *page_path(const char *out)
{
    size_t n = strlen(out);
    return n > 5 && strcmp(out + n - 5, ".html") == 0 ? text_copy(out) : text_format("%s/report.html", out);
}

static enum status check_file(const char *folder, const char *name, const char *option)
{
    if (!*folder) return ST_OK;
    char *path = name ? text_format("%s/%s", folder, name) : text_copy(folder);
    enum status st = access(path, R_OK) == 0 ? ST_OK : fail(ST_INPUT, "%s: cannot be read; check %s", path, option);
    free(path);
    return st;
}

static enum status check_request(const struct job *job)
{
    enum status st = ST_OK;
    const char *run = config_text(job->config, "analyze.run"), *sweep = config_text(job->config, "analyze.sweep"),
               *scores = config_text(job->config, "analyze.scores");
    TRY(analyze_need_out(job));
    if (!*run && !*sweep && !*scores && !analyze_has_counts(job) && analyze_embedding_count(job) == 0)
        TRY(fail(ST_USAGE,
                 "nothing to report on; give at least one of --atlas, --run, --embedding, --sweep, --scores"));
    if (analyze_embedding_count(job) > MOST_VIEWS)
        TRY(fail(ST_USAGE, "%d embeddings given; a report shows at most %d", analyze_embedding_count(job), MOST_VIEWS));
    TRY(check_file(run, "metrics.jsonl", "--run"));
    TRY(check_file(sweep, "results.h5", "--sweep"));
    TRY(check_file(sweep, "hits.tsv", "--sweep"));
    TRY(check_file(scores, NULL, "--scores"));
    if (job->world.rank == 0) TRY(figure_check());
done:
    return st;
}

static enum status open_cells(struct job *job, struct state *s)
{
    enum status st = ST_OK;
    if (analyze_has_counts(job)) {
        TRY(analyze_open_counts(job, &s->input));
        s->has_input = true;
    }
    int count = analyze_embedding_count(job);
    TRY(NEW_ARRAY(s->views, count));
    for (; s->view_count < count; s->view_count++) {
        struct embedding_table **table = &s->views[s->view_count].table;
        TRY(analyze_open_embedding(job, s->view_count, table));
        if (s->has_input) TRY(analyze_check_rows(job, *table, &s->input));
        analyze_print_map_cost(job, *table);
    }
done:
    return st;
}

static enum status prepare(struct job *job)
{
    enum status st = ST_OK;
    struct state *s = job->state;
    TRY(comm_agree(&job->world, check_request(job)));
    s->out = page_path(config_text(job->config, "run.out"));
    TRY(open_cells(job, s));
    if (s->view_count > 0 && s->has_input) TRY(comm_agree(&job->world, analyze_read_markers(job, &s->markers)));
done:
    return st;
}

/* ---- run ---- */

/* Marker genes of another species or naming are no reason to fail: the map is then coloured otherwise. */
static enum status call_types(struct job *job, struct state *s, struct view *v)
{
    struct marker_map found = {0};
    enum status st = marker_map_create(&s->markers, s->input.features, &found);
    marker_map_free(&found);
    if (st == ST_INPUT) {
        comm_note(&job->world, "no cell types: %s", status_message());
        status_clear();
        return ST_OK;
    }
    st = comm_agree(&job->world, st);
    return st == ST_OK ? analyze_call_types(job, &v->map, &s->input, &s->markers, &v->type) : st;
}

static enum status read_labels(struct job *job, struct view *v)
{
    enum status st = ST_OK;
    const char *column = config_text(job->config, "analyze.label");
    bool present = embedding_table_has(v->table, column);
    if (!present && !config_is_given(job->config, "analyze.label")) return ST_OK; /* the default need not be there */
    TRY(label_list_read(v->table, column, &v->labels));
done:
    return st;
}

static enum status read_groups(struct job *job, struct view *v)
{
    enum { MOST_GROUPS = 12 }; /* that a legend holds and an eye tells apart */
    enum status st = ST_OK;
    const char *column = config_text(job->config, "data.group_by");
    if (!*column) return ST_OK;
    st = label_list_read(v->table, column, &v->groups);
    if (st != ST_OK) status_prefix("data.group_by: ");
    v->groups_in_all = v->groups.count;
    if (st == ST_OK) st = label_list_keep_largest(&v->groups, v->table->rows, MOST_GROUPS);
    return st;
}

static enum status make_map(struct job *job, struct state *s, struct view *v)
{
    enum status st = ST_OK;
    st = read_labels(job, v);
    if (st == ST_OK) st = read_groups(job, v);
    TRY(comm_agree(&job->world, st));
    TRY(analyze_make_map(job, v->table, &v->map));
    if (s->has_input) TRY(call_types(job, s, v));
done:
    return st;
}

/* Codes of the shown cells; NULL if there are no labels. */
static enum status codes_of_shown(const struct cell_map *map, const struct label_list *labels, int32_t **out)
{
    if (labels->count == 0) return ST_OK;
    enum status st = NEW_ARRAY(*out, map->n);
    for (int64_t i = 0; st == ST_OK && i < map->n; i++) (*out)[i] = labels->code[map->row[i]];
    return st;
}

static enum status add_map(struct state *s, int index)
{
    enum status st = ST_OK;
    const struct view *v = &s->views[index];
    int32_t *shown = NULL, *group = NULL;
    const char *file = strrchr(v->table->path, '/') ? strrchr(v->table->path, '/') + 1 : v->table->path;
    char *name = text_format("%s, %s", file, v->table->name);
    TRY(codes_of_shown(&v->map, &v->labels, &shown));
    TRY(codes_of_shown(&v->map, &v->groups, &group));
    struct report_map m = {.index = index,
                           .shown = v->map.n,
                           .usable = v->table->usable_count,
                           .rows = v->table->rows,
                           .xy = v->map.xy,
                           .embedding = name,
                           .type = v->type,
                           .types = s->markers.type_count,
                           .type_name = (const char *const *)s->markers.type,
                           .label = shown,
                           .labels = v->labels.count,
                           .label_column = v->labels.column,
                           .label_name = (const char *const *)v->labels.name,
                           .group = group,
                           .groups = v->groups.count,
                           .groups_in_all = v->groups_in_all,
                           .group_column = v->groups.column,
                           .group_name = (const char *const *)v->groups.name,
                           .cluster = v->map.cluster,
                           .clusters = v->map.clusters};
    TRY(report_map(&s->page, &m));
done:
    free(shown);
    free(group);
    free(name);
    return st;
}

/* What an embedding file says of its making; nothing if it is not ours. */
static void add_notes(struct state *s, struct embedding_table *table)
{
    static const char *const notes[][2] = {{"model", "cytomill/model"},
                                           {"weights (XXH3 of all values)", "cytomill/weights"},
                                           {"licence of the weights", "cytomill/weights_licence"},
                                           {"embedded by", "cytomill/version"},
                                           {"instruction set", "cytomill/instruction_set"},
                                           {"precision", "cytomill/precision"}};
    for (size_t n = 0; n < sizeof notes / sizeof *notes; n++) {
        char *value = embedding_table_note(table, notes[n][1]);
        if (*value) html_table_row(&s->page, (const char *[]){notes[n][0], value}, 2);
        free(value);
    }
}

/* What was made of what, without times and hosts: the same input gives the same page. */
static void add_provenance(const struct job *job, struct state *s)
{
    static const char *const heads[] = {"what", "value"};
    html_section(&s->page, "provenance", "Where this comes from");
    html_table_begin(&s->page, heads, 2);
    html_table_row(&s->page, (const char *[]){"this page", job_version_text()}, 2);
    if (s->has_input) html_table_row(&s->page, (const char *[]){"counts (sha256)", s->input.identity}, 2);
    for (int i = 0; i < s->view_count; i++) add_notes(s, s->views[i].table);
    html_table_end(&s->page);
    html_paragraph(&s->page, "Embeddings open in Python with anndata.read_h5ad; hits.tsv opens in any spreadsheet, "
                             "hits_columns.tsv explains its columns.");
}

static enum status compose(struct job *job, struct state *s)
{
    enum status st = ST_OK;
    const char *run = config_text(job->config, "analyze.run"), *sweep = config_text(job->config, "analyze.sweep"),
               *scores = config_text(job->config, "analyze.scores"), *atlas = config_text(job->config, "run.atlas");
    char *ingested = text_format("%s/ingest_report.tsv", atlas);
    html_begin(&s->page, "Cytomill report");
    html_paragraph(&s->page, "What went in, what the model learned, how it sees the cells, and what it expects of "
                             "perturbed genes. The page holds everything it "
                             "shows and can be mailed or archived as it is.");
    if (*atlas && access(ingested, R_OK) == 0) TRY(report_ingest(&s->page, atlas));
    if (*run) TRY(report_learning(&s->page, run));
    if (*run) TRY(report_usage(&s->page, run));
    for (int i = 0; i < s->view_count; i++) TRY(add_map(s, i));
    if (*scores) TRY(report_scores(&s->page, scores));
    if (*sweep) TRY(report_screen(&s->page, sweep, config_int(job->config, "analyze.top_hits")));
    add_provenance(job, s);
    html_end(&s->page);
done:
    free(ingested);
    return st;
}

static enum status run(struct job *job)
{
    enum status st = ST_OK;
    struct state *s = job->state;
    for (int i = 0; i < s->view_count; i++) TRY(make_map(job, s, &s->views[i]));
    TRY(comm_agree(&job->world, stop_asked() ? ST_REQUEUE : ST_OK));
    TRY(comm_agree(&job->world, job->world.rank == 0 ? compose(job, s) : ST_OK));
done:
    return st;
}

static enum status commit(struct job *job)
{
    struct state *s = job->state;
    enum status st = comm_agree(&job->world, job->world.rank == 0 ? analyze_write_text(s->out, &s->page) : ST_OK);
    if (st == ST_OK) comm_print(&job->world, "%s\n", s->out);
    return st;
}

static void view_release(struct view *v)
{
    embedding_table_close(&v->table);
    cell_map_free(&v->map);
    label_list_free(&v->labels);
    label_list_free(&v->groups);
    free(v->type);
}

static void release(struct job *job)
{
    struct state *s = job->state;
    for (int i = 0; s->views && i < analyze_embedding_count(job); i++) view_release(&s->views[i]);
    free(s->views);
    if (s->has_input) cell_input_close(&s->input);
    marker_table_free(&s->markers);
    text_free(&s->page);
    free(s->out);
}

static const struct job_option options[] = {
    {"run", "DIR", "analyze.run", "pretraining run, for the loss curves"},
    {"embedding", "FILE", "analyze.embedding", "embedding file, for a map; several: FILE,FILE (one beside its PCA)"},
    {"sweep", "DIR", "analyze.sweep", "sweep, for the heat map and the hits"},
    {"scores", "FILE", "analyze.scores", "table of cytomill-analyze score"},
    {"obsm", "NAME", "analyze.obsm", "which obsm entry of the embedding files"},
    {"label", "COLUMN", "analyze.label", "obs column of labels, drawn as a second map"},
    {"group", "COLUMN", "data.group_by", "obs column of groups (donor, batch), drawn as another map"},
    {"markers", "FILE", "analyze.markers", "marker genes TSV [the shipped PBMC list]"},
    {"map-cells", "N", "analyze.map_cells", "most cells on the map"},
    {0}};

const struct job_spec analyze_report = {
    .program = "cytomill-analyze report",
    .purpose = "one self-contained page: data, learning, map of the cells, screen",
    .usage = "[--atlas ATLAS] [--run DIR] [--embedding FILE[,FILE...]] [--sweep DIR] --out FILE.html|DIR",
    .reads =
        "what is given: the atlas, a run's metrics.jsonl and *.tsv, embedding files, DIR/results.h5, hits.tsv, scores",
    .writes = "FILE.html, or DIR/report.html",
    .example = "cytomill-analyze report --run build/run --embedding build/embeddings.h5ad --sweep build/sweep --out "
               "build/report.html",
    .sections = "run data analyze",
    .options = options,
    .takes = TAKES_ATLAS | TAKES_SEED | TAKES_CELLS,
    .stop_beside = true,
    .state_bytes = sizeof(struct state),
    .prepare = prepare,
    .run = run,
    .commit = commit,
    .release = release,
};
