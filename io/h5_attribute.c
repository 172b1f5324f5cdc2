/* Attributes of HDF5 objects. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/h5.h"

/* `count` < 0: a scalar. */
static enum status write_attribute(hid_t object, const char *name, hid_t type, int64_t count, const void *value)
{
    hsize_t dims = count < 0 ? 0 : (hsize_t)count;
    hid_t space = count < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &dims, NULL);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    enum status st = ST_OK;
    if (attribute < 0) st = h5_fail(ST_OUTPUT, "attribute '%s' cannot be created", name);
    else if (count != 0 && H5Awrite(attribute, type, value) < 0)
        st = h5_fail(ST_OUTPUT, "attribute '%s' cannot be written", name);
    h5_drop(&attribute);
    h5_drop(&space);
    return st;
}

enum status h5_attr_write_text(hid_t object, const char *name, const char *text)
{
    size_t bytes = strlen(text);
    hid_t type = h5_text_type(bytes);
    enum status st = write_attribute(object, name, type, -1, text);
    h5_drop(&type);
    return st;
}

enum status h5_attr_write_texts(hid_t object, const char *name, const char *const *texts, int64_t count)
{
    enum status st = ST_OK;
    size_t width = 1;
    char *packed = NULL;
    hid_t type = H5_NONE;
    for (int64_t i = 0; i < count; i++) width = strlen(texts[i]) > width ? strlen(texts[i]) : width;
    type = h5_text_type(width);
    TRY(NEW_ARRAY(packed, (size_t)count * width));
    for (int64_t i = 0; i < count; i++) strncpy(packed + (size_t)i * width, texts[i], width);
    TRY(write_attribute(object, name, type, count, packed));
done:
    h5_drop(&type);
    free(packed);
    return st;
}

enum status h5_attr_write_int(hid_t object, const char *name, int64_t value)
{
    return write_attribute(object, name, H5T_STD_I64LE, -1, &value);
}

enum status h5_attr_write_ints(hid_t object, const char *name, const int64_t *values, int count)
{
    return write_attribute(object, name, H5T_STD_I64LE, count, values);
}

enum status h5_attr_write_real(hid_t object, const char *name, double value)
{
    return write_attribute(object, name, H5T_IEEE_F64LE, -1, &value);
}

enum status h5_attr_rewrite_real(hid_t object, const char *name, double value)
{
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_DOUBLE, &value) >= 0;
    h5_drop(&attribute);
    return good ? ST_OK : h5_fail(ST_OUTPUT, "attribute '%s' cannot be changed", name);
}

enum status h5_attr_write_bool(hid_t object, const char *name, bool value)
{
    hid_t type = h5_bool_type();
    int8_t byte = value;
    enum status st = write_attribute(object, name, type, -1, &byte);
    h5_drop(&type);
    return st;
}

/* Open an attribute that must hold one value. */
static enum status open_single(hid_t object, const char *name, hid_t *attribute)
{
    *attribute = H5_NONE;
    if (!h5_attr_exists(object, name)) return fail(ST_INPUT, "attribute '%s' is missing", name);
    *attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (*attribute < 0) return h5_fail(ST_INPUT, "attribute '%s' cannot be opened", name);
    hid_t space = H5Aget_space(*attribute);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    h5_drop(&space);
    return count == 1 ? ST_OK
                      : fail(ST_INPUT, "attribute '%s' has %lld values; one is expected", name, (long long)count);
}

enum status h5_attr_read_text(hid_t object, const char *name, char **text)
{
    enum status st = ST_OK;
    hid_t attribute = H5_NONE, type = H5_NONE;
    char *value = NULL;
    TRY(open_single(object, name, &attribute));
    type = H5Aget_type(attribute);
    if (H5Tget_class(type) != H5T_STRING) TRY(fail(ST_INPUT, "attribute '%s' is not text", name));
    if (H5Tis_variable_str(type) > 0) {
        if (H5Aread(attribute, type, &value) < 0) TRY(h5_fail(ST_INPUT, "attribute '%s' cannot be read", name));
        *text = text_copy(value ? value : "");
        H5free_memory(value);
        value = NULL;
    } else {
        TRY(mem_alloc((void **)&value, H5Tget_size(type) + 1, 1, "attribute"));
        if (H5Aread(attribute, type, value) < 0) TRY(h5_fail(ST_INPUT, "attribute '%s' cannot be read", name));
        value[H5Tget_size(type)] = '\0';
        *text = text_copy(value);
    }
done:
    free(value);
    h5_drop(&type);
    h5_drop(&attribute);
    return st;
}

static enum status read_number(hid_t object, const char *name, hid_t memory_type, void *value)
{
    enum status st = ST_OK;
    hid_t attribute = H5_NONE;
    TRY(open_single(object, name, &attribute));
    if (H5Aread(attribute, memory_type, value) < 0) TRY(h5_fail(ST_INPUT, "attribute '%s' is not a number", name));
done:
    h5_drop(&attribute);
    return st;
}

enum status h5_attr_read_int(hid_t object, const char *name, int64_t *value)
{
    return read_number(object, name, H5T_NATIVE_INT64, value);
}

enum status h5_attr_read_real(hid_t object, const char *name, double *value)
{
    return read_number(object, name, H5T_NATIVE_DOUBLE, value);
}
