#include "metric/knn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* References that stay in cache while a few queries pass. */
enum { BLOCK_BYTES = 128 * 1024 };

enum status knn_create(int64_t queries, int k, struct knn **out)
{
    enum status st = ST_OK;
    struct knn *s = NULL;
    TRY(NEW_ARRAY(s, 1));
    *s = (struct knn){.queries = queries, .k = k};
    TRY(NEW_ARRAY(s->row, queries * k));
    TRY(NEW_ARRAY(s->distance, queries * k));
    TRY(NEW_ARRAY(s->found, queries));
    for (int64_t i = 0; i < queries * k; i++) {
        s->row[i] = -1;
        s->distance[i] = INFINITY;
    }
    memset(s->found, 0, sizeof *s->found * (size_t)queries);
    *out = s;
    s = NULL;
done:
    knn_destroy(&s);
    return st;
}

void knn_destroy(struct knn **knn)
{
    if (!*knn) return;
    free((*knn)->row);
    free((*knn)->distance);
    free((*knn)->found);
    free(*knn);
    *knn = NULL;
}

/* Differences, not norms and dots: no cancellation, and one fixed order of additions. */
static float squared_distance(const float *restrict a, const float *restrict b, int width)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < width; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* Insertion into the sorted list of one query. */
static void offer(struct knn *s, int64_t q, float distance, int64_t row)
{
    float *d = s->distance + q * s->k;
    int64_t *r = s->row + q * s->k;
    int at = s->found[q] < s->k ? s->found[q] : s->k - 1;
    if (s->found[q] == s->k && (distance > d[at] || (distance == d[at] && row > r[at]))) return;
    for (; at > 0 && (distance < d[at - 1] || (distance == d[at - 1] && row < r[at - 1])); at--) {
        d[at] = d[at - 1];
        r[at] = r[at - 1];
    }
    d[at] = distance;
    r[at] = row;
    if (s->found[q] < s->k) s->found[q]++;
}

void knn_add(struct knn *s, const float *query, int64_t self_first, const float *reference, int64_t rows, int64_t first,
             int width)
{
    int64_t step = BLOCK_BYTES / (int64_t)sizeof(float) / (width > 0 ? width : 1);
    if (step < 1) step = 1;
#pragma omp parallel for schedule(dynamic, 64)
    for (int64_t q0 = 0; q0 < s->queries; q0 += 64) {
        int64_t q1 = q0 + 64 < s->queries ? q0 + 64 : s->queries;
        for (int64_t r0 = 0; r0 < rows; r0 += step) {
            int64_t r1 = r0 + step < rows ? r0 + step : rows;
            for (int64_t q = q0; q < q1; q++)
                for (int64_t r = r0; r < r1; r++) {
                    if (self_first >= 0 && first + r == self_first + q) continue;
                    offer(s, q, squared_distance(query + q * width, reference + r * width, width), first + r);
                }
        }
    }
}

void knn_finish(struct knn *s)
{
    for (int64_t i = 0; i < s->queries * s->k; i++) s->distance[i] = sqrtf(s->distance[i]);
}

int32_t knn_vote(const struct knn *s, int64_t query, const int32_t *codes)
{
    const int64_t *row = s->row + query * s->k;
    int32_t best = -1;
    int most = 0;
    for (int j = 0; j < s->found[query]; j++) {
        int votes = 0;
        for (int i = 0; i < s->found[query]; i++) votes += codes[row[i]] == codes[row[j]];
        if (votes > most) { /* the first to reach a number of votes has the nearest member */
            most = votes;
            best = codes[row[j]];
        }
    }
    return best;
}
