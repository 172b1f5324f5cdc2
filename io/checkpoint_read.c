/* Reading a checkpoint: what it holds, verified block by block, in shares that ranks send round. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/checkpoint_file.h"
#include "io/h5.h"

/* An open checkpoint. Every rank opens it by itself, read-only, through the serial driver. */
struct reader {
    const char *path; /* borrowed */
    hid_t file;
    struct checkpoint_map map; /* tensors in the order of their names */
    hid_t *dataset;            /* [parts * tensors] */
    uint64_t *sum;             /* [block_count] */
    int *owner;                /* [block_count] who verifies it */
    float *staged;             /* [largest block] */
};

/* ---- opening ---- */

static enum status read_tensor_shape(hid_t group, struct checkpoint_tensor *t)
{
    enum status st = ST_OK;
    int64_t dims[8];
    TRY(h5_shape(group, t->name, &t->shape_rank, dims));
    if (t->shape_rank < 1 || t->shape_rank > 3)
        TRY(fail(ST_INPUT, "tensor '%s' has %d dimensions; 1 to 3 are allowed", t->name, t->shape_rank));
    t->row_reals = 1;
    for (int d = 0; d < t->shape_rank; d++) {
        t->shape[d] = dims[d];
        if (d > 0) t->row_reals *= dims[d];
    }
done:
    return st;
}

static enum status list_tensors(struct reader *r)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    H5G_info_t info;
    TRY(h5_group_open(r->file, "param", &group));
    if (H5Gget_info(group, &info) < 0) TRY(h5_fail(ST_INPUT, "group 'param' cannot be read"));
    TRY(NEW_ARRAY(r->map.tensors, (int64_t)info.nlinks));
    r->map.tensor_count = (int)info.nlinks;
    r->map.parts = h5_exists(r->file, "moment1") && h5_exists(r->file, "moment2") ? PART_COUNT : 1;
    for (int i = 0; i < r->map.tensor_count; i++) {
        struct checkpoint_tensor *t = &r->map.tensors[i];
        *t = (struct checkpoint_tensor){0};
        if (H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, (hsize_t)i, t->name, sizeof t->name,
                               H5P_DEFAULT) < 0)
            TRY(h5_fail(ST_INPUT, "the name of tensor %d cannot be read", i));
        TRY(read_tensor_shape(group, t));
    }
    TRY(checkpoint_map_cut(&r->map));
done:
    h5_drop(&group);
    return st;
}

/* The checksums of a tensor's part begin at `first` in the file, wherever our own count puts them. */
static void place_checksums(struct checkpoint_map *map, int part, int tensor, int64_t first)
{
    int64_t begin = map->tensors[tensor].first_block[part];
    for (int64_t b = begin; b < map->block_count; b++) {
        struct checkpoint_block *block = &map->blocks[b];
        if (block->tensor != tensor || block->part != part) break;
        block->index = first + b - begin;
    }
}

/* Open the datasets of all parts and take from each where its checksums lie. */
static enum status open_tensors(struct reader *r)
{
    enum status st = ST_OK;
    int datasets = r->map.parts * r->map.tensor_count;
    char name[128];
    TRY(NEW_ARRAY(r->dataset, datasets));
    for (int i = 0; i < datasets; i++) r->dataset[i] = H5_NONE;
    for (int k = 0; k < datasets; k++) {
        int part = k / r->map.tensor_count, tensor = k % r->map.tensor_count;
        int64_t first;
        snprintf(name, sizeof name, "%s/%s", checkpoint_part_group(part), r->map.tensors[tensor].name);
        r->dataset[k] = H5Dopen2(r->file, name, H5P_DEFAULT);
        if (r->dataset[k] < 0) TRY(h5_fail(ST_INPUT, "tensor '%s' cannot be opened", name));
        TRY(h5_attr_read_int(r->dataset[k], "first_block", &first));
        place_checksums(&r->map, part, tensor, first);
    }
done:
    return st;
}

static enum status read_checksums(struct reader *r)
{
    enum status st = ST_OK;
    int64_t largest = 1;
    TRY(NEW_ARRAY(r->sum, r->map.block_count));
    TRY(NEW_ARRAY(r->owner, r->map.block_count));
    TRY(h5_read(r->file, "checksum", H5T_NATIVE_UINT64, r->map.block_count, r->sum));
    for (int64_t b = 0; b < r->map.block_count; b++) {
        const struct checkpoint_block *block = &r->map.blocks[b];
        if (block->index < 0 || block->index >= r->map.block_count)
            TRY(fail(ST_INPUT, "damaged: tensor '%s' points to checksum %lld of %lld",
                     r->map.tensors[block->tensor].name, (long long)block->index, (long long)r->map.block_count));
        if (checkpoint_block_reals(&r->map, block) > largest) largest = checkpoint_block_reals(&r->map, block);
    }
    TRY(NEW_ARRAY(r->staged, largest));
done:
    return st;
}

