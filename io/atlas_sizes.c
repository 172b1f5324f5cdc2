/* The rows' sizes travel to the ranks that own their shards, are summed up there, and come back as places. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "io/atlas_writer.h"

/* ---- parcels ---- */

/* One block of local rows on its way: item k of the packed message belongs to local row order[k]. */
struct parcel {
    int64_t *bytes; /* [size] to each rank */
    char *items;
    int64_t *row; /* [count] local row of each item */
    int64_t count;
};

enum { PARCEL_ROWS = 1 << 14 };

static void parcel_free(struct parcel *p)
{
    free(p->bytes);
    free(p->items);
    free(p->row);
    *p = (struct parcel){0};
}

static int64_t source_row_of(const struct atlas_writer *w, int64_t local)
{
    int low = 0, high = w->range_count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (w->base[middle] <= local) low = middle;
        else high = middle - 1;
    }
    return w->first[low] + local - w->base[low];
}

/* Pack (place, entries of each modality) of local rows [first, first+count), grouped by owner. */
static enum status pack_parcel(const struct comm *comm, const struct atlas_writer *w, int64_t first, int64_t count,
                               struct parcel *p)
{
    enum status st = ST_OK;
    int modalities = w->index.modality_count;
    int64_t item = 8 + 4 * modalities, *at = NULL, *place = NULL;
    *p = (struct parcel){.count = count};
    TRY(NEW_ARRAY(p->bytes, comm->size));
    TRY(NEW_ARRAY(p->items, count * item));
    TRY(NEW_ARRAY(p->row, count));
    TRY(NEW_ARRAY(at, comm->size + 1));
    TRY(NEW_ARRAY(place, count));
    for (int64_t i = 0; i < count; i++) {
        place[i] = writer_place(w, source_row_of(w, first + i));
        p->bytes[writer_owner(comm, place[i] / w->index.shard_rows)] += item;
    }
    for (int r = 0; r < comm->size; r++) at[r + 1] = at[r] + p->bytes[r] / item;
    for (int64_t i = 0; i < count; i++) {
        int64_t k = at[writer_owner(comm, place[i] / w->index.shard_rows)]++;
        memcpy(p->items + k * item, &place[i], 8);
        for (int m = 0; m < modalities; m++) memcpy(p->items + k * item + 8 + 4 * m, &w->entries[m][first + i], 4);
        p->row[k] = first + i;
    }
done:
    free(at);
    free(place);
    return st;
}

/* ---- what arrives ---- */

static int64_t *owned_start(const struct comm *comm, const struct atlas_writer *w, const struct owned *owned,
                            int64_t place, int m)
{
    int64_t shard = place / w->index.shard_rows, row = place - shard * w->index.shard_rows;
    return &owned->starts[shard / comm->size * w->index.modality_count + m][row + 1];
}

/* Note the sizes that arrived. A row that comes twice means overlapping shares. */
static enum status note_sizes(const struct comm *comm, const struct atlas_writer *w, const char *items, int64_t bytes,
                              struct owned *owned)
{
    int modalities = w->index.modality_count;
    int64_t item = 8 + 4 * modalities;
    for (int64_t at = 0; at < bytes; at += item) {
        int64_t place;
        memcpy(&place, items + at, 8);
        for (int m = 0; m < modalities; m++) {
            int32_t entries;
            memcpy(&entries, items + at + 8 + 4 * m, 4);
            int64_t *start = owned_start(comm, w, owned, place, m);
            if (*start >= 0) return fail(ST_INTERNAL, "two ranks announced the row at %lld", (long long)place);
            *start = entries > 0 ? entries : 0;
        }
        owned->digest += hash_block(items + at, (size_t)item, 0);
    }
    return ST_OK;
}

