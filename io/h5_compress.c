/* Rewrite a finished file with chunked, shuffled, deflated datasets. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/text.h"
#include "io/h5.h"
#include "io/h5ad_write.h"

/* Chunks hold about this many values: large enough to compress, small enough for random rows. */
enum { CHUNK_VALUES = 16384, MIN_BYTES = 65536, BUFFER_BYTES = 8 << 20 };

struct copy {
    hid_t from, to;
    int level;
    enum status st;
};

static enum status copy_attribute(hid_t from, hid_t to, const char *name)
{
    enum status st = ST_OK;
    hid_t a = H5Aopen(from, name, H5P_DEFAULT), type = H5Aget_type(a), space = H5Aget_space(a), b = H5_NONE;
    void *value = NULL;
    TRY(mem_alloc(&value, (size_t)H5Sget_simple_extent_npoints(space) + 1, H5Tget_size(type), "attribute"));
    b = H5Acreate2(to, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (H5Sget_simple_extent_npoints(space) > 0 && (H5Aread(a, type, value) < 0 || H5Awrite(b, type, value) < 0))
        TRY(h5_fail(ST_OUTPUT, "attribute '%s' cannot be copied", name));
done:
    free(value);
    h5_drop(&b);
    h5_drop(&space);
    h5_drop(&type);
    h5_drop(&a);
    return st;
}

static herr_t visit_attribute(hid_t from, const char *name, const H5A_info_t *info, void *context)
{
    struct copy *copy = context;
    copy->st = copy_attribute(from, copy->to, name);
    return copy->st == ST_OK ? 0 : -1;
}

static enum status copy_attributes(hid_t from, hid_t to)
{
    struct copy copy = {.from = from, .to = to};
    if (H5Aiterate2(from, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_attribute, &copy) < 0 && copy.st == ST_OK)
        return h5_fail(ST_OUTPUT, "attributes cannot be copied");
    return copy.st;
}

/* Chunked and deflated, with times off. */
static hid_t deflated_list(int rank, const int64_t *dims, int level)
{
    hsize_t chunk[8];
    int64_t row_values = 1;
    for (int i = 1; i < rank; i++) row_values *= dims[i];
    int64_t rows = CHUNK_VALUES / (row_values > 0 ? row_values : 1);
    if (rows < 1) rows = 1;
    chunk[0] = (hsize_t)(rows < dims[0] ? rows : dims[0]);
    for (int i = 1; i < rank; i++) chunk[i] = (hsize_t)dims[i];
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(list, false);
    H5Pset_chunk(list, rank, chunk);
    H5Pset_shuffle(list);
    H5Pset_deflate(list, (unsigned)level);
    return list;
}

static enum status copy_rows(hid_t from, hid_t to, hid_t type, int rank, const int64_t *dims)
{
    enum status st = ST_OK;
    int64_t row_bytes = (int64_t)H5Tget_size(type);
    for (int i = 1; i < rank; i++) row_bytes *= dims[i];
    /* Whole chunks at a time: a chunk written in parts is deflated as often as it is touched. */
    int64_t step = BUFFER_BYTES / row_bytes / CHUNK_VALUES * CHUNK_VALUES;
    if (step < 1) step = rank == 1 ? CHUNK_VALUES : BUFFER_BYTES / row_bytes > 0 ? BUFFER_BYTES / row_bytes : 1;
    char *buffer = NULL;
    TRY(mem_alloc((void **)&buffer, (size_t)step, (size_t)row_bytes, "copy"));
    for (int64_t at = 0; at < dims[0]; at += step) {
        int64_t n = dims[0] - at < step ? dims[0] - at : step;
        TRY(h5_read_rows(from, type, at, n, buffer));
        TRY(h5_write_rows(to, type, at, n, buffer));
    }
done:
    free(buffer);
    return st;
}

static enum status copy_dataset(struct copy *copy, const char *name)
{
    enum status st = ST_OK;
    int rank;
    int64_t dims[8], values = 1;
    hid_t from = H5_NONE, to = H5_NONE, type = H5_NONE, space = H5_NONE, list = H5_NONE;
    TRY(h5_shape(copy->from, name, &rank, dims));
    from = H5Dopen2(copy->from, name, H5P_DEFAULT);
    type = H5Dget_type(from);
    for (int i = 0; i < rank; i++) values *= dims[i];
    if (rank == 0 || values * (int64_t)H5Tget_size(type) < MIN_BYTES) {
        if (H5Ocopy(copy->from, name, copy->to, name, H5P_DEFAULT, H5P_DEFAULT) < 0)
            TRY(h5_fail(ST_OUTPUT, "it cannot be copied"));
        goto done;
    }
    space = H5Dget_space(from);
    list = deflated_list(rank, dims, copy->level);
    to = H5Dcreate2(copy->to, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (to < 0) TRY(h5_fail(ST_OUTPUT, "it cannot be created"));
    TRY(copy_attributes(from, to));
    TRY(copy_rows(from, to, type, rank, dims));
done:
    if (st != ST_OK) status_prefix("'%s': ", name);
    h5_drop(&list);
    h5_drop(&space);
    h5_drop(&type);
    h5_drop(&to);
    h5_drop(&from);
    return st;
}

static enum status copy_group(hid_t from, hid_t to, int level);

static herr_t visit_link(hid_t from, const char *name, const H5L_info_t *info, void *context)
{
    struct copy *copy = context;
    H5O_info_t object;
    hid_t a = H5_NONE, b = H5_NONE;
    if (H5Oget_info_by_name1(from, name, &object, H5P_DEFAULT) < 0)
        copy->st = h5_fail(ST_INPUT, "'%s' cannot be read", name);
    else if (object.type == H5O_TYPE_DATASET) copy->st = copy_dataset(copy, name);
    else {
        copy->st = h5_group_open(from, name, &a);
        if (copy->st == ST_OK) copy->st = h5_group_create(copy->to, name, &b);
        if (copy->st == ST_OK) copy->st = copy_group(a, b, copy->level);
        h5_drop(&a);
        h5_drop(&b);
    }
    return copy->st == ST_OK ? 0 : -1;
}

static enum status copy_group(hid_t from, hid_t to, int level)
{
    struct copy copy = {.from = from, .to = to, .level = level};
    enum status st = copy_attributes(from, to);
    if (st != ST_OK) return st;
    if (H5Literate(from, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_link, &copy) < 0 && copy.st == ST_OK)
        return h5_fail(ST_OUTPUT, "a group cannot be copied");
    return copy.st;
}

static enum status flush_file(const char *path)
{
    FILE *file = fopen(path, "r");
    bool good = file && fsync(fileno(file)) == 0;
    if (file) fclose(file);
    return good ? ST_OK : fail(ST_OUTPUT, "%s: flush to disk failed: %s", path, strerror(errno));
}

/* HDF5 does not survive a full disk, so the result must fit in the worst case. */
static enum status check_space(const char *path)
{
    struct stat info;
    struct statvfs system;
    if (stat(path, &info) != 0 || statvfs(path, &system) != 0) return fail(ST_INPUT, "%s", strerror(errno));
    double need = (double)info.st_size * 1.05 + 1e6, have = (double)system.f_bavail * (double)system.f_frsize;
    char a[32], b[32];
    return need <= have
               ? ST_OK
               : fail(ST_OUTPUT, "needs %s of free space, there is %s", text_bytes(need, a), text_bytes(have, b));
}

enum status h5ad_deflate(const char *path, const char *to_path, int level)
{
    enum status st = ST_OK;
    hid_t from = H5_NONE, to = H5_NONE;
    TRY(check_space(path));
    TRY(h5_open(path, &from));
    TRY(h5_create_on_disk(to_path, &to));
    TRY(copy_group(from, to, level));
    TRY(h5_close(&to));
    TRY(flush_file(to_path));
done:
    if (st != ST_OK) status_prefix("%s: while compressing: ", path);
    h5_drop(&to);
    h5_drop(&from);
    if (st != ST_OK) unlink(to_path);
    return st;
}

/* H5Literate ends with 1 at the first larger dataset that no filter has gone over. */
static herr_t find_plain(hid_t parent, const char *name, const H5L_info_t *info, void *context)
{
    H5O_info_t object;
    if (H5Oget_info_by_name1(parent, name, &object, H5P_DEFAULT) < 0) return -1;
    hid_t item = H5Oopen(parent, name, H5P_DEFAULT);
    herr_t found = 0;
    if (object.type == H5O_TYPE_GROUP) found = H5Literate(item, H5_INDEX_NAME, H5_ITER_INC, NULL, find_plain, NULL);
    if (object.type == H5O_TYPE_DATASET) {
        hid_t list = H5Dget_create_plist(item);
        found = H5Pget_nfilters(list) == 0 && H5Dget_storage_size(item) >= MIN_BYTES;
        h5_drop(&list);
    }
    h5_drop(&item);
    return found;
}

enum status h5ad_is_compressed(const char *path, bool *compressed)
{
    hid_t file = H5_NONE;
    enum status st = h5_open(path, &file);
    if (st != ST_OK) return st;
    herr_t plain = H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, NULL, find_plain, NULL);
    *compressed = plain == 0;
    if (plain < 0) st = h5_fail(ST_INPUT, "%s: its datasets cannot be listed", path);
    h5_drop(&file);
    return st;
}

enum status h5ad_compress(const char *path, int level)
{
    char *fresh = text_format("%s.deflated", path);
    enum status st = h5ad_deflate(path, fresh, level);
    if (st == ST_OK && rename(fresh, path) != 0)
        st = fail(ST_OUTPUT, "%s: cannot be renamed to %s: %s", fresh, path, strerror(errno));
    free(fresh);
    return st;
}
