#include "kernel/expert.h"

void expert_count(const struct expert_count *count, const int32_t *choice, int chosen)
{
    for (int c = 0; c < count->cells; c++) {
        int64_t *slots = count->slots + count->group[c];
        for (int64_t s = count->first[c] * chosen; s < count->first[c + 1] * chosen; s++)
            slots[(int64_t)choice[s] * count->groups]++;
    }
}
