/* Principal components of log-normalised counts, over all ranks and exact: the covariance of the
 * chosen genes is accumulated block-cyclic (mpi/dense.h) and diagonalised; no random sketch.
 *
 *     y = ln(1 + 10^4 x / T), centred, not scaled; the `genes` genes of largest variance
 *
 * Three passes over the cells: moments, covariance, projection. Each rank reads its share.
 *
 *     TRY(pca_fit(comm, &source, 2000, 50, &p));      collective
 *     TRY(pca_project(p, &cells, scores));            local, [cells, 50]
 *     pca_destroy(&p); */
#ifndef CYTOMILL_MPI_PCA_H
#define CYTOMILL_MPI_PCA_H

#include <stdint.h>

#include "cell/cells.h"
#include "mpi/comm.h"

/* Where cells come from: an atlas, or memory. `read` is local and overwrites *out. */
struct pca_source {
    int64_t cells, features;
    enum status (*read)(void *context, int64_t first, int64_t count, struct cells *out);
    void *context;
};

struct pca {
    int64_t features;      /* of the modality */
    int64_t genes;         /* chosen: G */
    int64_t *gene;         /* [G] feature numbers, ascending */
    int32_t *place;        /* [features] index into gene, or -1 */
    double *mean;          /* [G] of y */
    int components;        /* K */
    double *variance;      /* [K] explained, descending, n - 1 in the denominator */
    double *vectors;       /* [K, G] unit length, entry of largest magnitude positive */
    double *shift;         /* [K] vectors . mean */
    double total_variance; /* of the G genes */
    int64_t cells;
};

/* Fit. `genes` 0 takes all that vary. Bits depend on the number of ranks only through the solver (about
 * 1e-10 of the largest variance). ST_CONFIG: more components than cells - 1 or genes; ST_MEMORY;
 * ST_INPUT: bad values; ST_NUMERIC; ST_REQUEUE: stop_asked() between blocks. Collective, agreed. */
MUST_CHECK enum status pca_fit(struct comm *comm, const struct pca_source *source, int64_t genes, int components,
                               struct pca **out);
void pca_destroy(struct pca **pca);

/* scores[cells->count, K] = (y - mean) . vectors. Local. */
void pca_project(const struct pca *pca, const struct cells *cells, float *scores);

#endif
