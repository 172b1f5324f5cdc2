/* Dropout whose mask is a pure function of (seed, step, cell, site, token, channel): nothing is
 * stored, the backward pass draws the same mask again, and a cell gets the same mask in any batch
 * on any rank. Philox4x32-7 (Salmon et al., SC 2011) keyed as base/rng.h says, purpose RNG_DROPOUT;
 * each channel takes 16 bits, so `p` is rounded to a multiple of 2^-16. */
#ifndef CYTOMILL_KERNEL_DROPOUT_H
#define CYTOMILL_KERNEL_DROPOUT_H

#include <stdbool.h>
#include <stdint.h>

struct dropout {
    double p; /* share of channels set to 0; the others are divided by 1-p; 0 = off */
    uint64_t seed, step;
    uint32_t site;               /* which dropout of the model: 2*layer + sub-layer */
    const int64_t *row_cell;     /* [rows] global cell id of each row */
    const int32_t *row_position; /* [rows] place of the row in its cell */
};

/* Channels are kept when their 16 bits are below this: round(65536 (1-p)). */
static inline uint32_t dropout_threshold(double p) { return (uint32_t)(65536.0 * (1.0 - p) + 0.5); }
static inline bool dropout_is_on(const struct dropout *d) { return d->p > 0; }

/* What channel `channel` of row `row` is multiplied by: 0, or 1/(1-p). Plain version. Local. */
double dropout_factor_ref(const struct dropout *d, int64_t row, int64_t channel, int64_t width);

#endif
