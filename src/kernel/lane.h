/* What the fast kernels are written with. Each function takes the activation type as its last
 * argument and is inlined into a caller that passes a constant, so that one source gives a bf16 and
 * an fp32 loop, and the compiler vectorises both for each instruction set. No intrinsics: a set that
 * cannot be tried on the machine at hand stays correct. */
#ifndef CYTOMILL_KERNEL_LANE_H
#define CYTOMILL_KERNEL_LANE_H

#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "kernel/dtype.h"

#define INLINE static inline __attribute__((always_inline))

/* Bytes of a vector register. */
#ifdef __AVX512F__
enum { LANE_BYTES = 64 };
#elif defined __AVX__
enum { LANE_BYTES = 32 };
#else
enum { LANE_BYTES = 16 };
#endif

/* Lower half of each 64-bit lane of a, times b. gcc does not find the one instruction for it. */
typedef uint64_t lane_words __attribute__((vector_size(LANE_BYTES), aligned(8), may_alias));
INLINE lane_words lane_product(lane_words a, uint32_t b)
{
#ifdef __AVX512F__
    return (a & 0xffffffffu) * (uint64_t)b;
#elif defined __AVX2__
    return (lane_words)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#else
    return (a & 0xffffffffu) * (uint64_t)b;
#endif
}

/* Widest row a kernel can hold in its buffers; the range of model.width (base/config_keys.h) keeps to it. */
enum { LANE_MAX_WIDTH = 16384 };

INLINE float lane_load(const void *x, int64_t i, enum dtype type)
{
    return type == DTYPE_BF16 ? bf16_to_float(((const bf16 *)x)[i]) : ((const float *)x)[i];
}

INLINE void lane_store(void *x, int64_t i, float value, enum dtype type)
{
    if (type == DTYPE_BF16) ((bf16 *)x)[i] = bf16_from_number(value);
    else ((float *)x)[i] = value;
}

/* Ask for the cache lines of x[i] to x[i + count]. What will be written may be asked for, too. */
INLINE void lane_fetch(const void *x, int64_t i, int64_t count, enum dtype type)
{
    const char *first = dtype_at(x, i, type);
    for (int64_t at = 0; at < count * (int64_t)dtype_bytes(type); at += 64) __builtin_prefetch(first + at);
}

/* e^x within 2 units in the last place for -87 < x < 88, and held at those ends: Cody and Waite's
 * reduction, then a polynomial of degree 6 (Cephes expf). */
INLINE float lane_exp(float x)
{
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float n = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: the sum is rounded to a whole number */
    uint32_t bits;                                    /* unsigned: a NaN may wrap, and stays NaN through p */
    memcpy(&bits, &n, sizeof bits);
    n -= 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t scale_bits = (bits - 0x4B400000u + 127u) << 23;
    float scale;
    memcpy(&scale, &scale_bits, sizeof scale);
    return p * scale;
}

INLINE float lane_sigmoid(float x) { return 1.0f / (1.0f + lane_exp(-x)); }

/* e^x of LANE_RUN numbers in place, to the same accuracy. The steps of one number wait for each other;
 * here each is done for four registers of numbers before the next, so that none waits. `large` numbers may be over
 * 88, and come to e^88. */
enum { LANE_RUN = LANE_BYTES };
#define LANE_STEP _Pragma("omp simd") for (int l = 0; l < LANE_RUN; l++)
INLINE void lane_exp_run(float *restrict x, bool large)
{
    float n[LANE_RUN], p[LANE_RUN];
    if (large) LANE_STEP x[l] = 88.0f < x[l] ? 88.0f : x[l];
    LANE_STEP x[l] = -87.0f > x[l] ? -87.0f : x[l];
    LANE_STEP n[l] = x[l] * 1.44269504088896341f + 12582912.0f;
    LANE_STEP x[l] = x[l] - (n[l] - 12582912.0f) * 0.693359375f + (n[l] - 12582912.0f) * 2.12194440e-4f;
    LANE_STEP p[l] = 1.9875691500e-4f * x[l] + 1.3981999507e-3f;
    LANE_STEP p[l] = p[l] * x[l] + 8.3334519073e-3f;
    LANE_STEP p[l] = p[l] * x[l] + 4.1665795894e-2f;
    LANE_STEP p[l] = p[l] * x[l] + 1.6666665459e-1f;
    LANE_STEP p[l] = p[l] * x[l] + 5.0000001201e-1f;
    LANE_STEP p[l] = p[l] * x[l] + 1.0f;
    LANE_STEP
    {
        uint32_t bits;
        float scale;
        memcpy(&bits, &n[l], sizeof bits);
        bits = (bits - 0x4B400000u + 127u) << 23;
        memcpy(&scale, &bits, sizeof scale);
        x[l] = (p[l] * x[l] + 1.0f) * scale;
    }
}

/* s = sigmoids of LANE_RUN numbers from x[i] on. */
INLINE void lane_sigmoid_run(float *restrict s, const void *x, int64_t i, enum dtype type)
{
    LANE_STEP s[l] = -lane_load(x, i + l, type);
    lane_exp_run(s, true);
    LANE_STEP s[l] = 1.0f / (1.0f + s[l]);
}

/* Sum of x[count] with enough independent partial sums to hide the latency of addition. */
enum { LANE_SUMS = 64 };
INLINE float lane_sum(const float *x, int64_t count)
{
    float sums[LANE_SUMS] = {0}, total = 0;
    int64_t i = 0;
    for (; i + LANE_SUMS <= count; i += LANE_SUMS) {
#pragma omp simd
        for (int l = 0; l < LANE_SUMS; l++) sums[l] += x[i + l];
    }
    for (; i < count; i++) sums[i % LANE_SUMS] += x[i];
#pragma omp simd reduction(+ : total)
    for (int l = 0; l < LANE_SUMS; l++) total += sums[l];
    return total;
}

#endif
