/* Counter-based random numbers and keyed permutations.
 * plan: ranks=1 limit=30
 * A stream depends on its address alone; a permutation is a bijection whose inverse inverts it, for
 * sizes around powers of four; means and variances lie within 5 standard errors. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"

static void stream_depends_on_its_address(void **state)
{
    struct rng a = rng_at(1, RNG_MASK, 7, 3), b = rng_at(1, RNG_MASK, 7, 3);
    for (int i = 0; i < 100; i++) assert_int_equal(rng_u32(&a), rng_u32(&b));
    struct rng others[] = {rng_at(2, RNG_MASK, 7, 3), rng_at(1, RNG_DROPOUT, 7, 3), rng_at(1, RNG_MASK, 8, 3),
                           rng_at(1, RNG_MASK, 7, 4)};
    for (int k = 0; k < 4; k++) {
        struct rng again = rng_at(1, RNG_MASK, 7, 3);
        assert_true(rng_u64(&again) != rng_u64(&others[k]));
    }
    struct rng late = rng_at_block(1, RNG_MASK, 7, 3, 2), whole = rng_at(1, RNG_MASK, 7, 3);
    for (int i = 0; i < 8; i++) rng_u32(&whole);
    assert_int_equal(rng_u32(&late), rng_u32(&whole));
}

static void permutation_is_a_bijection(void **state)
{
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        char seen[1000] = {0};
        for (uint64_t i = 0; i < sizes[s]; i++) {
            uint64_t p = perm_apply(5, 9, sizes[s], i);
            assert_true(p < sizes[s] && !seen[p]);
            seen[p] = 1;
            assert_int_equal(perm_invert(5, 9, sizes[s], p), i);
        }
    }
}

static void moments_are_right(void **state)
{
    enum { N = 200000 };
    struct rng r = rng_at(3, RNG_TEST, 0, 0);
    double u1 = 0, z1 = 0, z2 = 0;
    long counts[7] = {0};
    for (int i = 0; i < N; i++) {
        double z = rng_normal(&r);
        u1 += rng_uniform(&r);
        z1 += z;
        z2 += z * z;
        counts[rng_below(&r, 7)]++;
    }
    assert_true(fabs(u1 / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(z1 / N) < 5 / sqrt(N) && fabs(z2 / N - 1) < 5 * sqrt(2.0 / N));
    for (int k = 0; k < 7; k++) assert_true(fabs((double)counts[k] / N - 1.0 / 7) < 5 * sqrt(6.0 / 49 / N));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(stream_depends_on_its_address),
                                       cmocka_unit_test(permutation_is_a_bijection),
                                       cmocka_unit_test(moments_are_right)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
