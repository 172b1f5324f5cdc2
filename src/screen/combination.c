#include "screen/combination.h"

int64_t combination_choose(int64_t n, int k)
{
    if (k > n) return 0;
    unsigned __int128 c = 1;
    for (int i = 1; i <= k; i++) {
        c = c * (unsigned __int128)(n - k + i) / (unsigned)i; /* exact: c is C(n-k+i, i) after each round */
        if (c > INT64_MAX) return -1;
    }
    return (int64_t)c;
}

enum status combination_space_create(int64_t genes, int order, struct combination_space *out)
{
    *out = (struct combination_space){.genes = genes, .order = order};
    if (genes < 1 || order < 1 || order > SET_SIZE_MAX)
        return fail(ST_CONFIG, "sets of up to %d of %ld genes: give 1 to %d of at least one gene", order, (long)genes,
                    SET_SIZE_MAX);
    for (int k = 1; k <= order; k++) {
        int64_t c = combination_choose(genes, k);
        if (c < 0 || __builtin_add_overflow(out->first[k], c, &out->first[k + 1]))
            return fail(
                ST_CONFIG,
                "sets of %d out of %ld genes are more than 63 bits can number; take a smaller panel or sweep.order", k,
                (long)genes);
    }
    return ST_OK;
}

int64_t combination_rank(const struct combination_space *space, const int64_t *members, int size)
{
    int64_t rank = space->first[size];
    for (int i = 0; i < size; i++) rank += combination_choose(members[i], i + 1);
    return rank;
}

/* Largest c < below with C(c, k) <= rank: the k-th digit of the combinatorial number system. */
static int64_t largest_member(int64_t rank, int k, int64_t below)
{
    int64_t low = k - 1, high = below; /* C(low, k) <= rank < C(high, k) or high out of range */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        int64_t c = combination_choose(middle, k);
        if (c >= 0 && c <= rank) low = middle;
        else high = middle;
    }
    return low;
}

int combination_unrank(const struct combination_space *space, int64_t number, int64_t *members)
{
    int size = 1;
    while (size < space->order && number >= space->first[size + 1]) size++;
    int64_t rank = number - space->first[size], below = space->genes;
    for (int k = size; k >= 1; k--) {
        below = members[k - 1] = largest_member(rank, k, below);
        rank -= combination_choose(below, k);
    }
    return size;
}
