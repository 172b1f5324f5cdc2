#include "io/h5_array.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/h5.h"
#include "io/h5_filter.h"

/* X(name, C type, HDF5 native type) */
#define ELEMENT_LIST(X) \
    X(I8, int8_t, H5T_NATIVE_INT8) \
    X(U8, uint8_t, H5T_NATIVE_UINT8) \
    X(I16, int16_t, H5T_NATIVE_INT16) \
    X(U16, uint16_t, H5T_NATIVE_UINT16) \
    X(I32, int32_t, H5T_NATIVE_INT32) \
    X(U32, uint32_t, H5T_NATIVE_UINT32) \
    X(I64, int64_t, H5T_NATIVE_INT64) \
    X(U64, uint64_t, H5T_NATIVE_UINT64) \
    X(F32, float, H5T_NATIVE_FLOAT) \
    X(F64, double, H5T_NATIVE_DOUBLE)

enum element {
#define X(element_name, ctype, htype) element_name,
    ELEMENT_LIST(X)
#undef X
};

enum { SLICE = 65536 }; /* elements at a time of datasets without chunks */
static const int64_t chunk_limit_bytes = (int64_t)1 << 30;

struct h5_array {
    char *name;
    hid_t dataset, file_type;
    enum element element;     /* after conversion */
    size_t file_width, width; /* bytes of an element in the file and in memory */
    bool convert;             /* file type is not the native one: byte order, half floats, booleans */
    bool direct;              /* chunked, and every filter is ours */
    struct h5_pipeline pipeline;
    int64_t count, chunk;                   /* elements; elements of a chunk (or slice) */
    int64_t held;                           /* number of the chunk in `data`, -1 = none */
    unsigned char *data, *scratch, *stored; /* [chunk] decoded, [chunk] in between, as in the file */
    size_t stored_capacity;
};

static hid_t native_type(enum element e)
{
    switch (e) {
#define X(element_name, ctype, htype) \
    case element_name: return htype;
        ELEMENT_LIST(X)
#undef X
    }
    return H5T_NATIVE_DOUBLE;
}

static size_t native_width(enum element e)
{
    switch (e) {
#define X(element_name, ctype, htype) \
    case element_name: return sizeof(ctype);
        ELEMENT_LIST(X)
#undef X
    }
    return 8;
}

/* Which native type holds this file type. False: not numeric. */
static bool choose_element(hid_t type, enum element *out)
{
    H5T_class_t class = H5Tget_class(type);
    size_t bytes = H5Tget_size(type);
    if (class == H5T_FLOAT) {
        *out = bytes <= 4 ? F32 : F64;
        return bytes <= 8;
    }
    if (class != H5T_INTEGER) return false;
    bool is_signed = H5Tget_sign(type) != H5T_SGN_NONE;
    enum element e = bytes == 1 ? I8 : bytes == 2 ? I16 : bytes <= 4 ? I32 : I64;
    *out = is_signed ? e : (enum element)(e + 1);
    return bytes <= 8;
}

static enum status find_type(struct h5_array *a)
{
    hid_t type = H5Dget_type(a->dataset);
    if (type < 0) return h5_fail(ST_INPUT, "'%s': its type cannot be read; the file is damaged", a->name);
    if (H5Tget_class(type) == H5T_ENUM) { /* h5py's booleans */
        hid_t base = H5Tget_super(type);
        H5Tclose(type);
        type = base;
    }
    a->file_type = type;
    if (!choose_element(type, &a->element))
        return fail(ST_INPUT, "'%s' does not hold numbers; integers or floats of 8 to 64 bits are needed", a->name);
    a->width = native_width(a->element);
    a->file_width = H5Tget_size(type);
    a->convert = H5Tequal(type, native_type(a->element)) <= 0;
    return ST_OK;
}

