/* cytomill-analyze umap: where each cell lies on a map, and its community, as a table. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "jobs/analyze.h"
#include "jobs/analyze_map.h"

struct state {
    struct embedding_table *table;
    struct cell_map map;
};

static enum status prepare(struct job *job)
{
    enum status st = ST_OK;
    struct state *s = job->state;
    st = analyze_need_out(job);
    if (st == ST_OK && analyze_embedding_count(job) != 1)
        st = fail(ST_USAGE, "%d embeddings given; give one .h5ad file", analyze_embedding_count(job));
    TRY(comm_agree(&job->world, st));
    TRY(analyze_open_embedding(job, 0, &s->table));
    analyze_print_map_cost(job, s->table);
done:
    return st;
}

static enum status run(struct job *job)
{
    struct state *s = job->state;
    return analyze_make_map(job, s->table, &s->map);
}

/* One line a cell that is shown. */
static enum status write_table(struct job *job, struct state *s)
{
    enum status st = ST_OK;
    struct text t = {0};
    struct column names = {0};
    TRY(embedding_table_names(s->table, 0, s->table->rows, &names));
    text_add(&t, "cell\trow\tumap_1\tumap_2\tcluster\n");
    for (int64_t i = 0; i < s->map.n; i++)
        text_add(&t, "%s\t%lld\t%.6g\t%.6g\t%d\n", names.text[s->map.row[i]], (long long)s->map.row[i],
                 s->map.xy[2 * i], s->map.xy[2 * i + 1], s->map.cluster[i]);
    TRY(analyze_write_text(config_text(job->config, "run.out"), &t));
done:
    column_free(&names);
    text_free(&t);
    return st;
}

static enum status commit(struct job *job)
{
    return comm_agree(&job->world, job->world.rank == 0 ? write_table(job, job->state) : ST_OK);
}

static void release(struct job *job)
{
    struct state *s = job->state;
    embedding_table_close(&s->table);
    cell_map_free(&s->map);
}

static const struct job_option options[] = {
    {"embedding", "FILE", "analyze.embedding", "embedding file; goes without the option's name too"},
    {"obsm", "NAME", "analyze.obsm", "which obsm entry of the file"},
    {"neighbours", "K", "analyze.neighbours", "neighbours of a cell"},
    {"map-cells", "N", "analyze.map_cells", "most cells on the map"},
    {"resolution", "R", "analyze.resolution", "resolution of the communities"},
    {0}};

const struct job_spec analyze_umap = {
    .program = "cytomill-analyze umap",
    .purpose = "a two-dimensional map of an embedding and its Leiden communities",
    .usage = "EMBEDDING.h5ad --out FILE.tsv [options]",
    .reads = "an embedding file of cytomill-embed, cytomill-analyze pca or scanpy",
    .writes = "FILE.tsv: cell, row, umap_1, umap_2, cluster",
    .example = "mpirun -n 2 cytomill-analyze umap build/embeddings.h5ad --out build/umap.tsv",
    .sections = "run analyze",
    .positional = "analyze.embedding",
    .options = options,
    .takes = TAKES_SEED,
    .stop_beside = true,
    .state_bytes = sizeof(struct state),
    .prepare = prepare,
    .run = run,
    .commit = commit,
    .release = release,
};
