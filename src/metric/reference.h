/* What a masked-expression model must beat: three references that know no gene-gene relation.
 * All predict y = ln(1 + scale c / T) of a hidden gene, given that it is expressed (c >= 1):
 *
 *   gene mean      mu_g, the mean of y over training cells that express g
 *   gene + offset  mu_g + mean over the cell's visible genes j of (y_j - mu_j): depth alone
 *   Poisson        E[y | c >= 1], c ~ Poisson(p_g T) cut at zero, p_g the gene's share of all
 *                  training counts and T the cell's own total
 *
 * Fitted on training cells only and, per cell, on visible genes only. (T is no secret: it shows in
 * the smallest visible value.) On PBMC 3k about 0.21, 0.16, 0.156; most entries are count 1.
 *
 *     TRY(reference_create(vocab->count, scale, &r));
 *     reference_add(r, &cell);                         every training cell
 *     comm_sum_f64(comm, reference_sums(r, &n), n);    over ranks
 *     reference_fit(r);
 *     reference_score(r, &batch, totals, &score);      held-out batches, as masked for the model */
#ifndef CYTOMILL_METRIC_REFERENCE_H
#define CYTOMILL_METRIC_REFERENCE_H

#include "cell/batch.h"
#include "cell/tokenize.h"

struct reference;

/* X(name in code, word in reports) */
#define REFERENCE_LIST(X) \
    X(REFERENCE_MEAN, "gene mean") \
    X(REFERENCE_OFFSET, "gene + cell offset") \
    X(REFERENCE_POISSON, "zero-truncated Poisson")
enum reference_kind {
#define X(name, word) name,
    REFERENCE_LIST(X)
#undef X
        REFERENCE_COUNT
};
const char *reference_word(enum reference_kind kind);

/* Sums over hidden positions; add over batches and ranks. */
struct reference_score {
    double error[REFERENCE_COUNT]; /* sum of (prediction - target)^2 */
    double hidden;                 /* number of positions */
};

/* For vocabulary ids 1..genes. Local. */
MUST_CHECK enum status reference_create(int32_t genes, double scale, struct reference **out);
void reference_destroy(struct reference **reference);
/* Take a training cell into the sums. Local. */
void reference_add(struct reference *reference, const struct token_cell *cell);
/* The sums, all that fitting needs: *count doubles, to be added over ranks. Borrowed. Local. */
double *reference_sums(struct reference *reference, int64_t *count);
/* Parameters from the sums. A gene no training cell expresses gets the mean over all genes, and half a count. Local. */
void reference_fit(struct reference *reference);
/* Add the squared errors on hidden positions of a batch; total[B] is each cell's T. Local. */
void reference_score(const struct reference *reference, const struct batch *batch, const double *total,
                     struct reference_score *score);

#endif
