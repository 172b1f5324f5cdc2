#include <string.h>

#include "kernel/expert.h"

void expert_sort(const struct expert_order *order, const int32_t *choice, int64_t rows, int chosen, int experts)
{
    int64_t *first = order->first, slots = rows * chosen;
    memset(first, 0, (size_t)(experts + 1) * sizeof *first);
    for (int64_t s = 0; s < slots; s++) first[choice[s] + 1]++;
    for (int e = 0; e < experts; e++) first[e + 1] += first[e];
    for (int64_t s = 0; s < slots; s++) { /* first[e] becomes the next free place, at last the first of e + 1 */
        int64_t place = first[choice[s]]++;
        order->place[s] = place;
        order->row[place] = s / chosen;
    }
    memmove(first + 1, first, (size_t)experts * sizeof *first);
    first[0] = 0;
}
