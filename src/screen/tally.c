#include "screen/tally.h"

#include <math.h>
#include <stdlib.h>

static int by_gene_and_count(const void *a, const void *b)
{
    const struct tally_pair *x = a, *y = b;
    if (x->gene != y->gene) return x->gene < y->gene ? -1 : 1;
    return (x->count > y->count) - (x->count < y->count);
}

void tally_compress(struct tally *tally)
{
    if (tally->size == 0) return;
    struct tally_pair *p = tally->pairs;
    qsort(p, (size_t)tally->size, sizeof *p, by_gene_and_count);
    int64_t last = 0;
    for (int64_t i = 1; i < tally->size; i++)
        if (by_gene_and_count(&p[last], &p[i]) == 0) p[last].times += p[i].times;
        else p[++last] = p[i];
    tally->size = last + 1;
}

static enum status grow(struct tally *tally)
{
    int64_t capacity = tally->capacity ? 2 * tally->capacity : 4096;
    struct tally_pair *pairs = realloc(tally->pairs, (size_t)capacity * sizeof *pairs);
    if (!pairs) return fail(ST_MEMORY, "no memory to tally %ld (gene, count) pairs", (long)capacity);
    tally->pairs = pairs;
    tally->capacity = capacity;
    return ST_OK;
}

enum status tally_add(struct tally *tally, int32_t gene, float count, int64_t times)
{
    enum status st = ST_OK;
    if (tally->size == tally->capacity) {
        tally_compress(tally);
        if (2 * tally->size >= tally->capacity) TRY(grow(tally)); /* joining did not free half */
    }
    tally->pairs[tally->size++] = (struct tally_pair){gene, count, times};
done:
    return st;
}

/* First pair of the gene in the sorted list. */
static int64_t first_pair(const struct tally *tally, int32_t gene)
{
    int64_t low = 0, high = tally->size;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (tally->pairs[middle].gene < gene) low = middle + 1;
        else high = middle;
    }
    return low;
}

int64_t tally_times(const struct tally *tally, int32_t gene)
{
    int64_t times = 0;
    for (int64_t i = first_pair(tally, gene); i < tally->size && tally->pairs[i].gene == gene; i++)
        times += tally->pairs[i].times;
    return times;
}

float tally_percentile(const struct tally *tally, int32_t gene, double share)
{
    int64_t need = (int64_t)ceil(share * (double)tally_times(tally, gene) - 1e-9), seen = 0;
    float count = 0;
    for (int64_t i = first_pair(tally, gene); seen < need; i++) {
        seen += tally->pairs[i].times;
        count = tally->pairs[i].count;
    }
    return count;
}

void tally_free(struct tally *tally)
{
    free(tally->pairs);
    *tally = (struct tally){0};
}
