#include "mpi/pca.h"

#include <stdlib.h>
#include <string.h>

#include "base/stop.h"
#include "metric/expression.h"
#include "mpi/dense.h"

/* Cells a rank reads at a time. */
enum { READ_CELLS = 2048 };
/* Components that share one reading of a cell. */
enum { K_BLOCK = 64 };

/* ---- passes over a rank's share ---- */

static enum status add_moments(struct comm *comm, const struct pca_source *source, struct moments *m)
{
    enum status st = ST_OK;
    struct cells block = {0};
    int64_t first, count;
    comm_share(comm, source->cells, &first, &count);
    for (int64_t at = 0; at < count; at += READ_CELLS) {
        int64_t n = count - at < READ_CELLS ? count - at : READ_CELLS;
        TRY(stop_asked() ? ST_REQUEUE : source->read(source->context, first + at, n, &block));
        TRY(moments_add(m, &block));
    }
done:
    cells_free(&block);
    return comm_agree(comm, st);
}

/* A block of cells with the chosen genes only, log-normalised. */
struct block {
    struct cells cells;
    int64_t start[READ_CELLS + 1];
    int32_t *column;
    float *value;
    int64_t capacity;
};

static enum status block_reserve(struct block *b, int64_t entries)
{
    if (entries <= b->capacity) return ST_OK;
    free(b->column);
    free(b->value);
    b->capacity = 0;
    enum status st = NEW_ARRAY(b->column, entries);
    if (st != ST_OK) return st;
    st = NEW_ARRAY(b->value, entries);
    if (st == ST_OK) b->capacity = entries;
    return st;
}

static enum status block_fill(const struct pca *p, struct block *b)
{
    enum status st = ST_OK;
    const struct cells *cells = &b->cells;
    int64_t used = 0;
    TRY(block_reserve(b, cells->start[cells->count]));
    b->start[0] = 0;
    for (int64_t r = 0; r < cells->count; r++) {
        double total = expression_total(cells, r);
        for (int64_t e = cells->start[r]; e < cells->start[r + 1]; e++) {
            if (p->place[cells->feature[e]] < 0) continue;
            b->column[used] = p->place[cells->feature[e]];
            b->value[used++] = expression_log(cells->value[e], total);
        }
        b->start[r + 1] = used;
    }
done:
    return st;
}

static void block_free(struct block *b)
{
    if (!b) return;
    cells_free(&b->cells);
    free(b->column);
    free(b->value);
    free(b);
}

/* All ranks make the same number of calls; those out of cells bring none. */
static enum status add_covariance(struct comm *comm, const struct pca_source *source, const struct pca *p,
                                  struct dense *g)
{
    enum status st = ST_OK;
    struct block *b = NULL;
    int64_t first, count, most = (source->cells + comm->size - 1) / comm->size;
    comm_share(comm, source->cells, &first, &count);
    TRY(comm_agree(comm, NEW_ARRAY(b, 1)));
    memset(b, 0, sizeof *b);
    for (int64_t at = 0; at < most; at += READ_CELLS) {
        int64_t n = count - at < READ_CELLS ? count - at : READ_CELLS;
        if (n < 0) n = 0;
        st = stop_asked() ? ST_REQUEUE : ST_OK;
        if (st == ST_OK && n > 0) st = source->read(source->context, first + at, n, &b->cells);
        if (st == ST_OK && n > 0) st = block_fill(p, b);
        TRY(comm_agree(comm, st));
        struct dense_rows rows = {n, b->start, b->column, b->value};
        TRY(dense_add_gram(comm, g, &rows, p->mean));
    }
done:
    block_free(b);
    return st;
}

/* ---- fit ---- */

