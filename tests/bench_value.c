/* Speed of the value encoder on distinct counts, forward and backward up to the table of distinct
 * rows, against the published per-token form with its products through oneDNN too. Values: PBMC 3k,
 * all genes. fp32, the type the encoder computes in. The gather of rows into tokens, fused with the
 * gene embedding, is timed among the kernels. */
#include <math.h>

#include "base/text.h"
#include "bench.h"
#include "kernel/product.h"
#include "kernel/value.h"

enum { WIDTH = 1536, VALUE_WIDTH = 256, ROUNDS = 9, VALUE_CELLS = 16, MOST_GENES = 8192 };

struct counts {
    int64_t tokens, levels;
    float *value, *level; /* every token's value; distinct values of each cell */
};

static int64_t largest(const struct counts *c) { return c->tokens > c->levels ? c->tokens : c->levels; }

/* Counts of one cell become ln(1 + 1e4 count / total), its distinct values are added to the levels. */
static void close_cell(struct counts *c, int64_t first, double total)
{
    int64_t first_level = c->levels;
    for (int64_t i = first; i < c->tokens; i++) {
        float x = log1pf((float)(c->value[i] * 1e4 / total));
        int64_t k = first_level;
        while (k < c->levels && c->level[k] != x) k++;
        if (k == c->levels) c->level[c->levels++] = x;
        c->value[i] = x;
    }
}

/* The first cells of PBMC 3k as it ships; run from the root of the source tree. */
static void read_counts(struct counts *c)
{
    char *text = NULL;
    size_t length;
    int64_t first = 0;
    double total = 0;
    int gene, cell, count, current = 1;
    require(text_read_file("tests/data/pbmc3k/matrix.mtx.gz", &text, &length));
    c->value = block_of(VALUE_CELLS * MOST_GENES * sizeof *c->value);
    c->level = block_of(VALUE_CELLS * MOST_GENES * sizeof *c->level);
    char *line = text;
    while (*line == '%') line = strchr(line, '\n') + 1;
    for (line = strchr(line, '\n') + 1; sscanf(line, "%d %d %d", &gene, &cell, &count) == 3;
         line = strchr(line, '\n') + 1) {
        if (cell != current) {
            close_cell(c, first, total);
            first = c->tokens, total = 0;
            if (current++ == VALUE_CELLS) break;
        }
        c->value[c->tokens++] = (float)count;
        total += count;
    }
    free(text);
}

/* Both forms share weights and products; the plain one also has W3's. */
struct encoder {
    enum dtype type;
    struct product *table, *w3;
    struct product_weight packed_table, packed_w3;
    real *w1, *w3_master, *a, *master, *u, *du, *d_w1, *d_w3, *d_table, *scratch;
    void *p, *dp, *t1, *t2, *e;
    real d_a[1];
};

static struct product *product_of(int64_t in, int64_t out, enum dtype type, int threads, const real *master,
                                  struct product_weight *packed, void **scratch)
{
    struct product *p;
    struct product_spec spec = {.in = in, .out = out, .parts = 1, .type = type, .backward = true, .threads = threads};
    require(product_create(&spec, &p));
    struct arena measured = {0};
    product_weight_take(p, &measured);
    struct arena memory = {.base = block_of(measured.used_bytes), .size_bytes = measured.used_bytes};
    *packed = product_weight_take(p, &memory);
    *scratch = block_of(product_scratch_bytes(p));
    product_set_scratch(p, *scratch);
    product_pack(p, packed, (const real *const[]){master});
    return p;
}

static real *reals(int64_t count, uint64_t key, double sd)
{
    real *x = block_of((size_t)count * sizeof *x);
    fill_normal(x, count, DTYPE_REAL, key, sd);
    return x;
}

static void encoder_open(struct encoder *s, int64_t rows, enum dtype type, int threads)
{
    void *unused;
    size_t inner = (size_t)(rows * VALUE_WIDTH) * dtype_bytes(type);
    *s = (struct encoder){.type = type,
                          .w1 = reals(VALUE_WIDTH, 1, 1),
                          .w3_master = reals(VALUE_WIDTH * VALUE_WIDTH, 2, 0.06),
                          .a = reals(1, 3, 1),
                          .master = reals(WIDTH * VALUE_WIDTH, 4, 0.06),
                          .u = reals(VALUE_WIDTH, 5, 1),
                          .du = reals(VALUE_WIDTH, 6, 1),
                          .d_w1 = reals(VALUE_WIDTH, 7, 1),
                          .d_w3 = reals(VALUE_WIDTH * VALUE_WIDTH, 8, 1),
                          .d_table = reals(WIDTH * VALUE_WIDTH, 9, 1),
                          .scratch = reals(value_scratch_reals(rows, VALUE_WIDTH), 10, 1)};
    s->table = product_of(VALUE_WIDTH, WIDTH, type, threads, s->master, &s->packed_table, &unused);
    s->w3 = product_of(VALUE_WIDTH, VALUE_WIDTH, type, threads, s->w3_master, &s->packed_w3, &unused);
    s->p = block_of(inner), s->dp = block_of(inner), s->t1 = block_of(inner), s->t2 = block_of(inner);
    s->e = block_of((size_t)(rows * WIDTH) * dtype_bytes(type));
    fill_normal(s->e, rows * WIDTH, type, 11, 1);
}

