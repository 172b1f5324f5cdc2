#include <math.h>
#include <stdbool.h>

#include "kernel/kernel_list.h"

static void softmax_row(real *p, const real *logits, int count)
{
    double largest = logits[0], sum = 0;
    for (int e = 1; e < count; e++) largest = fmax(largest, logits[e]);
    for (int e = 0; e < count; e++) sum += exp(logits[e] - largest);
    for (int e = 0; e < count; e++) p[e] = (real)(exp(logits[e] - largest) / sum);
}

static void choose_row(int32_t *choice, const real *p, const real *bias, const struct route_shape *s)
{
    for (int k = 0; k < s->chosen; k++) {
        int best = -1;
        for (int e = 0; e < s->experts; e++) {
            bool taken = false;
            for (int i = 0; i < k; i++) taken = taken || choice[i] == e;
            if (taken) continue;
            if (best < 0 || p[e] + (bias ? bias[e] : 0) > p[best] + (bias ? bias[best] : 0)) best = e;
        }
        choice[k] = best;
    }
}

void route_forward_ref(real *weight, int32_t *choice, real *probability, const real *logits, const real *bias,
                       const struct route_shape *s)
{
    for (int64_t r = 0; r < s->rows; r++) {
        real *p = probability + r * s->experts, *w = weight + r * s->chosen;
        int32_t *c = choice + r * s->chosen;
        softmax_row(p, logits + r * s->experts, s->experts);
        choose_row(c, p, bias, s);
        bool among_chosen = s->rule == ROUTE_TOPK_SOFTMAX;
        for (int k = 0; k < s->chosen; k++) w[k] = among_chosen ? logits[r * s->experts + c[k]] : p[c[k]];
        if (among_chosen) softmax_row(w, w, s->chosen);
    }
}

/* dx += p (dp - p . dp): softmax backward. */
static void softmax_row_backward(double *dx, const real *p, const double *dp, int count)
{
    double dot = 0;
    for (int e = 0; e < count; e++) dot += p[e] * dp[e];
    for (int e = 0; e < count; e++) dx[e] += p[e] * (dp[e] - dot);
}

void route_backward_ref(real *dlogits, const real *dweight, const real *balance, const int32_t *choice,
                        const real *weight, const real *probability, const struct route_shape *s)
{
    for (int64_t r = 0; r < s->rows; r++) {
        double dp[EXPERT_MAX], dw[EXPERT_MAX], dx[EXPERT_MAX] = {0}, dchosen[EXPERT_MAX] = {0};
        const int32_t *c = choice + r * s->chosen;
        for (int e = 0; e < s->experts; e++) dp[e] = balance ? balance[e] : 0;
        for (int k = 0; k < s->chosen; k++) dw[k] = dweight[r * s->chosen + k];
        if (s->rule == ROUTE_TOPK_SOFTMAX) softmax_row_backward(dchosen, weight + r * s->chosen, dw, s->chosen);
        else
            for (int k = 0; k < s->chosen; k++) dp[c[k]] += dw[k];
        softmax_row_backward(dx, probability + r * s->experts, dp, s->experts);
        for (int k = 0; k < s->chosen; k++) dx[c[k]] += dchosen[k];
        for (int e = 0; e < s->experts; e++) dlogits[r * s->experts + e] = (real)dx[e];
    }
}

void expert_combine_ref(void *y, const void *e, const void *base, const real *weight, const int64_t *place,
                        const struct expert_shape *s)
{
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t i = 0; i < s->width; i++) {
            double sum = base ? dtype_load(base, r * s->width + i, s->type) : 0;
            for (int64_t n = r * s->chosen; n < (r + 1) * s->chosen; n++)
                sum += (weight ? weight[n] : 1) * dtype_load(e, place[n] * s->width + i, s->type);
            dtype_store(y, r * s->width + i, sum, s->type);
        }
}

void expert_combine_backward_ref(void *de, real *dweight, const void *dy, const void *e, const real *weight,
                                 const int64_t *place, const struct expert_shape *s)
{
    for (int64_t n = 0; n < s->rows * s->chosen; n++) {
        double dot = 0;
        for (int64_t i = 0; i < s->width; i++) {
            double d = dtype_load(dy, n / s->chosen * s->width + i, s->type);
            dot += d * dtype_load(e, place[n] * s->width + i, s->type);
            dtype_store(de, place[n] * s->width + i, weight[n] * d, s->type);
        }
        dweight[n] = (real)dot;
    }
}
