/* Counter-based random numbers (Philox4x32-10 of Random123; Salmon et al., SC 2011).
 *
 * A number is a pure function of (seed, purpose, cell, step, index): there is no state to save, and
 * the same cell gets the same draw on any rank, thread or batch. Training keys by (seed, purpose,
 * global cell id, step); embedding keys by a hash of the cell's own counts instead of its id.
 *
 *     struct rng r = rng_at(seed, RNG_MASK, cell_id, step);
 *     double u = rng_uniform(&r); */
#ifndef CYTOMILL_BASE_RNG_H
#define CYTOMILL_BASE_RNG_H

#include <stdint.h>

/* What a stream is for. Append only: a checkpoint's future draws depend on these numbers. */
enum rng_purpose {
    RNG_INIT = 1,     /* initial weights: cell = hash of the parameter's name */
    RNG_SHUFFLE = 2,  /* keyed permutations of rows and blocks */
    RNG_SAMPLE = 3,   /* which genes of a cell above the cap */
    RNG_MASK = 4,     /* which genes of a cell are hidden */
    RNG_DROPOUT = 5,  /* dropout masks: step = optimiser step, index space split by layer */
    RNG_GENERATE = 6, /* generated atlases of benchmarks */
    RNG_LAYOUT = 7,   /* k-means, UMAP and other analysis starts */
    RNG_SWEEP = 8,    /* choice of cells of a sweep */
    RNG_TEST = 9
};

struct rng {
    uint32_t key[2], counter[4], block[4];
    int left; /* words of `block` not handed out yet */
};

/* The stream at (seed, purpose, cell, step), index 0. Local. */
struct rng rng_at(uint64_t seed, enum rng_purpose purpose, uint64_t cell, uint64_t step);
/* The stream from word 4*block_index on, for threads that share one stream. Local. */
struct rng rng_at_block(uint64_t seed, enum rng_purpose purpose, uint64_t cell, uint64_t step, uint32_t block_index);

uint32_t rng_u32(struct rng *r);
uint64_t rng_u64(struct rng *r);
double rng_uniform(struct rng *r);                 /* [0,1), 53 bits */
double rng_normal(struct rng *r);                  /* mean 0, sd 1 (Box-Muller) */
uint64_t rng_below(struct rng *r, uint64_t bound); /* uniform in [0,bound), unbiased */

/* Keyed permutation of [0,n): the place of `i` (cycle-walking Feistel network, 8 rounds). A
 * bijection for every n and key; costs O(1) memory, so 100 million rows need no table. Local. */
uint64_t perm_apply(uint64_t seed, uint64_t key, uint64_t n, uint64_t i);
uint64_t perm_invert(uint64_t seed, uint64_t key, uint64_t n, uint64_t place);

#endif
