/* Datasets of HDF5 files. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/h5.h"
#include "io/place.h"

enum { MAX_RANK = 8 };

static enum status open_dataset(hid_t parent, const char *path, hid_t *dataset)
{
    *dataset = H5Dopen2(parent, path, H5P_DEFAULT);
    return *dataset < 0 ? h5_fail(ST_INPUT, "there is no readable dataset '%s'", path) : ST_OK;
}

static enum status shape_of(hid_t dataset, int *rank, int64_t dims[MAX_RANK])
{
    hsize_t extent[H5S_MAX_RANK];
    hid_t space = H5Dget_space(dataset);
    *rank = H5Sget_simple_extent_dims(space, extent, NULL);
    h5_drop(&space);
    if (*rank < 0 || *rank > MAX_RANK)
        return h5_fail(ST_INPUT, "a dataset of %d dimensions; at most 8 are read", *rank);
    for (int i = 0; i < *rank; i++) dims[i] = (int64_t)extent[i];
    return ST_OK;
}

static int64_t product(int rank, const int64_t *dims)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    return n;
}

enum status h5_shape(hid_t parent, const char *path, int *rank, int64_t dims[MAX_RANK])
{
    hid_t dataset = H5_NONE;
    enum status st = open_dataset(parent, path, &dataset);
    if (st == ST_OK) st = shape_of(dataset, rank, dims);
    h5_drop(&dataset);
    return st;
}

/* Would the file outgrow the limit this process has on files? Asked before HDF5 makes room: it does not survive a
 * failed write of its own, not even until the end of the program. */
static enum status check_limit(hid_t parent, const char *name, hid_t type, int rank, const int64_t *dims)
{
    hid_t file = H5Iget_file_id(parent);
    hsize_t held = 0;
    int64_t bytes = (int64_t)H5Tget_size(type);
    for (int i = 0; i < rank; i++) bytes *= dims[i];
    H5Fget_filesize(file, &held);
    H5Idec_ref(file);
    return place_check_limit(name, (int64_t)held + bytes);
}

enum status h5_dataset_create(hid_t parent, const char *name, hid_t type, int rank, const int64_t *dims, hid_t *dataset)
{
    hsize_t extent[MAX_RANK];
    for (int i = 0; i < rank; i++) extent[i] = (hsize_t)dims[i];
    *dataset = H5_NONE;
    enum status st = check_limit(parent, name, type, rank, dims);
    if (st != ST_OK) return st;
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(list, false);
    H5Pset_layout(list, H5D_CONTIGUOUS);
    H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(list, H5D_FILL_TIME_NEVER);
    hid_t space = rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, extent, NULL);
    *dataset = H5Dcreate2(parent, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (*dataset < 0) st = h5_fail(ST_OUTPUT, "dataset '%s' cannot be created", name);
    h5_drop(&space);
    h5_drop(&list);
    return st;
}

int64_t h5_dataset_offset(hid_t dataset)
{
    haddr_t offset = H5Dget_offset(dataset);
    H5Eclear2(H5E_DEFAULT);
    return offset == HADDR_UNDEF ? -1 : (int64_t)offset;
}

/* Rows that go into one slice. */
static int64_t slice_rows(int64_t row_items, hid_t memory_type)
{
    int64_t row_bytes = row_items * (int64_t)H5Tget_size(memory_type);
    return row_bytes <= 0 || row_bytes >= H5_SLICE_BYTES ? 1 : H5_SLICE_BYTES / row_bytes;
}