static enum status find_shape(struct h5_array *a)
{
    hid_t space = H5Dget_space(a->dataset);
    hsize_t extent = 0;
    int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (rank == 1) H5Sget_simple_extent_dims(space, &extent, NULL);
    if (space >= 0) H5Sclose(space);
    a->count = (int64_t)extent;
    if (rank == 1 && a->count >= 0) return ST_OK;
    return fail(ST_INPUT, "'%s' has %d dimensions; a sparse matrix needs one-dimensional arrays", a->name, rank);
}

static enum status find_chunks(struct h5_array *a)
{
    enum status st = ST_OK;
    hsize_t chunk = 0;
    hid_t plist = H5Dget_create_plist(a->dataset);
    bool chunked = plist >= 0 && H5Pget_layout(plist) == H5D_CHUNKED;
    if (chunked && (H5Pget_chunk(plist, 1, &chunk) != 1 || chunk == 0))
        TRY(h5_fail(ST_INPUT, "'%s': its chunk size cannot be read; the file is damaged", a->name));
    TRY(h5_pipeline_open(a->dataset, a->name, &a->pipeline));
    a->direct = chunked && a->pipeline.ours;
    a->chunk = chunked ? (int64_t)chunk : SLICE;
    if (a->chunk > chunk_limit_bytes / (int64_t)(a->width > a->file_width ? a->width : a->file_width))
        TRY(fail(ST_INPUT, "'%s' has chunks of %lld values; at most 1 GiB is allowed: rewrite with h5repack", a->name,
                 (long long)a->chunk));
done:
    h5_drop(&plist);
    return st;
}

enum status h5_array_open(hid_t parent, const char *path, struct h5_array **out)
{
    enum status st = ST_OK;
    struct h5_array *a = NULL;
    h5_filter_register();
    TRY(NEW_ARRAY(a, 1));
    a->dataset = a->file_type = H5_NONE;
    a->held = -1;
    a->name = text_copy(path);
    a->dataset = h5_exists(parent, path) ? H5Dopen2(parent, path, H5P_DEFAULT) : H5_NONE;
    if (a->dataset < 0) TRY(h5_fail(ST_INPUT, "has no dataset '%s'", path));
    TRY(find_type(a));
    TRY(find_shape(a));
    TRY(find_chunks(a));
    *out = a;
    a = NULL;
done:
    h5_array_close(&a);
    return st;
}

void h5_array_close(struct h5_array **array)
{
    struct h5_array *a = *array;
    if (!a) return;
    h5_drop(&a->dataset);
    h5_drop(&a->file_type);
    h5_array_rest(a);
    free(a->name);
    free(a);
    *array = NULL;
}

void h5_array_rest(struct h5_array *a)
{
    free(a->data);
    free(a->scratch);
    free(a->stored);
    a->data = a->scratch = a->stored = NULL;
    a->stored_capacity = 0;
    a->held = -1;
}

static enum status make_buffers(struct h5_array *a)
{
    enum status st = ST_OK;
    size_t widest = a->width > a->file_width ? a->width : a->file_width;
    if (a->data) return ST_OK;
    if (a->direct) TRY(NEW_ARRAY(a->scratch, (size_t)a->chunk * a->file_width + H5_FILTER_SLACK));
    TRY(NEW_ARRAY(a->data, (size_t)a->chunk * widest + H5_FILTER_SLACK));
done:
    return st;
}

int64_t h5_array_count(const struct h5_array *a) { return a->count; }
bool h5_array_is_real(const struct h5_array *a) { return a->element == F32 || a->element == F64; }

static enum status bad_chunk(const struct h5_array *a, int64_t chunk)
{
    return h5_fail(ST_INPUT,
                   "'%s': the chunk at element %lld cannot be decoded; the file is damaged, fetch or write it again",
                   a->name, (long long)(chunk * a->chunk));
}

