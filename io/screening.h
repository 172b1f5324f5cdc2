/* Score gene sets through a model: many (cell, set) pairs in micro-batches, sums per set.
 *
 * The embeddings of the unperturbed cells are computed once and kept in memory; those of the single
 * genes once too, into a scratch file (single genes x cells x D), from which the expectation of every larger
 * set is read. Scores: screen/score.h; edits: screen/edit.h.
 *
 *     TRY(screening_create(comm, &plan, &s));                    embeds the cells, ranks sharing
 *     TRY(screening_open_singles(comm, s, folder, key));
 *     for chunks of screening_singles(s): TRY(screening_do_singles(s, chunk));
 *     for chunks of sets:                 TRY(screening_do_sets(s, first, count, sums, readout)); */
#ifndef CYTOMILL_IO_SCREENING_H
#define CYTOMILL_IO_SCREENING_H

#include <stdint.h>

#include "io/inference.h"
#include "io/partial.h"
#include "screen/cohort.h"
#include "screen/combination.h"
#include "screen/edit.h"
#include "screen/score.h"

/* All borrowed. */
struct screening_plan {
    struct inference *inference;
    const struct cohort *cells;
    const struct cohort *goal; /* NULL: shift from the start */
    struct combination_space space;
    const int32_t *panel; /* [space.genes] vocabulary ids */
    enum edit_mode mode;
    const float *raised;    /* [space.genes] counts to raise to; over-expression only */
    const int32_t *readout; /* [readout_count] vocabulary ids */
    int readout_count;
};

struct screening;

/* Embed the cells and the goal, each rank its share. Collective, agreed. ST_NUMERIC: the goal's mean is
 * not finite. */
MUST_CHECK enum status screening_create(struct comm *comm, const struct screening_plan *plan, struct screening **out);
void screening_destroy(struct screening **screening);

/* FOLDER/singles.partial with its ledger: one chunk a gene and block of cells. Done chunks are read
 * back and compared with their hashes. Collective, agreed. ST_OUTPUT: as partial_open. */
MUST_CHECK enum status screening_open_singles(struct comm *comm, struct screening *screening, const char *folder,
                                              const char key[SHA256_HEX]);
/* Their chunks, borrowed. Local. */
struct partial *screening_singles(struct screening *screening);
/* Compute one chunk of singles and mark it. Local. ST_OUTPUT: disk full, I/O error. */
MUST_CHECK enum status screening_do_singles(struct screening *screening, int64_t chunk);

/* Sets [first, first+count): sums[count], and readout[count, readout_count] sums over the same cells
 * of the shift of each read-out prediction. Overwritten. The singles must be complete. The result depends on the
 * numbers of the sets alone. Local. ST_INPUT: the scratch file cannot be read. */
MUST_CHECK enum status screening_do_sets(struct screening *screening, int64_t first, int64_t count,
                                         struct score_sum *sums, double *readout);

/* Seconds a rank needs for one cell, measured on a few micro-batches of the cohort. Local. */
MUST_CHECK enum status screening_time(struct inference *inference, const struct cohort *cells,
                                      double *seconds_per_cell);

/* Tokens computed by this rank so far; unperturbed embeddings [cells, D] (borrowed). Local. */
int64_t screening_tokens(const struct screening *screening);
const float *screening_base(const struct screening *screening);

#endif
