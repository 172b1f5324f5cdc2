/* cytomill-ingest: count matrices of any layout → one atlas that keeps every cell and every feature. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/progress.h"
#include "jobs/data_path.h"
#include "jobs/ingest_report.h"
#include "jobs/job.h"

struct ingest {
    struct hgnc *hgnc;
    char *hgnc_path, *vocab_path[2], *stored_config;
    struct ingest_inputs in;
    struct ingest_obs obs;
    struct ingest_figures figures;
    struct vocab_share shares[2];
    int share_count;
    struct atlas_writer *writer;
    double start_s;
    bool complete; /* the same command made the atlas that is there */
};

/* ---- prepare ---- */

/* The user's file, or the one that ships. */
static enum status choose_file(const char *given, const char *shipped, char **out)
{
    if (!*given) return data_path_find(shipped, out);
    *out = text_copy(given);
    return ST_OK;
}

static enum status load_genes(struct ingest *g, const struct config *config)
{
    enum status st = ST_OK;
    const char *given = config_text(config, "data.vocabulary");
    TRY(choose_file(config_text(config, "ingest.hgnc"), "configs/genes/hgnc_complete_set_2020-05.tsv.gz",
                    &g->hgnc_path));
    TRY(hgnc_read(g->hgnc_path, &g->hgnc));
    for (int s = 0; s < (*given ? 2 : 1); s++) { /* the default one, then the user's */
        TRY(data_path_vocabulary(s ? given : "", &g->vocab_path[s]));
        g->shares[s].path = g->vocab_path[s];
        TRY(vocab_read(g->vocab_path[s], &g->shares[s].vocab));
        g->share_count = s + 1;
    }
done:
    return st;
}

static enum status refuse_any(const char *out)
{
    char *partial = text_format("%s.partial", out);
    struct stat info;
    const char *found = lstat(out, &info) == 0 ? out : lstat(partial, &info) == 0 ? partial : NULL;
    enum status st = found ? fail(ST_OUTPUT, "%s: is already there; remove it or leave out --fresh", found) : ST_OK;
    free(partial);
    return st;
}

/* Was the atlas that is there made from these inputs and this configuration? */
static enum status compare_finished(const struct ingest *g, const struct config *config, bool *same)
{
    enum status st = ST_OK;
    int count;
    const char *const *paths = config_list(config, "run.input", &count);
    struct atlas_source *sources = NULL;
    TRY(NEW_ARRAY(sources, count));
    for (int i = 0; i < count; i++) sources[i] = (struct atlas_source){paths[i], ingest_identity(paths[i]), 0, 0};
    struct atlas_plan plan = {.sources = sources,
                              .source_count = count,
                              .seed = (uint64_t)config_int(config, "run.seed"),
                              .config = g->stored_config};
    TRY(atlas_was_made_by(config_text(config, "run.out"), &plan, same));
done:
    for (int i = 0; sources && i < count; i++) free((char *)(uintptr_t)sources[i].identity);
    free(sources);
    return st;
}

/* An atlas may be there only if the same command made it. Rank 0 looks, before any input is read. */
static enum status check_finished(struct ingest *g, const struct config *config)
{
    const char *out = config_text(config, "run.out");
    struct stat info;
    if (config_bool(config, "run.fresh")) return refuse_any(out);
    if (lstat(out, &info) != 0) return ST_OK;
    enum status st = compare_finished(g, config, &g->complete);
    if (st == ST_OK && g->complete) return ST_OK;
    status_clear();
    return fail(ST_OUTPUT, "%s: is already there, and not this ingest's; choose another --out or remove it", out);
}

/* The parent must take a file. */
static enum status check_output(const struct config *config)
{
    const char *out = config_text(config, "run.out");
    if (!*out) return fail(ST_USAGE, "--out is missing; name the atlas folder to write");
    char *parent = text_copy(out), *slash;
    while ((slash = strrchr(parent, '/')) && !slash[1] && slash > parent) *slash = '\0';
    if ((slash = strrchr(parent, '/'))) slash[slash == parent] = '\0';
    else strcpy(parent, ".");
    enum status st = access(parent, F_OK) == 0 ? ST_OK : text_make_folder(parent);
    if (st == ST_OK && access(parent, W_OK | X_OK) != 0)
        st = fail(ST_OUTPUT, "%s: the folder '%s' cannot be written: %s; choose another --out", out, parent,
                  strerror(errno));
    free(parent);
    return st;
}

