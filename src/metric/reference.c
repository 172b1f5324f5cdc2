#include "metric/reference.h"

#include <math.h>
#include <stdlib.h>

struct reference {
    int32_t genes;
    double scale;
    double *sums; /* expressing[V], value_sum[V], count_sum[V], then the total of all counts */
    double *mean; /* [V] mu_g */
    double *rate; /* [V] p_g */
};

/* Parts of `sums`, by gene index (id - 1). */
static double *expressing(const struct reference *r) { return r->sums; }
static double *value_sum(const struct reference *r) { return r->sums + r->genes; }
static double *count_sum(const struct reference *r) { return r->sums + 2 * (int64_t)r->genes; }
static double *all_counts(const struct reference *r) { return r->sums + 3 * (int64_t)r->genes; }

const char *reference_word(enum reference_kind kind)
{
    static const char *const words[] = {
#define X(name, word) word,
        REFERENCE_LIST(X)
#undef X
    };
    return words[kind];
}

enum status reference_create(int32_t genes, double scale, struct reference **out)
{
    enum status st = ST_OK;
    struct reference *r = NULL;
    TRY(NEW_ARRAY(r, 1));
    *r = (struct reference){.genes = genes, .scale = scale};
    int64_t sums = 3 * (int64_t)genes + 1;
    TRY(NEW_ARRAY(r->sums, sums));
    for (int64_t i = 0; i < sums; i++) r->sums[i] = 0;
    TRY(NEW_ARRAY(r->mean, genes));
    TRY(NEW_ARRAY(r->rate, genes));
    *out = r;
    r = NULL;
done:
    reference_destroy(&r);
    return st;
}

void reference_destroy(struct reference **reference)
{
    struct reference *r = *reference;
    if (!r) return;
    free(r->sums);
    free(r->mean);
    free(r->rate);
    free(r);
    *reference = NULL;
}

void reference_add(struct reference *r, const struct token_cell *cell)
{
    for (int i = 0; i < cell->count; i++) {
        int32_t g = cell->gene[i] - 1;
        expressing(r)[g] += 1;
        value_sum(r)[g] += log1p(cell->counts[i] / cell->total * r->scale);
        count_sum(r)[g] += cell->counts[i];
    }
    *all_counts(r) += cell->total;
}

double *reference_sums(struct reference *r, int64_t *count)
{
    *count = 3 * (int64_t)r->genes + 1;
    return r->sums;
}

void reference_fit(struct reference *r)
{
    double cells = 0, values = 0, total = *all_counts(r) > 0 ? *all_counts(r) : 1;
    for (int32_t g = 0; g < r->genes; g++) {
        cells += expressing(r)[g];
        values += value_sum(r)[g];
    }
    double any_gene = cells > 0 ? values / cells : 0;
    for (int32_t g = 0; g < r->genes; g++) {
        r->mean[g] = expressing(r)[g] > 0 ? value_sum(r)[g] / expressing(r)[g] : any_gene;
        r->rate[g] = (count_sum(r)[g] > 0 ? count_sum(r)[g] : 0.5) / total;
    }
}

/* E[ln(1 + scale c / total) | c >= 1] for c ~ Poisson(lambda). Terms are summed outwards from the mode,
 * relative to it, until they no longer matter, so no lambda overflows. */
static double poisson_expectation(double lambda, double total, double scale)
{
    double mode = fmax(1, floor(lambda)), weight = 0, sum = 0;
    double term = 1;
    for (double c = mode; term > 1e-12; c++) {
        weight += term;
        sum += term * log1p(scale * c / total);
        term *= lambda / (c + 1);
    }
    term = mode / lambda;
    for (double c = mode - 1; c >= 1 && term > 1e-12; c--) {
        weight += term;
        sum += term * log1p(scale * c / total);
        term *= c / lambda;
    }
    return sum / weight;
}

/* Mean over the cell's visible genes of y - mu. */
static double cell_offset(const struct reference *r, const struct batch *b, int cell)
{
    double sum = 0;
    int64_t visible = 0;
    for (int64_t t = b->offsets[cell]; t < b->offsets[cell + 1]; t++) {
        if (!b->visible[t]) continue;
        sum += b->target[t] - r->mean[b->feature[t] - 1];
        visible++;
    }
    return visible ? sum / (double)visible : 0;
}

static double square(double x) { return x * x; }

void reference_score(const struct reference *r, const struct batch *b, const double *total,
                     struct reference_score *score)
{
    for (int cell = 0; cell < b->cell_count; cell++) {
        double offset = cell_offset(r, b, cell);
        for (int64_t t = b->offsets[cell]; t < b->offsets[cell + 1]; t++) {
            if (b->role[t] != TOKEN_FEATURE || b->visible[t]) continue;
            int32_t g = b->feature[t] - 1;
            double poisson = poisson_expectation(r->rate[g] * total[cell], total[cell], r->scale);
            score->error[REFERENCE_MEAN] += square(r->mean[g] - b->target[t]);
            score->error[REFERENCE_OFFSET] += square(r->mean[g] + offset - b->target[t]);
            score->error[REFERENCE_POISSON] += square(poisson - b->target[t]);
            score->hidden += 1;
        }
    }
}
