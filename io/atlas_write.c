#include "io/atlas_write.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/text.h"
#include "cell/csr.h"
#include "io/atlas_writer.h"
#include "io/h5ad_layout.h"
#include "io/place.h"

/* ---- where things are ---- */

int64_t writer_place(const struct atlas_writer *w, int64_t source_row)
{
    if (!w->index.shuffled) return source_row;
    return (int64_t)perm_apply(w->index.seed, PERM_KEY_ROWS, (uint64_t)w->index.rows, (uint64_t)source_row);
}

int writer_owner(const struct comm *comm, int64_t shard) { return (int)(shard % comm->size); }

char *writer_records_path(const struct atlas_writer *w, int64_t shard)
{
    return text_format("%s/obs-%05lld.records", w->partial, (long long)shard);
}

enum status writer_file(struct atlas_writer *w, int modality, int64_t shard, int *fd)
{
    int64_t id = modality * w->index.shard_count + shard;
    *fd = shard_files_get(&w->files, id);
    if (*fd >= 0) return ST_OK;
    char *path = modality == w->index.modality_count ? writer_records_path(w, shard)
                                                     : index_shard_path(&w->index, w->partial, modality, shard);
    enum status st = shard_files_open(&w->files, id, path, fd);
    free(path);
    return st;
}

int64_t writer_offset(const struct atlas_writer *w, int modality, int64_t shard, int piece)
{
    return w->index.modalities[modality].offsets[shard * w->index.piece_count + piece];
}

int64_t writer_local_row(const struct atlas_writer *w, int64_t source_row)
{
    int low = 0, high = w->range_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (w->first[middle] + w->count[middle] <= source_row) low = middle + 1;
        else high = middle;
    }
    if (low == w->range_count || source_row < w->first[low]) return -1;
    return w->base[low] + source_row - w->first[low];
}

/* ---- rows in the order of their places ---- */

struct placed {
    int64_t place, row; /* atlas row; row of the block being put */
};

static int by_place(const void *a, const void *b)
{
    int64_t x = ((const struct placed *)a)->place, y = ((const struct placed *)b)->place;
    return (x > y) - (x < y);
}

/* ---- cells ---- */

/* A run of rows that lie next to each other both in the block and in the shard: one write. */
struct run {
    int64_t shard, start;  /* first entry in the shard */
    int64_t from, entries; /* first entry in the block */
};

static enum status write_run(struct atlas_writer *w, int modality, const struct cells *cells, const struct run *run)
{
    enum status st = ST_OK;
    int fd;
    if (run->entries == 0) return ST_OK;
    const char *name = w->index.modalities[modality].base.name;
    TRY(writer_file(w, modality, run->shard, &fd));
    TRY(place_write(fd, name, writer_offset(w, modality, run->shard, w->data) + run->start * 4,
                    cells->value + run->from, run->entries * 4));
    TRY(place_write(fd, name, writer_offset(w, modality, run->shard, w->indices) + run->start * 4,
                    cells->feature + run->from, run->entries * 4));
done:
    return st;
}

/* The row must be of this rank's share and have the announced number of entries. */
static enum status check_row(const struct atlas_writer *w, int modality, const struct cells *cells, int64_t row)
{
    int64_t local = writer_local_row(w, cells->id[row]), n = cells->start[row + 1] - cells->start[row];
    if (local < 0) return fail(ST_INTERNAL, "source row %lld is not of this rank's share", (long long)cells->id[row]);
    int32_t announced = w->entries[modality][local];
    if (n == (announced < 0 ? 0 : announced)) return ST_OK;
    return fail(ST_INTERNAL, "source row %lld has %lld entries, %d were announced", (long long)cells->id[row],
                (long long)n, announced);
}

static enum status check_cells(const struct atlas_writer *w, int modality, const struct cells *cells)
{
    enum status st = ST_OK;
    if (cells->count == 0) return ST_OK;
    TRY(csr_check_starts(cells->start, cells->count, cells->start[cells->count]));
    TRY(csr_check_rows(cells->start, cells->count, cells->feature + cells->start[0], cells->value + cells->start[0],
                       w->index.modalities[modality].base.features.count));
    for (int64_t i = 0; i < cells->count; i++) TRY(check_row(w, modality, cells, i));
done:
    return st;
}

enum status atlas_writer_put_cells(struct atlas_writer *w, int modality, const struct cells *cells)
{
    enum status st = ST_OK;
    struct placed *order = NULL;
    struct run run = {.shard = -1};
    TRY(check_cells(w, modality, cells));
    TRY(NEW_ARRAY(order, cells->count));
    for (int64_t i = 0; i < cells->count; i++) order[i] = (struct placed){writer_place(w, cells->id[i]), i};
    qsort(order, (size_t)cells->count, sizeof *order, by_place);
    for (int64_t k = 0; k < cells->count; k++) {
        int64_t row = order[k].row, local = writer_local_row(w, cells->id[row]);
        struct run next = {.shard = order[k].place / w->index.shard_rows,
                           .start = w->starts[modality][local],
                           .from = cells->start[row],
                           .entries = cells->start[row + 1] - cells->start[row]};
        bool joins =
            next.shard == run.shard && next.start == run.start + run.entries && next.from == run.from + run.entries;
        if (joins) {
            run.entries += next.entries;
            continue;
        }
        if (run.shard >= 0) TRY(write_run(w, modality, cells, &run));
        run = next;
    }
    if (run.shard >= 0) TRY(write_run(w, modality, cells, &run));
done:
    free(order);
    return st;
}

