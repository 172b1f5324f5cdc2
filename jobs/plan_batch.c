/* The layout as options of cytomill-pretrain, and as a batch file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "jobs/data_path.h"
#include "jobs/plan_state.h"

int64_t plan_checkpoint_steps(const struct plan_estimate *e)
{
    double steps = floor(e->interval_s / e->step_s);
    return steps > 1 ? (int64_t)steps : 1;
}

enum status plan_options(const struct planning *p, const struct plan_estimate *e, char **out)
{
    enum status st = ST_OK;
    const struct plan_layout *l = &e->layout;
    struct text t = {0};
    int *first = NULL, parts = l->pipe * l->chunks;
    *out = NULL;
    TRY(NEW_ARRAY(first, parts + 1));
    TRY(plan_share_layers(p->plan, l, first));
    text_add(&t,
             "--set mesh.data=%d --set mesh.pipe=%d --set mesh.expert=%d --set mesh.schedule=%s --set mesh.chunks=%d ",
             l->data, l->pipe, l->expert, schedule_name(l->schedule), l->chunks);
    for (int i = 0; i < parts; i++) text_add(&t, "%s%d", i ? "," : "--set mesh.layers=", first[i + 1] - first[i]);
    text_add(&t, " --set train.micro_batch=%d --set train.recompute=%s", l->micro_batch,
             l->recompute ? "true" : "false");
    if (l->expert > 1 && e->micros > 1) text_add(&t, " --set mesh.turns=%s", l->in_turns ? "always" : "never");
    *out = t.data;
done:
    free(first);
    return st;
}

/* Whole hours and minutes of a job: the run with a tenth to spare and ten minutes to start, at most the queue's limit. */
static void limit_text(const struct job *job, const struct plan_estimate *e, char out[32])
{
    double most_s = 3600 * config_real(job->config, "cluster.time_limit_hours"), want_s = 1.1 * e->run_s + 600;
    int minutes = (int)ceil((want_s < most_s ? want_s : most_s) / 60);
    snprintf(out, 32, "%d:%02d:00", minutes / 60, minutes % 60);
}

/* The signal before the limit must leave time for a step and a checkpoint; Slurm may send it a minute early, not late. */
static int signal_s(const struct plan_estimate *e)
{
    double s = ceil(2 * (e->step_s + e->checkpoint_s)) + 60;
    return s > 120 ? (int)s : 120;
}

static void add_head(const struct job *job, const struct plan_estimate *e, struct text *t)
{
    const struct planning *p = job->state;
    char limit[32], *verdict = plan_verdict(p, e);
    limit_text(job, e, limit);
    text_add(t,
             "#!/usr/bin/env bash\n"
             "# sbatch %s CONFIG [OPTION...]\n"
             "# Made by cytomill-plan: %s.\n"
             "# Why: %s.\n"
             "#SBATCH --job-name=cytomill-pretrain\n"
             "#SBATCH --nodes=%d\n"
             "#SBATCH --ntasks-per-node=%d\n"
             "#SBATCH --cpus-per-task=%d\n"
             "#SBATCH --time=%s\n"
             "#SBATCH --exclusive\n"
             "#SBATCH --output=%%x-%%j.log\n"
             "#SBATCH --open-mode=append\n"
             "#SBATCH --requeue\n"
             "#SBATCH --signal=USR1@%d\n",
             config_text(job->config, "plan.sbatch"), verdict, e->reason, p->machine.nodes, p->machine.ranks_per_node,
             p->machine.threads, limit, signal_s(e));
    free(verdict);
}

enum status plan_write_batch(const struct job *job)
{
    const struct planning *p = job->state;
    const struct plan_estimate *e = &p->found.best[0];
    enum status st = ST_OK;
    struct text t = {0};
    char *options = NULL, *helpers = NULL;
    TRY(data_path_find("jobs/batch.sh", &helpers));
    TRY(plan_options(p, e, &options));
    add_head(job, e, &t);
    text_add(&t,
             "# shellcheck source=jobs/batch.sh\n"
             ". '%s' || exit\n"
             "config=${1:?usage: sbatch FILE CONFIG [OPTION...]}\n"
             "shift\n"
             "batch_run pretrain \"$config\" %s \\\n    --set train.checkpoint_every=%lld \"$@\"\n",
             helpers, options, (long long)plan_checkpoint_steps(e));
    TRY(text_write_file(config_text(job->config, "plan.sbatch"), t.data, t.length));
done:
    free(options), free(helpers);
    text_free(&t);
    return st;
}
