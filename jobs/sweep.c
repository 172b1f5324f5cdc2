/* cytomill-sweep: every set of genes of a panel, knocked out or over-expressed in silico in the cells of a
 * group: how far it moves them in the model's embedding, and how far beyond its single genes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/text.h"
#include "io/screen_hits.h"
#include "io/screen_input.h"
#include "io/screening.h"
#include "jobs/model_output.h"
#include "kernel/isa.h"

struct sweep {
    struct inference inf;
    struct cell_input input;
    struct gene_list panel, readout;
    uint8_t *hidden; /* [V+1] read-out genes, removed from every cell */
    struct combination_space space;
    struct cohort cells, goal;
    int64_t group_cells, goal_cells;
    int64_t *carriers; /* [panel] */
    float *raised;     /* [panel] or NULL */
    struct screening *screening;
    struct results results;
    struct score_sum *sums; /* [chunk] */
    double *readout_sums;   /* [chunk, readout] */
    double seconds;
    char key[SHA256_HEX];
    char *results_path;
};

static bool over_expresses(const struct job *job)
{
    return config_word_is(job->config, "sweep.mode", "over-expression");
}

/* ---- prepare ---- */

static enum status check_paths(const struct config *config)
{
    if (!*config_text(config, "run.atlas")) return fail(ST_USAGE, "no atlas given; name it with --atlas");
    if (!*config_text(config, "run.out")) return fail(ST_USAGE, "no output given; name a folder with --out");
    return ST_OK;
}

/* Read-out genes, which may not be perturbed too. */
static enum status read_genes(const struct config *config, struct sweep *s)
{
    enum status st = ST_OK;
    TRY(gene_list_read(config, "sweep.readout", s->inf.vocab, &s->readout));
    TRY(gene_list_read(config, "sweep.genes", s->inf.vocab, &s->panel));
    TRY(NEW_ARRAY(s->hidden, s->inf.vocab->count + 1));
    for (int r = 0; r < s->readout.count; r++) s->hidden[s->readout.gene[r]] = 1;
    for (int g = 0; g < s->panel.count; g++)
        if (s->hidden[s->panel.gene[g]])
            TRY(fail(ST_CONFIG,
                     "gene %s is in sweep.genes and in sweep.readout; a read-out gene is removed from the input "
                     "and cannot be perturbed",
                     s->inf.vocab->genes[s->panel.gene[g] - 1].symbol));
done:
    return st;
}

/* The group: panel by default rule, percentiles, and the cells that are used. */
static enum status read_group(struct job *job, struct sweep *s)
{
    enum status st = ST_OK;
    struct comm *world = &job->world;
    const struct config *config = job->config;
    int64_t *rows = NULL;
    TRY(screen_select(world, config, s->input.atlas, config_text(config, "sweep.group"), &rows, &s->group_cells));
    if (s->panel.count == 0)
        TRY(screen_most_detected(world, &s->input, &s->inf, rows, s->group_cells, s->hidden,
                                 (int)config_int(config, "sweep.panel_size"), &s->panel));
    TRY(screen_draw(world, &s->input, &s->inf, rows, s->group_cells, config_int(config, "sweep.max_cells"),
                    (uint64_t)config_int(config, "run.seed"), s->hidden, &s->cells));
    TRY(comm_agree(world, NEW_ARRAY(s->carriers, s->panel.count)));
    for (int g = 0; g < s->panel.count; g++) s->carriers[g] = cohort_carriers(&s->cells, s->panel.gene[g]);
    if (over_expresses(job)) {
        TRY(comm_agree(world, NEW_ARRAY(s->raised, s->panel.count)));
        TRY(screen_percentiles(world, &s->input, &s->inf, rows, s->group_cells, &s->panel, s->raised));
    }
done:
    free(rows);
    return st;
}

static enum status read_goal(struct job *job, struct sweep *s)
{
    enum status st = ST_OK;
    const char *goal = config_text(job->config, "sweep.goal");
    int64_t *rows = NULL;
    if (!*goal) return ST_OK;
    TRY(screen_select(&job->world, job->config, s->input.atlas, goal, &rows, &s->goal_cells));
    TRY(screen_draw(&job->world, &s->input, &s->inf, rows, s->goal_cells, config_int(job->config, "sweep.max_cells"),
                    (uint64_t)config_int(job->config, "run.seed"), s->hidden, &s->goal));
done:
    free(rows);
    return st;
}

