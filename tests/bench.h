/* What the benchmarks of the model share: lines of the result table, medians, memory, bound threads. */
#ifndef CYTOMILL_TESTS_BENCH_H
#define CYTOMILL_TESTS_BENCH_H

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/progress.h"
#include "base/rng.h"
#include "kernel/product.h"

static inline void require(enum status st)
{
    if (st == ST_OK) return;
    fprintf(stderr, "benchmark: %s\n", status_message());
    exit(st);
}

static inline int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *x, int count)
{
    qsort(x, (size_t)count, sizeof *x, compare_double);
    return x[count / 2];
}

/* The type as a row says it. */
static inline const char *type_text(enum dtype type)
{
    return type == DTYPE_BF16 && !product_bf16_native() ? "bf16 emulated" : dtype_name(type);
}

static inline void report(const char *what, int threads, enum dtype type, double value, const char *unit, double bar)
{
    printf("BENCH\t%s, %s, %d thread%s\t%.3f\t%s\t", what, type_text(type), threads, threads > 1 ? "s" : "", value,
           unit);
    if (bar > 0) printf(">= %.2f\t%s\n", bar, value >= bar ? "yes" : "no");
    else printf("-\t-\n");
}

/* A figure this machine cannot give: its row stays in the table. */
static inline void report_not_run(const char *what, int threads, const char *why)
{
    printf("BENCH\t%s, %d threads: %s\tnot run\t-\t-\t-\n", what, threads, why);
}

static inline void *block_of(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) exit(ST_MEMORY);
    memset(p, 0, bytes);
    return p;
}

static inline void fill_normal(void *x, int64_t count, enum dtype type, uint64_t key, double sd)
{
    struct rng r = rng_at(1, RNG_TEST, key, 0);
    for (int64_t i = 0; i < count; i++) dtype_store(x, i, sd * rng_normal(&r), type);
}

/* Threads must stay on their cores: start again with the binding set if it is not. */
static inline void bind_threads(char **argv)
{
    if (getenv("OMP_PROC_BIND")) return;
    setenv("OMP_PROC_BIND", "close", 1);
    setenv("OMP_PLACES", "cores", 0);
    execv("/proc/self/exe", argv);
}

#endif
