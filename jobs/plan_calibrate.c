/* Measures what a plan is built from: parts of the configured model, the optimiser's step, the exchange, memory. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/progress.h"
#include "base/text.h"
#include "jobs/plan_trial.h"
#include "kernel/product.h"
#include "mpi/hand_out.h"
#include "mpi/pipeline.h"
#include "mpi/reduce.h"
#include "optim/optimiser.h"

/* ---- shares of the block's time ---- */

/* What a block's training takes beyond what goes with its tokens, from a few tokens and many. */
static double fixed_part(const struct trial *t, double few, double few_s, double many)
{
    double each_s = (trial_train_s(t, 1) - few_s) / (many - few), fixed_s = few_s - each_s * few;
    for (int part = 0; part < t->count; part++) /* a busy machine draws no straight line */
        fixed_s = fmin(fixed_s, 0.2 * trial_train_s(t, part));
    return fmax(fixed_s, 0);
}

/* Shares of the products' rate, and how a training pass is divided, from a batch of `tokens` tokens. */
static void take_shares(const struct trial *t, double fixed_s, double tokens, struct plan_machine *m)
{
    double *const share[] = {&m->first_share, &m->block_share, &m->expert_share, &m->last_share};
    double all_s = 0, forward_s = 0, weights_s = 0;
    m->pass_s = fixed_s / PASSES;
    for (int part = 0; part < t->count; part++) {
        double s = trial_train_s(t, part) - fixed_s;
        *share[t->kind[part]] = t->flops[part] * tokens / (s * m->flops_per_s);
        all_s += s;
        forward_s += fmax(0, t->seconds[part][FORWARD] - m->pass_s);
        weights_s += fmax(0, t->seconds[part][WEIGHTS] - m->pass_s);
    }
    m->forward_part = fmin(forward_s / all_s, 0.49);
    m->weights_part = fmin(weights_s / all_s, 0.49);
}

/* Two sizes: a full micro-batch, and one cell (of half the genes, if that is a full one). */
static enum status measure_parts(struct job *job, struct trial *t, struct plan_machine *m)
{
    const struct planning *p = job->state;
    enum status st = ST_OK;
    int genes = (int)(p->job.genes < p->vocab->count ? p->job.genes : p->vocab->count);
    TRY(comm_agree(&job->world, trial_fill(t, &p->job, 1, t->limits.cells > 1 ? genes : genes / 2)));
    TRY(trial_time(&job->world, t));
    double few = (double)t->batch.token_count, few_s = trial_train_s(t, 1);
    TRY(comm_agree(&job->world, trial_fill(t, &p->job, t->limits.cells, genes)));
    TRY(trial_time(&job->world, t));
    double many = (double)t->batch.token_count;
    take_shares(t, fixed_part(t, few, few_s, many), many, m);
done:
    return st;
}

/* ---- memory, optimiser, exchange ---- */

/* a = b + 3 c, of arrays no cache holds; bytes a second of this rank. */
static enum status measure_triad(struct job *job, double *bytes_per_s)
{
    enum { REALS = 1 << 23 };
    enum status st = ST_OK;
    double *a = NULL, *b = NULL, *c = NULL, seconds[ROUNDS];
    st = NEW_ARRAY(a, REALS);
    if (st == ST_OK) st = NEW_ARRAY(b, REALS);
    if (st == ST_OK) st = NEW_ARRAY(c, REALS);
    TRY(comm_agree(&job->world, st));
#pragma omp parallel for num_threads(job->placement.threads) schedule(static)
    for (int64_t i = 0; i < REALS; i++) a[i] = 0, b[i] = 1, c[i] = (double)i;
    for (int round = 0; round < ROUNDS; round++) {
        double start = clock_s();
#pragma omp parallel for num_threads(job->placement.threads) schedule(static)
        for (int64_t i = 0; i < REALS; i++) a[i] = b[i] + 3 * c[i];
        seconds[round] = clock_s() - start;
        b[round] += a[REALS - 1 - round];
    }
    *bytes_per_s = 3.0 * sizeof(double) * REALS / trial_median(seconds, ROUNDS);
done:
    free(a), free(b), free(c);
    return st;
}

static enum status measure_update(struct job *job, struct trial *t, struct plan_machine *m)
{
    enum status st = ST_OK;
    struct param_table *params = model_params(t->model);
    struct optimiser *optimiser = NULL;
    double seconds[ROUNDS], packing[ROUNDS];
    TRY(optimiser_create(job->config, params, &optimiser));
    for (int round = 0; round < ROUNDS; round++) {
        double start = clock_s();
        memset(params->gradient, 0, sizeof(real) * (size_t)params->size);
        optimiser_measure(optimiser);
        optimiser_step(optimiser, round);
        double updated = clock_s();
        TRY(model_pack(t->model));
        seconds[round] = clock_s() - start;
        packing[round] = clock_s() - updated;
    }
    t->packing_s = trial_median(packing, ROUNDS);
    double bytes = plan_update_bytes(job->world.size, 1) * (double)params->size;
    m->update_share = bytes / trial_median(seconds, ROUNDS) / m->memory_bytes_per_s;
done:
    optimiser_destroy(&optimiser);
    return st;
}

