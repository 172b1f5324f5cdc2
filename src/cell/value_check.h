/* What kind of values a matrix holds, decided from every one of them.
 *
 *     struct value_check check = value_check_start();
 *     value_check_add(&check, values, n, row);          block by block
 *     value_check_merge(&check, &other_rank);           over ranks
 *     enum value_kind kind = value_check_kind(&check); */
#ifndef CYTOMILL_CELL_VALUE_CHECK_H
#define CYTOMILL_CELL_VALUE_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "cell/feature.h"

/* Largest value that still looks log-normalised: ln(1 + 1e6) is 13.8. */
#define LOGNORM_MAX 15.0

struct value_check {
    int64_t count;        /* values that are not 0 */
    double min, max;      /* over them; min > max if there are none */
    int64_t fraction_row; /* first row with a fraction, negative value, NaN or infinity; INT64_MAX = none */
    int64_t negative_row, broken_row;
    double fraction, negative; /* the values found there */
};

struct value_check value_check_start(void);
/* Values of one row. Local; cost O(n). */
void value_check_add(struct value_check *check, const float *values, int64_t n, int64_t row);
void value_check_merge(struct value_check *into, const struct value_check *other);

/* Counts (whole, >= 0), binary (only 1 beside 0), log-normalised (fractions in 0 … LOGNORM_MAX),
 * else continuous. No values at all are counts. Local. */
enum value_kind value_check_kind(const struct value_check *check);
/* NaN or infinity was seen. */
bool value_check_is_broken(const struct value_check *check);
/* Why these are not counts: "fraction 0.5 in row 3", "negative value -1 in row 0". Written to `out`. */
char *value_check_why(const struct value_check *check, char out[96]);

#endif
