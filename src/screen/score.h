/* Scores of a sweep: how far a set of genes moves a cell, and how far beyond its single genes.
 *
 * With z the cls row of a cell, z_S that of the cell with set S perturbed, z_i with gene i alone:
 *   effect       e_S = 1 - cos(z_S, z);      towards a goal g:  cos(z_S, g) - cos(z, g)
 *   expected     the same score of z + sum over i in S of (z_i - z), on the same cells
 *   interaction  mean over cells of (effect - expected), with its standard error
 * Sums are kept, not means, so that results of several runs combine. All arithmetic in double. */
#ifndef CYTOMILL_SCREEN_SCORE_H
#define CYTOMILL_SCREEN_SCORE_H

#include <stdint.h>

/* How scores are taken. */
struct score_rule {
    int width;         /* D */
    const float *goal; /* [D] mean embedding of the goal cells, or NULL: shift from the start */
};

/* Score of an embedding that a perturbation moved from base[D] to moved[D]. NaN if a norm is 0 or
 * a value is not finite. Local. */
double score_effect(const struct score_rule *rule, const float *base, const float *moved);
/* Score that the single genes predict: singles[size] point to rows [D]. For one single this is its
 * effect. `scratch` holds D doubles. Local. */
double score_expected(const struct score_rule *rule, const float *base, const float *const *singles, int size,
                      double *scratch);

/* Sums over the cells of one set. */
struct score_sum {
    int64_t cells;      /* cells in the sums */
    int64_t carriers;   /* cells that carry every gene of the set, in the sums or not */
    int64_t not_finite; /* cells left out because a score was NaN or infinite */
    double effect, effect_squared;
    double expected, expected_squared;
    double interaction, interaction_squared;
};
void score_sum_add(struct score_sum *sum, double effect, double expected);
/* a += b: two runs over different cells. Local. */
void score_sum_merge(struct score_sum *a, const struct score_sum *b);

/* Mean and standard error (sd with n-1, over sqrt n): the mean is NaN without cells, the error below two. */
struct estimate {
    double mean, error;
};
struct estimate estimate_from(double sum, double sum_squared, int64_t n);

#endif
