/* Write principal components as AnnData does: obsm/X_pca, varm/PCs, uns/pca/{variance, variance_ratio}. */
#ifndef CYTOMILL_IO_PCA_WRITE_H
#define CYTOMILL_IO_PCA_WRITE_H

#include "io/cell_input.h"
#include "io/h5ad_write.h"
#include "mpi/pca.h"

/* `path`, an .h5ad with the input's obs, all its features in var (`in_pca` marks those used), scores of
 * every cell, and notes under uns. Each rank projects and writes its share; same layout for any number
 * of ranks. PATH.partial until complete. Collective, agreed. ST_OUTPUT. */
MUST_CHECK enum status pca_write(struct comm *comm, const char *path, const struct pca *pca, struct cell_input *input,
                                 const struct h5ad_note *notes, int note_count);

#endif