/* What index.h5 remembers of this run: nothing that depends on ranks or on where the output lies. */
static char *make_stored_config(const struct ingest *g, const struct config *config)
{
    const char *table = config_text(config, "ingest.obs_table");
    char *ingest = config_yaml(config, "ingest"), *labels = *table ? ingest_identity(table) : text_copy("none");
    char *text = text_format("%s# gene identity: HGNC of %s, sha256 %s\n# labels: %s\n", ingest, g->hgnc->date,
                             g->hgnc->sha256, labels);
    free(labels);
    free(ingest);
    return text;
}

static void print_cost(struct job *job, const struct ingest *g)
{
    char cells[32], entries[32], bytes[32];
    int64_t n = 0, features = 0;
    for (int m = 0; m < g->in.modality_count; m++) {
        n += g->in.modalities[m].entry_count;
        features += g->in.modalities[m].features.count;
    }
    int64_t rows = g->in.rows, shard = config_int(job->config, "ingest.shard_rows");
    double size = 8.0 * (double)n + (double)rows * (8.0 * g->in.modality_count + 64.0 + 16.0 * g->obs.count) +
                  200.0 * (double)features;
    comm_note(&job->world, "plan: %s cells, %s values, %d modalit%s, %lld features; atlas of %lld shard%s, about %s",
              text_count(rows, cells), text_count(n, entries), g->in.modality_count,
              g->in.modality_count == 1 ? "y" : "ies", (long long)features, (long long)((rows + shard - 1) / shard),
              rows > shard ? "s" : "", text_bytes(size, bytes));
}

static enum status prepare(struct job *job)
{
    enum status st = ST_OK;
    struct comm *world = &job->world;
    struct ingest *g = job->state;
    g->start_s = clock_s();
    TRY(comm_agree(world, world->rank == 0 ? check_output(job->config) : ST_OK));
    TRY(comm_agree(world, load_genes(g, job->config)));
    g->stored_config = make_stored_config(g, job->config);
    TRY(comm_agree(world, world->rank == 0 ? check_finished(g, job->config) : ST_OK));
    comm_bcast(world, &g->complete, sizeof g->complete, 0);
    if (g->complete) goto done;
    TRY(ingest_inputs_open(world, job->config, g->hgnc, &g->in));
    TRY(ingest_obs_plan(world, job->config, &g->in, &g->obs));
    print_cost(job, g);
done:
    return st;
}

/* ---- run ---- */

/* The tables that atlas_writer_create wants; borrowed from `g` until the commit. */
struct layout {
    struct atlas_plan plan;
    struct atlas_modality_plan *modalities;
    struct atlas_source *sources;
    const uint8_t **measured; /* [modalities][sources] */
    struct atlas_share share;
    int64_t *first, *count;
    int32_t **entries; /* [modalities] */
};

static enum status lay_out_plan(const struct ingest *g, const struct config *config, struct layout *l)
{
    enum status st = ST_OK;
    int n = g->in.count, modalities = g->in.modality_count;
    TRY(NEW_ARRAY(l->modalities, modalities));
    TRY(NEW_ARRAY(l->sources, n));
    TRY(NEW_ARRAY(l->measured, modalities * n));
    for (int i = 0; i < n; i++) {
        const struct ingest_input *input = &g->in.inputs[i];
        l->sources[i] =
            (struct atlas_source){source_path(input->source), input->identity, input->first_row, input->rows};
    }
    for (int m = 0; m < modalities; m++) {
        const struct ingest_modality *modality = &g->in.modalities[m];
        for (int i = 0; i < n; i++) l->measured[m * n + i] = g->in.inputs[i].measured[m];
        l->modalities[m] =
            (struct atlas_modality_plan){modality->name, modality->kind, &modality->features, &l->measured[m * n]};
    }
    l->plan = (struct atlas_plan){.modalities = l->modalities,
                                  .modality_count = modalities,
                                  .sources = l->sources,
                                  .source_count = n,
                                  .obs = g->obs.fields,
                                  .obs_count = g->obs.count,
                                  .obs_names_unique = g->obs.names_unique,
                                  .rows = g->in.rows,
                                  .shard_rows = config_int(config, "ingest.shard_rows"),
                                  .seed = (uint64_t)config_int(config, "run.seed"),
                                  .shuffle = config_bool(config, "ingest.shuffle"),
                                  .config = g->stored_config};
done:
    return st;
}

