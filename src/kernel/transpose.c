#include "kernel/kernel_list.h"
#include "kernel/lane.h"

/* Eight lanes: the compiler makes of these what the instruction set has. */
enum { SIDE = 8 };
typedef float lanes32 __attribute__((vector_size(SIDE * 4)));
typedef uint16_t lanes16 __attribute__((vector_size(SIDE * 2)));
typedef int32_t pick32 __attribute__((vector_size(SIDE * 4)));
typedef int16_t pick16 __attribute__((vector_size(SIDE * 2)));

/* Interleaving row i with row i + 4, three times, transposes an 8 x 8 block. */
INLINE void transpose_floats(lanes32 r[SIDE])
{
    const pick32 low = {0, 8, 1, 9, 2, 10, 3, 11}, high = {4, 12, 5, 13, 6, 14, 7, 15};
    for (int step = 0; step < 3; step++) {
        lanes32 t[SIDE];
        for (int i = 0; i < SIDE / 2; i++) {
            t[2 * i] = __builtin_shuffle(r[i], r[i + SIDE / 2], low);
            t[2 * i + 1] = __builtin_shuffle(r[i], r[i + SIDE / 2], high);
        }
        for (int i = 0; i < SIDE; i++) r[i] = t[i];
    }
}

INLINE void transpose_halves(lanes16 r[SIDE])
{
    const pick16 low = {0, 8, 1, 9, 2, 10, 3, 11}, high = {4, 12, 5, 13, 6, 14, 7, 15};
    for (int step = 0; step < 3; step++) {
        lanes16 t[SIDE];
        for (int i = 0; i < SIDE / 2; i++) {
            t[2 * i] = __builtin_shuffle(r[i], r[i + SIDE / 2], low);
            t[2 * i + 1] = __builtin_shuffle(r[i], r[i + SIDE / 2], high);
        }
        for (int i = 0; i < SIDE; i++) r[i] = t[i];
    }
}

INLINE void load_lanes(lanes32 *out, const void *x, int64_t at, enum dtype type)
{
    float lanes[SIDE];
    for (int l = 0; l < SIDE; l++) lanes[l] = lane_load(x, at + l, type);
    memcpy(out, lanes, sizeof lanes);
}

INLINE void store_lanes(void *y, int64_t at, const lanes32 *value, enum dtype type)
{
    float lanes[SIDE];
    memcpy(lanes, value, sizeof lanes);
    for (int l = 0; l < SIDE; l++) lane_store(y, at + l, lanes[l], type);
}

struct matrices {
    void *y;
    const void *x;
    int64_t rows, columns, x_stride, y_stride;
};

INLINE void block_whole(const struct matrices *m, int64_t r, int64_t c, enum dtype y_type, enum dtype x_type)
{
    if (y_type == DTYPE_BF16 && x_type == DTYPE_BF16) {
        lanes16 block[SIDE];
        for (int i = 0; i < SIDE; i++)
            memcpy(&block[i], (const bf16 *)m->x + (r + i) * m->x_stride + c, sizeof block[i]);
        transpose_halves(block);
        for (int i = 0; i < SIDE; i++) memcpy((bf16 *)m->y + (c + i) * m->y_stride + r, &block[i], sizeof block[i]);
    } else {
        lanes32 block[SIDE];
        for (int i = 0; i < SIDE; i++) load_lanes(&block[i], m->x, (r + i) * m->x_stride + c, x_type);
        transpose_floats(block);
        for (int i = 0; i < SIDE; i++) store_lanes(m->y, (c + i) * m->y_stride + r, &block[i], y_type);
    }
}

INLINE void block_edge(const struct matrices *m, int64_t r, int64_t c, enum dtype y_type, enum dtype x_type)
{
    for (int64_t i = r; i < m->rows && i < r + SIDE; i++)
        for (int64_t j = c; j < m->columns && j < c + SIDE; j++)
            lane_store(m->y, j * m->y_stride + i, lane_load(m->x, i * m->x_stride + j, x_type), y_type);
}

/* Columns of a strip: a strip of x is read in whole cache lines, one row after another. */
enum { STRIP = 32 };

INLINE void strip(const struct matrices *m, int64_t first, enum dtype y_type, enum dtype x_type)
{
    int64_t end = first + STRIP < m->columns ? first + STRIP : m->columns;
    for (int64_t r = 0; r < m->rows; r += SIDE)
        for (int64_t c = first; c < end; c += SIDE) {
            if (r + SIDE <= m->rows && c + SIDE <= m->columns) block_whole(m, r, c, y_type, x_type);
            else block_edge(m, r, c, y_type, x_type);
        }
}

INLINE void transpose_typed(const struct matrices *m, enum dtype y_type, enum dtype x_type)
{
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < m->columns; first += STRIP) strip(m, first, y_type, x_type);
}

void ISA_NAME(vector_transpose)(void *y, enum dtype y_type, const void *x, enum dtype x_type, int64_t rows,
                                int64_t columns, int64_t x_stride, int64_t y_stride)
{
    struct matrices m = {y, x, rows, columns, x_stride, y_stride};
    if (y_type == DTYPE_BF16 && x_type == DTYPE_BF16) transpose_typed(&m, DTYPE_BF16, DTYPE_BF16);
    else if (y_type == DTYPE_BF16) transpose_typed(&m, DTYPE_BF16, DTYPE_F32);
    else if (x_type == DTYPE_BF16) transpose_typed(&m, DTYPE_F32, DTYPE_BF16);
    else transpose_typed(&m, DTYPE_F32, DTYPE_F32);
}
