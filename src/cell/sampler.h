/* Which cells the next batch holds: a pure function of (seed, position, count of cells).
 *
 * A sample is a tuple of cells with roles. Positions 0, 1, 2, … name samples in one global order;
 * step s of a global batch of N takes positions [s N, (s+1) N) and a rank its share of them (sampler_share), so the
 * order is the same for any number of ranks and a run resumes from a position alone.
 *
 *   permutation  tuples of one cell. Every cell once per epoch: blocks of `block` neighbouring cells
 *                in the order of a keyed permutation, then shuffled inside windows of `window` blocks
 *                (reads stay local, neighbours in the file do not share a batch).
 *   weighted     tuples of one cell, drawn with replacement in proportion to `weight`.
 *
 *     struct sampler s = {.seed = 1, .count = n, .block = 16, .window = 64};
 *     sampler_draw(&s, step * 128 + first, share, members);
 *     row = selected[members[i].item]; */
#ifndef CYTOMILL_CELL_SAMPLER_H
#define CYTOMILL_CELL_SAMPLER_H

#include <stdint.h>

#include "base/status.h"

/* What a cell is for within its sample. The order is stored nowhere. */
enum sample_role {
    SAMPLE_ANCHOR,  /* the cell itself, or the perturbed one of a tuple */
    SAMPLE_CONTROL, /* an unperturbed cell beside a perturbed anchor */
    SAMPLE_MEMBER,  /* one of the cells that together stand for a donor */
    SAMPLE_PARTNER, /* the same cell in another modality */
    SAMPLE_ROLLOUT  /* a repeat of the anchor as prompt */
};

struct sample_member {
    int64_t item; /* index into the job's list of cells, 0 … count-1 */
    enum sample_role role;
};

enum sample_kind { SAMPLE_PERMUTATION, SAMPLE_WEIGHTED };

struct sampler {
    enum sample_kind kind;
    uint64_t seed;
    int64_t count;         /* cells to draw from, at least 1 */
    int64_t block, window; /* permutation: cells of a block, blocks of a window */
    const double *running; /* weighted: [count] running sums of the weights (sampler_accumulate); borrowed */
    int tuple;             /* cells of a sample; 0 means 1 */
};

/* Members of samples [position, position + samples): out[samples * tuple], sample after sample. Local,
 * no memory, O(log count) a cell. */
void sampler_draw(const struct sampler *sampler, int64_t position, int64_t samples, struct sample_member *out);

/* A sample of a batch and how much work it is (tokens). */
struct sample_work {
    int64_t sample, work;
};

/* This rank's share of a batch: samples are dealt there and back among the ranks in order of falling work,
 * so that shares differ by at most one sample and little in work. Sorts batch[count] in place, leaves the
 * share in its first entries, ascending by sample, and returns how many they are. The shares of all ranks
 * together are the batch. Local, no memory. */
int64_t sampler_share(struct sample_work *batch, int64_t count, int rank, int ranks);

/* Turn weights[count] (>= 0, finite) into running sums in place. ST_INPUT: a negative or non-finite
 * weight, or all are zero. Local. */
MUST_CHECK enum status sampler_accumulate(double *weights, int64_t count);

#endif
