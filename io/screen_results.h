/* results.h5 of a sweep: every gene set with its sums and scores, written in numbered chunks.
 *
 *   /panel/{symbol, ensembl, vocabulary_id, cells, raised_to}   [genes]; cells = carriers among the group's
 *   /readout/{symbol, ensembl, vocabulary_id}                   [read-out genes]
 *   /sets/size, /sets/genes [N, order]                          places in the panel, -1 beyond the size
 *   /sets/cells, /sets/carriers, /sets/not_finite               cells in the sums; with all genes of the set; left out
 *   /sets/sum_effect, sum_effect_squared, …                     per-set sums: add two sweeps over other cells
 *   /sets/effect, effect_se, expected, expected_se, interaction, interaction_se
 *   /sets/readout_sum [N, read-out genes]                       sums of shifts of predictions
 * Row of a set = its number (screen/combination.h). Every dataset has attributes `description` and
 * `unit`; the root has key, mode, order, configuration and the rest of the provenance. Same bytes for
 * any number of ranks. */
#ifndef CYTOMILL_IO_SCREEN_RESULTS_H
#define CYTOMILL_IO_SCREEN_RESULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "cell/vocab.h"
#include "io/h5ad_write.h"
#include "io/partial.h"
#include "screen/combination.h"
#include "screen/score.h"

/* All borrowed. */
struct results_plan {
    const char *path; /* DIR/results.h5 */
    struct combination_space space;
    int64_t chunk_sets;
    const struct vocab *vocab;
    const int32_t *panel, *readout; /* vocabulary ids: [space.genes], [readout_count] */
    int readout_count;
    const int64_t *carriers;       /* [space.genes] cells of the group with a token of the gene */
    const float *raised;           /* [space.genes] counts raised to, or NULL */
    const struct h5ad_note *notes; /* [note_count] root attributes, text or number */
    int note_count;
    char key[SHA256_HEX];
};

struct results {
    struct results_plan plan;
    struct partial partial;
    int64_t *offset; /* of each dataset under /sets */
    bool complete;   /* results.h5 with this key is there already: results_read reads it, nothing is written */
};

/* Lay out, resume or recognise. Collective, agreed. ST_OUTPUT: the path holds something else, or
 * (fresh) anything; not writable; no space. */
MUST_CHECK enum status results_open(struct comm *comm, const struct results_plan *plan, bool fresh,
                                    struct results *out);
void results_close(struct results *results);

/* Sets [*first, *first + *count) of a chunk. Local. */
void results_chunk_sets(const struct results *results, int64_t chunk, int64_t *first, int64_t *count);
/* Write a chunk: sums[count], readout[count, readout_count]; mark it done. Local. ST_OUTPUT. */
MUST_CHECK enum status results_put(struct results *results, int64_t chunk, const struct score_sum *sums,
                                   const double *readout);
/* Read the sums of sets [first, first+count) back. Local. ST_INPUT: cannot be read. */
MUST_CHECK enum status results_read(struct results *results, int64_t first, int64_t count, struct score_sum *sums);
/* Replace the number of a note in finished results, for what the results themselves do not depend on. Collective,
 * agreed. ST_OUTPUT. */
MUST_CHECK enum status results_restate(struct comm *comm, struct results *results, const char *note, double value);
/* Every chunk must be done: rename. Collective, agreed. */
MUST_CHECK enum status results_commit(struct comm *comm, struct results *results);

#endif
