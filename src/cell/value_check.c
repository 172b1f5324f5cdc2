#include "cell/value_check.h"

#include <math.h>
#include <stdio.h>

struct value_check value_check_start(void)
{
    return (struct value_check){.min = INFINITY,
                                .max = -INFINITY,
                                .fraction_row = INT64_MAX,
                                .negative_row = INT64_MAX,
                                .broken_row = INT64_MAX};
}

/* The slow look at a row that the fast look found unusual. */
static void note_unusual(struct value_check *c, const float *values, int64_t n, int64_t row)
{
    for (int64_t i = 0; i < n; i++) {
        float v = values[i];
        if (!isfinite(v)) {
            if (row < c->broken_row) c->broken_row = row;
            continue;
        }
        if (v < 0 && row < c->negative_row) {
            c->negative_row = row;
            c->negative = v;
        }
        if (v != floorf(v) && row < c->fraction_row) {
            c->fraction_row = row;
            c->fraction = v;
        }
    }
}

void value_check_add(struct value_check *c, const float *values, int64_t n, int64_t row)
{
    float low = INFINITY, high = -INFINITY;
    int64_t zeros = 0, unusual = 0;
    for (int64_t i = 0; i < n; i++) {
        float v = values[i];
        zeros += v == 0;
        low = v != 0 && v < low ? v : low;
        high = v != 0 && v > high ? v : high;
        unusual += !(v >= 0 && v <= 0x1p24f && v == (float)(int32_t)v);
    }
    c->count += n - zeros;
    if (low < c->min) c->min = low;
    if (high > c->max) c->max = high;
    if (unusual) note_unusual(c, values, n, row);
}

void value_check_merge(struct value_check *a, const struct value_check *b)
{
    a->count += b->count;
    if (b->min < a->min) a->min = b->min;
    if (b->max > a->max) a->max = b->max;
    if (b->broken_row < a->broken_row) a->broken_row = b->broken_row;
    if (b->negative_row < a->negative_row) {
        a->negative_row = b->negative_row;
        a->negative = b->negative;
    }
    if (b->fraction_row < a->fraction_row) {
        a->fraction_row = b->fraction_row;
        a->fraction = b->fraction;
    }
}

enum value_kind value_check_kind(const struct value_check *c)
{
    bool whole = c->fraction_row == INT64_MAX, positive = c->negative_row == INT64_MAX;
    if (!positive) return VALUE_CONTINUOUS;
    if (whole) return c->count > 0 && c->max == 1 ? VALUE_BINARY : VALUE_COUNTS;
    return c->max <= LOGNORM_MAX ? VALUE_LOGNORM : VALUE_CONTINUOUS;
}

bool value_check_is_broken(const struct value_check *c) { return c->broken_row != INT64_MAX; }

char *value_check_why(const struct value_check *c, char out[96])
{
    if (c->negative_row != INT64_MAX)
        snprintf(out, 96, "negative value %g in row %lld", c->negative, (long long)c->negative_row);
    else if (c->fraction_row != INT64_MAX)
        snprintf(out, 96, "fraction %g in row %lld", c->fraction, (long long)c->fraction_row);
    else snprintf(out, 96, "whole numbers");
    return out;
}
