#include "mpi/replica.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"

/* The lowest rank of the largest camp. */
static int majority_of(const uint64_t *hashes, int ranks)
{
    int best = 0, most = 0;
    for (int r = 0; r < ranks; r++) {
        int votes = 0;
        for (int other = 0; other < ranks; other++) votes += hashes[other] == hashes[r];
        if (votes > most) most = votes, best = r;
    }
    return best;
}

/* The line, from every rank's hashes of tensors [ranks, count]. */
static enum status tell(const struct comm *data, const struct param_table *params, const uint64_t *hashes,
                        const uint64_t *tensors, const char (*hosts)[64])
{
    struct text odd = {0};
    int good = majority_of(hashes, data->size), first = params->count, count = params->count;
    for (int r = 0; r < data->size; r++) {
        if (hashes[r] == hashes[good]) continue;
        text_add(&odd, "%srank %d on %s", odd.length ? ", " : "", r, hosts[r]);
        for (int i = 0; i < first; i++)
            if (tensors[(int64_t)r * count + i] != tensors[(int64_t)good * count + i]) first = i;
    }
    enum status st =
        fail(ST_NUMERIC,
             "replicas of the weights differ: of %d ranks of the data axis, %s not as rank %d on %s; the first "
             "tensor that differs is %s; suspect memory or processor there, leave that host out and go on "
             "from a checkpoint written before",
             data->size, odd.data, good, hosts[good],
             first < count ? params->rows[first].name : "none: the hashes themselves differ");
    text_free(&odd);
    return st;
}

static enum status find_difference(struct comm *data, const struct param_table *params, const uint64_t *mine,
                                   const uint64_t *hashes)
{
    uint64_t *tensors = NULL;
    char(*hosts)[64] = NULL;
    int64_t bytes;
    enum status st = ST_OK;
    TRY(comm_gather_all(data, mine, (int64_t)sizeof *mine * params->count, (void **)&tensors, &bytes, NULL));
    TRY(comm_gather_all(data, data->host, sizeof data->host, (void **)&hosts, &bytes, NULL));
    TRY(comm_agree(data, tell(data, params, hashes, tensors, (const char(*)[64])hosts)));
done:
    free(tensors);
    free(hosts);
    return st;
}

enum status replica_check(struct comm *data, const struct param_table *params, const uint64_t *mine)
{
    enum status st = ST_OK;
    uint64_t hash = hash_block(mine, sizeof *mine * (size_t)params->count, 0), *hashes = NULL;
    int64_t bytes;
    bool same = true;
    if (data->size == 1) return ST_OK;
    TRY(comm_gather_all(data, &hash, sizeof hash, (void **)&hashes, &bytes, NULL));
    for (int r = 1; r < data->size; r++) same = same && hashes[r] == hashes[0];
    if (!same) st = find_difference(data, params, mine, hashes);
done:
    free(hashes);
    return st;
}