/* (cell, set) pairs to compute: exact for knock-out of singles and pairs from the carriers, else an upper bound. */
static double pair_count(const struct sweep *s)
{
    double pairs = 0, cells = (double)s->cells.count;
    for (int k = 1; k <= s->space.order; k++) {
        double share = 0; /* mean share of cells that carry a gene, to the k-th power */
        for (int g = 0; g < s->panel.count; g++) share += s->raised ? 1 : (double)s->carriers[g] / cells;
        share /= s->panel.count;
        double power = 1;
        for (int i = 0; i < k; i++) power *= share;
        pairs += (double)(s->space.first[k + 1] - s->space.first[k]) * cells * power;
    }
    return pairs;
}

static enum status print_cost(struct job *job, struct sweep *s)
{
    char sets[32], duration[32], pairs_text[32];
    double seconds = 0, pairs = pair_count(s), cells = (double)(s->cells.count + s->goal.count);
    double tokens = (double)s->cells.start[s->cells.count] / (double)s->cells.count;
    double flops = (pairs + cells) * tokens * s->inf.cost.forward_flops_per_token;
    comm_note(&job->world,
              "%d genes, sets of up to %d: %s sets, %ld of %ld cells of the group, about %s perturbed cells of %.0f "
              "tokens, %.3g TFLOP",
              s->panel.count, s->space.order, text_count(combination_count(&s->space), sets), (long)s->cells.count,
              (long)s->group_cells, text_count((int64_t)pairs, pairs_text), tokens, 1e-12 * flops);
    if (!job->dry_run) return ST_OK;
    enum status st = screening_time(&s->inf, &s->cells, &seconds);
    TRY(comm_agree(&job->world, st));
    comm_sum_f64(&job->world, &seconds, 1);
    comm_note(&job->world, "about %s on %d ranks, %.3g GB of results (measured: %.3g s a cell on a rank)",
              text_duration((pairs + cells) * seconds / job->world.size / job->world.size, duration), job->world.size,
              1e-9 * (double)combination_count(&s->space) * (double)(144 + 8 * s->readout.count),
              seconds / job->world.size);
done:
    return st;
}

static enum status prepare(struct job *job)
{
    enum status st = ST_OK;
    struct sweep *s = job->state;
    struct comm *world = &job->world;
    TRY(comm_agree(world, check_paths(job->config)));
    TRY(cell_input_open(world, job->config, config_text(job->config, "run.atlas"), "auto", &s->input));
    if (!s->input.atlas)
        st = fail(ST_INPUT, "%s: not an atlas (no index.h5 in it); make one with cytomill-ingest", s->input.path);
    TRY(comm_agree(world, st));
    TRY(inference_open(world, job->config, job->placement.threads, &s->inf));
    job_note_kernels(job, s->inf.bf16);
    TRY(model_output_map(job, &s->inf, &s->input));
    TRY(comm_agree(world, read_genes(job->config, s)));
    TRY(read_group(job, s));
    TRY(read_goal(job, s));
    TRY(comm_agree(world,
                   combination_space_create(s->panel.count, (int)config_int(job->config, "sweep.order"), &s->space)));
    TRY(print_cost(job, s));
done:
    return st;
}

/* ---- run ---- */

/* Everything a number in the results depends on. */
static void make_key(const struct job *job, struct sweep *s)
{
    struct text all = {0};
    const struct config *c = job->config;
    model_output_key(job, "sweep 2", &s->inf, &s->input, &all);
    text_add(&all, "%s\n%s\n", config_text(c, "sweep.group"), config_text(c, "sweep.goal"));
    text_add(&all, "%s %s %d %ld %ld %d %ld\n", config_text(c, "sweep.mode"), kernel_isa_name(), s->inf.bf16,
             (long)config_int(c, "run.seed"), (long)config_int(c, "sweep.max_cells"), s->space.order,
             (long)config_int(c, "sweep.chunk"));
    for (int g = 0; g < s->panel.count; g++) text_add(&all, "%d ", s->panel.gene[g]);
    for (int r = 0; r < s->readout.count; r++) text_add(&all, "r%d ", s->readout.gene[r]);
    hash_sha256(all.data, all.length, s->key);
    text_free(&all);
}

