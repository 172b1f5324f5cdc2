/* Speed of every kernel as a share of what the machine can do, on 1 and 2 threads.
 *
 * A kernel must move its inputs and outputs once, and do its arithmetic: the share is the time that takes
 * at the measured triad bandwidth (STREAM's count of bytes) or at the plain fp32 product rate, whichever is
 * longer, over the time it took. Machines are shared: the rate is measured again beside every run, and a row is
 * the median of such ratios. Counted as arithmetic: multiply-adds of products, 32 operations for an
 * exponential (16 vector instructions, each in the place of a multiply-add), 56 for a sigmoid: 4 more for its
 * negation and addition, and 20 for a division that keeps the divider of current cores busy for 5 cycles a
 * vector. Products are shares of the plain rate of their type.
 * Sizes are those of training: 4 cells of 2,048 tokens, width 1536, so that nothing stays in cache. bf16
 * carries a bar only where the processor has it: elsewhere `precision: auto` never takes it. */
#include <sys/mman.h>

#include "bench.h"
#include "kernel/kernel_list.h"

enum { CELLS = 4, TOKENS = 2048, S = CELLS * TOKENS, D = 1536, HEADS = 48, C = 32, GENES = 24000, B = 256, RUNS = 7 };
enum { PAIR = 2 * D }; /* two of a mixer's four, as it has them */
static const double BAR = 0.70;

static const char *wanted = ""; /* only kernels with this in their name */

static void *block(size_t bytes)
{
    void *p;
    if (posix_memalign(&p, 1 << 21, bytes)) abort();
    madvise(p, bytes, MADV_HUGEPAGE); /* as arenas do */
    memset(p, 0, bytes);
    return p;
}

static void *values(int64_t count, enum dtype type)
{
    void *p = block((size_t)count * dtype_bytes(type));
    struct rng r = rng_at(1, RNG_TEST, 0, 0);
    for (int64_t i = 0; i < count; i++) dtype_store(p, i, (double)rng_u32(&r) / 0x1p31 - 1, type);
    return p;
}

static double seconds_of(void (*run)(void *), void *context)
{
    double start = clock_s();
    run(context);
    return clock_s() - start;
}

/* ---- what the machine can do now ---- */

enum { TRIAD = 1 << 24 };
static double *triad_a, *triad_b, *triad_c;

static double triad_bytes_per_s(int threads)
{
    (void)threads;
    double start = clock_s();
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < TRIAD; i++) triad_a[i] = triad_b[i] + 3.0 * triad_c[i];
    return 24.0 * TRIAD / (clock_s() - start);
}

static double product_flops_per_s(enum dtype type, int64_t rows, int threads)
{
    double gflops;
    require(product_plain_rate(&gflops, type, rows, D, D, threads));
    return gflops * 1e9;
}

/* Fewer rows than a product row of the table has: the rate is the same, and it is asked for beside every run. */
static double fp32_flops_per_s(int threads) { return product_flops_per_s(DTYPE_F32, 512, threads); }

static struct {
    double bytes_per_s, flops_per_s;
} machine; /* at the start: says which of the two holds a kernel back */

static void measure_machine(int threads)
{
    double triad[RUNS];
    for (int i = 0; i < RUNS; i++) triad[i] = triad_bytes_per_s(threads);
    machine.bytes_per_s = median(triad, RUNS), machine.flops_per_s = fp32_flops_per_s(threads);
    printf("BENCH\ttriad, %d threads\t%.2f\tGB/s\t-\t-\n", threads, machine.bytes_per_s * 1e-9);
    printf("BENCH\tplain fp32 product, %d threads\t%.1f\tGFLOP/s\t-\t-\n", threads, machine.flops_per_s * 1e-9);
}

static void report_share(const char *name, enum dtype type, int threads, double share)
{
    bool judged = type != DTYPE_BF16 || product_bf16_native();
    char bar[16] = "-";
    if (judged) snprintf(bar, sizeof bar, ">= %.2f", BAR);
    printf("BENCH\t%s %s, %d threads\t%.2f\tof the machine\t%s\t%s\n", name, dtype_name(type), threads, share, bar,
           !judged        ? "-"
           : share >= BAR ? "yes"
                          : "no");
    fflush(stdout);
}

