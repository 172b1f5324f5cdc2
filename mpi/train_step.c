#include "mpi/train_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/replica.h"

double loss_mean(double sum, double weight) { return weight > 0 ? sum / weight : NAN; }

static double weight_of(const struct batch *micro, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        for (int64_t t = 0; t < micro[i].token_count; t++) sum += micro[i].loss_weight[t];
    return sum;
}

/* What this rank brings to the step; the stages of a pipeline have the same cells, which count once. */
static struct step_report announce(const struct comm *pipe, const struct batch *micro, int count,
                                   struct train_asked asked)
{
    struct step_report report = {.stop = asked.stop, .finish = asked.finish, .saving = asked.saving};
    for (int i = 0; i < count && pipe->rank == 0; i++) {
        report.cells += micro[i].cell_count;
        report.tokens += (double)micro[i].token_count;
    }
    if (pipe->rank == 0) report.loss.weight = weight_of(micro, count);
    return report;
}

/* What travels while a step computes: weights of the step before, and its gradients. */
struct carrier {
    struct mesh *mesh;
    struct reducer *reducer;
    struct hand_out *hand_out;
};

static void send_gradients(void *context, int module)
{
    struct carrier *c = context;
    reducer_start(c->mesh, c->reducer, module);
}

static void need_weights(void *context, int module)
{
    struct carrier *c = context;
    hand_out_need(c->mesh, c->hand_out, module);
}

static void poll_both(void *context)
{
    struct carrier *c = context;
    hand_out_poll(c->hand_out);
    reducer_poll(c->reducer);
}

static enum status compute_gradients(struct mesh *mesh, struct trainer *t, const struct batch *micro, int count,
                                     struct model_how how, struct loss_sum *loss)
{
    struct carrier carrier = {mesh, t->reducer, t->hand_out};
    struct param_table *params = model_params(t->model);
    memset(params->gradient, 0, sizeof(real) * (size_t)params->size);
    for (int i = 0; i < count; i++) reducer_touch(t->reducer, &micro[i]);
    how.ready = send_gradients;
    how.need = need_weights;
    how.context = &carrier;
    stage_set_poll(t->stage, poll_both, &carrier);
    enum status st = stage_gradient(&mesh->pipe, t->stage, micro, count, &how, loss);
    stage_set_poll(t->stage, NULL, NULL);
    hand_out_finish(mesh, t->hand_out); /* a rank that computed nothing has asked for nothing */
    if (st != ST_OK && params->second) memset(params->second, 0, sizeof(real) * (size_t)params->second_size);
    return st;
}

/* A loss that is not finite is no failure of this rank's: all ranks judge it in their sum. */
static enum status leave_to_guard(enum status st, struct loss_sum *loss)
{
    if (st != ST_NUMERIC) return st;
    loss->genewise = NAN;
    status_clear();
    return ST_OK;
}

/* Sum over the ranks that share the work, and the norm of the whole. */
static double exchange_gradients(struct mesh *mesh, struct trainer *t)
{
    reducer_join_ends(mesh, t->reducer);
    reducer_sum_gradients(mesh, t->reducer);
    reducer_sum_counted(mesh, optimiser_squares(t->optimiser), model_params(t->model)->shard.count);
    return optimiser_norm(t->optimiser);
}

/* Loss per position; a batch without positions has none to judge. */
static struct guard_verdict judge(struct trainer *t, const struct step_result *result)
{
    const struct loss_sum *loss = &result->loss;
    double over = loss->weight > 0 ? loss->weight : 1;
    return guard_judge(&t->guard, t->guard_state, (loss->genewise + loss->cellwise) / over, result->gradient_norm);
}

/* The line of the rank whose loss is not finite, so that it names the host; of the first where all are. */
static enum status refuse(struct comm *world, const struct trainer *t, const struct step_result *result, int64_t step)
{
    bool mine = !isfinite(result->own_loss);
    int64_t known = mine;
    comm_max_i64(world, &known, 1);
    return comm_agree(world, mine || !known ? guard_fail(&t->guard, &result->verdict, step + 1) : ST_OK);
}

static void update(struct mesh *mesh, struct trainer *t, int64_t step, struct step_result *out)
{
    struct expert_layers *experts = model_experts(t->model);
    if (t->before_update) t->before_update(t->held);
    optimiser_step(t->optimiser, step);
    hand_out_start(mesh, t->hand_out);
    comm_sum_i64(&mesh->dense, experts->load, experts_load_count(experts));
    experts_end_step(experts, model_params(t->model));
    out->expert_imbalance = reducer_max_stages(mesh, experts_imbalance(experts));
}

enum status train_step(struct mesh *mesh, struct trainer *t, const struct batch *micro, int count, enum status loaded,
                       struct train_asked asked, int64_t step, struct step_result *out)
{
    enum status st = ST_OK;
    *out = (struct step_result){.rate = optimiser_rate(t->optimiser, step)};
    struct step_report batch = announce(&mesh->pipe, micro, count, asked), done = {0};
    TRY(reducer_agree(mesh, t->reducer, t->pending != ST_OK ? t->pending : loaded, &batch));
    out->asked = (struct train_asked){batch.stop, batch.finish, batch.saving};
    out->cells = batch.cells;
    out->tokens = batch.tokens;
    if (batch.stop || batch.finish) return ST_OK;

    experts_begin_step(model_experts(t->model), batch.tokens);
    double over = batch.loss.weight;
    if (t->loss_over_rank) over = weight_of(micro, count) * mesh->dense.size;
    struct model_how how = {.train = true, .scale = over > 0 ? 1 / over : 0, .step = (uint64_t)step};
    st = leave_to_guard(compute_gradients(mesh, t, micro, count, how, &done.loss), &done.loss);
    out->own_loss = done.loss.genewise + done.loss.cellwise;
    st = reducer_agree(mesh, t->reducer, st, &done);
    out->loss = done.loss;
    /* Also after a failure or a NaN: what is on its way arrives before anybody leaves. */
    out->gradient_norm = exchange_gradients(mesh, t);
    TRY(st);
    out->verdict = judge(t, out);
    if (out->verdict.act == GUARD_STOP) return refuse(&mesh->world, t, out, step);
    if (out->verdict.act == GUARD_ACCEPT) update(mesh, t, step, out);
done:
    return st;
}

enum status train_check_replicas(struct mesh *mesh, struct trainer *t)
{
    const struct param_table *params = model_params(t->model);
    uint64_t *hashes = NULL;
    hand_out_finish(mesh, t->hand_out);
    enum status st = comm_agree(&mesh->data, NEW_ARRAY(hashes, params->count));
    if (st == ST_OK) {
        model_hash(t->model, hashes);
        st = replica_check(&mesh->data, params, hashes);
    }
    free(hashes);
    return st;
}
