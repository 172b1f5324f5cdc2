/* The history of losses.
 * plan: ranks=1 limit=20 configs=release,sanitize,double
 * Of any number of points at most HISTORY_MOST are kept, at even distances from the first on, less than twice as far apart
 * as needed; a history copied and gone on with is that of one that was not; a NaN is one NaN. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "metric/history.h"

static struct history h, other;

static struct history_point point_of(int64_t number)
{
    return (struct history_point){(double)number + 1, 1.0 / (double)(number + 1), (double)number * 0.25, 1e-3};
}

static void keeps_even_distances(void **state)
{
    h = (struct history){0};
    for (int64_t n = 1; n <= 9 * HISTORY_MOST; n++) {
        history_add(&h, point_of(n - 1));
        int64_t distance = INT64_C(1) << h.halvings;
        assert_true(h.offered == n && h.count <= HISTORY_MOST && h.count == (n + distance - 1) / distance);
        assert_true(distance == 1 || h.count > HISTORY_MOST / 2);
        for (int64_t k = 0; k<h.count; k += h.count> 1 ? h.count - 1 : 1) {
            struct history_point want = point_of(k * distance);
            assert_memory_equal(&h.point[k], &want, sizeof want);
        }
    }
    for (int64_t k = 0; k < h.count; k++) assert_true(h.point[k].step == (double)(16 * k + 1));
}

static void goes_on_where_it_stood(void **state)
{
    static const int64_t stops[] = {0, 1, HISTORY_MOST - 1, HISTORY_MOST, HISTORY_MOST + 1, 3 * HISTORY_MOST / 2};
    for (int i = 0; i < 6; i++) {
        h = (struct history){0};
        for (int64_t n = 0; n < 3 * HISTORY_MOST; n++) {
            if (n == stops[i]) other = h;
            if (n >= stops[i]) history_add(&other, point_of(n));
            history_add(&h, point_of(n));
        }
        assert_memory_equal(&h, &other, sizeof h);
    }
}

static void a_nan_is_a_nan(void **state)
{
    h = other = (struct history){0};
    history_add(&h, (struct history_point){1, NAN, -NAN, 0});
    history_add(&other, (struct history_point){1, -NAN, NAN, 0});
    assert_true(isnan(h.point[0].loss) && isnan(h.point[0].hidden));
    assert_memory_equal(&h, &other, sizeof h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keeps_even_distances), cmocka_unit_test(goes_on_where_it_stood),
                                       cmocka_unit_test(a_nan_is_a_nan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
