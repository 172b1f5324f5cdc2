/* Before the first step: atlas, vocabulary, cells, model, cost, and what there is to resume. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "jobs/data_path.h"
#include "jobs/layout_keys.h"
#include "jobs/pretrain_cost.h"
#include "jobs/pretrain_state.h"
#include "kernel/isa.h"

/* ---- configuration ---- */

static enum status check_configuration(const struct job *job)
{
    const struct config *c = job->config;
    if (!*config_text(c, "run.atlas")) return fail(ST_USAGE, "which atlas? give --atlas FOLDER or run.atlas");
    if (!*config_text(c, "run.out")) return fail(ST_USAGE, "where to? give --out FOLDER or run.out");
    return kernel_select(config_text(c, "run.isa"));
}

/* run.fresh: is there anything in the output folder already? Local to rank 0. */
static enum status check_fresh(const struct job *job)
{
    const char *out = config_text(job->config, "run.out");
    if (!config_bool(job->config, "run.fresh")) return ST_OK;
    DIR *dir = opendir(out);
    if (!dir && errno == ENOENT) return ST_OK;
    if (!dir) return fail(ST_OUTPUT, "%s: cannot be listed: %s", out, strerror(errno));
    int entries = 0;
    for (struct dirent *e; (e = readdir(dir));) entries += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(dir);
    if (entries == 0) return ST_OK;
    return fail(
        ST_OUTPUT,
        "%s: not empty (%d entries), and --fresh was asked for; choose another folder, or resume without --fresh", out,
        entries);
}

/* ---- data ---- */

static enum status open_modality(struct job *job)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    const char *name = config_text(job->config, "data.modality"), *path = config_text(job->config, "run.atlas");
    struct text have = {0};
    TRY(atlas_open(&job->world, path, &p->atlas));
    p->modality = atlas_find_modality(p->atlas, name);
    for (int m = 0; m < atlas_modality_count(p->atlas); m++)
        text_add(&have, "%s%s", m ? ", " : "", atlas_modality(p->atlas, m)->name);
    if (p->modality < 0)
        TRY(comm_agree(&job->world,
                       fail(ST_INPUT, "%s: no modality '%s'; it has %s (data.modality)", path, name, have.data)));
    enum value_kind kind = atlas_modality(p->atlas, p->modality)->kind;
    if (kind != VALUE_COUNTS)
        TRY(comm_agree(&job->world, fail(ST_INPUT,
                                         "%s: modality '%s' holds %s values; pre-training needs counts, so ingest the "
                                         "raw counts (ingest.counts)",
                                         path, name, value_kind_word(kind))));
done:
    text_free(&have);
    return st;
}

static enum status read_vocabulary(struct job *job)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    char *path = NULL;
    TRY(data_path_vocabulary(config_text(job->config, "data.vocabulary"), &path));
    TRY(vocab_read(path, &p->vocab));
    const struct feature_table *features = &atlas_modality(p->atlas, p->modality)->features;
    TRY(NEW_ARRAY(p->lookup, features->count));
    if (vocab_map(p->vocab, features, p->lookup) == 0)
        TRY(fail(ST_INPUT,
                 "%s: none of its %lld features is in the vocabulary %s; wrong species, or a vocabulary of other "
                 "identifiers?",
                 atlas_path(p->atlas), (long long)features->count, path));
done:
    free(path);
    return st;
}

/* A vocabulary that keeps almost nothing is a mistake, not a choice. */
static enum status check_share(struct job *job)
{
    struct pretrain *p = job->state;
    double share = p->survey.counts > 0 ? p->survey.kept_counts / p->survey.counts : 0;
    double least = config_real(job->config, "data.min_vocabulary_share");
    char genes[32];
    comm_note(&job->world, "vocabulary: %s genes, keeps %.1f %% of the counts", text_count(p->vocab->count, genes),
              100 * share);
    if (share >= least) return ST_OK;
    return comm_agree(&job->world,
                      fail(ST_INPUT,
                           "%s: the vocabulary keeps %.2f %% of the counts; at least %.2f %% are wanted "
                           "(data.min_vocabulary_share): is data.vocabulary of this species and these identifiers?",
                           atlas_path(p->atlas), 100 * share, 100 * least));
}

