/* One aligned block of memory per life time (parameters, gradients, activations, scratch).
 *
 * The same code first runs in measure mode, which hands out no memory and counts bytes, and then
 * for real with exactly that many bytes: nothing allocates inside a step.
 *
 *     struct arena a = {0};                 measure
 *     plan(&a);                             arena_take returns NULL, a.used grows
 *     TRY(arena_create(&a, a.high_bytes));  allocate what was measured
 *     plan(&a);                             the same calls now return memory */
#ifndef CYTOMILL_BASE_ARENA_H
#define CYTOMILL_BASE_ARENA_H

#include <stdbool.h>

#include "base/status.h"

#define ARENA_ALIGN 64

struct arena {
    unsigned char *base; /* NULL in measure mode */
    bool lent;           /* the memory is somebody else's */
    size_t size_bytes;   /* capacity; 0 in measure mode */
    size_t used_bytes;
    size_t high_bytes; /* largest used_bytes seen */
};

/* Allocate `size_bytes`, zeroed, 64-byte aligned, with huge pages asked for. The arena must be
 * zeroed or destroyed before. ST_MEMORY if the node has not that much. Local. */
MUST_CHECK enum status arena_create(struct arena *arena, size_t size_bytes);
/* Use `size_bytes` at `memory` (64-byte aligned, its owner's to free, until arena_destroy) instead. Local. */
void arena_lend(struct arena *arena, void *memory, size_t size_bytes);
void arena_destroy(struct arena *arena);

/* Take `bytes`, 64-byte aligned. NULL in measure mode. Taking more than was measured is a broken
 * invariant and aborts. The memory is not cleared again after a reset. Local. */
void *arena_take(struct arena *arena, size_t bytes);

/* A mark to return to: everything taken since is given back. Local. */
static inline size_t arena_mark(const struct arena *arena) { return arena->used_bytes; }
void arena_reset(struct arena *arena, size_t mark);

#endif
