#include "base/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

enum status arena_create(struct arena *arena, size_t size_bytes)
{
    size_t align = size_bytes >= HUGE_PAGE ? HUGE_PAGE : ARENA_ALIGN;
    size_t rounded = (size_bytes + align - 1) / align * align;
    if (rounded == 0) rounded = align;
    void *base = NULL;
    if (posix_memalign(&base, align, rounded) != 0)
        return fail(ST_MEMORY,
                    "no memory for an arena of %.2f GiB; use a smaller batch or model, "
                    "fewer ranks per node, or a node with more memory",
                    (double)rounded / (1 << 30));
    madvise(base, rounded, MADV_HUGEPAGE);
    memset(base, 0, rounded);
    *arena = (struct arena){.base = base, .size_bytes = rounded};
    return ST_OK;
}

void arena_lend(struct arena *arena, void *memory, size_t size_bytes)
{
    *arena = (struct arena){.base = memory, .lent = true, .size_bytes = size_bytes};
}

void arena_destroy(struct arena *arena)
{
    if (!arena->lent) free(arena->base);
    *arena = (struct arena){0};
}

void *arena_take(struct arena *arena, size_t bytes)
{
    size_t start = arena->used_bytes;
    size_t rounded = (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    arena->used_bytes += rounded;
    if (arena->used_bytes > arena->high_bytes) arena->high_bytes = arena->used_bytes;
    if (!arena->base) return NULL;
    if (arena->used_bytes > arena->size_bytes) {
        fprintf(stderr, "arena: %zu bytes taken, %zu measured: measure mode and run disagree\n", arena->used_bytes,
                arena->size_bytes);
        abort();
    }
    return arena->base + start;
}

void arena_reset(struct arena *arena, size_t mark) { arena->used_bytes = mark; }