/* A chunk that was never written holds the fill value. */
static enum status fill_chunk(struct h5_array *a)
{
    hid_t plist = H5Dget_create_plist(a->dataset);
    unsigned char value[16] = {0};
    herr_t got = plist < 0 ? -1 : H5Pget_fill_value(plist, a->file_type, value);
    h5_drop(&plist);
    if (got < 0) memset(value, 0, sizeof value);
    for (int64_t i = 0; i < a->chunk; i++) memcpy(a->data + (size_t)i * a->file_width, value, a->file_width);
    return ST_OK;
}

static enum status decode_chunk(struct h5_array *a, int64_t chunk)
{
    enum status st = ST_OK;
    hsize_t offset = (hsize_t)(chunk * a->chunk), stored = 0;
    size_t bytes = (size_t)a->chunk * a->file_width;
    unsigned mask = 0;
    uint32_t read_mask = 0;
    haddr_t address = HADDR_UNDEF;
    if (H5Dget_chunk_info_by_coord(a->dataset, &offset, &mask, &address, &stored) < 0) return bad_chunk(a, chunk);
    if (address == HADDR_UNDEF) return fill_chunk(a);
    if (stored > (hsize_t)bytes * 2 + 65536) return bad_chunk(a, chunk); /* no filter grows data like that */
    if (stored > a->stored_capacity) {
        free(a->stored);
        a->stored = NULL;
        a->stored_capacity = 0;
        TRY(NEW_ARRAY(a->stored, stored));
        a->stored_capacity = stored;
    }
    if (H5Dread_chunk(a->dataset, H5P_DEFAULT, &offset, &read_mask, a->stored) < 0) return bad_chunk(a, chunk);
    if (!h5_pipeline_decode(&a->pipeline, read_mask, a->stored, stored, a->scratch, a->data, bytes))
        return bad_chunk(a, chunk);
done:
    return st;
}

/* Datasets in one piece, and filters that only HDF5 knows. */
static enum status read_slice(struct h5_array *a, int64_t chunk)
{
    int64_t first = chunk * a->chunk, count = a->count - first < a->chunk ? a->count - first : a->chunk;
    return h5_read_rows(a->dataset, native_type(a->element), first, count, a->data);
}

static enum status hold_chunk(struct h5_array *a, int64_t chunk)
{
    enum status st = ST_OK;
    if (a->held == chunk) return ST_OK;
    a->held = -1;
    TRY(make_buffers(a));
    if (!a->direct) {
        st = read_slice(a, chunk);
        if (st != ST_OK) status_prefix("'%s': ", a->name);
    } else {
        TRY(decode_chunk(a, chunk));
        if (a->convert &&
            H5Tconvert(a->file_type, native_type(a->element), (size_t)a->chunk, a->data, NULL, H5P_DEFAULT) < 0)
            return bad_chunk(a, chunk);
    }
    if (st == ST_OK) a->held = chunk;
done:
    return st;
}

/* Hand the elements [first, first+count) piece by piece to `take`, which converts them. */
typedef enum status take_fn(const struct h5_array *a, const unsigned char *from, int64_t first, int64_t count,
                            int64_t limit, void *to);

static enum status read_range(struct h5_array *a, int64_t first, int64_t count, take_fn *take, int64_t limit, void *out,
                              size_t out_width)
{
    enum status st = ST_OK;
    if (first < 0 || count < 0 || first > a->count - count)
        return fail(ST_INPUT, "'%s' has %lld elements, %lld to %lld are wanted; its indptr does not belong to it",
                    a->name, (long long)a->count, (long long)first, (long long)(first + count - 1));
    for (int64_t done_count = 0; done_count < count;) {
        int64_t at = first + done_count, chunk = at / a->chunk, inside = at % a->chunk;
        int64_t n = a->chunk - inside < count - done_count ? a->chunk - inside : count - done_count;
        TRY(hold_chunk(a, chunk));
        TRY(take(a, a->data + (size_t)inside * a->width, at, n, limit, (char *)out + (size_t)done_count * out_width));
        done_count += n;
    }
done:
    return st;
}

static enum status too_large(const struct h5_array *a, int64_t at, double value)
{
    return fail(ST_INPUT,
                "'%s': element %lld is %.17g, a whole number that single precision cannot hold; counts up to "
                "16,777,216 are allowed",
                a->name, (long long)at, value);
}

