#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/frame.h"
#include "io/h5.h"
#include "io/h5_array.h"
#include "io/h5_filter.h"
#include "io/probe.h"

enum { SLICE = 65536 };

struct walk {
    const char *path;
    int64_t file_bytes;
};

/* Every attribute: its type, its shape and its value. */
static herr_t visit_attribute(hid_t object, const char *name, const H5A_info_t *info, void *data)
{
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0) return -1;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute),
          native = H5Tget_native_type(type, H5T_DIR_DEFAULT);
    hssize_t points = H5Sget_simple_extent_npoints(space);
    size_t width = native < 0 ? 0 : H5Tget_size(native);
    herr_t rc = points < 0 || width == 0 || (uint64_t)points * width > (64u << 20) ? -1 : 0;
    void *value = rc == 0 ? calloc((size_t)points + 1, width) : NULL;
    if (rc == 0 && points > 0) rc = value ? H5Aread(attribute, native, value) : -1;
    if (rc >= 0 && points > 0) H5Dvlen_reclaim(native, space, H5P_DEFAULT, value);
    free(value);
    h5_drop(&native);
    h5_drop(&space);
    h5_drop(&type);
    h5_drop(&attribute);
    return rc;
}

/* Where each chunk lies: all of them within the file. */
static herr_t walk_chunks(hid_t dataset, int64_t file_bytes)
{
    hsize_t count = 0, offset[H5S_MAX_RANK], bytes;
    unsigned mask;
    haddr_t address;
    if (H5Dget_num_chunks(dataset, H5S_ALL, &count) < 0) return -1;
    /* each query walks the index from its start: look at all of a small index, at a sample of a large one */
    hsize_t step = count > 2000 ? count / 1000 : 1;
    for (hsize_t i = 0; i < count; i += step) {
        if (H5Dget_chunk_info(dataset, H5S_ALL, i, offset, &mask, &address, &bytes) < 0) return -1;
        if (address == HADDR_UNDEF) continue;
        if (address > (haddr_t)file_bytes || bytes > (hsize_t)file_bytes - address) return -1;
    }
    return 0;
}

static herr_t walk_dataset(hid_t dataset, const struct walk *w)
{
    hid_t plist = H5Dget_create_plist(dataset), type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    herr_t rc = plist < 0 || type < 0 || space < 0 || H5Sget_simple_extent_npoints(space) < 0 ? -1 : 0;
    hsize_t count = 0;
    if (rc == 0 && H5Pget_layout(plist) == H5D_CHUNKED && H5Dget_num_chunks(dataset, H5S_ALL, &count) >= 0)
        rc = walk_chunks(dataset, w->file_bytes);
    h5_drop(&space);
    h5_drop(&type);
    h5_drop(&plist);
    return rc;
}

static herr_t visit_object(hid_t root, const char *name, const H5O_info_t *info, void *data)
{
    hid_t object = H5Oopen(root, name, H5P_DEFAULT);
    hsize_t at = 0;
    if (object < 0) return -1;
    herr_t rc = H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, &at, visit_attribute, NULL);
    if (rc >= 0 && info->type == H5O_TYPE_DATASET) rc = walk_dataset(object, data);
    H5Oclose(object);
    return rc < 0 ? -1 : 0;
}

/* Read a table as a rank will: names and all columns. */
static enum status walk_frame(hid_t file, const char *path)
{
    enum status st = ST_OK;
    struct frame *f = NULL;
    if (!h5_exists(file, path)) return ST_OK;
    TRY(frame_open(file, path, &f));
    int64_t rows = frame_row_count(f);
    for (int64_t at = 0; at < rows; at += SLICE) {
        int64_t n = rows - at < SLICE ? rows - at : SLICE;
        struct column column;
        TRY(frame_read_names(f, at, n, &column));
        column_free(&column);
        for (int c = 0; c < frame_column_count(f); c++) {
            TRY(frame_read(f, c, at, n, &column));
            column_free(&column);
        }
    }
done:
    frame_close(&f);
    return st;
}

/* Decode an indptr from end to end. */
static enum status walk_indptr(hid_t file, const char *group)
{
    enum status st = ST_OK;
    char *path = text_format("%s/indptr", group);
    struct h5_array *indptr = NULL;
    int64_t *slice = NULL;
    if (!h5_exists(file, path)) goto done;
    TRY(NEW_ARRAY(slice, SLICE));
    TRY(h5_array_open(file, path, &indptr));
    for (int64_t at = 0, count = h5_array_count(indptr); at < count; at += SLICE)
        TRY(h5_array_read_int64(indptr, at, count - at < SLICE ? count - at : SLICE, slice));
done:
    h5_array_close(&indptr);
    free(slice);
    free(path);
    return st;
}

/* Matrices may lie under any name (10x v2 names them by genome; layers have names): look at each group that
 * holds an indptr, two levels deep. */
static herr_t visit_group(hid_t root, const char *name, const H5O_info_t *info, void *data)
{
    if (info->type != H5O_TYPE_GROUP || strcmp(name, ".") == 0) return 0;
    return walk_indptr(root, name) == ST_OK ? 0 : -1;
}

enum status probe_walk(const char *path)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    hsize_t bytes = 0;
    static const char *const frames[] = {"obs", "var", "raw/var", "raw.var"};
    TRY(h5_open(path, &file));
    H5Fget_filesize(file, &bytes);
    struct walk walk = {path, (int64_t)bytes};
    if (H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_NATIVE, visit_object, &walk, H5O_INFO_BASIC) < 0)
        TRY(h5_fail(ST_INPUT, "corrupt file: an object in it cannot be read; fetch or write it again"));
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) TRY(walk_frame(file, frames[i]));
    if (H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_NATIVE, visit_group, NULL, H5O_INFO_BASIC) < 0) {
        if (!*status_message()) TRY(h5_fail(ST_INPUT, "corrupt file: a matrix in it cannot be read"));
        st = ST_INPUT;
    }
done:
    if (st != ST_OK && strncmp(status_message(), path, strlen(path)) != 0) status_prefix("%s: ", path);
    h5_drop(&file);
    return st;
}
