#include "cell/csr.h"

#include <math.h>
#include <stdbool.h>

enum status csr_check_starts(const int64_t *start, int64_t rows, int64_t entries)
{
    for (int64_t i = 0; i <= rows; i++) {
        int64_t before = i == 0 ? 0 : start[i - 1];
        if (start[i] < before || start[i] > entries)
            return fail(ST_INPUT, "row %lld begins at entry %lld; allowed are %lld to %lld", (long long)i,
                        (long long)start[i], (long long)before, (long long)entries);
    }
    return ST_OK;
}

/* Anything wrong? Without branches, so that it runs at the speed of memory. A fall from one entry to the
 * next is right only where a row begins, so falls are counted and compared. */
static bool looks_right(const int64_t *start, int64_t rows, const int32_t *feature, const float *value,
                        int64_t features)
{
    int64_t n = start[rows] - start[0], falls = 0, expected = 0, beyond = 0, odd = 0;
    if (n == 0) return true;
    uint32_t limit = (uint32_t)features;
    int32_t block_falls, block_beyond, block_odd;
    for (int64_t at = 0; at < n; at += 1 << 16) {
        int64_t end = at + (1 << 16) < n ? at + (1 << 16) : n;
        block_falls = block_beyond = block_odd = 0;
        for (int64_t i = at; i < end; i++) {
            block_beyond += (uint32_t)feature[i] >= limit;
            block_odd += !(value[i] - value[i] == 0.0f) | (value[i] == 0.0f);
        }
        for (int64_t i = at > 0 ? at : 1; i < end; i++) block_falls += feature[i] <= feature[i - 1];
        falls += block_falls;
        beyond += block_beyond;
        odd += block_odd;
    }
    for (int64_t r = 1; r < rows; r++) {
        int64_t i = start[r] - start[0];
        if (i > 0 && i < n && start[r] > start[r - 1]) expected += feature[i] <= feature[i - 1];
    }
    return falls == expected && beyond == 0 && odd == 0;
}

static enum status explain(const int64_t *start, int64_t rows, const int32_t *feature, const float *value,
                           int64_t features)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = start[r] - start[0]; i < start[r + 1] - start[0]; i++) {
            if (feature[i] < 0 || feature[i] >= features)
                return fail(ST_INPUT, "row %lld has feature index %d; allowed are 0 to %lld", (long long)r, feature[i],
                            (long long)features - 1);
            if (i > start[r] - start[0] && feature[i] <= feature[i - 1])
                return fail(ST_INPUT, "row %lld has feature index %d after %d; they must rise", (long long)r,
                            feature[i], feature[i - 1]);
            if (!isfinite(value[i]) || value[i] == 0.0f)
                return fail(ST_INPUT, "row %lld has value %g at feature %d; a finite number other than 0 must be there",
                            (long long)r, (double)value[i], feature[i]);
        }
    return ST_OK;
}

enum status csr_check_rows(const int64_t *start, int64_t rows, const int32_t *feature, const float *value,
                           int64_t features)
{
    if (looks_right(start, rows, feature, value, features)) return ST_OK;
    return explain(start, rows, feature, value, features);
}