/* Gradient bytes that travel: dense tensors, and the rows that the batch touched. */
static double exchanged_bytes(const struct trial *t)
{
    const struct param_table *params = model_params(t->model);
    double bytes = 0;
    for (int i = 0; i < params->count; i++) {
        const struct param *row = &params->rows[i];
        if (!row->sparse_rows) bytes += 4.0 * (double)param_reals(row);
        else bytes += 4.0 * (double)row->cols * fmin((double)row->rows, (double)t->batch.token_count);
    }
    return bytes;
}

/* Rate of a node's ranks together, so that plan_exchange_s gives the time that was measured. On one node that is the
 * rate inside it, on several the link's. */
static enum status measure_exchange(struct job *job, struct trial *t, struct plan_machine *m)
{
    enum status st = ST_OK;
    struct mesh mesh = {0};
    struct reducer *reducer = NULL;
    struct hand_out *hand_out = NULL;
    const struct planning *p = job->state;
    bool in_bf16 = p->job.exchange_bf16;
    double seconds[ROUNDS], bytes = exchanged_bytes(t),
                            wire = (in_bf16 ? 0.5 : 1) * bytes + 4.0 * (double)model_params(t->model)->size;
    if (job->world.size == 1) return ST_OK;
    TRY(mesh_open(&job->world, (struct mesh_shape){0, 1, 1}, &mesh));
    TRY(reducer_create(&mesh, model_params(t->model), in_bf16, &reducer));
    TRY(hand_out_create(&mesh, t->model, PACK_ALONE, &hand_out));
    for (int round = 0; round < ROUNDS; round++) {
        reducer_touch(reducer, &t->batch);
        comm_barrier(&mesh.world);
        double start = clock_s();
        reducer_sum_gradients(&mesh, reducer);
        hand_out_start(&mesh, hand_out);
        hand_out_finish(&mesh, hand_out);
        seconds[round] = clock_s() - start;
    }
    m->shared_bytes_per_s = m->link_bytes_per_s = 1e30;
    double other_s = plan_exchange_s(m, bytes, wire, mesh.world.size, 1),
           wire_s = trial_median(seconds, ROUNDS) - other_s - t->packing_s; /* the hand-out packs what has come */
    if (wire_s < 0.1 * other_s) wire_s = 0.1 * other_s;
    double *rate = m->nodes > 1 ? &m->link_bytes_per_s : &m->shared_bytes_per_s;
    *rate = 1;
    *rate = (plan_exchange_s(m, bytes, wire, mesh.world.size, 1) - other_s) / wire_s;
    comm_sum_f64(&mesh.world, rate, 1);
    *rate /= mesh.world.size;
done:
    hand_out_destroy(&hand_out);
    reducer_destroy(&reducer);
    mesh_close(&mesh);
    return st;
}

/* What the simulation of the pipeline must add to every message so that it takes as long as the real one did. */
static enum status fit_message(const struct schedule *schedule, const struct trial *t, double step_s, double *message_s)
{
    enum status st = ST_OK;
    double low = 0, high = step_s;
    struct schedule_times times = {t->seconds[1][FORWARD], t->seconds[1][BACKWARD], t->seconds[1][WEIGHTS], 0, 0};
    for (int i = 0; i < 30; i++) {
        struct schedule_found found = {0};
        times.message = (low + high) / 2;
        TRY(schedule_simulate(schedule, &times, schedule_buffers(&schedule->spec), &found));
        *(found.step_s > step_s ? &high : &low) = times.message;
    }
    *message_s = low;
done:
    return st;
}

/* Two stages of the first half of the ranks and the second. A message moves while somebody looks, and stages that compute
 * look about every millisecond, so it takes longer than its bytes do. */
static enum status measure_message(struct job *job, struct trial *t, struct plan_machine *m)
{
    enum { MICROS = 8 };
    enum status st = ST_OK;
    struct mesh mesh = {0};
    struct schedule schedule = {0};
    double step_s, message_s = 0;
    if (job->world.size % 2 != 0) return ST_OK;
    TRY(comm_agree(
        &job->world,
        schedule_build(&(struct schedule_spec){.kind = SCHEDULE_1F1B, .stages = 2, .chunks = 1, .micros = MICROS},
                       &schedule)));
    TRY(mesh_open(&job->world, (struct mesh_shape){0, 2, 1}, &mesh));
    TRY(trial_pipeline(&mesh, t, &schedule, &step_s));
    TRY(comm_agree(&mesh.world, fit_message(&schedule, t, step_s, &message_s)));
    double rate = (m->nodes > 1 ? m->link_bytes_per_s : m->shared_bytes_per_s) / m->ranks_per_node;
    comm_sum_f64(&mesh.world, &message_s, 1);
    m->message_s = message_s / mesh.world.size - (double)model_message_bytes(t->model, t->batch.token_count) / rate;
    if (m->message_s < 0) m->message_s = 0;
done:
    schedule_free(&schedule);
    mesh_close(&mesh);
    return st;
}

