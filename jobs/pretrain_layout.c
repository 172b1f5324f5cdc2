/* How the ranks share the model and the work: mesh, blocks of each stage, micro-batches. */
#include <stdlib.h>

#include "base/text.h"
#include "jobs/layout_keys.h"
#include "jobs/pretrain_state.h"
#include "kernel/product.h"

static int parts_of(const struct pretrain *p) { return p->mesh.pipe.size * p->plan.chunks; }

static int smaller(int64_t a, int64_t b) { return (int)(a < b ? a : b); }

/* A replica's largest share of the batch, in micro-batches; evaluations fill the pipeline in any case. */
static struct stage_plan plan_of(const struct job *job, int64_t *share)
{
    const struct pretrain *p = job->state;
    const struct config *c = job->config;
    int replicas = p->mesh.dense.size, stages = p->mesh.pipe.size;
    *share = (config_int(c, "train.batch") + replicas - 1) / replicas;
    int64_t cells = smaller(config_int(c, "train.micro_batch"), *share);
    struct stage_plan plan = {.kind = layout_schedule(c), .chunks = (int)config_int(c, "mesh.chunks")};
    plan.micros = (int)((*share + cells - 1) / cells);
    plan.linked = p->mesh.expert.size > 1;
    plan.in_turns = stage_takes_turns(c, p->mesh.expert.size, stages, plan.micros);
    plan.loss_micros = stages > 1 && plan.micros < 2 * stages ? 2 * stages : plan.micros;
    return plan;
}

/* What no table of one key can say. */
static enum status check_layout(const struct job *job)
{
    const struct pretrain *p = job->state;
    const struct config *c = job->config;
    int64_t batch = config_int(c, "train.batch"), layers = config_int(c, "model.layers");
    bool interleaved = p->plan.kind == SCHEDULE_INTERLEAVED;
    if (p->mesh.dense.size > batch)
        return config_fail(c, "train.batch",
                           "%d replicas, but the global batch has %lld cells; start at most %lld ranks, use more "
                           "stages (mesh.pipe), or raise train.batch",
                           p->mesh.dense.size, (long long)batch, (long long)batch * p->mesh.pipe.size);
    if (p->plan.linked && !config_word_is(c, "model.feed_forward", "moe"))
        return config_fail(c, "mesh.expert",
                           "this model has no experts to share out; set it to 1, or model.feed_forward "
                           "to moe");
    if (p->plan.linked && config_int(c, "model.experts") % p->mesh.expert.size != 0)
        return config_fail(c, "mesh.expert",
                           "%d ranks do not divide the %lld experts of a layer (model.experts); choose "
                           "a divisor",
                           p->mesh.expert.size, (long long)config_int(c, "model.experts"));
    if (parts_of(p) > layers)
        return config_fail(c, "mesh.pipe",
                           "%d stages of %d chunks need as many blocks, the model has %lld (model.layers); use fewer",
                           p->mesh.pipe.size, p->plan.chunks, (long long)layers);
    if (p->plan.chunks > 1 && !interleaved)
        return config_fail(c, "mesh.chunks", "schedule %s has one chunk a stage; set mesh.schedule to interleaved",
                           schedule_name(p->plan.kind));
    if (interleaved && p->mesh.pipe.size < 2)
        return config_fail(c, "mesh.schedule", "interleaved needs at least 2 stages (mesh.pipe); use 1f1b");
    if (schedule_splits(p->plan.kind) && config_bool(c, "train.recompute"))
        return config_fail(c, "train.recompute",
                           "schedule %s keeps what weight gradients need, so nothing is won; use 1f1b, or do not "
                           "recompute",
                           schedule_name(p->plan.kind));
    return ST_OK;
}

/* mesh.layers: a count for each part. */
static enum status read_cut(const struct job *job, int layers)
{
    const struct pretrain *p = job->state;
    enum status st = layout_read_blocks(job->config, p->mesh.pipe.size, p->plan.chunks, layers, p->first + 1);
    for (int i = 0; i < parts_of(p) && st == ST_OK; i++) p->first[i + 1] += p->first[i];
    return st;
}

