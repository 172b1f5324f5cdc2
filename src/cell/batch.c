#include "cell/batch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum status batch_create(int cells, int64_t tokens, struct batch *b)
{
    enum status st = ST_OK;
    *b = (struct batch){.cell_capacity = cells, .token_capacity = tokens};
    TRY(NEW_ARRAY(b->offsets, cells + 1));
    TRY(NEW_ARRAY(b->level_offsets, cells + 1));
    TRY(NEW_ARRAY(b->cell_id, cells));
    TRY(NEW_ARRAY(b->feature, tokens));
    TRY(NEW_ARRAY(b->value, tokens));
    TRY(NEW_ARRAY(b->target, tokens));
    TRY(NEW_ARRAY(b->modality, tokens));
    TRY(NEW_ARRAY(b->role, tokens));
    TRY(NEW_ARRAY(b->visible, tokens));
    TRY(NEW_ARRAY(b->loss_weight, tokens));
    TRY(NEW_ARRAY(b->position, tokens));
    TRY(NEW_ARRAY(b->level_value, tokens));
    TRY(NEW_ARRAY(b->level, tokens));
done:
    if (st != ST_OK) batch_destroy(b);
    return st;
}

void batch_destroy(struct batch *b)
{
    free(b->offsets);
    free(b->level_offsets);
    free(b->cell_id);
    free(b->feature);
    free(b->value);
    free(b->target);
    free(b->modality);
    free(b->role);
    free(b->visible);
    free(b->loss_weight);
    free(b->position);
    free(b->level_value);
    free(b->level);
    *b = (struct batch){0};
}

void batch_clear(struct batch *b)
{
    b->cell_count = 0;
    b->token_count = b->level_count = 0;
    b->offsets[0] = b->level_offsets[0] = 0;
}

/* Place of `value` in the ascending list, or where it belongs. */
static int64_t level_place(const float *levels, int64_t count, float value)
{
    int64_t low = 0;
    while (count > 0) {
        int64_t half = count / 2;
        if (levels[low + half] < value) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return low;
}

static bool shows_value(const struct batch *b, int64_t t) { return b->role[t] == TOKEN_FEATURE && b->visible[t]; }

/* Distinct visible values of tokens [first, last), ascending, into out; returns how many. A cell of
 * counts has 20 to 90 of them, so inserting each new one is cheaper than sorting the tokens. */
static int64_t distinct_values(const struct batch *b, int64_t first, int64_t last, float *out)
{
    int64_t n = 0;
    for (int64_t t = first; t < last; t++) {
        if (!shows_value(b, t)) continue;
        int64_t at = level_place(out, n, b->value[t]);
        if (at < n && out[at] == b->value[t]) continue;
        memmove(out + at + 1, out + at, sizeof *out * (size_t)(n - at));
        out[at] = b->value[t];
        n++;
    }
    return n;
}

void batch_find_levels(struct batch *b)
{
    b->level_count = 0;
    for (int c = 0; c < b->cell_count; c++) {
        int64_t first = b->offsets[c], last = b->offsets[c + 1];
        float *levels = b->level_value + b->level_count;
        b->level_offsets[c] = b->level_count;
        int64_t n = distinct_values(b, first, last, levels);
        for (int64_t t = first; t < last; t++)
            b->level[t] = shows_value(b, t) ? (int32_t)(b->level_count + level_place(levels, n, b->value[t])) : -1;
        b->level_count += n;
    }
    b->level_offsets[b->cell_count] = b->level_count;
}
