/* cytomill-pretrain: a model trained on an atlas by masked expression, by replicas of a pipeline of ranks. */
#include <math.h>
#include <stdlib.h>

#include "base/stop.h"
#include "base/text.h"
#include "io/batch_save.h"
#include "jobs/pretrain_state.h"
#include "mpi/watchdog.h"

/* ---- what a step leaves behind ---- */

/* The checkpoint that was begun is there: what it cost the loop. */
static void note_saved(struct job *job)
{
    struct pretrain *p = job->state;
    const struct metric m[] = {{"step", (double)p->state.step},
                               {"saved_step", (double)p->saving_step},
                               {"stall_s", checkpoint_stall_s(p->saver)},
                               {"thread_s", checkpoint_thread_s(p->saver)}};
    p->saved_step = p->saving_step;
    if (job->world.rank != 0) return;
    enum status st = metrics_add(&p->metrics, "checkpoint", m, sizeof m / sizeof *m);
    if (st != ST_OK && p->trainer.pending == ST_OK) p->trainer.pending = st;
}

/* Wait for the checkpoint that is under way, if one is. */
static enum status finish_save(struct job *job)
{
    struct pretrain *p = job->state;
    if (!checkpoint_under_way(p->saver)) return ST_OK;
    enum status st = checkpoint_finish(&p->mesh, p->saver);
    if (st == ST_OK) note_saved(job);
    return st;
}

/* Before good checkpoints are written over by one that depends on which replica wrote what. */
static enum status check_replicas(struct job *job)
{
    struct pretrain *p = job->state;
    if (config_int(job->config, "train.check_replicas") == 0) return ST_OK;
    return comm_agree(&job->world, train_check_replicas(&p->mesh, &p->trainer));
}

static enum status begin_save(struct job *job)
{
    struct pretrain *p = job->state;
    char *path = text_format("%s/checkpoint-%lld.h5", config_text(job->config, "run.out"), (long long)p->state.step);
    enum status st = finish_save(job);
    if (st != ST_OK) goto done;
    TRY(check_replicas(job));
    p->saving_step = p->state.step;
    TRY(checkpoint_begin(&p->mesh, p->saver, path, model_params(p->model), job->config, p->vocab, model_name(p->model),
                         &p->state));
    if (!checkpoint_under_way(p->saver)) note_saved(job); /* it was written at once */
done:
    free(path);
    return st;
}

/* The batches of a step that ended the run; the line that says why is out. */
static enum status keep_batches(struct job *job, const struct step_result *r, const struct batch *micro, int count)
{
    const struct pretrain *p = job->state;
    const char *out = config_text(job->config, "run.out");
    int64_t step = p->state.step + 1;
    enum status st = batch_save(out, step, job->world.rank, micro, count, r->own_loss, r->gradient_norm, NULL);
    TRY(comm_agree(&job->world, st));
    comm_note(&job->world, "the batches of step %lld are in %s/bad-step-%lld-rank*.h5, a file for each rank",
              (long long)step, out, (long long)step);
done:
    return st;
}

static void note_skip(const struct job *job, const struct guard_verdict *v)
{
    const struct pretrain *p = job->state;
    char text[160];
    comm_note(&job->world, "step %lld is skipped, no update: %s; %lld skipped in a row, %lld in all",
              (long long)p->state.step, guard_text(v, text), (long long)v->skipped_in_a_row,
              (long long)p->state.guard.skipped);
}

/* Seconds rank 0 has waited for other ranks' activations, gradients, weights and rows since the step before. */
static double waited_since(struct pretrain *p)
{
    double before_s = p->waited_s;
    p->waited_s = stage_waited_s(p->stage) + reducer_waited_s(p->reducer) + hand_out_waited_s(p->hand_out);
    return p->waited_s - before_s;
}

/* Rank 0 writes metrics: its failure is told at the next agreement. */
static void note_step(struct job *job, const struct step_result *r, double seconds)
{
    struct pretrain *p = job->state;
    double genewise = loss_mean(r->loss.genewise, r->loss.weight),
           cellwise = loss_mean(r->loss.cellwise, r->loss.weight);
    const struct metric m[] = {{"step", (double)p->state.step},
                               {"loss", genewise + cellwise},
                               {"genewise", genewise},
                               {"cellwise", cellwise},
                               {"genewise_hidden", loss_mean(r->loss.genewise_hidden, r->loss.hidden)},
                               {"cellwise_hidden", loss_mean(r->loss.cellwise_hidden, r->loss.hidden)},
                               {"rate", r->rate},
                               {"gradient_norm", r->gradient_norm},
                               {"cells_per_s", r->cells / seconds},
                               {"tokens_per_s", r->tokens / seconds},
                               {"waited_s", waited_since(p)},
                               {"skipped", r->verdict.act == GUARD_SKIP},
                               {"skipped_in_all", (double)p->state.guard.skipped},
                               {"expert_imbalance", r->expert_imbalance}};
    int known = sizeof m / sizeof *m - (r->expert_imbalance == 0); /* 0: a model without experts */
    history_add(&p->state.trained, (struct history_point){m[0].value, m[1].value, m[4].value, r->rate});
    const struct metric shown[] = {m[1], m[4], m[8]};
    progress_update(&p->progress, p->state.step, shown, 3);
    if (job->world.rank != 0) return;
    enum status st = metrics_add(&p->metrics, "train", m, known);
    if (st != ST_OK && p->trainer.pending == ST_OK) p->trainer.pending = st;
}

