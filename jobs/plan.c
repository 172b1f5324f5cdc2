/* cytomill-plan: what a training will cost on a cluster, and how to lay it out, before a node hour is spent. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "jobs/data_path.h"
#include "jobs/layout_keys.h"
#include "jobs/plan_state.h"
#include "kernel/isa.h"
#include "kernel/product.h"

static bool calibrates(const struct job *job) { return *config_text(job->config, "plan.calibrate"); }

static enum status read_vocabulary(struct job *job)
{
    struct planning *p = job->state;
    enum status st = ST_OK;
    char *path = NULL;
    TRY(data_path_vocabulary(config_text(job->config, "data.vocabulary"), &path));
    TRY(vocab_read(path, &p->vocab));
done:
    free(path);
    return st;
}

/* Training in bf16: as the configuration says; auto follows the cluster file, which is of another machine. */
static bool trains_bf16(const struct job *job)
{
    const struct config *c = job->config;
    bool known = config_real(c, "cluster.bf16_gflops") > 0 || config_real(c, "cluster.fp32_gflops") > 0;
    if (config_word_is(c, "run.precision", "auto") && known && !calibrates(job))
        return config_real(c, "cluster.bf16_gflops") > 0;
    return product_choose_bf16(config_text(c, "run.precision"));
}

/* As checkpoint_saver_create does where the file system is one that all nodes see. */
static bool copies_checkpoints(const struct config *c)
{
    bool by_mpi = config_word_is(c, "run.io", "ompio") || config_word_is(c, "run.io", "romio");
    return config_bool(c, "train.checkpoint_async") && !by_mpi;
}

static enum status describe_job(struct job *job)
{
    struct planning *p = job->state;
    const struct config *c = job->config;
    int64_t genes = config_int(c, "model.max_genes");
    double mean = config_real(c, "plan.genes");
    if (mean > (double)genes)
        return config_fail(c, "plan.genes", "the model sees no more than %lld genes of a cell (model.max_genes)",
                           (long long)genes);
    bool in_bf16 = trains_bf16(job);
    p->job = (struct plan_job){.config = c,
                               .vocab = p->vocab,
                               .bf16 = in_bf16,
                               .exchange_bf16 = layout_exchange_bf16(c, in_bf16),
                               .copies = copies_checkpoints(c),
                               .batch = config_int(c, "train.batch"),
                               .steps = config_int(c, "train.steps"),
                               .max_genes = (int)genes,
                               .genes = mean > 0 ? mean : (double)genes,
                               .genes_sd = config_real(c, "plan.genes_sd")};
    return ST_OK;
}

/* What the configuration fixes; a micro-batch is only bounded, as results do not depend on it. */
static struct plan_wanted wanted_by(const struct config *c)
{
    struct plan_wanted w = {.data = (int)config_int(c, "mesh.data")};
    if (config_is_given(c, "mesh.pipe")) w.pipe = (int)config_int(c, "mesh.pipe");
    if (config_is_given(c, "mesh.expert")) w.expert = (int)config_int(c, "mesh.expert");
    if (config_is_given(c, "mesh.chunks")) w.chunks = (int)config_int(c, "mesh.chunks");
    if (config_is_given(c, "train.micro_batch")) w.most_micro = (int)config_int(c, "train.micro_batch");
    w.has_recompute = config_is_given(c, "train.recompute");
    w.recompute = config_bool(c, "train.recompute");
    w.has_schedule = config_is_given(c, "mesh.schedule");
    w.schedule = layout_schedule(c);
    w.has_turns = !config_word_is(c, "mesh.turns", "auto");
    w.turns = config_word_is(c, "mesh.turns", "always");
    return w;
}

/* mesh.layers says how many stages there are, unless mesh.pipe and mesh.chunks do. */
static enum status take_blocks(struct job *job)
{
    struct planning *p = job->state;
    struct plan_wanted *w = &p->wanted;
    enum status st = ST_OK;
    int count;
    config_list(job->config, "mesh.layers", &count);
    if (count == 0) return ST_OK;
    int chunks = w->chunks ? w->chunks : 1, stages = w->pipe ? w->pipe : count / chunks;
    TRY(NEW_ARRAY(p->blocks, count));
    TRY(layout_read_blocks(job->config, stages, chunks, (int)config_int(job->config, "model.layers"), p->blocks));
    w->pipe = stages;
    w->chunks = chunks;
    w->parts = count;
    w->blocks = p->blocks;
done:
    return st;
}