/* Move rows [first, first+count) between file and memory, slice by slice. */
static enum status move_rows(hid_t dataset, hid_t memory_type, int64_t first, int64_t count, char *data, bool write)
{
    enum status st = ST_OK, kind = write ? ST_OUTPUT : ST_INPUT;
    int rank;
    int64_t dims[MAX_RANK];
    hsize_t start[MAX_RANK] = {0}, extent[MAX_RANK];
    hid_t file = H5_NONE, memory = H5_NONE;
    TRY(shape_of(dataset, &rank, dims));
    if (rank < 1 || first < 0 || count < 0 || first > dims[0] - count)
        TRY(fail(kind, "rows %lld to %lld are asked for; the dataset has %lld", (long long)first,
                 (long long)(first + count), rank < 1 ? 0 : (long long)dims[0]));
    int64_t row_items = product(rank - 1, dims + 1), step = slice_rows(row_items, memory_type);
    for (int i = 0; i < rank; i++) extent[i] = (hsize_t)dims[i];
    file = H5Dget_space(dataset);
    for (int64_t at = 0; at < count; at += step) {
        start[0] = (hsize_t)(first + at);
        extent[0] = (hsize_t)(count - at < step ? count - at : step);
        memory = H5Screate_simple(rank, extent, NULL);
        char *place = data + at * row_items * (int64_t)H5Tget_size(memory_type);
        herr_t rc = H5Sselect_hyperslab(file, H5S_SELECT_SET, start, NULL, extent, NULL);
        if (rc >= 0)
            rc = write ? H5Dwrite(dataset, memory_type, memory, file, H5P_DEFAULT, place)
                       : H5Dread(dataset, memory_type, memory, file, H5P_DEFAULT, place);
        if (rc < 0)
            TRY(h5_fail(kind, "rows from %lld cannot be %s", (long long)(first + at), write ? "written" : "read"));
        h5_drop(&memory);
    }
done:
    h5_drop(&memory);
    h5_drop(&file);
    return st;
}

enum status h5_read_rows(hid_t dataset, hid_t memory_type, int64_t first, int64_t count, void *data)
{
    return move_rows(dataset, memory_type, first, count, data, false);
}

enum status h5_write_rows(hid_t dataset, hid_t memory_type, int64_t first, int64_t count, const void *data)
{
    return move_rows(dataset, memory_type, first, count, (char *)data, true);
}

/* ---- whole datasets ---- */

enum status h5_write(hid_t parent, const char *name, hid_t memory_type, int rank, const int64_t *dims, const void *data)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE;
    TRY(h5_dataset_create(parent, name, memory_type, rank, dims, &dataset));
    if (rank > 0) TRY(h5_write_rows(dataset, memory_type, 0, dims[0], data));
    else if (H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        TRY(h5_fail(ST_OUTPUT, "it cannot be written"));
done:
    if (st != ST_OK) status_prefix("'%s': ", name);
    h5_drop(&dataset);
    return st;
}

enum status h5_write_texts(hid_t parent, const char *name, const char *const *texts, int64_t count)
{
    enum status st = ST_OK;
    size_t width = 1;
    char *packed = NULL;
    for (int64_t i = 0; i < count; i++) width = strlen(texts[i]) > width ? strlen(texts[i]) : width;
    hid_t type = h5_text_type(width);
    TRY(NEW_ARRAY(packed, (size_t)count * width));
    for (int64_t i = 0; i < count; i++) strncpy(packed + (size_t)i * width, texts[i], width);
    TRY(h5_write(parent, name, type, 1, &count, packed));
done:
    h5_drop(&type);
    free(packed);
    return st;
}

enum status h5_write_text(hid_t parent, const char *name, const char *text)
{
    hid_t type = h5_text_type(strlen(text));
    enum status st = h5_write(parent, name, type, 0, NULL, text);
    h5_drop(&type);
    return st;
}

