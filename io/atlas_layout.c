/* From a plan and the rows' sizes to shards at their final size, or on with those of an earlier run. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "io/atlas_writer.h"
#include "io/h5ad_layout.h"
#include "io/place.h"

/* ---- laying out ---- */

static enum status note_places(struct atlas_writer *w, int m, int64_t shard, const char *path,
                               const struct h5ad_file *file)
{
    struct index_modality *modality = &w->index.modalities[m];
    struct stat info;
    for (int k = 0; k < w->index.piece_count; k++)
        modality->offsets[shard * w->index.piece_count + k] = h5ad_offset(file, h5ad_find(file, w->index.pieces[k]));
    if (stat(path, &info) != 0) return fail(ST_OUTPUT, "%s: %s", path, strerror(errno));
    modality->bytes[shard] = info.st_size;
    return ST_OK;
}

/* X/indptr in the width the file has it. */
static enum status write_starts(struct h5ad_file *file, const int64_t *starts, int64_t rows)
{
    int dataset = h5ad_find(file, "X/indptr");
    int32_t *narrow = NULL;
    enum status st = ST_OK;
    if (h5ad_row_bytes(file, dataset) == 8) return h5ad_write(file, dataset, 0, rows + 1, starts);
    TRY(NEW_ARRAY(narrow, rows + 1));
    for (int64_t i = 0; i <= rows; i++) narrow[i] = (int32_t)starts[i];
    TRY(h5ad_write(file, dataset, 0, rows + 1, narrow));
done:
    free(narrow);
    return st;
}

static enum status lay_out_shard(struct atlas_writer *w, int m, int64_t shard, const struct var_frame *var,
                                 const int64_t *starts)
{
    enum status st = ST_OK;
    struct index_modality *modality = &w->index.modalities[m];
    struct h5ad_file *file = NULL;
    char *path = index_shard_path(&w->index, w->partial, m, shard);
    int64_t rows = index_shard_rows(&w->index, shard);
    const struct h5ad_note notes[] = {{.name = "cytomill/modality", .text = modality->base.name},
                                      {.name = "cytomill/kind", .text = value_kind_word(modality->base.kind)},
                                      {.name = "cytomill/first_row", .number = (double)(shard * w->index.shard_rows)}};
    struct h5ad_layout layout = {.obs = {.rows = rows,
                                         .index_bytes = (int32_t)w->index.row_bytes[0],
                                         .fields = w->index.fields,
                                         .field_count = w->index.field_count},
                                 .var = var->frame,
                                 .x = H5AD_CSR,
                                 .entries = starts[rows],
                                 .uns = notes,
                                 .uns_count = 3};
    TRY(w->resumed ? h5ad_reopen_local(path, &layout, &file) : h5ad_create_local(path, &layout, &file));
    if (!w->resumed) TRY(write_starts(file, starts, rows));
    TRY(note_places(w, m, shard, path, file));
done:
    h5ad_close(&file);
    free(path);
    return st;
}

static enum status create_records(const struct atlas_writer *w, int64_t shard)
{
    enum status st = ST_OK;
    char *path = writer_records_path(w, shard);
    int64_t bytes = index_shard_rows(&w->index, shard) * w->record_bytes;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || ftruncate(fd, bytes) != 0) TRY(fail(ST_OUTPUT, "%s: cannot be created: %s", path, strerror(errno)));
    TRY(place_reserve(fd, path, bytes));
done:
    if (fd >= 0) close(fd);
    free(path);
    return st;
}

/* All shards this rank owns. */
static enum status lay_out_owned(const struct comm *comm, struct atlas_writer *w, const struct owned *owned)
{
    enum status st = ST_OK;
    struct var_frame var = {0};
    int modalities = w->index.modality_count;
    for (int m = 0; m < modalities; m++) {
        TRY(var_create(&w->index.modalities[m].base.features, &var));
        for (int64_t k = 0; k < owned->shard_count; k++)
            TRY(lay_out_shard(w, m, comm->rank + k * comm->size, &var, owned->starts[k * modalities + m]));
        var_free(&var);
        var = (struct var_frame){0};
    }
    for (int64_t k = 0; k < owned->shard_count; k++) TRY(create_records(w, comm->rank + k * comm->size));
done:
    var_free(&var);
    return st;
}