/* Resident memory of this process, from the kernel; 0 where it does not tell. */
static double resident_bytes(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

/* ---- all of it ---- */

static void add_machine(const struct job *job, const struct plan_machine *m, double core_flops, struct text *out)
{
    const struct planning *p = job->state;
    text_add(
        out,
        "# Measured by cytomill-plan --calibrate with model %s, micro-batches of up to %lld cells of %.0f genes, on "
        "%d rank%s.\ncluster:\n",
        config_text(job->config, "model.name"), (long long)config_int(job->config, "train.micro_batch"), p->job.genes,
        job->world.size, job->world.size > 1 ? "s" : "");
    text_add(out, "  ranks_per_node: %d\n  numa_domains: %d\n  cores: %d\n  memory_gib: %.5g\n", m->ranks_per_node,
             job->placement.node_numa_nodes, m->ranks_per_node * m->threads, m->node_bytes / 0x1p30);
    text_add(out, "  %s: %.5g\n", p->job.bf16 ? "bf16_gflops" : "fp32_gflops", core_flops * 1e-9);
    text_add(out, "  first_share: %.4g\n  last_share: %.4g\n  pass_us: %.4g\n", m->first_share, m->last_share,
             m->pass_s * 1e6);
    if (m->block_share > 0) text_add(out, "  block_share: %.4g\n", m->block_share);
    if (m->expert_share > 0) text_add(out, "  expert_share: %.4g\n", m->expert_share);
    text_add(out, "  forward_part: %.4g\n  weights_part: %.4g\n", m->forward_part, m->weights_part);
    text_add(out, "  memory_gb_per_s: %.4g\n  update_share: %.4g\n  process_mib: %.4g\n",
             m->memory_bytes_per_s * m->ranks_per_node * 1e-9, m->update_share, m->process_bytes / 0x1p20);
    if (job->world.size > 1 && m->nodes == 1) text_add(out, "  shared_gb_per_s: %.4g\n", m->shared_bytes_per_s * 1e-9);
    if (job->world.size % 2 == 0) text_add(out, "  message_us: %.4g\n", m->message_s * 1e6);
    if (m->nodes > 1) text_add(out, "  link_gbit_per_s: %.4g\n", m->link_bytes_per_s * 8e-9);
}

static enum status measure(struct job *job, struct trial *t, struct plan_machine *m)
{
    const struct planning *p = job->state;
    enum status st = ST_OK;
    enum dtype type = p->job.bf16 ? DTYPE_BF16 : DTYPE_REAL;
    int64_t width = config_int(job->config, "model.width");
    double gflops = 0;
    TRY(measure_triad(job, &m->memory_bytes_per_s));
    TRY(comm_agree(&job->world, trial_open(job, t)));
    TRY(comm_agree(&job->world, product_plain_rate(&gflops, type, 2048, width, width, m->threads)));
    double x[] = {m->memory_bytes_per_s, 1e9 * gflops};
    comm_sum_f64(&job->world, x, 2);
    m->memory_bytes_per_s = x[0] / job->world.size;
    m->flops_per_s = x[1] / job->world.size;
    TRY(measure_parts(job, t, m));
    TRY(comm_agree(&job->world, measure_update(job, t, m)));
    TRY(measure_exchange(job, t, m));
    TRY(measure_message(job, t, m));
done:
    return st;
}

enum status plan_calibrate(struct job *job)
{
    enum status st = ST_OK;
    struct trial trial = {0};
    struct text text = {0};
    int64_t hosts = job->world.node_rank == 0;
    comm_sum_i64(&job->world, &hosts, 1);
    struct plan_machine m = {.nodes = (int)hosts,
                             .ranks_per_node = job->world.node_size,
                             .threads = job->placement.threads,
                             .node_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE),
                             .latency_s = 1e-6 * config_real(job->config, "cluster.latency_us")};
    TRY(measure(job, &trial, &m));
    trial_close(&trial);
    m.process_bytes = resident_bytes();
    add_machine(job, &m, m.flops_per_s / m.threads, &text);
    const char *path = config_text(job->config, "plan.calibrate");
    TRY(comm_agree(&job->world, job->world.rank == 0 ? text_write_file(path, text.data, text.length) : ST_OK));
    comm_print(&job->world, "%s", text.data);
done:
    trial_close(&trial);
    text_free(&text);
    return st;
}
