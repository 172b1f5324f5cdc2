/* The yardstick of speeds: the library's plain product, 2048 x 1536 x 1536, weights packed, same type in and out, rows
 * shared among the threads. Taken again beside every figure, since other programs share the machine. Where the processor
 * does not multiply bf16, the library has no such product, and the yardstick is that of fp32. */
#ifndef CYTOMILL_TESTS_YARDSTICK_H
#define CYTOMILL_TESTS_YARDSTICK_H

#include "bench.h"
#include "kernel/multiply.h"

enum { YARDSTICK_WIDTH = 1536, YARDSTICK_ROWS = 2048 };

struct yardstick {
    struct multiply *multiply;
    int threads;
    enum dtype type;
    int64_t rows; /* of one thread */
    void *x, *y, *packed, *scratch;
    size_t scratch_bytes;
};

static inline void yardstick_open(struct yardstick *s, int threads, enum dtype type)
{
    *s = (struct yardstick){.threads = threads, .type = type, .rows = YARDSTICK_ROWS / threads};
    struct multiply_spec spec = {.m = s->rows,
                                 .n = YARDSTICK_WIDTH,
                                 .k = YARDSTICK_WIDTH,
                                 .type = type,
                                 .c_type = type,
                                 .plain = true,
                                 .threads = threads};
    require(multiply_create(&spec, &s->multiply));
    s->scratch_bytes = (multiply_scratch_bytes(s->multiply) + 63) / 64 * 64;
    s->x = block_of(YARDSTICK_ROWS * YARDSTICK_WIDTH * dtype_bytes(type));
    s->y = block_of(YARDSTICK_ROWS * YARDSTICK_WIDTH * dtype_bytes(type));
    s->packed = block_of(multiply_packed_bytes(s->multiply));
    s->scratch = block_of(s->scratch_bytes * (size_t)threads);
    void *w = block_of(YARDSTICK_WIDTH * YARDSTICK_WIDTH * dtype_bytes(type));
    fill_normal(s->x, YARDSTICK_ROWS * YARDSTICK_WIDTH, type, 1, 1);
    fill_normal(w, YARDSTICK_WIDTH * YARDSTICK_WIDTH, type, 2, 0.03);
    multiply_pack(s->multiply, 0, s->packed, w, type, true, s->scratch);
    free(w);
}

static inline double yardstick_flops_per_s(const struct yardstick *s)
{
    double start = clock_s();
#pragma omp parallel num_threads(s->threads)
    {
        omp_set_num_threads(1);
        int thread = omp_get_thread_num();
        int64_t first = thread * s->rows * YARDSTICK_WIDTH;
        multiply_run(s->multiply, thread, dtype_at(s->y, first, s->type), dtype_at(s->x, first, s->type), s->packed,
                     (char *)s->scratch + (size_t)thread * s->scratch_bytes);
    }
    return 2.0 * YARDSTICK_ROWS * YARDSTICK_WIDTH * YARDSTICK_WIDTH / (clock_s() - start);
}

static inline void yardstick_close(struct yardstick *s)
{
    multiply_destroy(&s->multiply);
    free(s->x), free(s->y), free(s->packed), free(s->scratch);
}

#endif
