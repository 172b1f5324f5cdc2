#include "base/rng.h"

#include <Random123/philox.h>
#include <math.h>

static void refill(struct rng *r)
{
    philox4x32_ctr_t c = {{r->counter[0], r->counter[1], r->counter[2], r->counter[3]}};
    philox4x32_key_t k = {{r->key[0], r->key[1]}};
    philox4x32_ctr_t out = philox4x32(c, k);
    for (int i = 0; i < 4; i++) r->block[i] = out.v[i];
    r->counter[0]++;
    r->left = 4;
}

struct rng rng_at_block(uint64_t seed, enum rng_purpose purpose, uint64_t cell, uint64_t step, uint32_t block_index)
{
    /* 256 bits of address go into 64 of key and 96 of counter, so seed, purpose and step are first
     * mixed into the key by one Philox call; counter words 1 to 3 keep cell and step's low word. */
    philox4x32_ctr_t c = {{(uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)purpose, (uint32_t)(step >> 32)}};
    philox4x32_key_t k = {{0x43797430u, 0x6d696c6cu}};
    philox4x32_ctr_t mixed = philox4x32(c, k);
    return (struct rng){.key = {mixed.v[0], mixed.v[1]},
                        .counter = {block_index, (uint32_t)cell, (uint32_t)(cell >> 32), (uint32_t)step}};
}

struct rng rng_at(uint64_t seed, enum rng_purpose purpose, uint64_t cell, uint64_t step)
{
    return rng_at_block(seed, purpose, cell, step, 0);
}

uint32_t rng_u32(struct rng *r)
{
    if (r->left == 0) refill(r);
    return r->block[4 - r->left--];
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t low = rng_u32(r);
    return low | (uint64_t)rng_u32(r) << 32;
}

double rng_uniform(struct rng *r) { return (double)(rng_u64(r) >> 11) * 0x1p-53; }

double rng_normal(struct rng *r)
{
    double u = 1.0 - rng_uniform(r), v = rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t rng_below(struct rng *r, uint64_t bound)
{
    uint64_t limit = -bound % bound; /* 2^64 mod bound: draws below it would favour small values */
    uint64_t draw;
    do draw = rng_u64(r);
    while (draw < limit);
    return draw % bound;
}

/* One balanced Feistel network over 2*half bits. */
struct feistel {
    philox4x32_key_t key;
    int half_bits;
    uint64_t mask;
};

static struct feistel feistel_make(uint64_t seed, uint64_t key, uint64_t n)
{
    int bits = 2;
    while (bits < 64 && (UINT64_C(1) << bits) < n) bits += 2;
    philox4x32_ctr_t c = {{(uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)key, (uint32_t)(key >> 32)}};
    philox4x32_key_t k = {{0x50657266u, RNG_SHUFFLE}};
    philox4x32_ctr_t mixed = philox4x32(c, k);
    return (struct feistel){
        .key = {{mixed.v[0], mixed.v[1]}}, .half_bits = bits / 2, .mask = (UINT64_C(1) << (bits / 2)) - 1};
}

static uint64_t feistel_round(const struct feistel *f, int round, uint64_t half)
{
    philox4x32_ctr_t c = {{(uint32_t)half, (uint32_t)(half >> 32), (uint32_t)round, 0}};
    philox4x32_ctr_t out = philox4x32(c, f->key);
    return (out.v[0] | (uint64_t)out.v[1] << 32) & f->mask;
}

enum { FEISTEL_ROUNDS = 8 };

uint64_t perm_apply(uint64_t seed, uint64_t key, uint64_t n, uint64_t i)
{
    struct feistel f = feistel_make(seed, key, n);
    do {
        uint64_t left = i >> f.half_bits, right = i & f.mask;
        for (int round = 0; round < FEISTEL_ROUNDS; round++) {
            uint64_t next = left ^ feistel_round(&f, round, right);
            left = right;
            right = next;
        }
        i = left << f.half_bits | right;
    } while (i >= n);
    return i;
}

uint64_t perm_invert(uint64_t seed, uint64_t key, uint64_t n, uint64_t place)
{
    struct feistel f = feistel_make(seed, key, n);
    do {
        uint64_t left = place >> f.half_bits, right = place & f.mask;
        for (int round = FEISTEL_ROUNDS - 1; round >= 0; round--) {
            uint64_t previous = right ^ feistel_round(&f, round, left);
            right = left;
            left = previous;
        }
        place = left << f.half_bits | right;
    } while (place >= n);
    return place;
}
