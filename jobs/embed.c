/* cytomill-embed: every cell of an atlas or of a count file becomes a vector (the cls row of the trained
 * model), written beside its own obs columns, in its own order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/text.h"
#include "io/embed_chunk.h"
#include "io/embedding.h"
#include "jobs/model_output.h"
#include "kernel/isa.h"
#include "kernel/product.h"

struct embed {
    struct inference inf;
    struct cell_input input;
    struct embedding *out;
    struct embed_chunk work;
    double seconds; /* of the run so far */
    int64_t cells;  /* embedded by this rank */
    int64_t reasons[EMBED_REASON_COUNT];
};

static int64_t chunk_cells(const struct job *job) { return config_int(job->config, "embed.chunk"); }

/* ---- prepare ---- */

static enum status find_input(const struct config *config, const char **path)
{
    int count;
    const char *const *inputs = config_list(config, "run.input", &count);
    const char *atlas = config_text(config, "run.atlas");
    *path = count > 0 ? inputs[0] : atlas;
    if (count > 1 || (count == 1 && *atlas && strcmp(atlas, inputs[0]) != 0))
        return fail(ST_USAGE, "several inputs given ('%s', '%s'); embed takes one atlas or one count file", inputs[0],
                    count > 1 ? inputs[1] : atlas);
    if (!**path) return fail(ST_USAGE, "no input given; name an atlas, an .h5ad or a 10x file or folder");
    if (!*config_text(config, "run.out")) return fail(ST_USAGE, "no output given; name it with --out FILE.h5ad");
    return ST_OK;
}

/* Time one chunk of a sample and scale it up: what --dry-run tells. */
static enum status predict_cost(struct job *job, struct embed *e)
{
    enum status st = ST_OK;
    char duration[32], size[32], count[32];
    int64_t sample = e->input.count < 64 ? e->input.count : 64;
    double seconds = 0;
    TRY(comm_agree(&job->world, embed_chunk_create(&e->inf, sample, &e->work)));
    for (int round = 0; round < 2 && st == ST_OK; round++) { /* the first warms up */
        double start = clock_s();
        e->work.tokens = 0;
        st = embed_chunk_run(&e->inf, &e->input, 0, sample, &e->work);
        seconds = clock_s() - start;
    }
    TRY(comm_agree(&job->world, st));
    comm_sum_f64(&job->world, &seconds, 1);
    double total = seconds / job->world.size / (double)sample * (double)e->input.count / job->world.size;
    comm_note(&job->world,
              "about %s on %d ranks for %s cells (%.0f tokens each, %.3g TFLOP in all), measured on %ld cells; "
              "output %s of embeddings",
              text_duration(total, duration), job->world.size, text_count(e->input.count, count),
              (double)e->work.tokens / (double)sample,
              1e-12 * e->inf.cost.forward_flops_per_token * (double)e->work.tokens / (double)sample *
                  (double)e->input.count,
              (long)sample, text_bytes((double)e->input.count * e->inf.width * sizeof(float), size));
done:
    embed_chunk_free(&e->work);
    return st;
}

static enum status prepare(struct job *job)
{
    enum status st = ST_OK;
    const char *path = NULL;
    char size[32];
    struct embed *e = job->state;
    TRY(comm_agree(&job->world, find_input(job->config, &path)));
    TRY(cell_input_open(&job->world, job->config, path, config_text(job->config, "embed.counts"), &e->input));
    TRY(inference_open(&job->world, job->config, job->placement.threads, &e->inf));
    TRY(model_output_map(job, &e->inf, &e->input));
    job_note_kernels(job, e->inf.bf16);
    comm_note(
        &job->world, "%s: %ld parameters, width %d, %s per rank", model_name(e->inf.model),
        (long)e->inf.cost.parameters, e->inf.width,
        text_bytes((double)(e->inf.cost.weight_bytes + e->inf.cost.packed_bytes + e->inf.cost.activation_bytes), size));
    if (job->dry_run) TRY(predict_cost(job, e));
done:
    return st;
}