static enum status check_cells(struct job *job)
{
    struct pretrain *p = job->state;
    char train[32], held[32], all[32], shorter[32], longer[32];
    comm_note(&job->world,
              "cells: %s to train on and %s held out, of %s selected; left out: %s with fewer than %d vocabulary "
              "genes, %s with more than %d",
              text_count(p->survey.train_count, train), text_count(p->survey.held_out_count, held),
              text_count(p->row_count, all), text_count(p->survey.too_short, shorter), p->rules.min_genes,
              text_count(p->survey.too_long, longer), p->rules.max_genes);
    if (p->survey.train_count > 0) return ST_OK;
    return comm_agree(
        &job->world,
        fail(ST_INPUT,
             "%s: no cell is left to train on: %s of %s have fewer than %d vocabulary genes, %s more than %d; "
             "see model.min_genes, model.max_genes, model.drop_long_cells and data.held_out",
             atlas_path(p->atlas), shorter, all, p->rules.min_genes, longer, p->rules.max_genes));
}

static enum status look_at_cells(struct job *job)
{
    struct pretrain *p = job->state;
    const struct config *c = job->config;
    enum status st = ST_OK;
    TRY(atlas_select(&job->world, p->atlas, config_text(c, "run.cells"), &p->rows, &p->row_count));
    p->rules = token_rules_from(c);
    struct survey_plan plan = {.atlas = p->atlas,
                               .modality = p->modality,
                               .lookup = p->lookup,
                               .rows = p->rows,
                               .count = p->row_count,
                               .rules = p->rules,
                               .split_by = config_text(c, "data.split_by"),
                               .held_out = config_real(c, "data.held_out"),
                               .balance_by = config_text(c, "data.balance_by"),
                               .reference_cells = config_int(c, "train.reference_cells")};
    TRY(survey_run(&job->world, &plan, p->vocab->count, &p->survey));
    TRY(check_share(job));
    TRY(check_cells(job));
done:
    return st;
}

static enum status make_loaders(struct job *job)
{
    struct pretrain *p = job->state;
    const struct config *c = job->config;
    enum status st = ST_OK;
    struct loader_plan plan = {.atlas = p->atlas,
                               .modality = p->modality,
                               .lookup = p->lookup,
                               .rules = p->rules,
                               .rows = p->survey.train,
                               .genes = p->survey.train_genes,
                               .seed = (uint64_t)config_int(c, "run.seed"),
                               .batch = config_int(c, "train.batch"),
                               .rank = p->mesh.dense.rank,
                               .ranks = p->mesh.dense.size,
                               .micro_cells = p->limits.cells,
                               .ahead = config_int(c, "data.read_ahead")};
    plan.sampler = (struct sampler){.kind = p->survey.balance ? SAMPLE_WEIGHTED : SAMPLE_PERMUTATION,
                                    .seed = plan.seed,
                                    .count = p->survey.train_count,
                                    .block = config_int(c, "data.block"),
                                    .window = config_int(c, "data.window"),
                                    .running = p->survey.balance};
    TRY(loader_create(&plan, &p->loader));
    if (p->survey.held_out_count == 0) return ST_OK;
    plan.rows = p->survey.held_out;
    plan.genes = NULL;
    plan.batch = plan.ahead = (int64_t)p->limits.cells * p->plan.loss_micros;
    plan.rank = 0;
    plan.ranks = 1; /* the caller asks for its own positions */
    plan.seed = 0;  /* the same masks whatever the seed of the run */
    plan.sampler =
        (struct sampler){.seed = 0, .count = p->survey.held_out_count, .block = 1, .window = p->survey.held_out_count};
    TRY(loader_create(&plan, &p->held_out));
done:
    return st;
}

/* ---- what there is to resume ---- */

static enum status same_or_refuse(const char *path, const char *what, const char *theirs, const char *ours,
                                  const char *remedy)
{
    if (strcmp(theirs, ours) == 0) return ST_OK;
    return fail(ST_INPUT, "%s: was trained with %s %.16s…, this run has %.16s…; %s", path, what, theirs, ours, remedy);
}

/* Take model.* from the checkpoint, refusing what contradicts it, and compare vocabularies. Which cells are held out,
 * and which a step draws, may not change half-way: cells trained on would be scored as held out. */
static enum status find_checkpoint(struct job *job)
{
    static const char *const kept[] = {"run.cells",     "data.modality",   "data.held_out",
                                       "data.split_by", "data.balance_by", "data.block",
                                       "data.window",   "train.batch",     NULL};
    struct pretrain *p = job->state;
    struct vocab *stored = NULL;
    enum status st = ST_OK;
    TRY(checkpoint_find(&job->world, config_text(job->config, "run.out"), &p->resume_from));
    if (!p->resume_from) return ST_OK;
    TRY(checkpoint_open_model(&job->world, p->resume_from, job->config, &stored));
    TRY(checkpoint_check_keys(&job->world, p->resume_from, job->config, kept));
    TRY(comm_agree(&job->world, same_or_refuse(p->resume_from, "vocabulary", stored->sha256, p->vocab->sha256,
                                               "give that vocabulary (data.vocabulary), or another --out")));
done:
    vocab_destroy(&stored);
    return st;
}

