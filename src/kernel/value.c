#include <math.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"

struct range {
    float least, largest;
};

static struct range range_of(const real *u, int64_t b)
{
    struct range r = {u[0], u[0]};
    for (int64_t j = 1; j < b; j++) {
        if (u[j] < r.least) r.least = u[j];
        if (u[j] > r.largest) r.largest = u[j];
    }
    return r;
}

INLINE void softmax_row(void *restrict p, float x, const real *restrict u, struct range range, int64_t b,
                        float *restrict e, enum dtype type)
{
    float shift = x > 0 ? x * range.largest : x * range.least;
    float sums[LANE_RUN], sum = 0;
    int64_t i = 0;
    LANE_STEP sums[l] = 0;
    for (; i + LANE_RUN <= b; i += LANE_RUN) {
        LANE_STEP e[i + l] = x * u[i + l] - shift;
        lane_exp_run(e + i, false);
        LANE_STEP sums[l] += e[i + l];
    }
    for (; i < b; i++) sum += e[i] = lane_exp(x * u[i] - shift);
#pragma omp simd reduction(+ : sum)
    for (int l = 0; l < LANE_RUN; l++) sum += sums[l];
    float scale = 1.0f / sum;
#pragma omp simd
    for (int64_t j = 0; j < b; j++) lane_store(p, j, e[j] * scale, type);
}

void ISA_NAME(value_softmax_forward)(void *p, const float *x, const real *u, int64_t levels, int64_t b, enum dtype type)
{
    struct range range = range_of(u, b);
#pragma omp parallel
    {
        float e[LANE_MAX_WIDTH];
#pragma omp for schedule(static)
        for (int64_t n = 0; n < levels; n++) {
            void *row = dtype_at(p, n * b, type);
            if (type == DTYPE_BF16) softmax_row(row, x[n], u, range, b, e, DTYPE_BF16);
            else softmax_row(row, x[n], u, range, b, e, DTYPE_F32);
        }
    }
}

INLINE void softmax_row_backward(float *restrict du, const void *restrict dp, const void *restrict p, float x,
                                 int64_t b, float *restrict term, enum dtype type)
{
#pragma omp simd
    for (int64_t j = 0; j < b; j++) term[j] = lane_load(p, j, type) * lane_load(dp, j, type);
    float dot = lane_sum(term, b);
#pragma omp simd
    for (int64_t j = 0; j < b; j++) du[j] += x * (term[j] - lane_load(p, j, type) * dot);
}

void ISA_NAME(value_softmax_backward)(real *du, const void *dp, const void *p, const float *x, int64_t levels,
                                      int64_t b, enum dtype type, real *scratch)
{
    int64_t blocks = partial_blocks(levels);
#pragma omp parallel
    {
        float term[LANE_MAX_WIDTH];
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            float *part = scratch + block * b;
            memset(part, 0, (size_t)b * sizeof *part);
            for (int64_t n = block * PARTIAL_ROWS; n < partial_end(block, levels); n++) {
                const void *dp_row = dtype_at(dp, n * b, type), *p_row = dtype_at(p, n * b, type);
                if (type == DTYPE_BF16) softmax_row_backward(part, dp_row, p_row, x[n], b, term, DTYPE_BF16);
                else softmax_row_backward(part, dp_row, p_row, x[n], b, term, DTYPE_F32);
            }
        }
    }
    partial_add(du, scratch, b, blocks, b);
}