static enum status open_results(struct job *job, struct sweep *s)
{
    const struct config *c = job->config;
    struct results_plan plan = {.path = s->results_path,
                                .space = s->space,
                                .chunk_sets = config_int(c, "sweep.chunk"),
                                .vocab = s->inf.vocab,
                                .panel = s->panel.gene,
                                .readout = s->readout.gene,
                                .readout_count = s->readout.count,
                                .carriers = s->carriers,
                                .raised = s->raised};
    const struct h5ad_note notes[] = {{.name = "version", .text = job_version_text()},
                                      {.name = "model", .text = model_name(s->inf.model)},
                                      {.name = "weights", .text = s->inf.weights},
                                      {.name = "weights_licence", .text = config_text(c, "model.licence")},
                                      {.name = "configuration", .text = s->inf.config_text},
                                      {.name = "vocabulary_sha256", .text = s->inf.vocab->sha256},
                                      {.name = "atlas_sha256", .text = s->input.identity},
                                      {.name = "cells", .text = config_text(c, "run.cells")},
                                      {.name = "group", .text = config_text(c, "sweep.group")},
                                      {.name = "goal", .text = config_text(c, "sweep.goal")},
                                      {.name = "mode", .text = config_text(c, "sweep.mode")},
                                      {.name = "instruction_set", .text = kernel_isa_name()},
                                      {.name = "precision", .text = s->inf.bf16 ? "bf16" : "fp32"},
                                      {.name = "order", .number = s->space.order},
                                      {.name = "seed", .number = (double)config_int(c, "run.seed")},
                                      {.name = "group_cells", .number = (double)s->group_cells},
                                      {.name = "cells_used", .number = (double)s->cells.count},
                                      {.name = "goal_cells_used", .number = (double)s->goal.count},
                                      {.name = "min_cells", .number = (double)config_int(c, "sweep.min_cells")}};
    plan.notes = notes;
    plan.note_count = sizeof notes / sizeof *notes;
    memcpy(plan.key, s->key, SHA256_HEX);
    return results_open(&job->world, &plan, config_bool(c, "run.fresh"), &s->results);
}

static enum status open_screening(struct job *job, struct sweep *s)
{
    enum status st = ST_OK;
    struct screening_plan plan = {.inference = &s->inf,
                                  .cells = &s->cells,
                                  .goal = s->goal.count > 0 ? &s->goal : NULL,
                                  .space = s->space,
                                  .panel = s->panel.gene,
                                  .mode = over_expresses(job) ? EDIT_OVER_EXPRESS : EDIT_KNOCK_OUT,
                                  .raised = s->raised,
                                  .readout = s->readout.gene,
                                  .readout_count = s->readout.count};
    int64_t chunk = config_int(job->config, "sweep.chunk");
    st = NEW_ARRAY(s->sums, chunk);
    if (st == ST_OK) st = NEW_ARRAY(s->readout_sums, chunk * (s->readout.count + 1));
    TRY(comm_agree(&job->world, st));
    TRY(screening_create(&job->world, &plan, &s->screening));
    TRY(screening_open_singles(&job->world, s->screening, config_text(job->config, "run.out"), s->key));
done:
    return st;
}

static enum status do_singles(void *context, int64_t chunk)
{
    struct sweep *s = context;
    return screening_do_singles(s->screening, chunk);
}

static enum status do_sets(void *context, int64_t chunk)
{
    enum status st = ST_OK;
    struct sweep *s = context;
    int64_t first, count;
    results_chunk_sets(&s->results, chunk, &first, &count);
    TRY(screening_do_sets(s->screening, first, count, s->sums, s->readout_sums));
    TRY(results_put(&s->results, chunk, s->sums, s->readout_sums));
done:
    return st;
}

static enum status work_through(struct job *job, struct sweep *s)
{
    enum status st = ST_OK;
    struct partial *singles = screening_singles(s->screening);
    struct chunk_loop loop = {.what = "single genes",
                              .rate = "genes_per_s",
                              .work = do_singles,
                              .context = s,
                              .items_per_chunk = (double)s->panel.count / (double)singles->chunks};
    TRY(chunk_loop_run(&job->world, singles, &loop));
    loop.what = "gene sets";
    loop.rate = "sets_per_s";
    loop.work = do_sets;
    loop.items_per_chunk = (double)config_int(job->config, "sweep.chunk");
    TRY(chunk_loop_run(&job->world, &s->results.partial, &loop));
done:
    return st;
}

static enum status run(struct job *job)
{
    enum status st = ST_OK;
    struct sweep *s = job->state;
    double start = clock_s();
    const char *folder = config_text(job->config, "run.out");
    TRY(comm_agree(&job->world, job->world.rank == 0 ? text_make_folder(folder) : ST_OK));
    s->results_path = text_format("%s/results.h5", folder);
    make_key(job, s);
    TRY(open_results(job, s));
    if (s->results.complete) {
        comm_note(&job->world, "%s is complete already: nothing to compute, its hits are ranked", s->results_path);
        goto done;
    }
    TRY(open_screening(job, s));
    TRY(work_through(job, s));
    s->seconds = clock_s() - start;
done:
    return st;
}

