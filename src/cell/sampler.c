#include "cell/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

/* Keys of the permutations of one epoch: 0 orders the blocks, w + 1 shuffles window w. */
static uint64_t permutation_key(int64_t epoch, int64_t which) { return (uint64_t)epoch << 32 ^ (uint64_t)which; }

/* Cell at place `at` of the epoch when whole blocks follow one another in permuted order. The last
 * block may be short, wherever the permutation puts it. */
static int64_t cell_in_block_order(const struct sampler *s, int64_t epoch, int64_t at)
{
    int64_t blocks = (s->count + s->block - 1) / s->block, tail = s->count - (blocks - 1) * s->block;
    uint64_t key = permutation_key(epoch, 0);
    int64_t tail_place = (int64_t)perm_invert(s->seed, key, (uint64_t)blocks, (uint64_t)(blocks - 1));
    int64_t gap = s->block - tail; /* cells the short block lacks: count as if it were whole */
    if (at >= tail_place * s->block + tail) at += gap;
    int64_t block = (int64_t)perm_apply(s->seed, key, (uint64_t)blocks, (uint64_t)(at / s->block));
    return block * s->block + at % s->block;
}

static struct sample_member draw_permuted(const struct sampler *s, int64_t position)
{
    int64_t epoch = position / s->count, at = position % s->count;
    int64_t span = s->block * s->window, window = at / span, first = window * span;
    int64_t size = s->count - first < span ? s->count - first : span;
    at = first +
         (int64_t)perm_apply(s->seed, permutation_key(epoch, window + 1), (uint64_t)size, (uint64_t)(at - first));
    return (struct sample_member){cell_in_block_order(s, epoch, at), SAMPLE_ANCHOR};
}

static struct sample_member draw_weighted(const struct sampler *s, int64_t position)
{
    struct rng r = rng_at(s->seed, RNG_SHUFFLE, (uint64_t)position, 0);
    double goal = rng_uniform(&r) * s->running[s->count - 1];
    int64_t low = 0, high = s->count - 1; /* first item whose running sum exceeds the goal */
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (s->running[middle] > goal) high = middle;
        else low = middle + 1;
    }
    return (struct sample_member){low, SAMPLE_ANCHOR};
}

void sampler_draw(const struct sampler *s, int64_t position, int64_t samples, struct sample_member *out)
{
    assert(s->count > 0 && s->tuple <= 1); /* both kinds so far are tuples of one */
    for (int64_t i = 0; i < samples; i++)
        out[i] = s->kind == SAMPLE_WEIGHTED ? draw_weighted(s, position + i) : draw_permuted(s, position + i);
}

enum status sampler_accumulate(double *weights, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!(weights[i] >= 0) || !isfinite(weights[i]))
            return fail(ST_INPUT, "weight %lld of the cells is %g; weights must be finite and not negative",
                        (long long)i, weights[i]);
        weights[i] = sum += weights[i];
    }
    return sum > 0 ? ST_OK : fail(ST_INPUT, "all %lld cells have weight 0; nothing can be drawn", (long long)count);
}

/* ---- shares ---- */

static int by_falling_work(const void *a, const void *b)
{
    const struct sample_work *x = a, *y = b;
    return x->work != y->work ? (x->work < y->work) - (x->work > y->work)
                              : (x->sample > y->sample) - (x->sample < y->sample);
}

static int by_sample(const void *a, const void *b)
{
    const struct sample_work *x = a, *y = b;
    return (x->sample > y->sample) - (x->sample < y->sample);
}

int64_t sampler_share(struct sample_work *batch, int64_t count, int rank, int ranks)
{
    int64_t mine = 0;
    qsort(batch, (size_t)count, sizeof *batch, by_falling_work);
    for (int64_t i = 0; i < count; i++) {
        int64_t round = i / ranks, place = i % ranks;
        if ((round % 2 ? ranks - 1 - place : place) == rank) batch[mine++] = batch[i];
    }
    qsort(batch, (size_t)mine, sizeof *batch, by_sample);
    return mine;
}