/* ---- run ---- */

/* Everything a row depends on. */
static void make_key(const struct job *job, const struct embed *e, char key[SHA256_HEX])
{
    struct text all = {0};
    model_output_key(job, "embedding 1", &e->inf, &e->input, &all);
    text_add(&all, "%s\n%s\n%d %d %ld %g\n", config_text(job->config, "embed.counts"), kernel_isa_name(), e->inf.bf16,
             e->inf.width, (long)chunk_cells(job), config_real(job->config, "embed.obsm_max_gib"));
    hash_sha256(all.data, all.length, key);
    text_free(&all);
}

static enum status open_output(struct job *job, struct embed *e)
{
    struct embedding_plan plan = {.path = config_text(job->config, "run.out"),
                                  .input = &e->input,
                                  .model = model_name(e->inf.model),
                                  .width = e->inf.width,
                                  .chunk_cells = chunk_cells(job),
                                  .fresh = config_bool(job->config, "run.fresh"),
                                  .obsm_max_bytes = config_real(job->config, "embed.obsm_max_gib") * (double)(1 << 30)};
    make_key(job, e, plan.key);
    struct h5ad_note notes[] = {
        {.name = "cytomill/key", .text = plan.key},
        {.name = "cytomill/version", .text = job_version_text()},
        {.name = "cytomill/model", .text = plan.model},
        {.name = "cytomill/weights", .text = e->inf.weights},
        {.name = "cytomill/weights_licence", .text = config_text(job->config, "model.licence")},
        {.name = "cytomill/configuration", .text = e->inf.config_text},
        {.name = "cytomill/vocabulary_sha256", .text = e->inf.vocab->sha256},
        {.name = "cytomill/input_sha256", .text = e->input.identity},
        {.name = "cytomill/cells", .text = config_text(job->config, "run.cells")},
        {.name = "cytomill/instruction_set", .text = kernel_isa_name()},
        {.name = "cytomill/products", .text = product_version_text()},
        {.name = "cytomill/precision", .text = e->inf.bf16 ? "bf16" : "fp32"},
        {.name = "cytomill/counts", .text = e->input.counts}}; /* of an .h5ad: where they were taken from */
    plan.notes = notes;
    plan.note_count = sizeof notes / sizeof *notes - !*e->input.counts;
    return embedding_open(&job->world, &plan, &e->out);
}

static enum status do_chunk(void *context, int64_t chunk)
{
    enum status st = ST_OK;
    struct embed *e = context;
    int64_t first, count;
    embedding_chunk_cells(e->out, chunk, &first, &count);
    TRY(embed_chunk_run(&e->inf, &e->input, first, count, &e->work));
    TRY(embedding_put(e->out, chunk, e->work.z, e->work.reason));
    e->cells += count;
done:
    return st;
}

static enum status run(struct job *job)
{
    enum status st = ST_OK;
    struct embed *e = job->state;
    double start = clock_s();
    TRY(open_output(job, e));
    if (embedding_is_complete(e->out)) {
        comm_note(&job->world, "%s is complete already; nothing to do", config_text(job->config, "run.out"));
        goto done;
    }
    TRY(comm_agree(&job->world, embed_chunk_create(&e->inf, chunk_cells(job), &e->work)));
    struct chunk_loop loop = {.what = "embed",
                              .rate = "cells_per_s",
                              .items_per_chunk = (double)chunk_cells(job),
                              .work = do_chunk,
                              .context = e};
    TRY(chunk_loop_run(&job->world, embedding_partial(e->out), &loop));
    TRY(embedding_reopen(&job->world, e->out));
    TRY(embedding_count_reasons(&job->world, e->out, e->reasons));
    e->seconds = clock_s() - start;
done:
    return st;
}

/* ---- commit ---- */

