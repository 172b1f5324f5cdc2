/* The micro-batches of a bad step as a file, for whoever wants to know which cells it was. */
#ifndef CYTOMILL_IO_BATCH_SAVE_H
#define CYTOMILL_IO_BATCH_SAVE_H

#include "cell/batch.h"

/* Write this rank's micro-batches [count] (may be 0) to FOLDER/bad-step-<step>-rank<rank>.h5 and return its path in
 * *path (caller frees; NULL for those who do not want it). HDF5, one row a cell or a token:
 *   cell_id [B], micro_batch [B], offsets [B+1]                         global ids; first token of each cell
 *   feature, value, target, visible, loss_weight [S]                    feature 0: the cls token
 * with attributes step, rank, loss, gradient_norm. Local. ST_OUTPUT: nothing is left under that name. */
MUST_CHECK enum status batch_save(const char *folder, int64_t step, int rank, const struct batch *micro, int count,
                                  double loss, double gradient_norm, char **path);

#endif
