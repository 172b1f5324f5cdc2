/* Products through oneDNN (OpenBLAS in the double build) against their plain versions.
 * plan: ranks=1 limit=60 configs=release,sanitize,double
 * Small shapes entry by entry; large ones in O(n^2) with a random vector (Freivalds); tails of tiles
 * and buckets, several parts, accumulation; the same bytes for 1, 2, 3 threads and for a row wherever
 * it lies in a batch; masters that were rounded to bf16 before pack to the same bytes; the poll is called; no allocation of
 * ours in a call. */
#include "tests/kernel_check.h"

#include "kernel/product.h"
#include "kernel/vector.h"

/* Tolerances relative to the largest entry. fp32: k <= 1100 terms of rounding 6e-8 with random signs.
 * bf16: operands are the same rounded numbers on both sides, results may round to the next of 8 bits. */
static const struct tolerance tolerances[] = {{DTYPE_F32, 3e-6}, {DTYPE_BF16, 8e-3}, {DTYPE_F64, 1e-13}};

static struct product *make(int64_t in, int64_t out, int parts, enum dtype type, int threads, struct arena *arena,
                            struct product_weight *weight, const real *const *masters)
{
    struct product *p;
    struct product_spec spec = {
        .in = in, .out = out, .parts = parts, .type = type, .backward = true, .threads = threads};
    if (product_create(&spec, &p) != ST_OK) fail_msg("%s", status_message());
    size_t bytes = product_weight_bytes(p) + product_scratch_bytes(p) + 4096;
    assert_int_equal(arena_create(arena, bytes), ST_OK);
    *weight = product_weight_take(p, arena);
    product_set_scratch(p, arena_take(arena, product_scratch_bytes(p)));
    product_pack(p, weight, masters);
    return p;
}

/* W as the product sees it: rounded where operands are bf16. */
static real *seen(const real *w, int64_t count, enum dtype type)
{
    real *out = test_reals(count, 0);
    for (int64_t i = 0; i < count; i++)
        out[i] = type == DTYPE_BF16 ? (real)bf16_to_float(bf16_from_float((float)w[i])) : w[i];
    return out;
}

static void matches_plain(int64_t rows, int64_t in, int64_t out, int parts, enum dtype type, int threads)
{
    int64_t part = out / parts;
    real *w[PRODUCT_MAX_PARTS], *dw[PRODUCT_MAX_PARTS], *all = test_reals(out * in, 0);
    for (int i = 0; i < parts; i++) {
        w[i] = test_reals(part * in, 1 + i);
        dw[i] = test_reals(part * in, 11 + i);
        memcpy(all + i * part * in, w[i], (size_t)(part * in) * sizeof(real));
    }
    real *rounded = seen(all, out * in, type), *dw_plain = test_reals(out * in, 0);
    for (int i = 0; i < parts; i++) memcpy(dw_plain + i * part * in, dw[i], (size_t)(part * in) * sizeof(real));
    struct arena arena = {0};
    struct product_weight weight;
    struct product *p = make(in, out, parts, type, threads, &arena, &weight, (const real *const *)w);
    void *x = test_values(rows * in, 21, type), *dy = test_values(rows * out, 22, type);
    void *y = test_values(rows * out, 0, type), *dx = test_values(rows * in, 23, type);
    void *y_plain = test_values(rows * out, 0, type), *dx_plain = test_values(rows * in, 23, type);
    product_forward(p, y, x, &weight, rows);
    product_forward_ref(y_plain, x, rounded, rows, in, out, type);
    check_near("y", y, y_plain, rows * out, type, tolerances);
    product_backward_data(p, dx, dy, &weight, rows, true);
    product_backward_data_ref(dx_plain, dy, rounded, rows, in, out, type, true);
    check_near("dx +=", dx, dx_plain, rows * in, type, tolerances);
    product_backward_data(p, dx, dy, &weight, rows, false);
    product_backward_data_ref(dx_plain, dy, rounded, rows, in, out, type, false);
    check_near("dx", dx, dx_plain, rows * in, type, tolerances);
    product_backward_weight(p, dw, dy, x, rows);
    product_backward_weight_ref(dw_plain, dy, x, rows, in, out, type);
    for (int i = 0; i < parts; i++)
        check_near("dw", dw[i], dw_plain + i * part * in, part * in, DTYPE_REAL, tolerances);
    product_destroy(&p);
    arena_destroy(&arena);
    test_free_all();
}