static void levels_forward(struct encoder *s, const struct counts *c)
{
    value_vector_forward(s->u, s->w1, s->w3_master, s->a, 0.2, VALUE_WIDTH);
    value_softmax_forward(s->p, c->level, s->u, c->levels, VALUE_WIDTH, s->type);
    product_forward(s->table, s->e, s->p, &s->packed_table, c->levels);
}

static void levels_backward(struct encoder *s, const struct counts *c)
{
    product_backward_data(s->table, s->dp, s->e, &s->packed_table, c->levels, false);
    product_backward_weight(s->table, (real *const[]){s->d_table}, s->e, s->p, c->levels);
    value_softmax_backward(s->du, s->dp, s->p, c->level, c->levels, VALUE_WIDTH, s->type, s->scratch);
    value_vector_backward(s->d_w1, s->d_w3, s->d_a, s->du, s->w1, s->w3_master, s->a, 0.2, VALUE_WIDTH, s->scratch);
}

/* LeakyReLU(w1 x), W3 t1 + a t1, softmax, per token; fp32 only, the type in which both are compared. */
static void plain_forward(struct encoder *s, const struct counts *c)
{
    float *t1 = s->t1, *t2 = s->t2, *p = s->p;
#pragma omp parallel for
    for (int64_t n = 0; n < c->tokens; n++)
        for (int k = 0; k < VALUE_WIDTH; k++) {
            float x = c->value[n] * (float)s->w1[k];
            t1[n * VALUE_WIDTH + k] = x > 0 ? x : 0.2f * x;
        }
    product_forward(s->w3, t2, t1, &s->packed_w3, c->tokens);
#pragma omp parallel for
    for (int64_t n = 0; n < c->tokens; n++) {
        float *row = p + n * VALUE_WIDTH, top = -INFINITY, sum = 0;
        for (int k = 0; k < VALUE_WIDTH; k++)
            row[k] = t2[n * VALUE_WIDTH + k] + (float)s->a[0] * t1[n * VALUE_WIDTH + k];
        for (int k = 0; k < VALUE_WIDTH; k++) top = row[k] > top ? row[k] : top;
        for (int k = 0; k < VALUE_WIDTH; k++) sum += row[k] = expf(row[k] - top);
        for (int k = 0; k < VALUE_WIDTH; k++) row[k] /= sum;
    }
    product_forward(s->table, s->e, p, &s->packed_table, c->tokens);
}

static void plain_backward(struct encoder *s, const struct counts *c)
{
    float *t1 = s->t1, *dt = s->dp, *p = s->p;
    product_backward_data(s->table, dt, s->e, &s->packed_table, c->tokens, false);
    product_backward_weight(s->table, (real *const[]){s->d_table}, s->e, p, c->tokens);
    float da = 0;
#pragma omp parallel for reduction(+ : da)
    for (int64_t n = 0; n < c->tokens; n++) {
        float *row = dt + n * VALUE_WIDTH, *pr = p + n * VALUE_WIDTH, dot = 0;
        for (int k = 0; k < VALUE_WIDTH; k++) dot += row[k] * pr[k];
        for (int k = 0; k < VALUE_WIDTH; k++) row[k] = pr[k] * (row[k] - dot);
        for (int k = 0; k < VALUE_WIDTH; k++) da += row[k] * t1[n * VALUE_WIDTH + k];
    }
    s->d_a[0] += da;
    product_backward_weight(s->w3, (real *const[]){s->d_w3}, dt, t1, c->tokens);
    product_backward_data(s->w3, s->t2, dt, &s->packed_w3, c->tokens, false);
    const float *dt1 = s->t2;
    for (int64_t n = 0; n < c->tokens; n++)
        for (int k = 0; k < VALUE_WIDTH; k++) {
            float d = dt1[n * VALUE_WIDTH + k] + (float)s->a[0] * dt[n * VALUE_WIDTH + k];
            s->d_w1[k] += (real)((t1[n * VALUE_WIDTH + k] > 0 ? 1.0f : 0.2f) * c->value[n] * d);
        }
}

static double seconds(void (*run)(struct encoder *, const struct counts *), struct encoder *s, const struct counts *c)
{
    double start = clock_s();
    run(s, c);
    return clock_s() - start;
}

static void bench_value(int threads)
{
    struct counts c = {0};
    struct encoder s;
    double forward[ROUNDS], backward[ROUNDS];
    read_counts(&c);
    omp_set_num_threads(threads);
    encoder_open(&s, largest(&c), DTYPE_F32, threads);
    levels_forward(&s, &c), plain_forward(&s, &c);
    for (int i = 0; i < ROUNDS; i++) {
        double plain = seconds(plain_forward, &s, &c), plain_back = seconds(plain_backward, &s, &c);
        forward[i] = plain / seconds(levels_forward, &s, &c);
        backward[i] = plain_back / seconds(levels_backward, &s, &c);
    }
    report("tokens per distinct count, PBMC 3k", threads, DTYPE_F32, (double)c.tokens / (double)c.levels, "tokens", 0);
    report("value encoder, forward", threads, DTYPE_F32, median(forward, ROUNDS), "times the plain form", 15);
    report("value encoder, backward", threads, DTYPE_F32, median(backward, ROUNDS), "times the plain form", 15);
}

int main(int argc, char **argv)
{
    bind_threads(argv);
    for (int threads = 1; threads <= 2; threads++) {
        if (threads <= omp_get_num_procs()) bench_value(threads);
        else report_not_run("value encoder", threads, "one core");
    }
    return 0;
}
