/* Products of packed panels against their plain version, on every instruction set of this processor.
 * plan: ranks=1 limit=60 configs=release,sanitize
 * Shapes that do and do not fill rows, panels and blocks; B packed from itself and from its transpose;
 * A plain and packed from its transpose with rows missing; = and +=; a row's bits do not depend on where
 * it lies; nothing is written beside C, nor beyond panel_bytes. */
#include "tests/kernel_check.h"

#include "kernel/kernel_list.h"

/* Of the largest entry: sums of up to 600 products, rounded to 6e-8 each with random signs. */
static const struct tolerance tolerances[] = {{DTYPE_F32, 3e-6}};
enum { GUARD = 64 };
static const float guard = 77.0f;

static const struct panel_shape shapes[] = {
    {.m = 1, .n = 1, .k = 1},       {.m = 2, .n = 23, .k = 3},     {.m = 3, .n = 24, .k = 4},
    {.m = 4, .n = 25, .k = 5},      {.m = 5, .n = 47, .k = 255},   {.m = 7, .n = 48, .k = 256},
    {.m = 126, .n = 49, .k = 257},  {.m = 128, .n = 12, .k = 600}, {.m = 33, .n = 100, .k = 512},
    {.m = 130, .n = 144, .k = 300},
};

/* A block of `count` numbers with guards behind it. */
static float *guarded(int64_t count, int seed)
{
    float *x = test_floats(count + GUARD, seed);
    for (int i = 0; i < GUARD; i++) x[count + i] = guard;
    return x;
}

static void check_guard(const float *x, int64_t count)
{
    for (int i = 0; i < GUARD; i++) assert_true(x[count + i] == guard);
}

static float *pack_right(const struct panel_shape *s, const float *b, bool transposed)
{
    int64_t count = (int64_t)(panel_bytes(s->n, s->k) / sizeof(float));
    float *turned = test_floats(s->n * s->k, 0), *packed = guarded(count, 0);
    for (int64_t i = 0; i < s->k; i++)
        for (int64_t j = 0; j < s->n; j++) turned[j * s->k + i] = b[i * s->n + j];
    panel_pack(packed, transposed ? turned : b, s->n, s->k, transposed);
    check_guard(packed, count);
    return packed;
}

/* A packed from its transpose, whose rows lie 3 numbers further apart than they must. */
static float *pack_left(const struct panel_shape *s, const float *a, int64_t k_given)
{
    int64_t stride = s->m + 3;
    float *turned = test_floats(stride * s->k, 0), *packed = guarded(s->m * s->k, 0);
    for (int64_t i = 0; i < s->m; i++)
        for (int64_t r = 0; r < k_given; r++) turned[r * stride + i] = a[i * s->k + r];
    panel_pack_left(packed, turned, DTYPE_F32, stride, k_given, s->m, s->k);
    check_guard(packed, s->m * s->k);
    return packed;
}

static void matches_plain(struct panel_shape s, bool transposed)
{
    float *a = test_floats(s.m * s.k, 1), *b = test_floats(s.k * s.n, 2);
    int64_t k_given = s.left_packed ? s.k - s.k / 3 : s.k;
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t r = k_given; r < s.k; r++) a[i * s.k + r] = 0;
    float *c = guarded(s.m * s.n, 3), *plain = test_floats(s.m * s.n, 3), *plain_b = test_floats(s.k * s.n, 0);
    panel_pack_ref(plain_b, b, s.n, s.k, false);
    panel_product_ref(plain, a, plain_b, &s);
    panel_product(c, s.left_packed ? pack_left(&s, a, k_given) : a, pack_right(&s, b, transposed), &s);
    check_near("c", c, plain, s.m * s.n, DTYPE_F32, tolerances);
    check_guard(c, s.m * s.n);
    test_free_all();
}

static void rows_keep_their_bits(const struct panel_shape *shape)
{
    struct panel_shape s = *shape, one = *shape;
    float *a = test_floats(s.m * s.k, 1), *b = test_floats(s.k * s.n, 2);
    float *packed = pack_right(&s, b, false), *c = test_floats(s.m * s.n, 0), *row = test_floats(s.n, 0);
    panel_product(c, a, packed, &s);
    one.m = 1;
    for (int64_t i = 0; i < s.m; i++) {
        panel_product(row, a + i * s.k, packed, &one);
        assert_memory_equal(row, c + i * s.n, (size_t)s.n * sizeof *row);
    }
    test_free_all();
}

static void every_instruction_set_matches(void **state)
{
    static const char *const sets[] = {"generic", "avx2", "avx512"};
    int tried = 0;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (kernel_select(sets[i]) != ST_OK) continue;
        tried++;
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            for (int way = 0; way < 8; way++) {
                struct panel_shape s = shapes[j];
                s.accumulate = way & 1;
                s.left_packed = way & 2;
                matches_plain(s, way & 4);
            }
            rows_keep_their_bits(&shapes[j]);
        }
    }
    assert_true(tried >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_instruction_set_matches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