enum status h5_read(hid_t parent, const char *path, hid_t memory_type, int64_t count, void *data)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE;
    int rank;
    int64_t dims[MAX_RANK];
    TRY(open_dataset(parent, path, &dataset));
    TRY(shape_of(dataset, &rank, dims));
    if (product(rank, dims) != count)
        TRY(fail(ST_INPUT, "it has %lld values; %lld are expected", (long long)product(rank, dims), (long long)count));
    if (rank > 0) TRY(h5_read_rows(dataset, memory_type, 0, dims[0], data));
    else if (H5Dread(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        TRY(h5_fail(ST_INPUT, "it cannot be read"));
done:
    if (st != ST_OK) status_prefix("'%s': ", path);
    h5_drop(&dataset);
    return st;
}

/* ---- strings ---- */

static enum status read_variable_texts(hid_t dataset, hid_t type, int64_t first, int64_t count, char **texts)
{
    enum status st = ST_OK;
    hsize_t n = (hsize_t)count;
    hid_t space = H5Screate_simple(1, &n, NULL);
    char **raw = NULL;
    TRY(NEW_ARRAY(raw, count));
    TRY(h5_read_rows(dataset, type, first, count, raw));
    for (int64_t i = 0; i < count; i++) texts[i] = text_copy(raw[i] ? raw[i] : "");
done:
    if (raw) H5Dvlen_reclaim(type, space, H5P_DEFAULT, raw);
    h5_drop(&space);
    free(raw);
    return st;
}

static char *copy_fixed(const char *bytes, size_t width, bool space_padded)
{
    size_t length = strnlen(bytes, width);
    while (space_padded && length > 0 && bytes[length - 1] == ' ') length--;
    return text_format("%.*s", (int)length, bytes);
}

static enum status read_fixed_texts(hid_t dataset, hid_t type, int64_t first, int64_t count, char **texts)
{
    enum status st = ST_OK;
    char *packed = NULL;
    size_t width = H5Tget_size(type);
    bool space_padded = H5Tget_strpad(type) == H5T_STR_SPACEPAD;
    TRY(mem_alloc((void **)&packed, (size_t)count, width, "strings"));
    TRY(h5_read_rows(dataset, type, first, count, packed));
    for (int64_t i = 0; i < count; i++) texts[i] = copy_fixed(packed + (size_t)i * width, width, space_padded);
done:
    free(packed);
    return st;
}

enum status h5_read_texts(hid_t parent, const char *path, int64_t first, int64_t count, char **texts)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE, type = H5_NONE;
    TRY(open_dataset(parent, path, &dataset));
    type = H5Dget_type(dataset);
    if (H5Tget_class(type) != H5T_STRING) TRY(fail(ST_INPUT, "it does not hold text"));
    bool variable = H5Tis_variable_str(type) > 0;
    TRY((variable ? read_variable_texts : read_fixed_texts)(dataset, type, first, count, texts));
done:
    if (st != ST_OK) status_prefix("'%s': ", path);
    h5_drop(&type);
    h5_drop(&dataset);
    return st;
}

/* A scalar is read as it lies: one string, or one pointer to a string of HDF5's. */
static enum status read_scalar_text(hid_t dataset, hid_t type, char **text)
{
    enum status st = ST_OK;
    char *value = NULL;
    bool variable = H5Tis_variable_str(type) > 0;
    TRY(mem_alloc((void **)&value, H5Tget_size(type) + sizeof(char *), 1, "string"));
    if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value) < 0) TRY(h5_fail(ST_INPUT, "it cannot be read"));
    if (variable) {
        char *theirs = *(char **)(void *)value;
        *text = text_copy(theirs ? theirs : "");
        H5free_memory(theirs);
    } else *text = copy_fixed(value, H5Tget_size(type), false);
done:
    free(value);
    return st;
}

enum status h5_read_text(hid_t parent, const char *path, char **text)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE, type = H5_NONE;
    int rank;
    int64_t dims[MAX_RANK];
    TRY(open_dataset(parent, path, &dataset));
    TRY(shape_of(dataset, &rank, dims));
    type = H5Dget_type(dataset);
    if (H5Tget_class(type) != H5T_STRING || product(rank, dims) != 1) TRY(fail(ST_INPUT, "it is not one text"));
    TRY(read_scalar_text(dataset, type, text));
done:
    if (st != ST_OK) status_prefix("'%s': ", path);
    h5_drop(&type);
    h5_drop(&dataset);
    return st;
}