static enum status evaluate(struct job *job, int64_t cells, bool may_stop, struct evaluation *e)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    TRY(pretrain_evaluate(job, cells, may_stop, e));
    double loss = loss_mean(e->loss.genewise + e->loss.cellwise, e->loss.weight);
    if (isnan(p->state.best_loss) || loss < p->state.best_loss) p->state.best_loss = loss;
    history_add(&p->state.evaluated, (struct history_point){(double)p->state.step, loss,
                                                            loss_mean(e->loss.genewise_hidden, e->loss.hidden), 0});
    const struct metric m[] = {
        {"step", (double)p->state.step},
        {"cells", (double)e->cells},
        {"loss", loss},
        {"genewise_hidden", loss_mean(e->loss.genewise_hidden, e->loss.hidden)},
        {"cellwise_hidden", loss_mean(e->loss.cellwise_hidden, e->loss.hidden)},
        {"reference_mean", loss_mean(e->reference.error[REFERENCE_MEAN], e->reference.hidden)},
        {"reference_offset", loss_mean(e->reference.error[REFERENCE_OFFSET], e->reference.hidden)},
        {"reference_poisson", loss_mean(e->reference.error[REFERENCE_POISSON], e->reference.hidden)},
        {"best_loss", p->state.best_loss}};
    TRY(comm_agree(&job->world,
                   job->world.rank == 0 ? metrics_add(&p->metrics, "evaluate", m, sizeof m / sizeof *m) : ST_OK));
    TRY(pretrain_usage_write(job));
    if (e->cells > 0)
        comm_note(&job->world,
                  "step %lld, %lld held-out cells: hidden gene-wise %.4f, cell-wise %.4f; gene mean %.4f, gene + "
                  "offset %.4f, Poisson %.4f",
                  (long long)p->state.step, (long long)e->cells, m[3].value, m[4].value, m[5].value, m[6].value,
                  m[7].value);
done:
    return st;
}

/* ---- the loop ---- */

/* Load this rank's share of the global batch and train on it. A batch that ends the run is kept for inspection. */
static enum status one_step(struct job *job, struct train_asked asked, struct step_result *result)
{
    struct pretrain *p = job->state;
    struct batch *micro = NULL;
    int micro_count = 0;
    enum status loaded =
        loader_next(p->loader, p->state.cells_seen, p->state.global_batch, p->state.step, &micro, &micro_count);
    enum status st = train_step(&p->mesh, &p->trainer, micro, micro_count, loaded, asked, p->state.step, result);
    if (result->verdict.act != GUARD_STOP) return st;
    enum status kept = keep_batches(job, result, micro, micro_count);
    return st != ST_OK ? st : kept;
}

/* What is due after `step` steps; the last step's evaluation and checkpoint come after the loop. */
static enum status due_work(struct job *job, int64_t steps)
{
    struct pretrain *p = job->state;
    const struct config *c = job->config;
    struct evaluation e;
    enum status st = ST_OK;
    int64_t check_every = config_int(c, "train.check_replicas");
    if (p->state.step == steps) return ST_OK;
    if (check_every > 0 && p->state.step % check_every == 0) TRY(check_replicas(job));
    if (p->state.step % config_int(c, "train.evaluate_every") == 0) {
        TRY(evaluate(job, config_int(c, "train.evaluate_cells"), false, &e));
        TRY(finish_save(job));
    }
    if (p->state.step % config_int(c, "train.checkpoint_every") == 0) TRY(begin_save(job));
done:
    return st;
}

