/* plan: ranks=1 limit=30
 * Every set has one number and back, in the documented order, up to the edge of 63 bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#undef fail /* cmocka's; ours records a status */

#include "screen/combination.h"

static void every_set_has_one_number(void **state)
{
    for (int order = 1; order <= SET_SIZE_MAX; order++)
        for (int64_t genes = 1; genes <= 13; genes++) {
            struct combination_space space;
            assert_int_equal(combination_space_create(genes, order, &space), ST_OK);
            int last_size = 0;
            int64_t members[SET_SIZE_MAX], counted[SET_SIZE_MAX + 1] = {0};
            for (int64_t s = 0; s < combination_count(&space); s++) {
                int size = combination_unrank(&space, s, members);
                assert_true(size >= last_size && size <= order);
                for (int i = 0; i < size; i++) assert_true(members[i] >= 0 && members[i] < genes);
                for (int i = 1; i < size; i++) assert_true(members[i - 1] < members[i]);
                assert_int_equal(combination_rank(&space, members, size), s);
                counted[last_size = size]++;
            }
            for (int k = 1; k <= order; k++) assert_int_equal(counted[k], combination_choose(genes, k));
        }
}

static void order_is_colexicographic(void **state)
{
    static const int64_t expected[6][2] = {{0, 1}, {0, 2}, {1, 2}, {0, 3}, {1, 3}, {2, 3}};
    struct combination_space space;
    assert_int_equal(combination_space_create(4, 2, &space), ST_OK);
    assert_int_equal(space.first[2], 4);
    for (int p = 0; p < 6; p++) {
        int64_t members[SET_SIZE_MAX];
        assert_int_equal(combination_unrank(&space, 4 + p, members), 2);
        assert_memory_equal(members, expected[p], sizeof expected[p]);
    }
}

/* 100,000 genes in fours: 4.17e18 sets, close to the largest 64-bit number. */
static void large_numbers_come_back(void **state)
{
    struct combination_space space;
    assert_int_equal(combination_space_create(100000, 4, &space), ST_OK);
    int64_t all = combination_count(&space), members[SET_SIZE_MAX];
    assert_true(all > INT64_C(4166000000000000000));
    for (int64_t step = 0; step < 2000; step++) {
        int64_t s = all - 1 - step * (all / 2000);
        int size = combination_unrank(&space, s, members);
        assert_int_equal(combination_rank(&space, members, size), s);
    }
    combination_unrank(&space, all - 1, members);
    for (int i = 0; i < 4; i++) assert_int_equal(members[i], 99996 + i);
}

static void too_many_sets_are_refused(void **state)
{
    struct combination_space space;
    assert_int_equal(combination_choose(INT64_C(2000000), 4), -1);
    assert_int_equal(combination_choose(3, 4), 0);
    assert_int_equal(combination_space_create(2000000, 4, &space), ST_CONFIG);
    assert_int_equal(combination_space_create(0, 1, &space), ST_CONFIG);
    assert_int_equal(combination_space_create(10, 5, &space), ST_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_has_one_number), cmocka_unit_test(order_is_colexicographic),
        cmocka_unit_test(large_numbers_come_back), cmocka_unit_test(too_many_sets_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
