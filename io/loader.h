/* Cells for training: read ahead from an atlas, tokenised into micro-batches.
 *
 * A loader serves one list of atlas rows. Positions (cell/sampler.h) are read many at a time, sorted
 * by row so that neighbours on disk are read together; a step then only tokenises. Memory: the
 * read-ahead window of sparse cells, and one global batch's share of tokens.
 *
 *     TRY(loader_create(&plan, &l));
 *     st = loader_next(l, position, batch, step, &micro, &micro_count);   local: agree on st
 */
#ifndef CYTOMILL_IO_LOADER_H
#define CYTOMILL_IO_LOADER_H

#include "cell/batch.h"
#include "cell/sampler.h"
#include "cell/tokenize.h"
#include "io/atlas.h"

/* What a loader works on; pointers are borrowed for its life time. */
struct loader_plan {
    struct atlas *atlas;
    int modality;
    const int32_t *lookup; /* vocabulary id of each feature of the modality */
    const int64_t *rows;   /* atlas rows; what sampler.count counts */
    const int32_t *genes;  /* in the vocabulary, of each of `rows`: ranks get even work; NULL = all alike */
    struct sampler sampler;
    struct token_rules rules;
    uint64_t seed;   /* of masks */
    int64_t batch;   /* most cells of one call, all ranks together */
    int rank, ranks; /* that share the batch; 0 of 1: everything is this rank's */
    int micro_cells; /* cells of a micro-batch */
    int64_t ahead;   /* cells read at a time, at least this rank's share of a batch */
};

struct loader;

/* ST_MEMORY. Local. */
MUST_CHECK enum status loader_create(const struct loader_plan *plan, struct loader **out);
void loader_destroy(struct loader **loader);

/* Micro-batches of this rank's share (sampler_share, by tokens) of positions [position, position + batch),
 * batch <= plan.batch, masked by (seed, atlas row, step): micro[micro_count], valid until the next call.
 * The batches that follow are read ahead. Local. ST_INPUT: a damaged shard. */
MUST_CHECK enum status loader_next(struct loader *loader, int64_t position, int64_t batch, int64_t step,
                                   struct batch **micro, int *micro_count);
/* Totals T of the cells of the last call, in the order of its micro-batches: [count]. Borrowed. Local. */
const double *loader_totals(const struct loader *loader);

#endif