static void small_shapes_match(void **state)
{
    static const struct {
        int64_t rows, in, out;
        int parts;
    } shapes[] = {{1, 16, 16, 1},    {3, 32, 96, 3},    {127, 64, 48, 1},   {128, 64, 64, 2}, {129, 40, 24, 1},
                  {257, 96, 200, 1}, {300, 64, 512, 4}, {1100, 48, 160, 1}, {700, 256, 32, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int t = 0; t < test_type_count; t++)
            for (int threads = 1; threads <= 3; threads++)
                matches_plain(shapes[i].rows, shapes[i].in, shapes[i].out, shapes[i].parts, test_types[t], threads);
}

/* sum_i a[r, i] v[i] for every r. */
static void times_vector(double *out, const void *a, int64_t rows, int64_t cols, const double *v, enum dtype type)
{
    for (int64_t r = 0; r < rows; r++) {
        out[r] = 0;
        for (int64_t i = 0; i < cols; i++) out[r] += dtype_load(a, r * cols + i, type) * v[i];
    }
}

/* out[i] = sum_r v[r] a[r, i] */
static void vector_times(double *out, const void *a, int64_t rows, int64_t cols, const double *v, enum dtype type)
{
    memset(out, 0, (size_t)cols * sizeof *out);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < cols; i++) out[i] += dtype_load(a, r * cols + i, type) * v[r];
}

static void large_shape_by_random_vector(enum dtype type)
{
    enum { ROWS = 1500, IN = 768, OUT = 1024 };
    real *w = test_reals(OUT * IN, 1), *dw = test_reals(OUT * IN, 0), *rounded = seen(w, OUT * IN, type);
    struct arena arena = {0};
    struct product_weight weight;
    struct product *p = make(IN, OUT, 1, type, 2, &arena, &weight, (const real *const *)&w);
    void *x = test_values(ROWS * IN, 2, type), *dy = test_values(ROWS * OUT, 3, type);
    void *y = test_values(ROWS * OUT, 0, type), *dx = test_values(ROWS * IN, 0, type);
    double *v = test_doubles(2048, 4), *t = test_doubles(2048, 0), *left = test_doubles(2048, 0),
           *right = test_doubles(2048, 0);
    product_forward(p, y, x, &weight, ROWS);
    vector_times(t, rounded, OUT, IN, v, DTYPE_REAL); /* W^T v */
    times_vector(right, x, ROWS, IN, t, type);
    times_vector(left, y, ROWS, OUT, v, type);
    check_near_doubles("y v", left, right, ROWS, type, tolerances);
    product_backward_data(p, dx, dy, &weight, ROWS, false);
    times_vector(t, rounded, OUT, IN, v, DTYPE_REAL); /* W v */
    times_vector(right, dy, ROWS, OUT, t, type);
    times_vector(left, dx, ROWS, IN, v, type);
    check_near_doubles("dx v", left, right, ROWS, type, tolerances);
    product_backward_weight(p, &dw, dy, x, ROWS);
    times_vector(t, x, ROWS, IN, v, type);
    vector_times(right, dy, ROWS, OUT, t, type);
    times_vector(left, dw, OUT, IN, v, DTYPE_REAL);
    check_near_doubles("dw v", left, right, OUT, DTYPE_REAL, tolerances);
    product_destroy(&p);
    arena_destroy(&arena);
    test_free_all();
}

static void large_shapes_match(void **state)
{
    for (int t = 0; t < test_type_count; t++) large_shape_by_random_vector(test_types[t]);
}