static enum status choose_genes(struct comm *comm, const struct pca_source *source, int64_t genes, struct pca *p)
{
    enum status st = ST_OK;
    struct moments m = {0};
    TRY(comm_agree(comm, moments_create(source->features, source->cells, &m)));
    TRY(add_moments(comm, source, &m));
    comm_sum_i64(comm, m.sum, m.features);
    comm_sum_i64(comm, m.square, m.features);
    st = moments_choose(&m, genes, &p->gene, &p->genes);
    if (st == ST_OK) st = NEW_ARRAY(p->place, p->features);
    if (st == ST_OK) st = NEW_ARRAY(p->mean, p->genes);
    TRY(comm_agree(comm, st));
    for (int64_t f = 0; f < p->features; f++) p->place[f] = -1;
    for (int64_t i = 0; i < p->genes; i++) {
        p->place[p->gene[i]] = (int32_t)i;
        p->mean[i] = moments_mean(&m, p->gene[i]);
    }
done:
    moments_free(&m);
    return st;
}

static enum status check_components(const struct pca *p)
{
    int64_t most = p->cells - 1 < p->genes ? p->cells - 1 : p->genes;
    if (p->components <= most) return ST_OK;
    return fail(ST_CONFIG,
                "%d components asked of %lld cells and %lld genes; at most %lld (cells - 1, or genes); lower "
                "analyze.components",
                p->components, (long long)p->cells, (long long)p->genes, (long long)most);
}

static enum status allocate_components(struct pca *p)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(p->variance, p->components));
    TRY(NEW_ARRAY(p->vectors, p->components * p->genes));
    TRY(NEW_ARRAY(p->shift, p->components));
done:
    return st;
}

static enum status solve(struct comm *comm, const struct pca_source *source, struct pca *p)
{
    enum status st = ST_OK;
    struct dense *g = NULL;
    TRY(dense_create(comm, p->genes, &g));
    TRY(add_covariance(comm, source, p, g));
    dense_scale(g, 1.0 / (double)(p->cells - 1));
    p->total_variance = dense_trace(comm, g);
    TRY(dense_eigen(comm, g, p->components, p->variance, p->vectors));
    for (int k = 0; k < p->components; k++) {
        p->shift[k] = 0;
        for (int64_t i = 0; i < p->genes; i++) p->shift[k] += p->vectors[k * p->genes + i] * p->mean[i];
    }
done:
    dense_destroy(comm, &g);
    return st;
}

enum status pca_fit(struct comm *comm, const struct pca_source *source, int64_t genes, int components, struct pca **out)
{
    enum status st = ST_OK;
    struct pca *p = NULL;
    TRY(comm_agree(comm, NEW_ARRAY(p, 1)));
    *p = (struct pca){.features = source->features, .components = components, .cells = source->cells};
    TRY(choose_genes(comm, source, genes, p));
    TRY(comm_agree(comm, check_components(p)));
    TRY(comm_agree(comm, allocate_components(p)));
    TRY(solve(comm, source, p));
    *out = p;
    p = NULL;
done:
    pca_destroy(&p);
    return st;
}

void pca_destroy(struct pca **pca)
{
    struct pca *p = *pca;
    if (!p) return;
    free(p->gene);
    free(p->place);
    free(p->mean);
    free(p->variance);
    free(p->vectors);
    free(p->shift);
    free(p);
    *pca = NULL;
}

void pca_project(const struct pca *p, const struct cells *cells, float *scores)
{
    int K = p->components;
    for (int64_t r = 0; r < cells->count; r++) {
        double total = expression_total(cells, r), sum[K_BLOCK];
        for (int k = 0; k < K; k += K_BLOCK) {
            int width = K - k < K_BLOCK ? K - k : K_BLOCK;
            for (int j = 0; j < width; j++) sum[j] = -p->shift[k + j];
            for (int64_t e = cells->start[r]; e < cells->start[r + 1]; e++) {
                int32_t place = p->place[cells->feature[e]];
                if (place < 0) continue;
                double y = expression_log(cells->value[e], total);
                for (int j = 0; j < width; j++) sum[j] += y * p->vectors[(k + j) * p->genes + place];
            }
            for (int j = 0; j < width; j++) scores[r * K + k + j] = (float)sum[j];
        }
    }
}
