#include <omp.h>

#include "kernel/kernel_list.h"
#include "kernel/lane.h"

/* ---- gene-wise ---- */

INLINE float gene_row(const void *restrict a, const real *restrict w2, float slope, int64_t width, enum dtype type)
{
    float sums[LANE_SUMS] = {0};
    int64_t i = 0;
    for (; i + LANE_SUMS <= width; i += LANE_SUMS) {
        lane_fetch(a, i + width, LANE_SUMS, type);
#pragma omp simd
        for (int l = 0; l < LANE_SUMS; l++) {
            float x = lane_load(a, i + l, type);
            sums[l] += w2[i + l] * (x > 0 ? x : slope * x);
        }
    }
    for (int64_t l = 0; i + l < width; l++) {
        float x = lane_load(a, i + l, type);
        sums[l] += w2[i + l] * (x > 0 ? x : slope * x);
    }
    return lane_sum(sums, LANE_SUMS);
}

void ISA_NAME(decode_gene_forward)(real *p, const void *a, const real *w2, double slope, int64_t rows, int64_t width,
                                   enum dtype type)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const void *row = dtype_at(a, r * width, type);
        p[r] = type == DTYPE_BF16 ? gene_row(row, w2, (float)slope, width, DTYPE_BF16)
                                  : gene_row(row, w2, (float)slope, width, DTYPE_F32);
    }
}

INLINE void gene_row_backward(void *da, real *restrict dw2, float dp, const void *a, const real *restrict w2,
                              float slope, int64_t width, enum dtype type)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float x = lane_load(a, i, type), factor = x > 0 ? dp : dp * slope;
        dw2[i] += factor * x;
        lane_store(da, i, factor * w2[i], type);
    }
}

void ISA_NAME(decode_gene_backward)(void *da, real *dw2, const real *dp, const void *a, const real *w2, double slope,
                                    int64_t rows, int64_t width, enum dtype type, real *scratch)
{
    int64_t blocks = partial_blocks(rows);
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        float *part = scratch + block * width;
        memset(part, 0, (size_t)width * sizeof *part);
        for (int64_t r = block * PARTIAL_ROWS; r < partial_end(block, rows); r++) {
            void *da_row = dtype_at(da, r * width, type);
            const void *a_row = dtype_at(a, r * width, type);
            if (type == DTYPE_BF16) gene_row_backward(da_row, part, dp[r], a_row, w2, (float)slope, width, DTYPE_BF16);
            else gene_row_backward(da_row, part, dp[r], a_row, w2, (float)slope, width, DTYPE_F32);
        }
    }
    partial_add(dw2, scratch, width, blocks, width);
}

/* ---- cell-wise ---- */

INLINE float cell_row(const void *restrict m, const void *restrict z, int64_t width, float *restrict term,
                      enum dtype type)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++) term[i] = lane_sigmoid(lane_load(m, i, type)) * lane_load(z, i, type);
    return lane_sum(term, width);
}

void ISA_NAME(decode_cell_forward)(real *p, const void *m, const void *z, const int64_t *offsets, int cells,
                                   int64_t width, enum dtype type)
{
#pragma omp parallel
    {
        float term[LANE_MAX_WIDTH];
        for (int cell = 0; cell < cells; cell++) {
            const void *z_row = dtype_at(z, cell * width, type);
#pragma omp for schedule(static) nowait
            for (int64_t r = offsets[cell]; r < offsets[cell + 1]; r++) {
                const void *row = dtype_at(m, r * width, type);
                p[r] = type == DTYPE_BF16 ? cell_row(row, z_row, width, term, DTYPE_BF16)
                                          : cell_row(row, z_row, width, term, DTYPE_F32);
            }
        }
    }
}

/* dz is summed in row order, so one thread carries a run of columns through all rows of a cell: as
 * wide a run as leaves every thread some. */
static int64_t run_width(int cells, int64_t width)
{
    int64_t runs = cells > 0 ? (2 * omp_get_max_threads() + cells - 1) / cells : 1, run = (width / runs + 63) / 64 * 64;
    return run < 128 ? 128 : run;
}

/* dm and a share of dz, from s = sigmoid(m). */
INLINE void cell_gradient(void *dm, float *restrict sum, float dp, float s, float z, int64_t i, enum dtype type)
{
    sum[i] += dp * s;
    lane_store(dm, i, dp * z * s * (1.0f - s), type);
}

/* One row's dm, and its share of dz, for `columns` columns. */
INLINE void cell_row_backward(void *dm, float *restrict sum, float dp, const void *m, const float *restrict z,
                              int64_t columns, enum dtype type)
{
    int64_t i = 0;
    for (; i + LANE_RUN <= columns; i += LANE_RUN) {
        float s[LANE_RUN];
        lane_sigmoid_run(s, m, i, type);
        LANE_STEP cell_gradient(dm, sum, dp, s[l], z[i + l], i + l, type);
    }
    for (; i < columns; i++) cell_gradient(dm, sum, dp, lane_sigmoid(lane_load(m, i, type)), z[i], i, type);
}

INLINE void cell_columns_backward(void *dm, void *dz, const real *dp, const void *m, const void *z, int64_t first_row,
                                  int64_t end_row, int64_t columns, int64_t width, enum dtype type)
{
    float z_row[LANE_MAX_WIDTH], sum[LANE_MAX_WIDTH];
    for (int64_t i = 0; i < columns; i++) z_row[i] = lane_load(z, i, type), sum[i] = 0;
    for (int64_t r = first_row; r < end_row; r++)
        cell_row_backward(dtype_at(dm, r * width, type), sum, dp[r], dtype_at(m, r * width, type), z_row, columns,
                          type);
    for (int64_t i = 0; i < columns; i++) lane_store(dz, i, sum[i], type);
}

void ISA_NAME(decode_cell_backward)(void *dm, void *dz, const real *dp, const void *m, const void *z,
                                    const int64_t *offsets, int cells, int64_t width, enum dtype type)
{
    int64_t run = run_width(cells, width), runs = (width + run - 1) / run;
#pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < cells * runs; task++) {
        int64_t cell = task / runs, first = task % runs * run, columns = width - first < run ? width - first : run;
        void *dm_at = dtype_at(dm, first, type), *dz_at = dtype_at(dz, cell * width + first, type);
        const void *m_at = dtype_at(m, first, type), *z_at = dtype_at(z, cell * width + first, type);
        int64_t start = offsets[cell], end = offsets[cell + 1];
        if (type == DTYPE_BF16)
            cell_columns_backward(dm_at, dz_at, dp, m_at, z_at, start, end, columns, width, DTYPE_BF16);
        else cell_columns_backward(dm_at, dz_at, dp, m_at, z_at, start, end, columns, width, DTYPE_F32);
    }
}
