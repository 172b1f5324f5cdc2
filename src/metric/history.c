#include "metric/history.h"

#include <math.h>

/* NaNs come in several bit patterns; a checkpoint's bytes should not tell them apart. */
static double plain(double x) { return isnan(x) ? NAN : x; }

void history_add(struct history *h, struct history_point point)
{
    int64_t number = h->offered++;
    if (number & ((INT64_C(1) << h->halvings) - 1)) return;
    if (h->count == HISTORY_MOST) {
        h->count /= 2;
        h->halvings++;
        for (int64_t k = 1; k < h->count; k++) h->point[k] = h->point[2 * k];
        /* number is HISTORY_MOST times the old distance, an even multiple: it stays */
    }
    h->point[h->count++] =
        (struct history_point){point.step, plain(point.loss), plain(point.hidden), plain(point.rate)};
}