/* Entries of this rank's rows of modality `m`, input by input; -1 where the input lacks it. */
static enum status list_entries(const struct ingest *g, int m, int64_t rows, int32_t **out)
{
    enum status st = ST_OK;
    int64_t at = 0;
    TRY(NEW_ARRAY(*out, rows));
    for (int i = 0; i < g->in.count; i++) {
        const struct ingest_input *input = &g->in.inputs[i];
        for (int64_t r = 0; r < input->my_count; r++, at++)
            (*out)[at] = input->view[m] < 0 ? -1 : (int32_t)input->sizes[(int64_t)input->view[m] * input->my_count + r];
    }
done:
    return st;
}

static enum status lay_out_share(const struct ingest *g, struct layout *l)
{
    enum status st = ST_OK;
    int64_t rows = 0;
    int ranges = 0;
    TRY(NEW_ARRAY(l->first, g->in.count));
    TRY(NEW_ARRAY(l->count, g->in.count));
    TRY(NEW_ARRAY(l->entries, g->in.modality_count));
    for (int i = 0; i < g->in.count; i++) {
        const struct ingest_input *input = &g->in.inputs[i];
        if (input->my_count == 0) continue;
        l->first[ranges] = input->first_row + input->my_first;
        l->count[ranges++] = input->my_count;
        rows += input->my_count;
    }
    for (int m = 0; m < g->in.modality_count; m++) TRY(list_entries(g, m, rows, &l->entries[m]));
    l->share = (struct atlas_share){ranges, l->first, l->count, (const int32_t *const *)l->entries};
done:
    return st;
}

static void free_entries(struct layout *l, int modalities)
{
    for (int m = 0; l->entries && m < modalities; m++) free(l->entries[m]);
    free(l->entries);
    free(l->first);
    free(l->count);
    l->entries = NULL;
    l->first = l->count = NULL;
}

static void free_layout(struct layout *l, int modalities)
{
    free_entries(l, modalities);
    free(l->modalities);
    free(l->sources);
    free(l->measured);
}

/* A vocabulary that the user named must keep something of the data. */
static enum status check_share(const struct ingest *g, const struct config *config)
{
    const struct vocab_share *s = &g->shares[1];
    double least = config_real(config, "data.min_vocabulary_share");
    if (g->share_count < 2 || s->kept >= least * s->total) return ST_OK;
    return fail(ST_INPUT,
                "%s: this vocabulary keeps %.2f%% of the counts (%lld of its %d genes are measured); at least %.0f%% "
                "is needed: it is of "
                "another species or naming; name another --vocabulary or lower data.min_vocabulary_share",
                s->path, s->total > 0 ? 100 * s->kept / s->total : 0, (long long)s->genes, s->vocab->count,
                100 * least);
}

static enum status report(struct job *job, struct ingest *g)
{
    enum status st = ST_OK;
    struct ingest_report r = {&g->in, &g->obs, &g->figures, g->hgnc, g->hgnc_path, g->shares, g->share_count};
    char *path = text_format("%s.partial/ingest_report.tsv", config_text(job->config, "run.out"));
    for (int s = 0; s < g->share_count; s++) TRY(vocab_share_find(&g->in, &g->figures, &g->shares[s]));
    if (job->world.rank == 0) {
        TRY(ingest_report_write(&r, path));
        ingest_report_print(&r, stdout);
    }
    TRY(check_share(g, job->config));
done:
    free(path);
    return st;
}

static void note_resumed(struct comm *comm, const struct atlas_writer *writer)
{
    char cells[32];
    int64_t rows = atlas_writer_resumed_rows(writer);
    if (rows > 0) comm_note(comm, "going on: %s cells were written by an earlier run", text_count(rows, cells));
}