/* Every rank learns all places. */
static void share_places(struct comm *comm, struct atlas_writer *w)
{
    for (int m = 0; m < w->index.modality_count; m++) {
        struct index_modality *modality = &w->index.modalities[m];
        comm_sum_i64(comm, modality->entries, w->index.shard_count);
        comm_sum_i64(comm, modality->bytes, w->index.shard_count);
        comm_sum_i64(comm, modality->offsets, w->index.shard_count * w->index.piece_count);
    }
}

/* ---- an earlier run ---- */

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) { return remove(path); }

static enum status remove_folder(const char *path)
{
    if (access(path, F_OK) != 0 || nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0) return ST_OK;
    return fail(ST_OUTPUT, "%s: what an earlier run left cannot be removed: %s", path, strerror(errno));
}

static bool same_plan(const struct atlas_writer *w, const char *digest)
{
    char *path = text_format("%s/plan", w->partial), *text = NULL;
    size_t n;
    bool same = access(path, R_OK) == 0 && text_read_file(path, &text, &n) == ST_OK && strcmp(text, digest) == 0;
    status_clear();
    free(text);
    free(path);
    return same;
}

static enum status make_folders(const struct atlas_writer *w)
{
    enum status st = ST_OK;
    TRY(remove_folder(w->partial));
    for (int m = 0; m < w->index.modality_count; m++) {
        char *path = text_format("%s/mod/%s", w->partial, w->index.modalities[m].base.name);
        st = text_make_folder(path);
        free(path);
        TRY(st);
    }
done:
    return st;
}

/* Rank 0: is the way free, is there something to go on with, else make folders. */
static enum status begin(const struct comm *comm, struct atlas_writer *w, const char *digest)
{
    struct stat info;
    if (lstat(w->path, &info) == 0)
        return fail(ST_OUTPUT, "%s: is there already; choose another name or remove it", w->path);
    bool there = access(w->partial, F_OK) == 0;
    w->resumed = there && same_plan(w, digest);
    if (w->resumed) comm_note(comm, "going on with %s", w->partial);
    else if (there) comm_note(comm, "%s: an earlier run had other inputs or settings; starting over", w->partial);
    return w->resumed ? ST_OK : make_folders(w);
}

/* The plan's digest is written last: a folder that has it is laid out completely. */
static enum status write_digest(const struct atlas_writer *w, const char *digest)
{
    char *path = text_format("%s/plan", w->partial);
    FILE *file = fopen(path, "w");
    bool good = file && fputs(digest, file) >= 0;
    if (file && fclose(file) != 0) good = false;
    enum status st = good ? ST_OK : fail(ST_OUTPUT, "%s: cannot be written: %s", path, strerror(errno));
    free(path);
    return st;
}

static int64_t count_resumed(const struct atlas_writer *w)
{
    int64_t done = 0;
    for (int k = 0; w->resumed && k < w->range_count; k++)
        for (int64_t row = w->first[k]; row < w->first[k] + w->count[k]; row++) done += atlas_writer_has(w, row, 1);
    return done;
}

static enum status lay_out_all(struct comm *comm, struct atlas_writer *w, struct owned *owned)
{
    char digest[SHA256_HEX];
    int64_t sizes = (int64_t)owned->digest, resumed = 0;
    comm_sum_i64(comm, &sizes, 1);
    writer_digest(w, (uint64_t)sizes, digest);
    enum status st = comm_same(comm, digest, sizeof digest, "the plan of the atlas");
    if (st != ST_OK) return st;
    st = comm_agree(comm, comm->rank == 0 ? begin(comm, w, digest) : ST_OK);
    if (st != ST_OK) return st;
    resumed = w->resumed;
    comm_bcast(comm, &resumed, sizeof resumed, 0);
    w->resumed = resumed != 0;
    st = comm_agree(comm, lay_out_owned(comm, w, owned));
    if (st == ST_OK && comm->rank == 0 && !w->resumed) st = write_digest(w, digest);
    st = comm_agree(comm, st);
    if (st != ST_OK && !w->resumed && comm->rank == 0 && remove_folder(w->partial) != ST_OK) status_clear();
    return st;
}

