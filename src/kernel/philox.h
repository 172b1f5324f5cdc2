/* The random words of dropout: Philox4x32-7 written so that a loop over blocks vectorises. Equal
 * to Random123's (tests/test_kernel_norm.c compares). */
#ifndef CYTOMILL_KERNEL_PHILOX_H
#define CYTOMILL_KERNEL_PHILOX_H

#include "base/rng.h"
#include "kernel/dropout.h"

/* Channels are served in runs of 128 by 16 blocks of eight 16-bit draws. Words 0 and 1 of a block are
 * one number of 64 bits, word 0 above, whose draws from the lowest up serve four neighbouring channels;
 * so 16 blocks serve the first half of a run, and with words 2 and 3 the second half. */
enum { DROPOUT_RUN = 128, DROPOUT_RUN_BLOCKS = DROPOUT_RUN / 8 };
static inline int64_t dropout_blocks(int64_t width)
{
    return (width + DROPOUT_RUN - 1) / DROPOUT_RUN * DROPOUT_RUN_BLOCKS;
}

/* Where the words of one row start. */
struct dropout_stream {
    uint32_t key[2], counter[3];
    uint32_t first;
};

static inline struct dropout_stream dropout_stream_at(const struct dropout *d, int64_t row, int64_t width)
{
    struct rng r = rng_at(d->seed, RNG_DROPOUT, (uint64_t)d->row_cell[row], d->step);
    return (struct dropout_stream){.key = {r.key[0], r.key[1] ^ d->site},
                                   .counter = {r.counter[1], r.counter[2], r.counter[3]},
                                   .first = (uint32_t)d->row_position[row] * (uint32_t)dropout_blocks(width)};
}

/* One round on word 0 to 3 of a block with key (k0, k1). */
static inline void dropout_round(uint32_t *c0, uint32_t *c1, uint32_t *c2, uint32_t *c3, uint32_t k0, uint32_t k1)
{
    uint64_t a = (uint64_t)*c0 * 0xD2511F53u, b = (uint64_t)*c2 * 0xCD9E8D57u;
    *c0 = (uint32_t)(b >> 32) ^ *c1 ^ k0;
    *c2 = (uint32_t)(a >> 32) ^ *c3 ^ k1;
    *c1 = (uint32_t)b;
    *c3 = (uint32_t)a;
}

/* Seven rounds are the fewest that pass BigCrush (Salmon et al., table 2). */
enum { DROPOUT_ROUNDS = 7 };
static const uint32_t dropout_weyl[2] = {0x9E3779B9u, 0xBB67AE85u}; /* what the key grows by each round */

/* Words 0 to 3 of block `first` + j. */
static inline void dropout_words(const struct dropout_stream *s, uint32_t j, uint32_t out[4])
{
    uint32_t c[4] = {s->first + j, s->counter[0], s->counter[1], s->counter[2]};
    for (uint32_t r = 0; r < DROPOUT_ROUNDS; r++)
        dropout_round(&c[0], &c[1], &c[2], &c[3], s->key[0] + r * dropout_weyl[0], s->key[1] + r * dropout_weyl[1]);
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

#endif