static void rows_do_not_depend_on_the_batch(enum dtype type)
{
    enum { ROWS = 300, IN = 96, OUT = 160 };
    real *w = test_reals(OUT * IN, 1);
    struct arena arena = {0};
    struct product_weight weight;
    struct product *p = make(IN, OUT, 1, type, 2, &arena, &weight, (const real *const *)&w);
    size_t x_row = IN * dtype_bytes(type), y_row = OUT * dtype_bytes(type);
    char *x = test_values(ROWS * IN, 2, type), *y = test_values(ROWS * OUT, 0, type);
    char *one_y = test_values(OUT, 0, type), *turned_x = test_values(ROWS * IN, 0, type),
         *turned_y = test_values(ROWS * OUT, 0, type);
    product_forward(p, y, x, &weight, ROWS);
    for (int64_t r = 0; r < ROWS; r++)
        memcpy(turned_x + (size_t)r * x_row, x + (size_t)((r * 7 + 13) % ROWS) * x_row, x_row);
    product_forward(p, turned_y, turned_x, &weight, ROWS);
    for (int64_t r = 0; r < ROWS; r++)
        assert_memory_equal(turned_y + (size_t)r * y_row, y + (size_t)((r * 7 + 13) % ROWS) * y_row, y_row);
    for (int64_t r = 0; r < ROWS; r += 37) {
        product_forward(p, one_y, x + (size_t)r * x_row, &weight, 1);
        assert_memory_equal(one_y, y + (size_t)r * y_row, y_row);
    }
    product_destroy(&p);
    arena_destroy(&arena);
    test_free_all();
}

static void batch_composition_changes_nothing(void **state)
{
    for (int t = 0; t < test_type_count; t++) rows_do_not_depend_on_the_batch(test_types[t]);
}

/* Two weights in turns, a run of no rows, and rows that lie in no run: the bits of a call for each, nothing else touched. */
static void runs_are_calls_of_their_own(void **state)
{
    enum { ROWS = 700, IN = 96, OUT = 160, RUNS = 5 };
    static const int64_t first[RUNS] = {300, 0, 20, 131, 620}, rows[RUNS] = {259, 1, 0, 129, 80};
    enum dtype type = test_types[test_type_count - 1];
    struct arena arena = {0}, second_arena = {0};
    struct product_weight weight[2];
    struct product_run runs[RUNS];
    real *w = test_reals(OUT * IN, 1), *other = test_reals(OUT * IN, 2);
    struct product *p = make(IN, OUT, 1, type, 3, &arena, &weight[0], (const real *const *)&w);
    assert_int_equal(arena_create(&second_arena, product_weight_bytes(p) + 4096), ST_OK);
    weight[1] = product_weight_take(p, &second_arena);
    product_pack(p, &weight[1], (const real *const *)&other);
    char *x = test_values(ROWS * IN, 3, type), *dy = test_values(ROWS * OUT, 4, type);
    char *y = test_values(ROWS * OUT, 5, type), *dx = test_values(ROWS * IN, 6, type);
    char *want_y = test_values(ROWS * OUT, 5, type), *want_dx = test_values(ROWS * IN, 6, type);
    for (int add = 0; add < 2; add++) {
        for (int i = 0; i < RUNS; i++) {
            runs[i] = (struct product_run){&weight[i % 2], first[i], rows[i]};
            product_forward(p, dtype_at(want_y, first[i] * OUT, type), dtype_at(x, first[i] * IN, type), &weight[i % 2],
                            rows[i]);
            product_backward_data(p, dtype_at(want_dx, first[i] * IN, type), dtype_at(dy, first[i] * OUT, type),
                                  &weight[i % 2], rows[i], add);
        }
        product_forward_runs(p, y, x, runs, RUNS);
        product_backward_data_runs(p, dx, dy, runs, RUNS, add);
        assert_memory_equal(y, want_y, ROWS * OUT * dtype_bytes(type));
        assert_memory_equal(dx, want_dx, ROWS * IN * dtype_bytes(type));
    }
    product_forward_runs(p, y, x, runs, 0);
    product_destroy(&p);
    arena_destroy(&arena);
    arena_destroy(&second_arena);
    test_free_all();
}

/* Every result of one product on `threads` threads, one after another in memory. */
static char *all_results(int threads, enum dtype type, size_t *bytes)
{
    enum { ROWS = 1300, IN = 96, OUT = 320 };
    real *w = test_reals(OUT * IN, 1), *dw = test_reals(OUT * IN, 5);
    struct arena arena = {0};
    struct product_weight weight;
    struct product *p = make(IN, OUT, 1, type, threads, &arena, &weight, (const real *const *)&w);
    void *x = test_values(ROWS * IN, 2, type), *dy = test_values(ROWS * OUT, 3, type);
    size_t y_bytes = ROWS * OUT * dtype_bytes(type), dx_bytes = ROWS * IN * dtype_bytes(type),
           dw_bytes = OUT * IN * sizeof(real);
    char *out = malloc(*bytes = y_bytes + dx_bytes + dw_bytes);
    product_forward(p, out, x, &weight, ROWS);
    product_backward_data(p, out + y_bytes, dy, &weight, ROWS, false);
    product_backward_weight(p, &dw, dy, x, ROWS);
    memcpy(out + y_bytes + dx_bytes, dw, dw_bytes);
    product_destroy(&p);
    arena_destroy(&arena);
    test_free_all();
    return out;
}

