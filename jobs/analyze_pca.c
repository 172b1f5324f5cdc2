/* cytomill-analyze pca: the baseline beside every embedding. */
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/text.h"
#include "io/pca_write.h"
#include "jobs/analyze.h"
#include "mpi/dense.h"

struct state {
    struct cell_input input;
    struct pca *pca;
};

/* Memory and work, before anything is done. All genes that are there is the upper bound of "all". */
static void print_cost(struct job *job, const struct state *s, int64_t genes, int components)
{
    char bytes[32], cells[32];
    int rows, cols;
    int64_t n = genes > 0 && genes < s->input.features->count ? genes : s->input.features->count;
    dense_grid_shape(job->world.size, &rows, &cols);
    comm_note(&job->world,
              "%s cells, %lld%s genes, %d components: covariance on a %d x %d grid of %d ranks, %s a rank; %.3g TFLOP",
              text_count(s->input.count, cells), (long long)n, genes == 0 ? " or fewer (those that vary)" : "",
              components, rows, cols, job->world.size, text_bytes(dense_bytes(job->world.size, n), bytes),
              1e-12 * ((double)s->input.count + 4.0 / 3 * (double)n) * (double)n * (double)n);
}

static enum status check_size(const struct state *s, int components)
{
    if (components < s->input.count) return ST_OK;
    return fail(ST_CONFIG,
                "%d components asked of %lld cells; at most %lld; lower analyze.components or take more cells",
                components, (long long)s->input.count, (long long)s->input.count - 1);
}

static enum status prepare(struct job *job)
{
    enum status st = ST_OK;
    struct state *s = job->state;
    int64_t genes;
    int components;
    st = analyze_need_out(job);
    if (st == ST_OK) st = analyze_pca_size(job, &genes, &components);
    TRY(comm_agree(&job->world, st));
    TRY(analyze_open_counts(job, &s->input));
    TRY(comm_agree(&job->world, check_size(s, components)));
    print_cost(job, s, genes, components);
done:
    return st;
}

static void print_result(const struct job *job, const struct pca *p)
{
    double sum = 0;
    comm_print(&job->world, "component\tvariance\tratio\tcumulative\n");
    for (int k = 0; k < p->components; k++) {
        sum += p->variance[k];
        if (k < 10 || k == p->components - 1)
            comm_print(&job->world, "%d\t%.6g\t%.4f\t%.4f\n", k + 1, p->variance[k], p->variance[k] / p->total_variance,
                       sum / p->total_variance);
    }
}

static enum status run(struct job *job)
{
    enum status st = ST_OK;
    struct state *s = job->state;
    double start = clock_s();
    TRY(analyze_fit_pca(job, &s->input, &s->pca));
    print_result(job, s->pca);
    comm_note(&job->world, "%lld genes, %d components, %.1f s", (long long)s->pca->genes, s->pca->components,
              clock_s() - start);
done:
    return st;
}

static enum status commit(struct job *job)
{
    struct state *s = job->state;
    const struct h5ad_note notes[] = {{.name = "pca/transform", .text = "ln(1 + 1e4 x / T), centred, not scaled"},
                                      {.name = "pca/genes", .number = (double)s->pca->genes},
                                      {.name = "pca/total_variance", .number = s->pca->total_variance},
                                      {.name = "pca/input", .text = s->input.identity},
                                      {.name = "cytomill/version", .text = job_version_text()}};
    return pca_write(&job->world, config_text(job->config, "run.out"), s->pca, &s->input, notes,
                     sizeof notes / sizeof *notes);
}

static void release(struct job *job)
{
    struct state *s = job->state;
    pca_destroy(&s->pca);
    cell_input_close(&s->input);
}

static const struct job_option options[] = {{"components", "K", "analyze.components", "components to keep"},
                                            {"genes", "N", "analyze.genes", "genes of largest variance, or all"},
                                            {0}};

const struct job_spec analyze_pca = {
    .program = "cytomill-analyze pca",
    .purpose = "exact principal components of log-normalised counts",
    .usage = "--atlas ATLAS --out FILE.h5ad [options]",
    .reads = "an atlas, or an .h5ad or 10x file of counts",
    .writes = "FILE.h5ad with obsm/X_pca, varm/PCs, uns/pca/{variance, variance_ratio}",
    .example = "mpirun -n 2 cytomill-analyze pca --atlas build/pbmc3k --out build/pca.h5ad --components 50",
    .sections = "run data analyze",
    .positional = "run.input",
    .options = options,
    .takes = TAKES_ATLAS | TAKES_CELLS,
    .stop_beside = true,
    .state_bytes = sizeof(struct state),
    .prepare = prepare,
    .run = run,
    .commit = commit,
    .release = release,
};
