#include "kernel/kernel_list.h"
#include "kernel/lane.h"

/* ---- gene-wise ---- */

INLINE float gene_row(const void *restrict a, const real *restrict w2, float slope, int64_t width, float *restrict term,
                      enum dtype type)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
        float x = lane_load(a, i, type);
        term[i] = w2[i] * (x > 0 ? x : slope * x);
    }
    return lane_sum(term, width);
}

void ISA_NAME(decode_gene_forward)(real *p, const void *a, const real *w2, double slope, int64_t rows, int64_t width,
                                   enum dtype type)
{
#pragma omp parallel
    {
        float term[LANE_MAX_WIDTH];
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            const void *row = dtype_at(a, r * width, type);
            p[r] = type == DTYPE_BF16 ? gene_row(row, w2, (float)slope, width, term, DTYPE_BF16)
                                      : gene_row(row, w2, (float)slope, width, term, DTYPE_F32);
        }
    }
}

INLINE void gene_row_backward(void *da, real *restrict dw2, float dp, const void *a, const real *restrict w2, float slope,
                              int64_t width, enum dtype type)
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

INLINE float cell_row(const void *restrict m, const void *restrict z, int64_t width, float *restrict term, enum dtype type)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++) term[i] = lane_sigmoid(lane_load(m, i, type)) * lane_load(z, i, type);
    return lane_sum(term, width);
}

void ISA_NAME(decode_cell_forward)(real *p, const void *m, const void *z, const int64_t *offsets, int cells, int64_t width,
                                   enum dtype type)
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

/* Columns that one thread carries through all rows of a cell: dz is summed in row order. */
enum { COLUMNS = 128 };

INLINE void cell_columns_backward(void *dm, void *dz, const real *dp, const void *m, const void *z, int64_t first_row,
                                  int64_t end_row, int64_t cell, int64_t first, int64_t width, enum dtype type)
{
    int64_t columns = width - first < COLUMNS ? width - first : COLUMNS;
    float z_row[COLUMNS], sum[COLUMNS] = {0};
    for (int64_t i = 0; i < columns; i++) z_row[i] = lane_load(z, cell * width + first + i, type);
    for (int64_t r = first_row; r < end_row; r++) {
        float d = dp[r];
#pragma omp simd
        for (int64_t i = 0; i < columns; i++) {
            float s = lane_sigmoid(lane_load(m, r * width + first + i, type));
            sum[i] += d * s;
            lane_store(dm, r * width + first + i, d * z_row[i] * s * (1.0f - s), type);
        }
    }
    for (int64_t i = 0; i < columns; i++) lane_store(dz, cell * width + first + i, sum[i], type);
}

void ISA_NAME(decode_cell_backward)(void *dm, void *dz, const real *dp, const void *m, const void *z, const int64_t *offsets,
                                    int cells, int64_t width, enum dtype type)
{
    int64_t pieces = (width + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < cells * pieces; task++) {
        int64_t cell = task / pieces, first = task % pieces * COLUMNS;
        if (type == DTYPE_BF16)
            cell_columns_backward(dm, dz, dp, m, z, offsets[cell], offsets[cell + 1], cell, first, width, DTYPE_BF16);
        else cell_columns_backward(dm, dz, dp, m, z, offsets[cell], offsets[cell + 1], cell, first, width, DTYPE_F32);
    }
}
