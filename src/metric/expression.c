#include "metric/expression.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Largest y: a cell whose counts are all of one gene. */
#define LARGEST_LOG 9.2104
#define SUM_BITS    62

double expression_total(const struct cells *cells, int64_t r)
{
    double total = 0;
    for (int64_t e = cells->start[r]; e < cells->start[r + 1]; e++) total += cells->value[e];
    return total;
}

float expression_log(float value, double total)
{
    return total > 0 ? (float)log1p(EXPRESSION_SCALE * value / total) : 0;
}

enum status moments_create(int64_t features, int64_t cells, struct moments *out)
{
    enum status st = ST_OK;
    double largest = LARGEST_LOG * LARGEST_LOG * (double)(cells > 0 ? cells : 1);
    *out = (struct moments){.features = features, .cells = cells, .unit = exp2(ceil(log2(largest)) - SUM_BITS)};
    TRY(NEW_ARRAY(out->sum, features));
    TRY(NEW_ARRAY(out->square, features));
    memset(out->sum, 0, sizeof *out->sum * (size_t)features);
    memset(out->square, 0, sizeof *out->square * (size_t)features);
done:
    return st;
}

void moments_free(struct moments *moments)
{
    free(moments->sum);
    free(moments->square);
    *moments = (struct moments){0};
}

enum status moments_add(struct moments *moments, const struct cells *cells)
{
    double per_unit = 1 / moments->unit;
    for (int64_t r = 0; r < cells->count; r++) {
        double total = expression_total(cells, r);
        for (int64_t e = cells->start[r]; e < cells->start[r + 1]; e++) {
            if (!(cells->value[e] >= 0) || !isfinite(cells->value[e]))
                return fail(
                    ST_INPUT,
                    "cell %lld holds the value %g; counts are whole numbers from 0 up; check the input's matrix",
                    (long long)cells->id[r], (double)cells->value[e]);
            double y = expression_log(cells->value[e], total);
            moments->sum[cells->feature[e]] += llrint(y * per_unit);
            moments->square[cells->feature[e]] += llrint(y * y * per_unit);
        }
    }
    return ST_OK;
}

double moments_mean(const struct moments *moments, int64_t feature)
{
    return (double)moments->sum[feature] * moments->unit / (double)moments->cells;
}

double moments_variance(const struct moments *moments, int64_t feature)
{
    double mean = moments_mean(moments, feature), n = (double)moments->cells;
    double about_mean = (double)moments->square[feature] * moments->unit - n * mean * mean;
    /* rounding of a constant feature leaves a speck */
    double speck = 1e-12 * n * mean * mean;
    return n > 1 && about_mean > speck ? about_mean / (n - 1) : 0;
}

struct ranked {
    double variance;
    int64_t feature;
};

static int by_variance(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->variance != y->variance) return x->variance < y->variance ? 1 : -1;
    return x->feature < y->feature ? -1 : 1;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

enum status moments_choose(const struct moments *moments, int64_t most, int64_t **features, int64_t *count)
{
    enum status st = ST_OK;
    struct ranked *ranked = NULL;
    int64_t *chosen = NULL, varying = 0;
    TRY(NEW_ARRAY(ranked, moments->features));
    for (int64_t f = 0; f < moments->features; f++) {
        double variance = moments_variance(moments, f);
        if (variance > 0) ranked[varying++] = (struct ranked){variance, f};
    }
    if (varying == 0)
        TRY(fail(ST_INPUT, "none of %lld features varies over %lld cells; at least two unlike cells are needed",
                 (long long)moments->features, (long long)moments->cells));
    qsort(ranked, (size_t)varying, sizeof *ranked, by_variance);
    if (most > 0 && varying > most) varying = most;
    TRY(NEW_ARRAY(chosen, varying));
    for (int64_t i = 0; i < varying; i++) chosen[i] = ranked[i].feature;
    qsort(chosen, (size_t)varying, sizeof *chosen, by_number);
    *features = chosen;
    *count = varying;
done:
    free(ranked);
    return st;
}
