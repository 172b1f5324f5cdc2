/* Retention against its plain version, and its three entries against each other.
 * plan: ranks=1 limit=60 configs=release,sanitize,double
 * Ragged cells (one token, none masked, all masked), head widths that do and do not fill vectors,
 * columns of a wider product; prefill plus steps equals the full sequence; the same bytes for 1, 2, 3
 * threads, alone or in a batch; an all-zero output stays zero. */
#include "tests/kernel_check.h"

#include <omp.h>

#include "kernel/kernel_list.h"

/* Of the largest entry. The norm divides by the size of o, so its error is relative to single heads. */
static const struct tolerance tolerances[] = {{DTYPE_F32, 2e-5}, {DTYPE_BF16, 8e-3}, {DTYPE_F64, 1e-12}};
/* Gradients of q and k go through sums that cancel. */
static const struct tolerance gradient_tolerances[] = {{DTYPE_F32, 1e-4}, {DTYPE_BF16, 1e-2}, {DTYPE_F64, 1e-11}};

static const int64_t offsets[] = {0, 1, 40, 41, 150, 214};
enum { CELLS = 5, ROWS = 214 };

struct problem {
    struct retention_shape shape;
    int64_t width;
    char *qkvu, *dqkvu;
    void *y, *dy;
    real *state, *dstate;
    uint8_t *mask;
};

static struct problem problem_make(int heads, int64_t c, enum dtype type)
{
    static const float scales[CELLS] = {1, 0.16f, 1, 0.1f, 0.125f};
    int64_t width = heads * c, stride = 4 * width;
    struct problem p = {.width = width,
                        .qkvu = test_values(ROWS * stride, 1, type),
                        .dqkvu = test_values(ROWS * stride, 0, type),
                        .y = test_values(ROWS * width, 0, type),
                        .dy = test_values(ROWS * width, 2, type),
                        .state = test_reals(CELLS * heads * c * c, 0),
                        .dstate = test_reals(CELLS * heads * c * c, 3),
                        .mask = test_block(ROWS)};
    for (int64_t r = 0; r < ROWS; r++) p.mask[r] = r % 5 != 2 && r != 40; /* cell 2 has no key at all */
    p.shape = (struct retention_shape){.cells = CELLS,
                                       .offsets = offsets,
                                       .heads = heads,
                                       .head_width = c,
                                       .stride = stride,
                                       .type = type,
                                       .feature_scale = 1 / sqrt((double)c),
                                       .value_scale = scales,
                                       .key_mask = p.mask};
    return p;
}

static void *part(const struct problem *p, char *base, int which)
{
    return base + (size_t)(which * p->width) * dtype_bytes(p->shape.type);
}

static void run(struct problem *p)
{
    const struct retention_shape *s = &p->shape;
    void *q = part(p, p->qkvu, 0), *k = part(p, p->qkvu, 1), *v = part(p, p->qkvu, 2), *u = part(p, p->qkvu, 3);
    retention_state_forward(p->state, k, v, s);
    retention_read_forward(p->y, q, u, p->state, s);
    retention_read_backward(part(p, p->dqkvu, 0), part(p, p->dqkvu, 3), p->dstate, p->dy, q, u, p->state, s);
    retention_state_backward(part(p, p->dqkvu, 1), part(p, p->dqkvu, 2), p->dstate, k, v, s);
}

static void run_plain(struct problem *p)
{
    const struct retention_shape *s = &p->shape;
    void *q = part(p, p->qkvu, 0), *k = part(p, p->qkvu, 1), *v = part(p, p->qkvu, 2), *u = part(p, p->qkvu, 3);
    retention_state_forward_ref(p->state, k, v, s);
    retention_read_forward_ref(p->y, q, u, p->state, s);
    retention_read_backward_ref(part(p, p->dqkvu, 0), part(p, p->dqkvu, 3), p->dstate, p->dy, q, u, p->state, s);
    retention_state_backward_ref(part(p, p->dqkvu, 1), part(p, p->dqkvu, 2), p->dstate, k, v, s);
}