static enum status run(struct job *job)
{
    enum status st = ST_OK;
    struct comm *world = &job->world;
    struct ingest *g = job->state;
    struct layout l = {0};
    if (g->complete) return ST_OK;
    TRY(comm_agree(world, lay_out_plan(g, job->config, &l)));
    TRY(comm_agree(world, lay_out_share(g, &l)));
    TRY(atlas_writer_create(world, config_text(job->config, "run.out"), &l.plan, &l.share, &g->writer));
    free_entries(&l, g->in.modality_count);
    note_resumed(world, g->writer);
    TRY(comm_agree(world, ingest_figures_create(&g->in, &g->figures)));
    TRY(ingest_write_rows(world, job, &g->in, &g->obs, g->writer, &g->figures));
    TRY(comm_agree(world, report(job, g)));
    TRY(atlas_writer_commit(world, &g->writer));
done:
    atlas_writer_destroy(&g->writer); /* it borrows the layout */
    free_layout(&l, g->in.modality_count);
    return st;
}

static enum status commit(struct job *job)
{
    enum status st = ST_OK;
    struct ingest *g = job->state;
    const char *out = config_text(job->config, "run.out");
    int level = (int)config_int(job->config, "ingest.compress");
    char cells[32];
    if (level > 0) TRY(atlas_compress(&job->world, out, level));
    if (g->complete) {
        comm_note(&job->world, "%s is complete already; nothing to do", out);
        return ST_OK;
    }
    double seconds = clock_s() - g->start_s;
    comm_note(&job->world, "%s: written in %.1f s, %s cells/s", out, seconds,
              text_count((int64_t)((double)g->in.rows / seconds), cells));
done:
    return st;
}

static void release(struct job *job)
{
    struct ingest *g = job->state;
    for (int s = 0; s < 2; s++) vocab_share_free(&g->shares[s]);
    ingest_figures_free(&g->figures);
    ingest_obs_free(&g->obs);
    ingest_inputs_close(&g->in);
    hgnc_destroy(&g->hgnc);
    free(g->hgnc_path);
    for (int s = 0; s < 2; s++) free(g->vocab_path[s]);
    free(g->stored_config);
}

static const struct job_option options[] = {
    {"counts", "WHERE", "ingest.counts", "where counts lie in .h5ad: auto, X, raw/X, layers/NAME"},
    {"need-counts", NULL, "ingest.need_counts", "refuse inputs whose values are not counts"},
    {"modality", "NAME", "ingest.modality", "modality of .h5ad inputs whose var does not say"},
    {"genome", "NAME", "ingest.genome", "genome to take from a 10x .h5 with several"},
    {"obs-table", "TSV", "ingest.obs_table", "labels to join to obs"},
    {"obs-key", "COLUMN", "ingest.obs_key", "its column of barcodes or obs names"},
    {"perturbation", "COLUMN", "ingest.perturbation", "obs column of perturbation labels: A+B, A+ctrl, control"},
    {"hgnc", "TSV", "ingest.hgnc", "HGNC complete set for gene identity"},
    {"vocabulary", "FILE", "data.vocabulary", "vocabulary whose share of counts is reported too"},
    {"compress", "LEVEL", "ingest.compress", "deflate the shards after the commit"},
    {0}};

static const struct job_spec spec = {.program = "cytomill-ingest",
                                     .purpose = "count matrices to one atlas that keeps every cell and every feature",
                                     .usage = "INPUT... --out ATLAS [options]",
                                     .reads = ".h5ad files of any AnnData version, 10x .h5 files, 10x folders "
                                              "(matrix.mtx, barcodes.tsv, genes.tsv or features.tsv)",
                                     .writes =
                                         "ATLAS/mod/MODALITY/shard-*.h5ad, ATLAS/index.h5, ATLAS/ingest_report.tsv",
                                     .example = "cytomill-ingest tests/data/pbmc3k --out build/pbmc3k",
                                     .sections = "run ingest data",
                                     .positional = "run.input",
                                     .options = options,
                                     .takes = TAKES_SEED | TAKES_FRESH,
                                     .stop_beside = true,
                                     .state_bytes = sizeof(struct ingest),
                                     .prepare = prepare,
                                     .run = run,
                                     .commit = commit,
                                     .release = release};

int main(int argc, char **argv) { return job_main(argc, argv, &spec); }