static enum status check_state(const struct job *job)
{
    const struct pretrain *p = job->state;
    enum status st = ST_OK;
    uint64_t seed = (uint64_t)config_int(job->config, "run.seed");
    TRY(same_or_refuse(p->resume_from, "atlas", p->state.atlas_hash, atlas_hash(p->atlas),
                       "give that atlas (run.atlas), or another --out"));
    if (p->state.seed != seed)
        TRY(fail(ST_INPUT, "%s: was trained with run.seed %llu, this run has %llu; give that seed, or another --out",
                 p->resume_from, (unsigned long long)p->state.seed, (unsigned long long)seed));
done:
    return st;
}

static enum status start_or_resume(struct job *job)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    if (p->resume_from) {
        st = checkpoint_read(&p->mesh.dense, p->resume_from, model_params(p->model), &p->state);
        TRY(comm_agree(&job->world, st));
        TRY(comm_agree(&job->world, check_state(job)));
        p->saved_step = p->state.step;
        comm_note(&job->world, "resuming from %s, step %lld", p->resume_from, (long long)p->state.step);
    } else {
        p->state = (struct train_state){.seed = (uint64_t)config_int(job->config, "run.seed"), .best_loss = NAN};
        snprintf(p->state.atlas_hash, sizeof p->state.atlas_hash, "%s", atlas_hash(p->atlas));
        param_initialise(model_params(p->model), p->state.seed);
        p->saved_step = -1;
    }
    p->state.global_batch = config_int(job->config, "train.batch");
done:
    return st;
}

/* ---- model ---- */

static enum status prepare_model(struct job *job)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    TRY(param_allocate(model_params(p->model), true));
    TRY(model_prepare(p->model, &p->limits));
    TRY(optimiser_create(job->config, model_params(p->model), &p->optimiser));
    TRY(make_loaders(job));
done:
    return st;
}

enum status pretrain_prepare(struct job *job)
{
    struct pretrain *p = job->state;
    p->saved_step = -1;
    enum status st = check_configuration(job);
    if (st == ST_OK && job->world.rank == 0) st = check_fresh(job);
    TRY(comm_agree(&job->world, st));
    TRY(open_modality(job));
    TRY(comm_agree(&job->world, read_vocabulary(job)));
    TRY(find_checkpoint(job));
    TRY(look_at_cells(job));
    TRY(pretrain_lay_out(job));
    TRY(pretrain_usage_open(job));
    job_note_kernels(job, p->limits.bf16);
    TRY(pretrain_print_cost(job));
    if (job->dry_run) goto done;
    TRY(comm_agree(&job->world, prepare_model(job)));
    TRY(start_or_resume(job));
    TRY(hand_out_create(&p->mesh, p->model, p->domain, &p->hand_out));
    TRY(stage_create(&p->mesh, p->model, &p->limits, &p->plan, &p->stage));
    TRY(reducer_create(&p->mesh, model_params(p->model), layout_exchange_bf16(job->config, p->limits.bf16),
                       &p->reducer));
    TRY(checkpoint_saver_create(&p->mesh, model_params(p->model), job->config, &p->saver));
    p->trainer = (struct trainer){.model = p->model,
                                  .stage = p->stage,
                                  .optimiser = p->optimiser,
                                  .reducer = p->reducer,
                                  .hand_out = p->hand_out,
                                  .loss_over_rank = config_word_is(job->config, "train.loss_over", "rank"),
                                  .before_update = checkpoint_hold,
                                  .held = p->saver,
                                  .guard = guard_rules_from(job->config),
                                  .guard_state = &p->state.guard};
done:
    return st;
}

void pretrain_release(struct job *job)
{
    struct pretrain *p = job->state;
    metrics_close(&p->metrics);
    checkpoint_saver_destroy(&p->saver);
    loader_destroy(&p->loader);
    loader_destroy(&p->held_out);
    stage_destroy(&p->stage);
    reducer_destroy(&p->reducer);
    hand_out_destroy(&p->hand_out);
    optimiser_destroy(&p->optimiser);
    model_destroy(&p->model);
    pretrain_usage_close(p);
    survey_free(&p->survey);
    vocab_destroy(&p->vocab);
    atlas_close(&p->atlas);
    free(p->lookup);
    free(p->first), free(p->trips);
    free(p->rows);
    free(p->resume_from);
    mesh_close(&p->mesh);
}