static enum status check_experts(const struct config *c)
{
    int64_t ranks = config_int(c, "mesh.expert"), experts = config_int(c, "model.experts");
    if (ranks == 1) return ST_OK;
    if (!config_word_is(c, "model.feed_forward", "moe"))
        return config_fail(c, "mesh.expert",
                           "this model has no experts to share out; set it to 1, or "
                           "model.feed_forward to moe");
    if (experts % ranks == 0) return ST_OK;
    return config_fail(c, "mesh.expert",
                       "%lld ranks do not divide the %lld experts of a layer (model.experts); choose a "
                       "divisor",
                       (long long)ranks, (long long)experts);
}

static enum status prepare_local(struct job *job)
{
    struct planning *p = job->state;
    enum status st = ST_OK;
    TRY(kernel_select(config_text(job->config, "run.isa")));
    TRY(plan_read_cluster(job->config));
    TRY(read_vocabulary(job));
    TRY(describe_job(job));
    TRY(check_experts(job->config));
    p->wanted = wanted_by(job->config);
    TRY(take_blocks(job));
    if (!calibrates(job)) TRY(plan_machine_from(job->config, p->job.bf16, &p->machine));
done:
    return st;
}

static enum status prepare(struct job *job) { return comm_agree(&job->world, prepare_local(job)); }

static enum status plan_and_tell(struct job *job)
{
    struct planning *p = job->state;
    enum status st = ST_OK;
    char *report = NULL;
    TRY(plan_open(&p->job, &p->machine, &p->plan));
    TRY(plan_search(p->plan, &p->wanted, &p->found));
    TRY(plan_report(job, &report));
    if (*config_text(job->config, "plan.json")) TRY(plan_write_json(job));
    if (*config_text(job->config, "plan.sbatch")) TRY(plan_write_batch(job));
    fputs(report, stdout);
done:
    free(report);
    return st;
}

static enum status run(struct job *job)
{
    if (calibrates(job)) return plan_calibrate(job);
    return comm_agree(&job->world, job->world.rank == 0 ? plan_and_tell(job) : ST_OK);
}

static void release(struct job *job)
{
    struct planning *p = job->state;
    plan_close(&p->plan);
    vocab_destroy(&p->vocab);
    free(p->blocks);
}

static const struct job_option options[] = {
    {"cluster", "FILE", "plan.cluster", "section cluster: nodes, cores, memory, rates"},
    {"nodes", "N", "cluster.nodes", "nodes the training may take"},
    {"genes", "N", "plan.genes", "mean genes of a cell that the model sees; 0 = model.max_genes"},
    {"calibrate", "FILE", "plan.calibrate", "instead: measure this machine with this model and write FILE"},
    {"sbatch", "FILE", "plan.sbatch", "write a batch file for the layout"},
    {"json", "FILE", "plan.json", "write the plan for programs"},
    {0}};

static const struct job_spec spec = {
    .program = "cytomill-plan",
    .purpose = "say what a training will take on a cluster, and the best way to lay it out, before it is started",
    .usage = "--config FILE --cluster FILE [--sbatch FILE] | --config FILE --calibrate FILE",
    .reads = "a configuration as cytomill-pretrain takes it, a cluster file; no atlas",
    .writes = "the plan to stdout; with the options FILE: a cluster file, a batch file, JSON",
    .example = "cytomill-plan --config configs/cellfm-800m.yaml --cluster configs/cluster.yaml --nodes 64",
    .sections = "run data model train mesh cluster plan",
    .options = options,
    .takes = TAKES_KERNELS,
    .stop_beside = true,
    .state_bytes = sizeof(struct planning),
    .prepare = prepare,
    .run = run,
    .release = release,
};

int main(int argc, char **argv) { return job_main(argc, argv, &spec); }