/* Rank 0. Also of a file that an earlier run had committed when it was killed. */
static enum status compress(const struct config *config)
{
    enum status st = ST_OK;
    bool compressed;
    const char *out = config_text(config, "run.out");
    int level = (int)config_int(config, "embed.compress");
    if (level == 0) return ST_OK;
    TRY(h5ad_is_compressed(out, &compressed));
    if (!compressed) TRY(h5ad_compress(out, level));
done:
    return st;
}

static enum status write_record(struct job *job, const char *path)
{
    struct embed *e = job->state;
    comm_sum_i64(&job->world, &e->cells, 1);
    const struct metric metrics[] = {
        {"cells", (double)e->input.count},
        {"cells_this_run", (double)e->cells},
        {"cells_per_s", (double)e->cells / e->seconds},
        {"cells_without_embedding", (double)(e->reasons[EMBED_NO_GENE] + e->reasons[EMBED_NOT_FINITE])}};
    return model_output_record(job, path, e->seconds, metrics, sizeof metrics / sizeof *metrics);
}

/* What an earlier run left undone after the commit. The cells were not counted, so its record says less. */
static enum status finish_complete(struct job *job, const char *record)
{
    enum status st = ST_OK;
    const struct metric cells = {"cells", (double)((struct embed *)job->state)->input.count};
    TRY(comm_agree(&job->world, job->world.rank == 0 ? compress(job->config) : ST_OK));
    TRY(model_output_record_missing(job, record, &cells, 1));
done:
    return st;
}

static enum status commit(struct job *job)
{
    enum status st = ST_OK;
    struct embed *e = job->state;
    char *record = text_format("%s.run.json", config_text(job->config, "run.out"));
    if (embedding_is_complete(e->out)) {
        st = finish_complete(job, record);
        goto done;
    }
    TRY(embedding_commit(&job->world, &e->out));
    TRY(comm_agree(&job->world, job->world.rank == 0 ? compress(job->config) : ST_OK));
    TRY(write_record(job, record));
    for (int r = EMBED_NO_GENE; r < EMBED_REASON_COUNT; r++)
        if (e->reasons[r] > 0)
            comm_note(&job->world, "%ld cells have no embedding: %s (embedded=False, rows of NaN)", (long)e->reasons[r],
                      embed_reason_words((enum embed_reason)r));
    comm_note(&job->world, "%s: %ld cells, %.4g cells/s", config_text(job->config, "run.out"), (long)e->input.count,
              (double)e->cells / e->seconds);
done:
    free(record);
    return st;
}

static void release(struct job *job)
{
    struct embed *e = job->state;
    embedding_close(&e->out);
    embed_chunk_free(&e->work);
    cell_input_close(&e->input);
    inference_close(&e->inf);
}

static const struct job_option options[] = {
    {"counts", "WHERE", "embed.counts", "counts in an .h5ad input: auto, X, raw/X, layers/NAME"}, {0}};

static const struct job_spec spec = {
    .program = "cytomill-embed",
    .purpose = "turn every cell into the vector a trained model gives it",
    .usage = "--model CKPT ATLAS|INPUT --out FILE.h5ad [options]",
    .reads = "CKPT, a checkpoint or a training run (its newest); an atlas, or an .h5ad, 10x .h5 or 10x folder as it is",
    .writes = "FILE.h5ad: all obs columns, obsm/X_<model> (X itself above embed.obsm_max_gib), uns/cytomill;\n"
              "        FILE.h5ad.run.json: when, where, how fast; until done FILE.h5ad.partial and its .ledger;\n"
              "        a file FILE.h5ad.stop (or --stop-file) ends it in good order",
    .example = "mpirun -n 2 cytomill-embed --model build/run build/pbmc3k --out build/embeddings.h5ad",
    .sections = "run data model embed",
    .positional = "run.input",
    .options = options,
    .takes = TAKES_ATLAS | TAKES_MODEL | TAKES_KERNELS | TAKES_CELLS | TAKES_FRESH,
    .stop_beside = true,
    .state_bytes = sizeof(struct embed),
    .prepare = prepare,
    .run = run,
    .commit = commit,
    .release = release,
};

int main(int argc, char **argv) { return job_main(argc, argv, &spec); }
