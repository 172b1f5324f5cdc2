/* Number types of activations, chosen at run time, and bf16 (the upper half of a float).
 *
 * Activations lie in memory as one of these; arithmetic inside a kernel is float (double in plain
 * versions). DTYPE_REAL is what `real` is in this build. */
#ifndef CYTOMILL_KERNEL_DTYPE_H
#define CYTOMILL_KERNEL_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/real.h"

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F64 };

#ifdef CYTOMILL_DOUBLE
#define DTYPE_REAL DTYPE_F64
#else
#define DTYPE_REAL DTYPE_F32
#endif

typedef uint16_t bf16;

static inline size_t dtype_bytes(enum dtype type) { return type == DTYPE_F64 ? 8 : type == DTYPE_F32 ? 4 : 2; }

/* "fp32", "bf16", "fp64". Never NULL. */
static inline const char *dtype_name(enum dtype type)
{
    return type == DTYPE_F64 ? "fp64" : type == DTYPE_F32 ? "fp32" : "bf16";
}

/* Address of element i. */
static inline void *dtype_at(const void *x, int64_t i, enum dtype type)
{
    return (char *)(uintptr_t)x + i * (int64_t)dtype_bytes(type);
}

static inline float bf16_to_float(bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* Round to nearest, ties to even; NaN stays NaN (quiet). Branch-free, so that loops vectorise. */
static inline bf16 bf16_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet = (bits >> 16) | 0x40u;
    return (bf16)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/* The same for numbers, infinities and the NaNs that arithmetic makes (only a NaN with all of its low
 * bits set, which none does, would be lost): what inner loops use. */
static inline bf16 bf16_from_number(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* One element as double, and back: what plain versions use. */
static inline double dtype_load(const void *x, int64_t i, enum dtype type)
{
    if (type == DTYPE_BF16) return bf16_to_float(((const bf16 *)x)[i]);
    return type == DTYPE_F32 ? ((const float *)x)[i] : ((const double *)x)[i];
}

static inline void dtype_store(void *x, int64_t i, double value, enum dtype type)
{
    if (type == DTYPE_BF16) ((bf16 *)x)[i] = bf16_from_float((float)value);
    else if (type == DTYPE_F32) ((float *)x)[i] = (float)value;
    else ((double *)x)[i] = value;
}

#endif
