/* CellFM's objective: squared error on the selected positions of a cell, 80 % of them hidden,
 *     L = sum w (p - y)^2 / sum w         over the global batch, once per head.
 * As every objective it gives a numerator and a denominator, never a mean, so that micro-batches and ranks add up to
 * the loss of one big batch. A term looks at one token, so a batch may be cut anywhere between cells. */
#ifndef CYTOMILL_OBJECTIVE_MASKED_H
#define CYTOMILL_OBJECTIVE_MASKED_H

#include "cell/batch.h"
#include "tape/op.h"

/* Targets of the rows that were predicted; in the tape's memory. */
struct masked_rows {
    int64_t count;       /* R */
    const float *target; /* [R] */
    const float *weight; /* [R] 1 in the loss, else 0 */
    const float *hidden; /* [R] 1 where the value was hidden and is in the loss */
};

struct masked_sum {
    double error, weight;        /* sum w (p - y)^2 and sum w */
    double error_hidden, hidden; /* the same over hidden positions */
};

/* Rows index[count] of the batch (NULL = all); with no batch only the memory is taken. Local. */
struct masked_rows masked_gather(struct tape *tape, const struct batch *batch, const int64_t *index, int64_t count);
/* Sums of prediction p[R, 1]; backward will start with scale * (sum w (p - y)^2). *out is written. Local. */
void masked_loss(struct tape *tape, struct tensor *p, const struct masked_rows *rows, double scale,
                 struct masked_sum *out);

#endif
