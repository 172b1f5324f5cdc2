/* Held-out evaluation: the model beside references that know no gene-gene relation. */
#include <math.h>
#include <stdlib.h>

#include "base/stop.h"
#include "base/text.h"
#include "jobs/pretrain_state.h"

/* Masks of held-out cells are drawn at a step that no training reaches: the same in every evaluation. */
#define EVALUATION_STEP INT64_MAX

/* `count` positions, as many as fit into one go through the pipeline. The stages have the same cells: the last has the
 * losses, and the references are scored there, too. Collective over the pipeline; not agreed. */
static enum status evaluate_cells(struct pretrain *p, int64_t first, int64_t count, struct evaluation *out)
{
    struct batch *micro;
    int micro_count;
    struct comm *pipe = &p->mesh.pipe;
    enum status st = loader_next(p->held_out, first, count, EVALUATION_STEP, &micro, &micro_count);
    st = comm_agree(pipe, st);
    if (st != ST_OK) micro_count = 0;
    if (st != ST_OK && !p->plan.linked) return st; /* else others wait for rows */
    enum status ran = stage_loss(pipe, p->stage, micro, micro_count, &out->loss);
    TRY(st);
    st = ran;
    const double *total = loader_totals(p->held_out);
    for (int i = 0; i < micro_count && pipe->rank == pipe->size - 1; total += micro[i++].cell_count)
        reference_score(p->survey.reference, &micro[i], total, &out->reference);
    TRY(comm_agree(pipe, st));
done:
    return st;
}

/* This replica's share of the positions; all go through the same number of rounds. */
static enum status evaluate_share(struct job *job, bool may_stop, struct evaluation *out)
{
    struct pretrain *p = job->state;
    const struct comm *replicas = &p->mesh.dense;
    enum status st = ST_OK;
    int64_t first, count, most = (out->cells + replicas->size - 1) / replicas->size;
    int64_t step = (int64_t)p->limits.cells * p->plan.loss_micros;
    if (p->survey.held_out_count == 0) return ST_OK;
    comm_share(replicas, out->cells, &first, &count);
    for (int64_t at = 0; at < most; at += step) {
        int64_t left = st == ST_OK && at < count ? count - at : 0;
        enum status one = ST_OK;
        if (left > 0 || p->plan.linked) one = evaluate_cells(p, first + at, left < step ? left : step, out);
        if (st == ST_OK) st = one;
        if (may_stop) TRY(comm_agree(&job->world, st == ST_OK && stop_asked() ? ST_REQUEUE : st));
    }
    st = comm_agree(&job->world, st);
done:
    return st;
}

static void add_over_ranks(struct comm *comm, struct evaluation *e)
{
    struct loss_sum *l = &e->loss;
    double sums[7 + REFERENCE_COUNT] = {l->genewise,        l->cellwise, l->weight,          l->genewise_hidden,
                                        l->cellwise_hidden, l->hidden,   e->reference.hidden};
    for (int k = 0; k < REFERENCE_COUNT; k++) sums[7 + k] = e->reference.error[k];
    comm_sum_f64(comm, sums, 7 + REFERENCE_COUNT);
    *l = (struct loss_sum){sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]};
    e->reference.hidden = sums[6];
    for (int k = 0; k < REFERENCE_COUNT; k++) e->reference.error[k] = sums[7 + k];
}

enum status pretrain_evaluate(struct job *job, int64_t cells, bool may_stop, struct evaluation *out)
{
    struct pretrain *p = job->state;
    int64_t all = p->survey.held_out_count;
    *out = (struct evaluation){.cells = cells > 0 && cells < all ? cells : all};
    enum status st = ST_OK;
    hand_out_finish(&p->mesh, p->hand_out);
    pretrain_usage_begin(p);
    st = evaluate_share(job, may_stop, out);
    pretrain_usage_end(p);
    if (st == ST_OK) add_over_ranks(&job->world, out);
    return st;
}

/* ---- the sentence ---- */

/* The model against one reference: how much smaller its error is, in percent. */
static double gain(const struct evaluation *e, int k)
{
    double model = loss_mean(e->loss.genewise_hidden, e->loss.hidden);
    return 100 * (1 - model / loss_mean(e->reference.error[k], e->reference.hidden));
}

static void list_references(const struct evaluation *e, bool beaten, struct text *out)
{
    for (int k = 0; k < REFERENCE_COUNT; k++) {
        if ((gain(e, k) > 0) != beaten) continue;
        text_add(out, "%s%s (%.4f, %s by %.1f %%)", out->length ? ", " : "", reference_word((enum reference_kind)k),
                 loss_mean(e->reference.error[k], e->reference.hidden), beaten ? "less" : "more", fabs(gain(e, k)));
    }
}

static void print_sentence(const struct job *job, const struct evaluation *e)
{
    struct text beaten = {0}, unbeaten = {0};
    char cells[32];
    list_references(e, true, &beaten);
    list_references(e, false, &unbeaten);
    comm_print(&job->world,
               "On the hidden values of %s held-out cells the model's mean squared error is %.4f gene-wise and %.4f "
               "cell-wise. ",
               text_count(e->cells, cells), loss_mean(e->loss.genewise_hidden, e->loss.hidden),
               loss_mean(e->loss.cellwise_hidden, e->loss.hidden));
    if (beaten.length) comm_print(&job->world, "It beats %s. ", beaten.data);
    if (unbeaten.length) comm_print(&job->world, "It does not beat %s.", unbeaten.data);
    comm_print(&job->world, "\n");
    text_free(&beaten);
    text_free(&unbeaten);
}

static enum status write_table(const char *out, int64_t step, const struct evaluation *e)
{
    struct text t = {0};
    char *path = text_format("%s/learning.tsv", out);
    text_add(&t, "predictor\tmse_hidden\thidden_positions\theld_out_cells\tstep\tmodel_better_percent\n");
    text_add(&t, "model gene-wise\t%.6f\t%.0f\t%lld\t%lld\t0\n", loss_mean(e->loss.genewise_hidden, e->loss.hidden),
             e->loss.hidden, (long long)e->cells, (long long)step);
    text_add(&t, "model cell-wise\t%.6f\t%.0f\t%lld\t%lld\t\n", loss_mean(e->loss.cellwise_hidden, e->loss.hidden),
             e->loss.hidden, (long long)e->cells, (long long)step);
    for (int k = 0; k < REFERENCE_COUNT; k++)
        text_add(&t, "%s\t%.6f\t%.0f\t%lld\t%lld\t%.2f\n", reference_word((enum reference_kind)k),
                 loss_mean(e->reference.error[k], e->reference.hidden), e->reference.hidden, (long long)e->cells,
                 (long long)step, gain(e, k));
    enum status st = text_write_file(path, t.data, t.length);
    text_free(&t);
    free(path);
    return st;
}

enum status pretrain_tell_learning(struct job *job, const struct evaluation *e)
{
    struct pretrain *p = job->state;
    if (e->cells == 0) {
        comm_note(&job->world, "no cells are held out (data.held_out), so learning is not measured");
        return ST_OK;
    }
    print_sentence(job, e);
    enum status st = job->world.rank == 0 ? write_table(config_text(job->config, "run.out"), p->state.step, e) : ST_OK;
    return comm_agree(&job->world, st);
}
