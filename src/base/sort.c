#include "base/sort.h"

static void sift_down(uint64_t *heap, int64_t at, int64_t count)
{
    uint64_t key = heap[at];
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= key) break;
        heap[at] = heap[child];
    }
    heap[at] = key;
}

void sort_u64(uint64_t *keys, int64_t count)
{
    for (int64_t at = count / 2 - 1; at >= 0; at--) sift_down(keys, at, count);
    for (int64_t last = count - 1; last > 0; last--) {
        uint64_t largest = keys[0];
        keys[0] = keys[last];
        keys[last] = largest;
        sift_down(keys, 0, last);
    }
}