static void matches_plain(int heads, int64_t c, enum dtype type)
{
    struct problem fast = problem_make(heads, c, type), plain = problem_make(heads, c, type);
    int64_t state_count = CELLS * heads * c * c;
    run(&fast);
    run_plain(&plain);
    check_near("state", fast.state, plain.state, state_count, DTYPE_REAL, tolerances);
    check_near("y", fast.y, plain.y, ROWS * fast.width, type, tolerances);
    check_near("dstate", fast.dstate, plain.dstate, state_count, DTYPE_REAL, gradient_tolerances);
    check_near("d qkvu", fast.dqkvu, plain.dqkvu, ROWS * fast.shape.stride, type, gradient_tolerances);
    for (int64_t i = 0; i < fast.width; i++) assert_true(dtype_load(fast.y, 40 * fast.width + i, type) == 0);
    test_free_all();
}

static void shapes_match(void **state)
{
    static const struct {
        int heads;
        int64_t c;
    } shapes[] = {{1, 8}, {3, 12}, {4, 16}, {5, 32}, {9, 32}, {2, 64}, {3, 128}};
    for (int t = 0; t < test_type_count; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            matches_plain(shapes[i].heads, shapes[i].c, test_types[t]);
}

static void steps_equal_the_full_sequence(void **state)
{
    for (int t = 0; t < test_type_count; t++) {
        enum dtype type = test_types[t];
        struct problem full = problem_make(4, 32, type);
        int64_t row_elements = full.shape.stride, rows = offsets[4] - offsets[3];
        real *sums = test_reals(4 * 32 * 32, 0);
        void *y = test_values(full.width, 0, type);
        run(&full);
        struct retention_shape one = full.shape;
        int64_t span[2] = {0, 100};
        one.cells = 1;
        one.offsets = span;
        one.value_scale += 3;
        for (int64_t r = 0; r < rows; r += span[1]) { /* 100 rows at once, then one by one */
            span[1] = r == 0 ? 100 : 1;
            char *qkvu = dtype_at(full.qkvu, (offsets[3] + r) * row_elements, type);
            one.key_mask = full.mask + offsets[3] + r;
            retention_state_forward(sums, part(&full, qkvu, 1), part(&full, qkvu, 2), &one);
            if (span[1] == 1) retention_read_forward(y, part(&full, qkvu, 0), part(&full, qkvu, 3), sums, &one);
        }
        check_near("state", sums, full.state + 3 * 4 * 32 * 32, 4 * 32 * 32, DTYPE_REAL, tolerances);
        check_near("last row", y, dtype_at(full.y, (offsets[4] - 1) * full.width, type), full.width, type, tolerances);
        test_free_all();
    }
}

static void threads_and_batch_change_nothing(void **state)
{
    for (int t = 0; t < test_type_count; t++) {
        enum dtype type = test_types[t];
        omp_set_num_threads(1);
        struct problem one = problem_make(5, 32, type);
        size_t y_bytes = (size_t)(ROWS * one.width) * dtype_bytes(type);
        run(&one);
        for (int threads = 2; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            struct problem more = problem_make(5, 32, type);
            run(&more);
            assert_memory_equal(one.y, more.y, y_bytes);
            assert_memory_equal(one.dqkvu, more.dqkvu, 4 * y_bytes);
        }
        for (int cell = 0; cell < CELLS; cell++) {
            struct problem alone = problem_make(5, 32, type);
            int64_t span[2] = {0, offsets[cell + 1] - offsets[cell]};
            alone.shape.cells = 1;
            alone.shape.offsets = span;
            alone.shape.value_scale += cell;
            alone.shape.key_mask += offsets[cell];
            alone.qkvu = dtype_at(alone.qkvu, offsets[cell] * alone.shape.stride, type);
            run(&alone);
            assert_memory_equal(alone.y, dtype_at(one.y, offsets[cell] * one.width, type),
                                (size_t)(span[1] * one.width) * dtype_bytes(type));
        }
        test_free_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes_match), cmocka_unit_test(steps_equal_the_full_sequence),
                                       cmocka_unit_test(threads_and_batch_change_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