static enum status reader_open(struct reader *r, const char *path)
{
    enum status st = ST_OK;
    *r = (struct reader){.path = path, .file = H5_NONE};
    TRY(checkpoint_file_open(path, &r->file));
    st = list_tensors(r);
    if (st == ST_OK) st = open_tensors(r);
    if (st == ST_OK) st = read_checksums(r);
    if (st != ST_OK) status_prefix("%s: ", path);
done:
    return st;
}

static void reader_close(struct reader *r)
{
    for (int i = 0; r->dataset && i < r->map.parts * r->map.tensor_count; i++) h5_drop(&r->dataset[i]);
    h5_drop(&r->file);
    free(r->dataset);
    free(r->sum);
    free(r->owner);
    free(r->staged);
    checkpoint_map_free(&r->map);
}

/* ---- blocks ---- */

/* Read block b into r->staged and compare its checksum. */
static enum status read_block(struct reader *r, int64_t b)
{
    const struct checkpoint_block *block = &r->map.blocks[b];
    const char *name = r->map.tensors[block->tensor].name, *group = checkpoint_part_group(block->part);
    enum status st = h5_read_rows(r->dataset[block->part * r->map.tensor_count + block->tensor], H5T_NATIVE_FLOAT,
                                  block->first_row, block->rows, r->staged);
    size_t bytes = sizeof *r->staged * (size_t)checkpoint_block_reals(&r->map, block);
    if (st == ST_OK && hash_block(r->staged, bytes, 0) != r->sum[block->index])
        st =
            fail(ST_INPUT, "damaged: rows %lld to %lld of '%s/%s' do not match their checksum; use an older checkpoint",
                 (long long)block->first_row, (long long)(block->first_row + block->rows - 1), group, name);
    if (st != ST_OK) status_prefix("%s: ", r->path);
    return st;
}

static void copy_block(struct reader *r, const struct checkpoint_block *block, const struct piece *piece,
                       struct param_table *params)
{
    real *to = checkpoint_block_values(block, piece, params);
    for (int64_t i = 0; i < piece->reals; i++) to[i] = r->staged[i];
}

/* Weights are read by the owners of their pieces, who send them to the others unless the tensor is split; moments stay
 * with the owner. Experts are read by all who hold them. */
static enum status read_blocks(struct comm *comm, struct reader *r, struct param_table *params, const int *row_of,
                               bool moments)
{
    enum status st = ST_OK;
    for (int64_t b = 0; b < r->map.block_count; b++) {
        const struct checkpoint_block *block = &r->map.blocks[b];
        const struct piece *piece = checkpoint_block_piece(&r->map, block, params, row_of[block->tensor]);
        const struct param *p = &params->rows[piece->tensor];
        bool own = shard_owns(&params->shard, piece), weight = block->part == PART_WEIGHT;
        if (piece->owner < 0 || (weight ? p->split && !own : !moments || !own)) continue;
        bool shared = weight && params->shard.ranks > 1 && !p->routed && !p->split;
        if ((own || !shared) && st == ST_OK) st = read_block(r, b);
        if (shared) comm_bcast(comm, r->staged, piece->reals * (int64_t)sizeof *r->staged, piece->owner);
        copy_block(r, block, piece, params);
    }
    return comm_agree(comm, st);
}

/* ---- matching a parameter table ---- */

static const char *shape_text(int rank, const int64_t *shape, char out[80])
{
    int n = snprintf(out, 80, "[");
    for (int d = 0; d < rank && n < 70; d++)
        n += snprintf(out + n, (size_t)(80 - n), "%s%lld", d ? ", " : "", (long long)shape[d]);
    snprintf(out + n, (size_t)(80 - n), "]");
    return out;
}

static bool same_shape(const struct checkpoint_tensor *t, const struct param *p)
{
    if (t->shape_rank != p->shape_rank) return false;
    for (int d = 0; d < t->shape_rank; d++)
        if (t->shape[d] != p->shape[d]) return false;
    return true;
}