/* ---- this rank's share ---- */

static enum status copy_share(struct atlas_writer *w, const struct atlas_share *share)
{
    enum status st = ST_OK;
    w->range_count = share->range_count;
    TRY(NEW_ARRAY(w->first, share->range_count));
    TRY(NEW_ARRAY(w->count, share->range_count));
    TRY(NEW_ARRAY(w->base, share->range_count));
    for (int k = 0; k < share->range_count; k++) {
        w->first[k] = share->first[k];
        w->count[k] = share->count[k];
        w->base[k] = w->rows;
        w->rows += share->count[k];
        bool rises = k == 0 || share->first[k] >= share->first[k - 1] + share->count[k - 1];
        if (!rises || share->first[k] < 0 || share->count[k] < 0 || share->first[k] + share->count[k] > w->index.rows)
            TRY(fail(ST_INTERNAL, "range %d of this rank's source rows is not in order", k));
    }
    TRY(NEW_ARRAY(w->entries, w->index.modality_count));
    TRY(NEW_ARRAY(w->starts, w->index.modality_count));
    for (int m = 0; m < w->index.modality_count; m++) {
        TRY(NEW_ARRAY(w->entries[m], w->rows));
        TRY(NEW_ARRAY(w->starts[m], w->rows));
        if (w->rows) memcpy(w->entries[m], share->entries[m], sizeof(int32_t) * (size_t)w->rows);
    }
done:
    return st;
}

static enum status set_records(struct atlas_writer *w)
{
    enum status st = ST_OK;
    w->record_bytes = 1;
    TRY(NEW_ARRAY(w->field_at, w->index.field_count));
    for (int k = 0; k < w->index.field_count; k++) {
        w->field_at[k] = w->record_bytes;
        w->record_bytes += field_bytes(&w->index.fields[k]) + w->index.fields[k].nullable;
    }
    w->data = index_piece(&w->index, "X/data");
    w->indices = index_piece(&w->index, "X/indices");
    w->indptr = index_piece(&w->index, "X/indptr");
    TRY(shard_files_create(&w->files, (w->index.modality_count + 1) * w->index.shard_count, O_RDWR));
done:
    return st;
}

/* ---- create ---- */

/* Does any cell lack a modality? Then obs says which. */
static bool some_lack(struct comm *comm, const struct atlas_plan *plan, const struct atlas_share *share)
{
    int64_t lack = 0;
    for (int m = 0; m < plan->modality_count; m++) {
        const int32_t *entries = share->entries[m];
        for (int k = 0; k < share->range_count; entries += share->count[k++])
            for (int64_t i = 0; i < share->count[k]; i++) lack += entries[i] < 0;
    }
    comm_sum_i64(comm, &lack, 1);
    return lack > 0;
}

enum status atlas_writer_create(struct comm *comm, const char *path, const struct atlas_plan *plan,
                                const struct atlas_share *share, struct atlas_writer **out)
{
    struct atlas_writer *w = NULL;
    struct owned owned = {0};
    bool lack = some_lack(comm, plan, share);
    *out = NULL;
    enum status st = NEW_ARRAY(w, 1);
    if (st == ST_OK) st = plan_to_index(plan, lack, &w->index);
    if (st == ST_OK) {
        w->path = text_copy(path);
        w->partial = text_format("%s.partial", path);
        w->names_unique = plan->obs_names_unique;
        w->plan_fields = plan->obs_count;
        st = copy_share(w, share);
    }
    if (st == ST_OK) st = set_records(w);
    if (st == ST_OK) st = owned_create(comm, w, &owned);
    TRY(comm_agree(comm, st));
    TRY(sizes_travel(comm, w, &owned, false));
    TRY(comm_agree(comm, owned_sum_up(comm, w, &owned)));
    TRY(lay_out_all(comm, w, &owned));
    share_places(comm, w);
    TRY(sizes_travel(comm, w, &owned, true));
    w->resumed_rows = count_resumed(w);
    *out = w;
done:
    if (w) owned_free(w, &owned);
    if (st != ST_OK) atlas_writer_destroy(&w);
    return st;
}
