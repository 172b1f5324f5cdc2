#include "screen/top.h"

#include <stdbool.h>
#include <stdlib.h>

static bool better(struct hit a, struct hit b) { return a.key != b.key ? a.key > b.key : a.number < b.number; }

void top_create(int64_t capacity, struct top *out) { *out = (struct top){.capacity = capacity}; }

void top_free(struct top *top)
{
    free(top->hits);
    *top = (struct top){0};
}

static void swap(struct hit *a, struct hit *b)
{
    struct hit c = *a;
    *a = *b;
    *b = c;
}

static void sift_up(struct hit *hits, int64_t at)
{
    while (at > 0 && better(hits[(at - 1) / 2], hits[at])) {
        swap(&hits[(at - 1) / 2], &hits[at]);
        at = (at - 1) / 2;
    }
}

static void sift_down(struct hit *hits, int64_t count, int64_t at)
{
    for (;;) {
        int64_t worst = at;
        for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++)
            if (better(hits[worst], hits[child])) worst = child;
        if (worst == at) return;
        swap(&hits[worst], &hits[at]);
        at = worst;
    }
}

static enum status grow(struct top *top)
{
    int64_t room = top->room ? 2 * top->room : 64;
    if (room > top->capacity) room = top->capacity;
    struct hit *hits = realloc(top->hits, (size_t)room * sizeof *hits);
    if (!hits) return fail(ST_MEMORY, "no memory for a list of %ld hits; lower sweep.top", (long)room);
    top->hits = hits;
    top->room = room;
    return ST_OK;
}

enum status top_offer(struct top *top, struct hit hit)
{
    enum status st = ST_OK;
    if (top->capacity == 0) return ST_OK;
    if (top->count < top->capacity) {
        if (top->count == top->room) TRY(grow(top));
        top->hits[top->count] = hit;
        sift_up(top->hits, top->count++);
    } else if (better(hit, top->hits[0])) {
        top->hits[0] = hit;
        sift_down(top->hits, top->count, 0);
    }
done:
    return st;
}

static int by_rank(const void *a, const void *b)
{
    const struct hit *x = a, *y = b;
    return better(*x, *y) ? -1 : better(*y, *x);
}

void top_sort(struct top *top)
{
    if (top->count > 0) qsort(top->hits, (size_t)top->count, sizeof *top->hits, by_rank);
}