/* row_of[tensor] = row of the table. ST_INPUT names the first that does not fit. */
static enum status match_table(const struct reader *r, const struct param_table *params, int *row_of)
{
    char found[80], expected[80];
    for (int i = 0; i < r->map.tensor_count; i++) {
        const struct checkpoint_tensor *t = &r->map.tensors[i];
        row_of[i] = param_find(params, t->name);
        if (row_of[i] < 0)
            return fail(ST_INPUT,
                        "%s: holds tensor '%s', which this model does not have; it is a checkpoint of another model",
                        r->path, t->name);
        const struct param *p = &params->rows[row_of[i]];
        if (!same_shape(t, p))
            return fail(ST_INPUT,
                        "%s: tensor '%s' is %s, this model's is %s; it is a checkpoint of another model or vocabulary",
                        r->path, t->name, shape_text(t->shape_rank, t->shape, found),
                        shape_text(p->shape_rank, p->shape, expected));
    }
    for (int k = 0; k < params->count && r->map.tensor_count != params->count; k++) {
        int at = 0;
        while (at < r->map.tensor_count && row_of[at] != k) at++;
        if (at == r->map.tensor_count)
            return fail(ST_INPUT, "%s: has no tensor '%s'; it is a checkpoint of another model", r->path,
                        params->rows[k].name);
    }
    return ST_OK;
}

/* ---- tensors ---- */

enum status checkpoint_read(struct comm *comm, const char *path, struct param_table *params, struct train_state *state)
{
    struct checkpoint_small small = {0};
    struct reader r = {.file = H5_NONE};
    int *row_of = NULL;
    enum status st = checkpoint_small_share(comm, path, &small);
    if (st != ST_OK) goto done;
    st = reader_open(&r, path);
    if (st == ST_OK) st = NEW_ARRAY(row_of, r.map.tensor_count);
    if (st == ST_OK) st = match_table(&r, params, row_of);
    if (st == ST_OK && state && r.map.parts == 1)
        st = fail(ST_INPUT, "%s: holds weights only; training cannot resume from it", path);
    TRY(comm_agree(comm, st));
    TRY(read_blocks(comm, &r, params, row_of, state != NULL));
    if (state) *state = small.state;
done:
    free(row_of);
    reader_close(&r);
    checkpoint_small_free(&small);
    return st;
}

/* ---- the newest sound one ---- */

/* Read and compare all of it, every rank its share; *sound tells, and `reason` says what is wrong. Collective. */
static void verify(struct comm *comm, const char *path, bool *sound, char reason[512])
{
    struct checkpoint_small small = {0};
    struct reader r = {.file = H5_NONE};
    enum status st = reader_open(&r, path);
    if (st == ST_OK && comm->rank == 0 && (st = checkpoint_small_read(r.file, &small)) != ST_OK)
        status_prefix("%s: ", path);
    if (st == ST_OK) checkpoint_map_share(&r.map, comm->size, r.owner);
    for (int64_t b = 0; b < r.map.block_count && st == ST_OK; b++)
        if (r.owner[b] == comm->rank) st = read_block(&r, b);
    reader_close(&r);
    checkpoint_small_free(&small);
    int64_t bad = st != ST_OK ? comm->size - comm->rank : 0; /* the lowest rank that found damage tells */
    comm_max_i64(comm, &bad, 1);
    snprintf(reason, 512, "%s", status_message());
    if (bad > 0) comm_bcast(comm, reason, 512, comm->size - (int)bad);
    status_clear();
    *sound = bad == 0;
}

enum status checkpoint_find(struct comm *comm, const char *folder, char **path)
{
    int64_t *steps = NULL, count = 0;
    bool sound = false;
    char reason[512];
    *path = NULL;
    enum status st = comm->rank == 0 ? checkpoint_list_steps(folder, CHECKPOINT_ENDING, &steps, &count) : ST_OK;
    TRY(comm_agree(comm, st));
    comm_bcast(comm, &count, sizeof count, 0);
    for (int64_t i = 0; i < count && !sound; i++) {
        int64_t step = comm->rank == 0 ? steps[i] : 0;
        comm_bcast(comm, &step, sizeof step, 0);
        free(*path);
        *path = text_format("%s/checkpoint-%lld.h5", folder, (long long)step);
        verify(comm, *path, &sound, reason);
        if (!sound) comm_note(comm, "%s", reason);
        if (!sound && i + 1 < count) comm_note(comm, "going back to the checkpoint before it");
    }
    if (count > 0 && !sound) {
        free(*path);
        *path = NULL;
        TRY(comm_agree(comm, fail(ST_INPUT, "%s: none of its %lld checkpoints can be read; remove them to start anew",
                                  folder, (long long)count)));
    }
done:
    free(steps);
    return st;
}
