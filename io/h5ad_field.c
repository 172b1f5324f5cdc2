/* Values of obs and var columns in their form on disk. */
#include <string.h>

#include "io/h5ad_layout.h"

static enum status pack_text(const struct h5ad_field *f, const char *text, char *out)
{
    size_t length = text ? strlen(text) : 0, width = (size_t)field_bytes(f);
    if (length > width)
        return fail(ST_INTERNAL, "column '%s' was announced with %zu bytes and gets '%.60s…' of %zu", f->name, width,
                    text, length);
    memset(out + length, 0, width - length);
    if (length) memcpy(out, text, length);
    return ST_OK;
}

static enum status pack_code(const struct h5ad_field *f, int32_t code, char *out)
{
    if (code < -1 || code >= f->category_count)
        return fail(ST_INTERNAL, "column '%s' has %d categories and gets code %d", f->name, f->category_count, code);
    memcpy(out, &code, sizeof code);
    return ST_OK;
}

static enum status pack_int(const struct h5ad_field *f, int64_t value, char *out, uint8_t *missing)
{
    bool absent = value == INT64_MIN;
    if (absent && !f->nullable)
        return fail(ST_INTERNAL, "column '%s' was announced without missing values and gets one", f->name);
    if (missing) *missing = absent;
    if (absent) value = 0;
    if (f->type == COLUMN_BOOL) *out = value != 0;
    else memcpy(out, &value, sizeof value);
    return ST_OK;
}

enum status field_pack(const struct h5ad_field *f, const struct column *values, int64_t first, int64_t count, char *out,
                       uint8_t *missing)
{
    enum status st = ST_OK;
    int64_t bytes = field_bytes(f);
    if (values->type != f->type) return fail(ST_INTERNAL, "column '%s' gets values of another type", f->name);
    for (int64_t i = 0; i < count && st == ST_OK; i++) {
        char *place = out + i * bytes;
        int64_t row = first + i;
        switch (f->type) {
        case COLUMN_INT:
        case COLUMN_BOOL: st = pack_int(f, values->i[row], place, missing ? &missing[i] : NULL); break;
        case COLUMN_REAL: memcpy(place, &values->r[row], sizeof(double)); break;
        case COLUMN_CATEGORY: st = pack_code(f, values->code[row], place); break;
        case COLUMN_TEXT: st = pack_text(f, values->text[row], place); break;
        }
    }
    return st;
}
