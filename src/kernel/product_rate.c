#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernel/multiply.h"
#include "kernel/product.h"

enum { RUNS = 9 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_run_s(struct multiply *m, void *c, const void *a, const void *packed, void *scratch)
{
    double seconds[RUNS];
    multiply_run(m, 0, c, a, packed, scratch);
    for (int i = 0; i < RUNS; i++) {
        double start = now_s();
        multiply_run(m, 0, c, a, packed, scratch);
        seconds[i] = now_s() - start;
    }
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    return seconds[RUNS / 2];
}

static size_t block_bytes(int64_t count, enum dtype type) { return (size_t)count * dtype_bytes(type) + ARENA_ALIGN; }

enum status product_plain_rate(double *gflops, enum dtype type, int64_t rows, int64_t in, int64_t out, int threads)
{
    enum status st = ST_OK;
    struct multiply *m = NULL;
    struct arena arena = {0};
    int threads_before = omp_get_max_threads();
    if (type == DTYPE_BF16 && !multiply_bf16_native()) type = DTYPE_F32;
    struct multiply_spec s = {.m = rows,
                              .n = out,
                              .k = in,
                              .type = type,
                              .c_type = type,
                              .plain = true,
                              .threads = 1,
                              .library_threads = threads};
    TRY(multiply_create(&s, &m));
    size_t packed_bytes = multiply_packed_bytes(m) + ARENA_ALIGN,
           scratch_bytes = multiply_scratch_bytes(m) + ARENA_ALIGN;
    TRY(arena_create(&arena, block_bytes(rows * in, type) + block_bytes(rows * out, type) + packed_bytes +
                                 scratch_bytes + 4 * ARENA_ALIGN));
    void *a = arena_take(&arena, block_bytes(rows * in, type)), *c = arena_take(&arena, block_bytes(rows * out, type));
    void *packed = arena_take(&arena, packed_bytes), *scratch = arena_take(&arena, scratch_bytes);
    omp_set_num_threads(threads);
    *gflops = 2e-9 * (double)rows * (double)in * (double)out / median_run_s(m, c, a, packed, scratch);
    omp_set_num_threads(threads_before);
done:
    multiply_destroy(&m);
    arena_destroy(&arena);
    return st;
}