/* ST_REQUEUE: asked to stop. */
static enum status loop(struct job *job)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    int64_t steps = config_int(job->config, "train.steps");
    double limit_s = config_real(job->config, "train.max_seconds"), begin_s = clock_s(), last_s = begin_s;
    struct step_result result;
    while (p->state.step < steps) {
        struct train_asked asked = {.stop = stop_asked(),
                                    .finish = limit_s > 0 && clock_s() - begin_s > limit_s,
                                    .saving = checkpoint_poll(p->saver)};
        watchdog_step(p->state.step + 1);
        TRY(one_step(job, asked, &result));
        if (result.asked.stop) return ST_REQUEUE;
        if (result.asked.finish) break;
        p->state.step++;
        p->state.cells_seen += p->state.global_batch;
        double now_s = clock_s();
        note_step(job, &result, now_s - last_s);
        if (result.verdict.act == GUARD_SKIP) note_skip(job, &result.verdict);
        if (!result.asked.saving) TRY(finish_save(job));
        TRY(due_work(job, steps));
        last_s = clock_s();
    }
    TRY(comm_agree(&job->world, p->trainer.pending)); /* what the last step left untold */
done:
    return st;
}

/* Metrics that stayed behind on another machine: what the checkpoint knows of them. */
static enum status restore_metrics(struct pretrain *p)
{
    enum status st = ST_OK;
    const struct history *t = &p->state.trained, *e = &p->state.evaluated;
    for (int64_t i = 0, k = 0; i < t->count || k < e->count;) {
        bool trained = k == e->count || (i < t->count && t->point[i].step <= e->point[k].step);
        const struct history_point *x = trained ? &t->point[i++] : &e->point[k++];
        const struct metric m[] = {
            {"step", x->step}, {"loss", x->loss}, {"genewise_hidden", x->hidden}, {"rate", x->rate}};
        TRY(metrics_add(&p->metrics, trained ? "train" : "evaluate", m, trained ? 4 : 3));
    }
done:
    return st;
}

static enum status open_output(struct job *job)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    const char *out = config_text(job->config, "run.out");
    char *path = text_format("%s/metrics.jsonl", out);
    TRY(text_make_folder(out));
    TRY(metrics_open(&p->metrics, path, "step", p->state.step));
    if (metrics_empty(&p->metrics)) TRY(restore_metrics(p));
done:
    free(path);
    return st;
}

static enum status run(struct job *job)
{
    struct pretrain *p = job->state;
    enum status st = ST_OK;
    TRY(comm_agree(&job->world, job->world.rank == 0 ? open_output(job) : ST_OK));
    TRY(pretrain_record(job));
    p->progress =
        progress_start("pretrain", "step", config_int(job->config, "train.steps"), p->state.step, job->world.rank == 0);
    hand_out_start(&p->mesh, p->hand_out);
    enum status ended = loop(job);
    hand_out_finish(&p->mesh, p->hand_out);
    enum status saved = finish_save(job); /* a run that failed keeps what it had begun to save */
    if (ended != ST_OK && ended != ST_REQUEUE) return ended;
    TRY(saved);
    progress_finish(&p->progress);
    if (p->saved_step != p->state.step) {
        TRY(begin_save(job));
        TRY(finish_save(job));
    }
    if (ended == ST_REQUEUE) {
        comm_note(&job->world, "checkpoint of step %lld written; the same command goes on from it",
                  (long long)p->state.step);
        return ST_REQUEUE;
    }
done:
    return st;
}

static enum status commit(struct job *job)
{
    struct evaluation e;
    enum status st = ST_OK;
    TRY(evaluate(job, config_int(job->config, "train.final_cells"), true, &e));
    TRY(pretrain_tell_learning(job, &e));
done:
    if (st == ST_REQUEUE)
        comm_note(&job->world, "trained to step %lld and saved; the same command goes on with the last evaluation",
                  (long long)((struct pretrain *)job->state)->state.step);
    return st;
}

static const struct job_spec spec = {
    .program = "cytomill-pretrain",
    .purpose = "train a foundation model on the counts of an atlas by predicting masked expression",
    .usage = "--config FILE --atlas ATLAS --out RUN [options]; the same command again resumes",
    .reads = "an atlas (cytomill-ingest), a configuration",
    .writes = "in RUN/: checkpoint-<step>.h5, metrics.jsonl, learning.tsv, run.json, expert_usage.tsv (with experts), "
              "bad-step-*.h5",
    .example = "mpirun -n 2 cytomill-pretrain --config configs/demo.yaml --atlas build/pbmc3k --out build/run",
    .sections = "run data model train mesh",
    .takes = TAKES_ATLAS | TAKES_SEED | TAKES_KERNELS | TAKES_IO | TAKES_CELLS | TAKES_FRESH,
    .state_bytes = sizeof(struct pretrain),
    .prepare = pretrain_prepare,
    .run = run,
    .commit = commit,
    .release = pretrain_release,
};

int main(int argc, char **argv) { return job_main(argc, argv, &spec); }
