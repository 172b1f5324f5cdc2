/* What the kernel tests share: random arrays, comparison within a tolerance per type, a count of
 * allocations. Header only, so that every test stays one file. */
#ifndef CYTOMILL_TESTS_KERNEL_CHECK_H
#define CYTOMILL_TESTS_KERNEL_CHECK_H

#include "base/status.h"
#undef fail /* cmocka has its own */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "kernel/dtype.h"

/* Activation types of this build. */
#ifdef CYTOMILL_DOUBLE
static const enum dtype test_types[] = {DTYPE_F64};
#else
static const enum dtype test_types[] = {DTYPE_F32, DTYPE_BF16};
#endif
enum { test_type_count = sizeof test_types / sizeof *test_types };

struct tolerance {
    enum dtype type;
    double relative; /* to the largest entry of the array */
};

static inline double tolerance_of(const struct tolerance *table, enum dtype type)
{
    while (table->type != type) table++;
    return table->relative;
}

/* ---- arrays, freed together ---- */

enum { TEST_ARRAYS = 256 };
static void *test_arrays[TEST_ARRAYS];
static int test_array_count;

static inline void *test_block(size_t bytes)
{
    void *p = NULL;
    if (test_array_count == TEST_ARRAYS || posix_memalign(&p, 64, bytes + 64)) abort();
    memset(p, 0, bytes + 64);
    return test_arrays[test_array_count++] = p;
}

static inline void test_free_all(void)
{
    while (test_array_count > 0) free(test_arrays[--test_array_count]);
}

/* count normal numbers of a type; zeros if seed is 0. */
static inline void *test_values(int64_t count, int seed, enum dtype type)
{
    void *x = test_block((size_t)count * dtype_bytes(type));
    struct rng r = rng_at((uint64_t)seed, RNG_TEST, 0, 0);
    for (int64_t i = 0; seed && i < count; i++) dtype_store(x, i, rng_normal(&r), type);
    return x;
}
static inline real *test_reals(int64_t count, int seed) { return test_values(count, seed, DTYPE_REAL); }
static inline double *test_doubles(int64_t count, int seed) { return test_values(count, seed, DTYPE_F64); }
static inline float *test_floats(int64_t count, int seed) { return test_values(count, seed, DTYPE_F32); }

/* ---- comparison ---- */

static inline void check_near_within(const char *what, const void *got, const void *want, int64_t count,
                                     enum dtype type, double tolerance)
{
    double largest = 0, worst = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        double w = dtype_load(want, i, type), error = fabs(dtype_load(got, i, type) - w);
        largest = fmax(largest, fabs(w));
        if (!(error <= worst)) worst = error, at = i;
    }
    if (!(worst <= tolerance * largest))
        fail_msg("%s, %s: element %ld is %.9g, not %.9g (error %.2g of the largest, allowed %.2g)", what,
                 dtype_name(type), (long)at, dtype_load(got, at, type), dtype_load(want, at, type), worst / largest,
                 tolerance);
}

static inline void check_near(const char *what, const void *got, const void *want, int64_t count, enum dtype type,
                              const struct tolerance *table)
{
    check_near_within(what, got, want, count, type, tolerance_of(table, type));
}

/* Doubles that came from arrays of `type`. */
static inline void check_near_doubles(const char *what, const double *got, const double *want, int64_t count,
                                      enum dtype type, const struct tolerance *table)
{
    check_near_within(what, got, want, count, DTYPE_F64, tolerance_of(table, type));
}

/* ---- allocations: malloc-family calls, ours apart from those of shared libraries ---- */

struct allocations {
    long ours, library;
    size_t library_largest;
};
static struct allocations allocations;
static volatile int allocations_counted;

static char *program_start, *program_end;

static inline void allocation_note(const void *caller, size_t bytes)
{
    if (!allocations_counted) return;
    if ((const char *)caller >= program_start && (const char *)caller < program_end) {
        __atomic_fetch_add(&allocations.ours, 1, __ATOMIC_RELAXED);
    } else {
        __atomic_fetch_add(&allocations.library, 1, __ATOMIC_RELAXED);
        if (bytes > allocations.library_largest) allocations.library_largest = bytes;
    }
}

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

#if !defined(__SANITIZE_ADDRESS__)
void *malloc(size_t bytes)
{
    allocation_note(__builtin_return_address(0), bytes);
    return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes)
{
    allocation_note(__builtin_return_address(0), count * bytes);
    return __libc_calloc(count, bytes);
}
void *realloc(void *p, size_t bytes)
{
    allocation_note(__builtin_return_address(0), bytes);
    return __libc_realloc(p, bytes);
}
int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    allocation_note(__builtin_return_address(0), bytes);
    *out = __libc_memalign(alignment, bytes);
    return *out ? 0 : 12;
}
void *aligned_alloc(size_t alignment, size_t bytes)
{
    allocation_note(__builtin_return_address(0), bytes);
    return __libc_memalign(alignment, bytes);
}
#endif

/* The linker's marks around this program's own code. */
extern char __executable_start, etext;

static inline void allocations_begin(void)
{
    program_start = &__executable_start;
    program_end = &etext;
    allocations = (struct allocations){0};
    allocations_counted = 1;
}

static inline struct allocations allocations_end(void)
{
    allocations_counted = 0;
    return allocations;
}

#endif