/* What every kernel here works on. */
struct data {
    enum dtype type;
    int threads;
    char *x, *a, *y, *pair, *dpair; /* [S,D] and [S,PAIR] */
    real *gamma, *beta, *dgamma, *dbeta, *stat, *scratch, *state, *dstate, *table, *dtable, *p, *moment1, *moment2;
    float *level_value;
    int64_t *cell, *index;
    int32_t *position, *feature, *level;
    struct norm_shape norm;
    struct retention_shape retention;
    struct gate_shape gate;
    struct embed_shape embed;
    struct row_groups by_feature, by_level;
    int64_t offsets[CELLS + 1];
};

static void data_fill_tokens(struct data *d)
{
    static struct arena arena;
    struct rng r = rng_at(2, RNG_TEST, 0, 0);
    d->cell = block(S * 8), d->position = block(S * 4), d->feature = block(S * 4), d->level = block(S * 4);
    d->index = block(S * 8), d->level_value = block(S * 4);
    for (int i = 0; i < S; i++) {
        d->cell[i] = i / TOKENS, d->position[i] = i % TOKENS;
        d->feature[i] = i % TOKENS ? 1 + (int)rng_below(&r, GENES - 1) : 0;
        d->level[i] = d->feature[i] == 0 || i % 6 == 0 ? -1 : (int)(i / TOKENS * 50 + (int)rng_below(&r, 50));
        d->index[i] = i, d->level_value[i] = (float)(i % 50) * 0.1f;
    }
    for (int c = 0; c <= CELLS; c++) d->offsets[c] = c * TOKENS;
    arena_destroy(&arena);
    memset(&arena, 0, sizeof arena);
    for (int pass = 0; pass < 2; pass++) {
        row_groups_take(&d->by_feature, &arena, S, GENES);
        row_groups_take(&d->by_level, &arena, S, CELLS * 50);
        if (pass == 0 && arena_create(&arena, arena.high_bytes) != ST_OK) exit(6);
    }
    row_groups_build(&d->by_feature, d->feature, S, 1);
    row_groups_build(&d->by_level, d->level, S, 0);
}

static void data_make(struct data *d, enum dtype type)
{
    *d = (struct data){.type = type};
    d->x = values(S * D, type), d->a = values(S * D, type), d->y = values(S * D, type);
    d->pair = values(S * PAIR, type), d->dpair = values(S * PAIR, type);
    d->gamma = values(D, DTYPE_F32), d->beta = values(D, DTYPE_F32), d->dgamma = values(D, DTYPE_F32);
    d->dbeta = values(D, DTYPE_F32), d->stat = values(2 * S, DTYPE_F32), d->p = values(S, DTYPE_F32);
    d->scratch = values(norm_scratch_reals(S, D), DTYPE_F32);
    d->state = values(CELLS * HEADS * C * C, DTYPE_F32), d->dstate = values(CELLS * HEADS * C * C, DTYPE_F32);
    d->table = values(GENES * D, DTYPE_F32), d->dtable = values(GENES * D, DTYPE_F32);
    d->moment1 = values(GENES * D, DTYPE_F32), d->moment2 = block((size_t)GENES * D * 4);
    data_fill_tokens(d);
    d->norm = (struct norm_shape){.rows = S,
                                  .width = D,
                                  .type = type,
                                  .lambda = 1.4,
                                  .eps = 1e-7,
                                  .drop = {.row_cell = d->cell, .row_position = d->position}};
    d->retention = (struct retention_shape){.cells = CELLS,
                                            .offsets = d->offsets,
                                            .heads = HEADS,
                                            .head_width = C,
                                            .stride = PAIR,
                                            .type = type,
                                            .feature_scale = 0.18};
    d->gate = (struct gate_shape){.rows = S, .width = D, .stride = PAIR, .type = type};
    d->embed = (struct embed_shape){.rows = S, .width = D, .type = type, .feature = d->feature, .level = d->level};
}