static void threads_change_nothing(void **state)
{
    for (int t = 0; t < test_type_count; t++) {
        size_t bytes;
        char *one = all_results(1, test_types[t], &bytes);
        for (int threads = 2; threads <= 3; threads++) {
            char *more = all_results(threads, test_types[t], &bytes);
            assert_memory_equal(one, more, bytes);
            free(more);
        }
        free(one);
    }
}

static void packs_alike(int64_t in, int64_t out, int parts)
{
    const real *w[PRODUCT_MAX_PARTS];
    const void *rounded[PRODUCT_MAX_PARTS];
    int64_t part = out / parts * in;
    for (int i = 0; i < parts; i++) {
        void *to = test_values(part, 0, DTYPE_BF16);
        real *from = test_reals(part, 5 + i);
        for (int64_t k = 0; k < part; k += 3) /* half-way between two */
            from[k] = bf16_to_float(bf16_from_float((float)from[k])) + exp2f((float)ilogb((double)from[k]) - 8);
        vector_convert(to, DTYPE_BF16, from, DTYPE_REAL, part);
        w[i] = from;
        rounded[i] = to;
    }
    struct arena arena = {0};
    struct product_weight weight;
    struct product *p = make(in, out, parts, DTYPE_BF16, 1, &arena, &weight, w);
    size_t bytes = product_weight_bytes(p);
    char *first = weight.forward, *kept = test_block(bytes);
    assert_true((char *)weight.backward > first && (char *)weight.backward < first + bytes);
    memcpy(kept, first, bytes);
    memset(first, 0, bytes); /* what lies between the two was 0, too */
    product_pack_from(p, &weight, rounded, DTYPE_BF16);
    assert_memory_equal(kept, first, bytes);
    product_destroy(&p);
    arena_destroy(&arena);
    test_free_all();
}

static void rounded_masters_pack_alike(void **state)
{
    if (test_types[0] == DTYPE_F64) skip();
    packs_alike(64, 96, 1);
    packs_alike(70, 45, 3);
    packs_alike(256, 512, 2);
}

static void count_call(void *context) { ++*(int *)context; }

static void poll_is_called_and_nothing_allocated(void **state)
{
    enum { ROWS = 1024, IN = 64, OUT = 128 };
    int polls = 0;
    real *w = test_reals(OUT * IN, 1), *dw = test_reals(OUT * IN, 0);
    struct arena arena = {0};
    struct product_weight weight;
    enum dtype type = test_types[0];
    struct product *p = make(IN, OUT, 1, type, 1, &arena, &weight, (const real *const *)&w);
    void *x = test_values(ROWS * IN, 2, type), *dy = test_values(ROWS * OUT, 3, type),
         *dx = test_values(ROWS * IN, 0, type);
    product_set_poll(count_call, &polls);
    allocations_begin();
    product_pack(p, &weight, (const real *const *)&w);
    product_forward(p, dy, x, &weight, ROWS);
    product_backward_data(p, dx, dy, &weight, ROWS, true);
    product_backward_weight(p, &dw, dy, x, ROWS);
    struct allocations seen_calls = allocations_end();
    product_set_poll(NULL, NULL);
    assert_true(polls >= ROWS / PRODUCT_TILE);
    assert_int_equal(seen_calls.ours, 0);
    if (seen_calls.library_largest > 32768)
        fail_msg("oneDNN allocated %zu bytes in a call", seen_calls.library_largest);
    product_destroy(&p);
    arena_destroy(&arena);
    test_free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_shapes_match),
                                       cmocka_unit_test(large_shapes_match),
                                       cmocka_unit_test(batch_composition_changes_nothing),
                                       cmocka_unit_test(runs_are_calls_of_their_own),
                                       cmocka_unit_test(threads_change_nothing),
                                       cmocka_unit_test(rounded_masters_pack_alike),
                                       cmocka_unit_test(poll_is_called_and_nothing_allocated)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
