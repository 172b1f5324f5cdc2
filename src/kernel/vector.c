#include <math.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"

void ISA_NAME(adam_step)(real *w, real *m, real *v, const real *g, int64_t count, const struct adam *adam)
{
    double t = (double)adam->t;
    float rate = (float)(adam->rate * sqrt(1 - pow(adam->beta2, t)) / (1 - pow(adam->beta1, t)));
    float beta1 = (float)adam->beta1, beta2 = (float)adam->beta2, eps = (float)adam->eps, scale = (float)adam->scale;
    float new1 = (float)(1 - adam->beta1), new2 = (float)(1 - adam->beta2);
    float limit = adam->clip > 0 ? (float)adam->clip : INFINITY;
    float coupled = adam->decoupled ? 0.0f : (float)adam->decay;
    float shrink = adam->decoupled ? (float)(adam->rate * adam->decay) : 0.0f;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float d = g[i] * scale;
        d = d > limit ? limit : d;
        d = d < -limit ? -limit : d;
        d += coupled * w[i];
        float mean = beta1 * m[i] + new1 * d, square = beta2 * v[i] + new2 * d * d;
        m[i] = mean;
        v[i] = square;
        w[i] -= shrink * w[i] + rate * mean / (sqrtf(square) + eps);
    }
}

/* At most SUM_BLOCKS blocks whose size depends on the count alone. */
enum { SUM_BLOCKS = 1024, SUM_GRAIN = 1024, SUM_LANES = 32, SUM_AHEAD = 512 };

static double block_square_sum(const real *x, int64_t count)
{
    double sums[SUM_LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + SUM_LANES <= count; i += SUM_LANES) {
        lane_fetch(x, i + SUM_AHEAD, SUM_LANES, DTYPE_F32);
#pragma omp simd
        for (int l = 0; l < SUM_LANES; l++) sums[l] += (double)x[i + l] * x[i + l];
    }
    for (; i < count; i++) sums[0] += (double)x[i] * x[i];
    for (int l = 0; l < SUM_LANES; l++) sum += sums[l];
    return sum;
}

void ISA_NAME(vector_square_sum)(double *out, const real *x, int64_t count)
{
    double sums[SUM_BLOCKS], total = 0;
    int64_t grains = (count + SUM_GRAIN - 1) / SUM_GRAIN, size = (grains + SUM_BLOCKS - 1) / SUM_BLOCKS * SUM_GRAIN;
    int64_t blocks = count > 0 ? (count + size - 1) / size : 0;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++)
        sums[b] = block_square_sum(x + b * size, count - b * size < size ? count - b * size : size);
    for (int64_t b = 0; b < blocks; b++) total += sums[b];
    *out = total;
}

INLINE void add_elements(void *y, const void *restrict x, int64_t count, enum dtype type)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) lane_store(y, i, lane_load(y, i, type) + lane_load(x, i, type), type);
}

void ISA_NAME(vector_add)(void *y, const void *x, int64_t count, enum dtype type)
{
    if (type == DTYPE_BF16) add_elements(y, x, count, DTYPE_BF16);
    else add_elements(y, x, count, DTYPE_F32);
}

INLINE void convert_elements(void *restrict y, enum dtype y_type, const void *restrict x, enum dtype x_type,
                             int64_t count)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) lane_store(y, i, lane_load(x, i, x_type), y_type);
}

/* Pieces that threads copy. */
enum { COPY_BYTES = 1 << 16 };

static void copy_bytes(char *y, const char *x, int64_t bytes)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < bytes; i += COPY_BYTES)
        memcpy(y + i, x + i, (size_t)(bytes - i < COPY_BYTES ? bytes - i : COPY_BYTES));
}

void ISA_NAME(vector_convert)(void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t count)
{
    if (y_type == x_type) copy_bytes(y, x, count * (int64_t)dtype_bytes(y_type));
    else if (y_type == DTYPE_BF16) convert_elements(y, DTYPE_BF16, x, DTYPE_F32, count);
    else convert_elements(y, DTYPE_F32, x, DTYPE_BF16, count);
}

void ISA_NAME(vector_round_bf16)(real *x, int64_t count)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) x[i] = bf16_to_float(bf16_from_float(x[i]));
}
