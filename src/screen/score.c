#include "screen/score.h"

#include <math.h>

static double cosine_of(double dot, double a2, double b2) { return a2 > 0 && b2 > 0 ? dot / sqrt(a2 * b2) : NAN; }

static double cosine(const float *a, const float *b, int width)
{
    double dot = 0, a2 = 0, b2 = 0;
    for (int d = 0; d < width; d++) {
        dot += (double)a[d] * b[d];
        a2 += (double)a[d] * a[d];
        b2 += (double)b[d] * b[d];
    }
    return cosine_of(dot, a2, b2);
}

static double cosine_wide(const double *a, const float *b, int width)
{
    double dot = 0, a2 = 0, b2 = 0;
    for (int d = 0; d < width; d++) {
        dot += a[d] * b[d];
        a2 += a[d] * a[d];
        b2 += (double)b[d] * b[d];
    }
    return cosine_of(dot, a2, b2);
}

double score_effect(const struct score_rule *rule, const float *base, const float *moved)
{
    if (!rule->goal) return 1 - cosine(moved, base, rule->width);
    return cosine(moved, rule->goal, rule->width) - cosine(base, rule->goal, rule->width);
}

double score_expected(const struct score_rule *rule, const float *base, const float *const *singles, int size,
                      double *scratch)
{
    if (size == 1) return score_effect(rule, base, singles[0]);
    for (int d = 0; d < rule->width; d++) {
        scratch[d] = base[d];
        for (int i = 0; i < size; i++) scratch[d] += (double)singles[i][d] - base[d];
    }
    if (!rule->goal) return 1 - cosine_wide(scratch, base, rule->width);
    return cosine_wide(scratch, rule->goal, rule->width) - cosine(base, rule->goal, rule->width);
}

void score_sum_add(struct score_sum *sum, double effect, double expected)
{
    if (!isfinite(effect) || !isfinite(expected)) {
        sum->not_finite++;
        return;
    }
    double interaction = effect - expected;
    sum->cells++;
    sum->effect += effect;
    sum->effect_squared += effect * effect;
    sum->expected += expected;
    sum->expected_squared += expected * expected;
    sum->interaction += interaction;
    sum->interaction_squared += interaction * interaction;
}

void score_sum_merge(struct score_sum *a, const struct score_sum *b)
{
    a->cells += b->cells;
    a->carriers += b->carriers;
    a->not_finite += b->not_finite;
    a->effect += b->effect;
    a->effect_squared += b->effect_squared;
    a->expected += b->expected;
    a->expected_squared += b->expected_squared;
    a->interaction += b->interaction;
    a->interaction_squared += b->interaction_squared;
}

struct estimate estimate_from(double sum, double sum_squared, int64_t n)
{
    if (n == 0) return (struct estimate){NAN, NAN};
    double mean = sum / (double)n;
    if (n == 1) return (struct estimate){mean, NAN};
    double variance = (sum_squared - sum * mean) / (double)(n - 1);
    return (struct estimate){mean, variance > 0 ? sqrt(variance / (double)n) : 0};
}