/* ---- commit ---- */

/* What an earlier run left undone after the commit, and what may have been asked anew since. */
static enum status finish_complete(struct job *job, const char *record, int64_t min_cells)
{
    enum status st = ST_OK;
    struct sweep *s = job->state;
    const struct metric metrics[] = {{"sets", (double)combination_count(&s->space)}, {"cells", (double)s->cells.count}};
    TRY(results_restate(&job->world, &s->results, "min_cells", (double)min_cells));
    TRY(model_output_record_missing(job, record, metrics, sizeof metrics / sizeof *metrics));
done:
    return st;
}

static enum status write_record(struct job *job, const char *record, int64_t tokens, int64_t unranked)
{
    struct sweep *s = job->state;
    const struct metric metrics[] = {{"sets", (double)combination_count(&s->space)},
                                     {"cells", (double)s->cells.count},
                                     {"tokens_this_run", (double)tokens},
                                     {"sets_with_too_few_cells", (double)unranked},
                                     {"tokens_per_s", (double)tokens / s->seconds}};
    return model_output_record(job, record, s->seconds, metrics, sizeof metrics / sizeof *metrics);
}

static enum status commit(struct job *job)
{
    enum status st = ST_OK;
    struct sweep *s = job->state;
    int64_t unranked = 0, tokens, min_cells = config_int(job->config, "sweep.min_cells");
    const char *folder = config_text(job->config, "run.out");
    char *record = text_format("%s/run.json", folder);
    TRY(hits_write(&job->world, &s->results, folder, config_int(job->config, "sweep.top"), min_cells, &unranked));
    comm_note(&job->world, "%s/hits.tsv: %ld sets, %ld of them in fewer than sweep.min_cells cells and not ranked",
              folder, (long)combination_count(&s->space), (long)unranked);
    if (s->results.complete) {
        st = finish_complete(job, record, min_cells);
        goto done;
    }
    tokens = screening_tokens(s->screening);
    comm_sum_i64(&job->world, &tokens, 1);
    TRY(results_commit(&job->world, &s->results));
    TRY(partial_discard(&job->world, screening_singles(s->screening)));
    TRY(write_record(job, record, tokens, unranked));
done:
    free(record);
    return st;
}

static void release(struct job *job)
{
    struct sweep *s = job->state;
    screening_destroy(&s->screening);
    results_close(&s->results);
    cohort_free(&s->cells);
    cohort_free(&s->goal);
    gene_list_free(&s->panel);
    gene_list_free(&s->readout);
    cell_input_close(&s->input);
    inference_close(&s->inf);
    free(s->hidden);
    free(s->carriers);
    free(s->raised);
    free(s->sums);
    free(s->readout_sums);
    free(s->results_path);
}

static const struct job_option options[] = {
    {"genes", "LIST|FILE", "sweep.genes", "the panel: symbols or Ensembl ids"},
    {"mode", "MODE", "sweep.mode", "knock-out or over-expression"},
    {"order", "K", "sweep.order", "largest set: 2 = all pairs"},
    {"group", "EXPR", "sweep.group", "cells of the screen, e.g. \"cell_type == 'B'\""},
    {"goal", "EXPR", "sweep.goal", "cells whose mean is the goal"},
    {0}};

static const struct job_spec spec = {
    .program = "cytomill-sweep",
    .purpose = "perturb every set of genes of a panel in silico and rank the sets",
    .usage = "--model CKPT --atlas ATLAS --out DIR [options]",
    .reads = "CKPT, a checkpoint or a training run (its newest); ATLAS, an atlas of counts",
    .writes = "DIR/hits.tsv, DIR/hits_columns.tsv (what its columns mean), DIR/results.h5 (every set),\n"
              "        DIR/run.json; until done DIR/*.partial and their ledgers",
    .example =
        "mpirun -n 2 cytomill-sweep --model build/run --atlas build/pbmc3k --genes CD3D,LYZ,NKG7 --out build/sweep",
    .sections = "run data model embed sweep",
    .options = options,
    .takes = TAKES_ATLAS | TAKES_MODEL | TAKES_SEED | TAKES_KERNELS | TAKES_CELLS | TAKES_FRESH,
    .state_bytes = sizeof(struct sweep),
    .prepare = prepare,
    .run = run,
    .commit = commit,
    .release = release,
};

int main(int argc, char **argv) { return job_main(argc, argv, &spec); }