/* What a round does with a parcel: `answer` false notes sizes, true brings starts back. */
static enum status round_trip(struct comm *comm, struct atlas_writer *w, struct owned *owned, int64_t first,
                              int64_t count, bool answer)
{
    struct parcel p = {0};
    void *arrived = NULL, *back = NULL;
    int64_t *from = NULL, *replies = NULL, *reply_bytes = NULL, total = 0;
    int modalities = w->index.modality_count;
    int64_t item = 8 + 4 * modalities;
    enum status st = pack_parcel(comm, w, first, count, &p);
    if (st == ST_OK) st = NEW_ARRAY(from, 2 * comm->size);
    st = comm_agree(comm, st);
    if (st != ST_OK) goto done;
    TRY(comm_exchange(comm, p.items, p.bytes, &arrived, from));
    for (int r = 0; r < comm->size; r++) total += from[r];
    if (!answer) {
        st = comm_agree(comm, note_sizes(comm, w, arrived, total, owned));
        goto done;
    }
    reply_bytes = from + comm->size;
    st = comm_agree(comm, NEW_ARRAY(replies, total / item * modalities));
    if (st != ST_OK) goto done;
    for (int64_t k = 0; k < total / item; k++) {
        int64_t place;
        memcpy(&place, (char *)arrived + k * item, 8);
        for (int m = 0; m < modalities; m++) replies[k * modalities + m] = owned_start(comm, w, owned, place, m)[-1];
    }
    for (int r = 0; r < comm->size; r++) from[r] = from[r] / item * 8 * modalities;
    TRY(comm_exchange(comm, replies, from, &back, reply_bytes));
    for (int64_t k = 0; k < count; k++)
        for (int m = 0; m < modalities; m++) w->starts[m][p.row[k]] = ((int64_t *)back)[k * modalities + m];
done:
    free(back);
    free(replies);
    free(arrived);
    free(from);
    parcel_free(&p);
    return st;
}

enum status sizes_travel(struct comm *comm, struct atlas_writer *w, struct owned *owned, bool answer)
{
    enum status st = ST_OK;
    int64_t rounds = (w->rows + PARCEL_ROWS - 1) / PARCEL_ROWS;
    comm_max_i64(comm, &rounds, 1);
    for (int64_t k = 0; k < rounds; k++) {
        int64_t first = k * PARCEL_ROWS < w->rows ? k * PARCEL_ROWS : w->rows;
        int64_t count = w->rows - first < PARCEL_ROWS ? w->rows - first : PARCEL_ROWS;
        TRY(round_trip(comm, w, owned, first, count, answer));
    }
done:
    return st;
}

/* ---- the shards this rank owns ---- */

enum status owned_create(const struct comm *comm, const struct atlas_writer *w, struct owned *owned)
{
    enum status st = ST_OK;
    int modalities = w->index.modality_count;
    for (int64_t s = comm->rank; s < w->index.shard_count; s += comm->size) owned->shard_count++;
    TRY(NEW_ARRAY(owned->starts, owned->shard_count * modalities));
    for (int64_t k = 0; k < owned->shard_count * modalities; k++) {
        int64_t rows = index_shard_rows(&w->index, comm->rank + k / modalities * comm->size);
        TRY(NEW_ARRAY(owned->starts[k], rows + 1));
        for (int64_t i = 1; i <= rows; i++) owned->starts[k][i] = -1;
    }
done:
    return st;
}

void owned_free(const struct atlas_writer *w, struct owned *owned)
{
    for (int64_t k = 0; owned->starts && k < owned->shard_count * w->index.modality_count; k++) free(owned->starts[k]);
    free(owned->starts);
}

/* Sizes to starts; a row nobody announced shows here. */
enum status owned_sum_up(const struct comm *comm, const struct atlas_writer *w, struct owned *owned)
{
    int modalities = w->index.modality_count;
    for (int64_t k = 0; k < owned->shard_count * modalities; k++) {
        int64_t shard = comm->rank + k / modalities * comm->size, rows = index_shard_rows(&w->index, shard);
        for (int64_t i = 1; i <= rows; i++) {
            if (owned->starts[k][i] < 0)
                return fail(ST_INTERNAL, "no rank announced the row at %lld",
                            (long long)(shard * w->index.shard_rows + i - 1));
            owned->starts[k][i] += owned->starts[k][i - 1];
        }
        w->index.modalities[k % modalities].entries[shard] = owned->starts[k][rows];
    }
    return ST_OK;
}