/* ---- obs ---- */

/* Put one column's values into the records of `count` rows. */
static enum status fill_field(const struct atlas_writer *w, int field, const struct column *values, int64_t count,
                              char *records)
{
    enum status st = ST_OK;
    const struct h5ad_field *f = &w->index.fields[field];
    int64_t bytes = field_bytes(f);
    char *packed = NULL;
    uint8_t *missing = NULL;
    TRY(NEW_ARRAY(packed, count * bytes));
    TRY(NEW_ARRAY(missing, count));
    TRY(field_pack(f, values, 0, count, packed, missing));
    for (int64_t i = 0; i < count; i++) {
        char *place = records + i * w->record_bytes + w->field_at[field];
        memcpy(place, packed + i * bytes, (size_t)bytes);
        if (f->nullable) place[bytes] = (char)missing[i];
    }
done:
    free(missing);
    free(packed);
    return st;
}

/* Marks, and which modalities each cell has. */
static void fill_marks(const struct atlas_writer *w, int64_t local, int64_t count, char *records)
{
    for (int64_t i = 0; i < count; i++) records[i * w->record_bytes] = 1;
    for (int m = 0; w->plan_fields + m < w->index.field_count; m++)
        for (int64_t i = 0; i < count; i++)
            records[i * w->record_bytes + w->field_at[w->plan_fields + m]] = w->entries[m][local + i] >= 0;
}

static enum status write_records(struct atlas_writer *w, int64_t first, int64_t count, const char *records)
{
    enum status st = ST_OK;
    struct placed *order = NULL;
    int fd;
    TRY(NEW_ARRAY(order, count));
    for (int64_t i = 0; i < count; i++) order[i] = (struct placed){writer_place(w, first + i), i};
    qsort(order, (size_t)count, sizeof *order, by_place);
    for (int64_t k = 0, end; k < count; k = end) {
        int64_t shard = order[k].place / w->index.shard_rows, place = order[k].place - shard * w->index.shard_rows;
        for (end = k + 1; end < count && order[end].place == order[end - 1].place + 1 &&
                          order[end].row == order[end - 1].row + 1 && order[end].place / w->index.shard_rows == shard;)
            end++;
        TRY(writer_file(w, w->index.modality_count, shard, &fd));
        TRY(place_write(fd, "obs records", place * w->record_bytes, records + order[k].row * w->record_bytes,
                        (end - k) * w->record_bytes));
    }
done:
    free(order);
    return st;
}

enum status atlas_writer_put_obs(struct atlas_writer *w, int64_t first, const struct column *columns)
{
    enum status st = ST_OK;
    int64_t count = columns[0].count, local = writer_local_row(w, first);
    char *records = NULL;
    if (count == 0) return ST_OK;
    if (local < 0 || writer_local_row(w, first + count - 1) != local + count - 1)
        TRY(fail(ST_INTERNAL, "source rows %lld to %lld are not of this rank's share", (long long)first,
                 (long long)(first + count)));
    TRY(NEW_ARRAY(records, count * w->record_bytes));
    for (int k = 0; k < w->plan_fields; k++) {
        if (columns[k].count != count)
            TRY(fail(ST_INTERNAL, "column '%s' has another length", w->index.fields[k].name));
        TRY(fill_field(w, k, &columns[k], count, records));
    }
    fill_marks(w, local, count, records);
    TRY(write_records(w, first, count, records));
done:
    free(records);
    return st;
}

/* ---- what is done ---- */

bool atlas_writer_has(const struct atlas_writer *w, int64_t first, int64_t count)
{
    if (!w->resumed) return false;
    for (int64_t row = first; row < first + count; row++) {
        int64_t place = writer_place(w, row), shard = place / w->index.shard_rows;
        int fd;
        char mark = 0;
        if (writer_file((struct atlas_writer *)w, w->index.modality_count, shard, &fd) != ST_OK) return false;
        if (pread(fd, &mark, 1, (place - shard * w->index.shard_rows) * w->record_bytes) != 1 || mark != 1)
            return false;
    }
    return true;
}

int64_t atlas_writer_resumed_rows(const struct atlas_writer *w) { return w->resumed_rows; }

void atlas_writer_destroy(struct atlas_writer **writer)
{
    struct atlas_writer *w = *writer;
    if (!w) return;
    shard_files_destroy(&w->files);
    for (int m = 0; m < w->index.modality_count; m++) {
        if (w->entries) free(w->entries[m]);
        if (w->starts) free(w->starts[m]);
    }
    free(w->entries);
    free(w->starts);
    free(w->first);
    free(w->count);
    free(w->base);
    free(w->field_at);
    index_free(&w->index);
    free(w->path);
    free(w->partial);
    free(w);
    *writer = NULL;
}
