/* hits.tsv: the sets of a sweep in order of interest, and hits_columns.tsv, which says what each
 * column means.
 *
 * First the sets of two genes and more by |interaction|, ranked from 1; then single genes by |effect|,
 * ranked from 1; equal keys by the number of the set. At most `top` of each. Sets with fewer than
 * min_cells cells follow without rank, at most `top` again; results.h5 holds all. */
#ifndef CYTOMILL_IO_SCREEN_HITS_H
#define CYTOMILL_IO_SCREEN_HITS_H

#include <stdint.h>

#include "io/screen_results.h"

/* Read all sums back (ranks share them) and write DIR/hits.tsv and DIR/hits_columns.tsv. All chunks must be
 * done. *unranked gets the number of sets below min_cells. Collective, agreed. ST_OUTPUT. */
MUST_CHECK enum status hits_write(struct comm *comm, struct results *results, const char *folder, int64_t top,
                                  int64_t min_cells, int64_t *unranked);

#endif
