#include "mpi/train_step.h"

#include <math.h>
#include <string.h>

double loss_mean(double sum, double weight) { return weight > 0 ? sum / weight : NAN; }

static double sum_of_weights(const struct batch *b)
{
    double sum = 0;
    for (int64_t t = 0; t < b->token_count; t++) sum += b->loss_weight[t];
    return sum;
}

/* What this rank brings to the step. */
static struct step_report announce(const struct batch *micro, int count, struct train_asked asked)
{
    struct step_report report = {.stop = asked.stop, .finish = asked.finish};
    for (int i = 0; i < count; i++) {
        report.loss.weight += sum_of_weights(&micro[i]);
        report.cells += micro[i].cell_count;
        report.tokens += (double)micro[i].token_count;
    }
    return report;
}

static enum status compute_gradients(struct trainer *t, const struct batch *micro, int count, double scale,
                                     int64_t step, struct loss_sum *loss)
{
    struct param_table *params = model_params(t->model);
    enum status st = ST_OK;
    memset(params->gradient, 0, sizeof(real) * (size_t)params->size);
    for (int i = 0; i < count; i++) {
        reducer_touch(t->reducer, &micro[i]);
        TRY(model_gradient(t->model, &micro[i], scale, (uint64_t)step, loss));
    }
done:
    return st;
}

static const char remedy[] = "lower train.rate, lengthen train.warmup, or clip (train.clip); the last checkpoint stays";

static enum status check_loss(const struct loss_sum *loss, int64_t step)
{
    double sum = loss->genewise + loss->cellwise;
    if (isfinite(sum)) return ST_OK;
    return fail(ST_NUMERIC, "step %lld: the loss is %g; %s", (long long)step + 1, sum, remedy);
}

enum status train_step(struct comm *comm, struct trainer *t, const struct batch *micro, int count, enum status loaded,
                       struct train_asked asked, int64_t step, struct step_result *out)
{
    enum status st = ST_OK;
    *out = (struct step_result){.rate = optimiser_rate(t->optimiser, step)};
    struct step_report batch = announce(micro, count, asked), done = {0};
    double own_weight = batch.loss.weight;
    TRY(reducer_agree(comm, t->reducer, t->pending != ST_OK ? t->pending : loaded, &batch));
    out->asked = (struct train_asked){batch.stop, batch.finish};
    out->cells = batch.cells;
    out->tokens = batch.tokens;
    if (batch.stop || batch.finish) return ST_OK;

    struct expert_layers *experts = model_experts(t->model);
    experts_begin_step(experts, batch.tokens);
    double over = t->loss_over_rank ? own_weight * comm->size : batch.loss.weight;
    st = compute_gradients(t, micro, count, over > 0 ? 1 / over : 0, step, &done.loss);
    TRY(reducer_agree(comm, t->reducer, st, &done));
    out->loss = done.loss;
    st = check_loss(&done.loss, step); /* the same on every rank */
    if (st != ST_OK) TRY(comm_agree(comm, st));

    reducer_sum_gradients(comm, t->reducer);
    out->gradient_norm = optimiser_measure(t->optimiser);
    if (!isfinite(out->gradient_norm)) /* the same on every rank */
        TRY(comm_agree(comm, fail(ST_NUMERIC, "step %lld: the gradient is not finite though the loss is %g; %s",
                                  (long long)step + 1, done.loss.genewise + done.loss.cellwise, remedy)));
    optimiser_step(t->optimiser, step);
    comm_sum_i64(comm, experts->load, experts_load_count(experts));
    experts_end_step(experts, model_params(t->model));
    out->expert_imbalance = experts_imbalance(experts);
    t->pending = model_pack(t->model);
done:
    return st;
}