/* Whole numbers up to 2^24 are exact; above it only those that happen to be. */
#define TAKE_INT(ctype) \
    for (int64_t i = 0; i < count; i++) { \
        to[i] = (float)((const ctype *)from)[i]; \
        exact &= to[i] <= 0x1p24f && to[i] >= -0x1p24f; \
    } \
    for (int64_t i = 0; i < count && !exact; i++) \
        if ((long double)to[i] != (long double)((const ctype *)from)[i]) \
            return too_large(a, first + i, (double)((const ctype *)from)[i]); \
    break

static enum status take_float(const struct h5_array *a, const unsigned char *from, int64_t first, int64_t count,
                              int64_t limit, void *out)
{
    float *to = out;
    bool exact = true;
    switch (a->element) {
    case I8: TAKE_INT(int8_t);
    case U8: TAKE_INT(uint8_t);
    case I16: TAKE_INT(int16_t);
    case U16: TAKE_INT(uint16_t);
    case I32: TAKE_INT(int32_t);
    case U32: TAKE_INT(uint32_t);
    case I64: TAKE_INT(int64_t);
    case U64: TAKE_INT(uint64_t);
    case F32: memcpy(to, from, (size_t)count * sizeof *to); break;
    case F64:
        for (int64_t i = 0; i < count; i++) {
            double v = ((const double *)from)[i];
            to[i] = (float)v;
            exact &= !(fabs(v) > 0x1p24) || (double)to[i] == v;
        }
        for (int64_t i = 0; i < count && !exact; i++) {
            double v = ((const double *)from)[i];
            if (isfinite(to[i]) && fabs(v) > 0x1p24 && v == floor(v) && (double)to[i] != v)
                return too_large(a, first + i, v);
        }
        break;
    }
    return ST_OK;
}

static enum status take_int64(const struct h5_array *a, const unsigned char *from, int64_t first, int64_t count,
                              int64_t limit, void *out)
{
    int64_t *to = out;
    switch (a->element) {
#define X(element_name, ctype, htype) \
    case element_name: \
        for (int64_t i = 0; i < count; i++) to[i] = (int64_t)((const ctype *)from)[i]; \
        break;
        ELEMENT_LIST(X)
#undef X
    }
    return ST_OK;
}

static enum status take_index(const struct h5_array *a, const unsigned char *from, int64_t first, int64_t count,
                              int64_t limit, void *out)
{
    int32_t *to = out;
    int64_t bad = 0;
    switch (a->element) {
#define X(element_name, ctype, htype) \
    case element_name: \
        for (int64_t i = 0; i < count; i++) { \
            int64_t v = (int64_t)((const ctype *)from)[i]; \
            to[i] = (int32_t)v; \
            bad += v < 0 || v >= limit; \
        } \
        for (int64_t i = 0; i < count && bad; i++) { \
            int64_t v = (int64_t)((const ctype *)from)[i]; \
            if (v >= 0 && v < limit) continue; \
            return fail(ST_INPUT, "'%s': element %lld is %lld; 0 to %lld are allowed, the file is damaged", a->name, \
                        (long long)(first + i), (long long)v, (long long)(limit - 1)); \
        } \
        break;
        ELEMENT_LIST(X)
#undef X
    }
    return ST_OK;
}

enum status h5_array_read_float(struct h5_array *a, int64_t first, int64_t count, float *out)
{
    return read_range(a, first, count, take_float, 0, out, sizeof *out);
}

enum status h5_array_read_int64(struct h5_array *a, int64_t first, int64_t count, int64_t *out)
{
    return read_range(a, first, count, take_int64, 0, out, sizeof *out);
}

enum status h5_array_read_index(struct h5_array *a, int64_t first, int64_t count, int64_t limit, int32_t *out)
{
    return read_range(a, first, count, take_index, limit, out, sizeof *out);
}
