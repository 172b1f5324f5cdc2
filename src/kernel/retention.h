/* ERetNet's gated retention (CellFM, Nat. Commun. 16, 4679, 2025, official code): linear attention
 * without decay, order or softmax. For each cell and each head of width C:
 *     Q = ReLU(q) f,   K = mask * ReLU(k) f,   V = v s          f = 1/sqrt(C), s = 1/sqrt(genes)
 *     T = sum_j K_j^T V_j                                       the state, [C, C]
 *     O_t = Q_t T,   N_t = O_t / max(1e-12, sqrt(mean O_t^2)),  y_t = N_t * SiLU(u_t)
 * The state is a sum over tokens, so the three entries of a mixer are two calls:
 *     full sequence   state = 0; state_forward(all tokens); read_forward(all tokens)
 *     prefill         the same, and the caller keeps the state
 *     step            state_forward(one more token); read_forward(that token)
 * Keys and queries may be different rows (the last layer reads few): each call has its own shape.
 *
 * Sizes: B cells, S rows in all, H heads, D = H C. q, k, v, u are columns of packed products, so
 * their rows lie `stride` elements apart; y is dense [S, D]. States are fp32 [B, H, C, C], summed in
 * an order that depends on a row's place in its cell alone. Threads share cells and heads. */
#ifndef CYTOMILL_KERNEL_RETENTION_H
#define CYTOMILL_KERNEL_RETENTION_H

#include "kernel/dtype.h"

enum { RETENTION_MAX_HEAD_WIDTH = 128 };

struct retention_shape {
    int cells;              /* B */
    const int64_t *offsets; /* [B+1] first row of each cell */
    int heads;              /* H */
    int64_t head_width;     /* C, at most RETENTION_MAX_HEAD_WIDTH */
    int64_t stride;         /* elements between rows of q, k, v, u and of their gradients */
    enum dtype type;
    double feature_scale;     /* f */
    const float *value_scale; /* [B] s; NULL = 1. Used with k, v */
    const uint8_t *key_mask;  /* [S] 1 = may be attended to; NULL = all. Used with k, v */
};

/* state[B,H,C,C] += sum over rows of K^T V. Local. */
void retention_state_forward(real *state, const void *k, const void *v, const struct retention_shape *shape);
/* y[S,D] from q, u and the state. Local. */
void retention_read_forward(void *y, const void *q, const void *u, const real *state,
                            const struct retention_shape *shape);
/* dq, du (stride) written, dstate[B,H,C,C] written, from dy[S,D]; O is computed again. Local. */
void retention_read_backward(void *dq, void *du, real *dstate, const void *dy, const void *q, const void *u,
                             const real *state, const struct retention_shape *shape);
/* dk, dv (stride) written. Local. */
void retention_state_backward(void *dk, void *dv, const real *dstate, const void *k, const void *v,
                              const struct retention_shape *shape);

#endif