static void data_free(struct data *d)
{
    void *all[] = {d->x,       d->a,       d->y,    d->pair,     d->dpair,   d->gamma,  d->beta,  d->dgamma,
                   d->dbeta,   d->stat,    d->p,    d->scratch,  d->state,   d->dstate, d->table, d->dtable,
                   d->moment1, d->moment2, d->cell, d->position, d->feature, d->level,  d->index, d->level_value};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static char *column(const struct data *d, char *base, int64_t part) { return dtype_at(base, part * D, d->type); }

/* ---- the kernels: run, bytes per token in activations and in fp32, and fp32 operations ---- */

static void norm_forward(void *v)
{
    struct data *d = v;
    norm_residual_forward(d->y, d->stat, d->x, d->a, d->gamma, d->beta, &d->norm);
}
static void norm_backward(void *v)
{
    struct data *d = v;
    norm_residual_backward(d->pair, d->dpair, d->dgamma, d->dbeta, d->y, d->stat, d->x, d->a, d->gamma, &d->norm,
                           d->scratch);
}
static void norm_drop_forward(void *v)
{
    struct data *d = v;
    struct norm_shape s = d->norm;
    s.drop.p = 0.05;
    norm_residual_forward(d->y, d->stat, d->x, d->a, d->gamma, d->beta, &s);
}
static void norm_drop_backward(void *v)
{
    struct data *d = v;
    struct norm_shape s = d->norm;
    s.drop.p = 0.05;
    norm_residual_backward(d->pair, d->dpair, d->dgamma, d->dbeta, d->y, d->stat, d->x, d->a, d->gamma, &s, d->scratch);
}
static void state_forward(void *v)
{
    struct data *d = v;
    memset(d->state, 0, CELLS * HEADS * C * C * sizeof(real));
    retention_state_forward(d->state, d->pair, column(d, d->pair, 1), &d->retention);
}
static void read_forward(void *v)
{
    struct data *d = v;
    retention_read_forward(d->y, d->pair, column(d, d->pair, 1), d->state, &d->retention);
}
static void read_backward(void *v)
{
    struct data *d = v;
    retention_read_backward(d->dpair, column(d, d->dpair, 1), d->dstate, d->y, d->pair, column(d, d->pair, 1), d->state,
                            &d->retention);
}
static void state_backward(void *v)
{
    struct data *d = v;
    retention_state_backward(d->dpair, column(d, d->dpair, 1), d->dstate, d->pair, column(d, d->pair, 1),
                             &d->retention);
}
static void gate_forward(void *v)
{
    struct data *d = v;
    gate_product_forward(d->y, d->pair, column(d, d->pair, 1), &d->gate);
}
static void gate_backward(void *v)
{
    struct data *d = v;
    gate_product_backward(d->dpair, column(d, d->dpair, 1), d->y, d->pair, column(d, d->pair, 1), &d->gate);
}
static void softmax_forward(void *v)
{
    struct data *d = v;
    value_softmax_forward(d->y, d->level_value, d->gamma, S, B, d->type);
}
static void softmax_backward(void *v)
{
    struct data *d = v;
    value_softmax_backward(d->dgamma, d->x, d->y, d->level_value, S, B, d->type, d->scratch);
}
static void tokens_forward(void *v)
{
    struct data *d = v;
    embed_forward(d->y, d->table, d->x, d->gamma, d->beta, &d->embed);
}
static void tokens_backward(void *v)
{
    struct data *d = v;
    embed_backward(d->dtable, d->x, d->dgamma, d->dbeta, d->y, &d->by_feature, &d->by_level, &d->embed);
}
static void gather(void *v)
{
    struct data *d = v;
    rows_gather(d->y, d->x, d->index, S, D, d->type);
}
static void scatter(void *v)
{
    struct data *d = v;
    rows_scatter(d->x, d->y, d->index, S, S, D, d->type);
}
static void gather_add(void *v)
{
    struct data *d = v;
    rows_add(d->x, d->y, d->index, S, D, d->type);
}
static void table_forward(void *v)
{
    struct data *d = v;
    table_gather(d->y, d->table, d->feature, S, D, d->type);
}
static void table_backward(void *v)
{
    struct data *d = v;
    table_add(d->dtable, d->y, &d->by_feature, D, d->type);
}
static void decode_gene(void *v)
{
    struct data *d = v;
    decode_gene_forward(d->p, d->x, d->gamma, 0.2, S, D, d->type);
}
static void decode_gene_back(void *v)
{
    struct data *d = v;
    decode_gene_backward(d->y, d->dgamma, d->p, d->x, d->gamma, 0.2, S, D, d->type, d->scratch);
}
static void decode_cell(void *v)
{
    struct data *d = v;
    decode_cell_forward(d->p, d->x, d->a, d->offsets, CELLS, D, d->type);
}
static void decode_cell_back(void *v)
{
    struct data *d = v;
    decode_cell_backward(d->y, d->a, d->p, d->x, d->a, d->offsets, CELLS, D, d->type);
}
static void add(void *v)
{
    struct data *d = v;
    vector_add(d->y, d->x, S * D, d->type);
}
static void adam(void *v)
{
    struct data *d = v;
    struct adam step = {.rate = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 1e-5, .t = 3, .scale = 1};
    adam_step(d->table, d->moment1, d->moment2, d->dtable, (int64_t)GENES * D, &step);
}
static void square_sum(void *v)
{
    struct data *d = v;
    double sum;
    vector_square_sum(&sum, d->table, (int64_t)GENES * D);
}

static void loss_forward(void *v)
{
    struct data *d = v;
    double error, weight;
    loss_square_forward(&error, &weight, d->table, d->moment1, d->dtable, S);
}
static void loss_backward(void *v)
{
    struct data *d = v;
    loss_square_backward(d->moment2, 0.1, d->table, d->moment1, d->dtable, S);
}

struct kernel_row {
    const char *name;
    void (*run)(void *);
    double activations; /* elements of activation type moved, in units of S*D */
    double reals;       /* fp32 elements moved, in units of S*D */
    double flops;       /* arithmetic as counted above, in units of S*D */
};
enum { SIGMOID = 56 };

static const struct kernel_row rows[] = {
    {"residual norm forward", norm_forward, 3, 0, 0},
    {"residual norm backward", norm_backward, 5, 0, 0},
    {"residual norm forward, dropout", norm_drop_forward, 3, 0, 0},
    {"residual norm backward, dropout", norm_drop_backward, 5, 0, 0},
    {"retention state forward", state_forward, 2, 0, 2 * C},
    {"retention read forward", read_forward, 3, 0, 2 * C + SIGMOID},
    {"retention read backward", read_backward, 5, 0, 6 * C + SIGMOID},
    {"retention state backward", state_backward, 4, 0, 4 * C},
    {"gate product forward", gate_forward, 3, 0, 0},
    {"gate product backward", gate_backward, 5, 0, 0},
    {"value softmax forward", softmax_forward, 1.0 * B / D, 0, 32.0 * B / D},
    {"value softmax backward", softmax_backward, 2.0 * B / D, 0, 0},
    {"embedding gather forward", tokens_forward, 1, 1, 0},
    {"embedding gather backward", tokens_backward, 1, 2, 0},
    {"row gather", gather, 2, 0, 0},
    {"row gather backward, written", scatter, 2, 0, 0},
    {"row gather backward, added", gather_add, 3, 0, 0},
    {"table rows forward", table_forward, 1, 1, 0},
    {"table rows backward", table_backward, 1, 2, 0},
    {"gene-wise decoder forward", decode_gene, 1, 0, 0},
    {"gene-wise decoder backward", decode_gene_back, 2, 0, 0},
    {"cell-wise decoder forward", decode_cell, 1, 0, SIGMOID},
    {"cell-wise decoder backward", decode_cell_back, 2, 0, SIGMOID},
    {"vector add", add, 3, 0, 0},
};
/* Optimiser and norms over the gene table; the loss over one number a token, which stay in cache. */
static const struct kernel_row fp32_rows[] = {{"Adam step", adam, 0, 7.0 * GENES / S, 0},
                                              {"sum of squares", square_sum, 0, 1.0 * GENES / S, 0},
                                              {"square loss forward", loss_forward, 0, 3.0 / D, 0},
                                              {"square loss backward", loss_backward, 0, 4.0 / D, 0}};

/* Median over runs of the least time that `work` takes at the rate measured just before, over the time taken. */
static double share_of(void (*run)(void *), void *context, double work, double (*rate)(int threads), int threads)
{
    double share[RUNS];
    for (int i = 0; i < RUNS; i++) {
        double least_s = work / rate(threads);
        run(context); /* the rate's own data have left the caches cold */
        share[i] = least_s / seconds_of(run, context);
    }
    return median(share, RUNS);
}

static void bench_list(const struct kernel_row *row, size_t count, struct data *d, int threads)
{
    for (; count > 0; row++, count--) {
        if (!strstr(row->name, wanted)) continue;
        double bytes = (row->activations * (double)dtype_bytes(d->type) + row->reals * 4) * S * D;
        double flops = row->flops * S * D;
        bool memory = bytes / machine.bytes_per_s > flops / machine.flops_per_s;
        report_share(
            row->name, d->type, threads,
            share_of(row->run, d, memory ? bytes : flops, memory ? triad_bytes_per_s : fp32_flops_per_s, threads));
    }
}

static void bench_rows(enum dtype type, int threads)
{
    struct data d;
    data_make(&d, type);
    bench_list(rows, sizeof rows / sizeof *rows, &d, threads);
    if (type == DTYPE_F32) bench_list(fp32_rows, sizeof fp32_rows / sizeof *fp32_rows, &d, threads);
    data_free(&d);
}

/* ---- products ---- */

struct product_data {
    struct product *p;
    struct product_weight weight;
    void *x, *y;
    real *w, *dw;
};
enum { PRODUCT_ROWS = 2048 };

static void product_run_forward(void *v)
{
    struct product_data *d = v;
    product_forward(d->p, d->y, d->x, &d->weight, PRODUCT_ROWS);
}
static void product_run_data(void *v)
{
    struct product_data *d = v;
    product_backward_data(d->p, d->x, d->y, &d->weight, PRODUCT_ROWS, false);
}
static void product_run_weight(void *v)
{
    struct product_data *d = v;
    product_backward_weight(d->p, &d->dw, d->y, d->x, PRODUCT_ROWS);
}
static void product_run_pack(void *v)
{
    struct product_data *d = v;
    product_pack(d->p, &d->weight, (const real *const *)&d->w);
}

static double plain_flops_per_s(int threads) { return product_flops_per_s(DTYPE_F32, PRODUCT_ROWS, threads); }
static double plain_bf16_flops_per_s(int threads) { return product_flops_per_s(DTYPE_BF16, PRODUCT_ROWS, threads); }

static void bench_products(enum dtype type, int threads)
{
    struct product_data d = {.x = values(PRODUCT_ROWS * D, type),
                             .y = values(PRODUCT_ROWS * D, type),
                             .w = values(D * D, DTYPE_F32),
                             .dw = values(D * D, DTYPE_F32)};
    struct product_spec spec = {.in = D, .out = D, .type = type, .backward = true, .threads = threads};
    struct arena arena = {0};
    double flops = 2.0 * PRODUCT_ROWS * D * D;
    double (*rate)(int) = type == DTYPE_BF16 ? plain_bf16_flops_per_s : plain_flops_per_s;
    require(product_create(&spec, &d.p));
    require(arena_create(&arena, product_weight_bytes(d.p) + product_scratch_bytes(d.p) + 4096));
    d.weight = product_weight_take(d.p, &arena);
    product_set_scratch(d.p, arena_take(&arena, product_scratch_bytes(d.p)));
    product_run_pack(&d);
    double pack_s = seconds_of(product_run_pack, &d);
    report_share("product forward", type, threads, share_of(product_run_forward, &d, flops, rate, threads));
    report_share("product dX", type, threads, share_of(product_run_data, &d, flops, rate, threads));
    report_share("product dW", type, threads, share_of(product_run_weight, &d, flops, rate, threads));
    printf("BENCH\tproduct pack %s, %d threads\t%.2f\tms\t-\t-\n", dtype_name(type), threads, pack_s * 1e3);
    product_destroy(&d.p);
    arena_destroy(&arena);
    free(d.x), free(d.y), free(d.w), free(d.dw);
}

int main(int argc, char **argv)
{
    if (argc > 1) wanted = argv[1];
    triad_a = block(TRIAD * 8), triad_b = block(TRIAD * 8), triad_c = block(TRIAD * 8);
    printf("# instruction set %s, %s\n", kernel_isa_name(), product_version_text());
    for (int threads = 1; threads <= 2; threads++) {
        omp_set_num_threads(threads);
        measure_machine(threads);
        if (!*wanted) bench_products(DTYPE_F32, threads);
        if (!*wanted && product_bf16_native()) bench_products(DTYPE_BF16, threads);
        else if (!*wanted) printf("BENCH\tproducts bf16, %d threads: no native bf16 here\tnot run\t-\t-\t-\n", threads);
        bench_rows(DTYPE_F32, threads);
        bench_rows(DTYPE_BF16, threads);
    }
    return 0;
}
