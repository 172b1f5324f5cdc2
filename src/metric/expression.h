/* Log-normalised expression and its moments per gene.
 *
 * y = ln(1 + 10^4 x / T), T the cell's total over all features of the modality. Sums are kept in fixed
 * point, so that they are exact, and the same for any order of cells and any number of ranks: add the
 * arrays of all ranks with comm_sum_i64. */
#ifndef CYTOMILL_METRIC_EXPRESSION_H
#define CYTOMILL_METRIC_EXPRESSION_H

#include <stdint.h>

#include "cell/cells.h"

#define EXPRESSION_SCALE 1e4

/* Sum of the values of row r. Local. */
double expression_total(const struct cells *cells, int64_t r);
/* ln(1 + 10^4 value / total); 0 where total is 0. Local. */
float expression_log(float value, double total);

struct moments {
    int64_t features;
    int64_t cells;   /* of all ranks, fixed at the start: it sets the resolution */
    double unit;     /* value of one step of the sums */
    int64_t *sum;    /* [features] sum of y, in units */
    int64_t *square; /* [features] sum of y^2, in units */
};

MUST_CHECK enum status moments_create(int64_t features, int64_t cells, struct moments *out);
void moments_free(struct moments *moments);
/* Add a block of cells. ST_INPUT if a value is negative or not finite. Local. */
MUST_CHECK enum status moments_add(struct moments *moments, const struct cells *cells);
/* Mean and variance (n - 1) of a feature over moments->cells cells. Local. */
double moments_mean(const struct moments *moments, int64_t feature);
double moments_variance(const struct moments *moments, int64_t feature);

/* The `most` features of largest variance (all that vary if most is 0 or larger), equal variances by
 * feature number; *features in ascending order, the caller frees. ST_INPUT: no feature varies. Local. */
MUST_CHECK enum status moments_choose(const struct moments *moments, int64_t most, int64_t **features, int64_t *count);

#endif