static enum status cut(struct job *job)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    struct model *whole = NULL;
    int given, parts = parts_of(p);
    config_list(job->config, "mesh.layers", &given);
    TRY(check_layout(job));
    TRY(NEW_ARRAY(p->first, parts + 1));
    TRY(NEW_ARRAY(p->trips, parts));
    p->first[0] = 0;
    TRY(model_create(job->config, p->vocab, NULL, &whole));
    if (given > 0) TRY(read_cut(job, model_layers(whole)));
    else TRY(stage_cut(whole, &p->limits, &p->plan, p->mesh.pipe.size, p->first));
    stage_trips(whole, parts, p->first, p->trips);
    if (p->plan.linked) p->plan.trips = p->trips;
done:
    model_destroy(&whole);
    return st;
}

static struct model_limits limits_of(const struct job *job, int64_t share)
{
    const struct pretrain *p = job->state;
    const struct config *c = job->config;
    int cells = smaller(config_int(c, "train.micro_batch"), share);
    return (struct model_limits){.cells = cells,
                                 .tokens = (int64_t)cells * (config_int(c, "model.max_genes") + 1),
                                 .train = true,
                                 .threads = job->placement.threads,
                                 .bf16 = product_choose_bf16(config_text(c, "run.precision")),
                                 .slots = stage_slots(&p->plan, p->mesh.pipe.size, p->mesh.pipe.rank),
                                 .splits = schedule_splits(p->plan.kind),
                                 .recompute = config_bool(c, "train.recompute"),
                                 .packed_apart = true};
}

static enum status tell_layout(const struct job *job)
{
    const struct pretrain *p = job->state;
    enum status st = ST_OK;
    struct schedule schedule = {0};
    struct schedule_found found = {0};
    struct text blocks = {0};
    if (p->mesh.pipe.size * p->mesh.expert.size == 1) return ST_OK;
    for (int i = 0; i < parts_of(p); i++) text_add(&blocks, "%s%d", i ? " + " : "", p->first[i + 1] - p->first[i]);
    struct schedule_spec spec = {.kind = p->plan.kind,
                                 .stages = p->mesh.pipe.size,
                                 .chunks = p->plan.chunks,
                                 .micros = p->plan.micros,
                                 .trips = p->plan.trips,
                                 .recompute = p->limits.recompute,
                                 .in_turns = p->plan.in_turns};
    TRY(schedule_build(&spec, &schedule));
    TRY(schedule_simulate(&schedule, &(struct schedule_times){1, 1, 1, 0, 0}, schedule_buffers(&spec), &found));
    comm_note(&job->world,
              "mesh: %d x %d x %d (data x pipe x expert), stages of %s blocks; %s with %d micro-batches of %d cells: "
              "stages stand idle for %.0f %% of a step%s",
              p->mesh.data.size, p->mesh.pipe.size, p->mesh.expert.size, blocks.data, schedule_name(p->plan.kind),
              p->plan.micros, p->limits.cells, 100 * found.bubble,
              p->plan.in_turns ? "; two micro-batches take turns at exchanges" : "");
done:
    schedule_free(&schedule);
    text_free(&blocks);
    return st;
}

/* Whose which are among the ranks that hold the same ones: nobody keeps what only others update. */
static enum status share_parameters(struct pretrain *p)
{
    struct param_table *params = model_params(p->model);
    enum status st = param_share(params, p->mesh.dense.rank, p->mesh.dense.size, p->mesh.expert.size);
    if (st == ST_OK) param_split(params);
    return st;
}

enum status pretrain_lay_out(struct job *job)
{
    struct pretrain *p = job->state;
    const struct config *c = job->config;
    enum status st = ST_OK;
    int64_t share;
    struct mesh_shape shape = {(int)config_int(c, "mesh.data"), (int)config_int(c, "mesh.pipe"),
                               (int)config_int(c, "mesh.expert")};
    TRY(mesh_open(&job->world, shape, &p->mesh));
    p->plan = plan_of(job, &share);
    p->limits = limits_of(job, share);
    TRY(comm_agree(&job->world, cut(job)));
    TRY(comm_agree(&job->world, tell_layout(job)));
    struct model_hold hold = stage_hold(&p->plan, p->mesh.pipe.size, p->mesh.pipe.rank, p->first);
    hold.expert_rank = p->mesh.expert.rank;
    hold.expert_ranks = p->mesh.expert.size;
    p->domain = config_bool(c, "mesh.share_packed") ? job->placement.numa_node : PACK_ALONE;
    TRY(pack_group_count(&p->mesh, p->domain, p->sharers));
    TRY(comm_agree(&job->world, model_create(c, p->vocab, &hold, &p->model)));
    TRY(comm_agree(&job->world, share_parameters(p)));
done:
    return st;
}
