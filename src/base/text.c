#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <libdeflate.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

/* strtod of the C locale, whatever the user's; true if all of `text` was one finite number. */
static bool parse_real(const char *text, double *out)
{
    static locale_t c_locale;
    if (!c_locale) c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    char clean[64];
    size_t n = 0;
    for (const char *c = text; *c; c++) {
        if (*c == '_') continue;
        if (n + 1 == sizeof clean || !(isdigit((unsigned char)*c) || strchr("+-.eE", *c))) return false;
        clean[n++] = *c;
    }
    clean[n] = '\0';
    char *end;
    errno = 0;
    double value = strtod_l(clean, &end, c_locale);
    if (n == 0 || *end != '\0' || !isfinite(value)) return false;
    *out = value;
    return true;
}

bool text_to_real(const char *text, double *out) { return parse_real(text, out); }

bool text_to_int(const char *text, int64_t *out)
{
    if (!strpbrk(text, ".eE_")) {
        char *end;
        errno = 0;
        long long value = strtoll(text, &end, 10);
        if (end == text || *end != '\0' || errno || isspace((unsigned char)*text)) return false;
        *out = value;
        return true;
    }
    double value;
    if (!parse_real(text, &value) || value != floor(value) || fabs(value) > 0x1p53) return false;
    *out = (int64_t)value;
    return true;
}

static int edit_distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > 63 || m > 63) return 64;
    int row[64];
    for (int j = 0; j <= m; j++) row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int up = row[j];
            int best = diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
            diagonal = up;
        }
    }
    return row[m];
}

int text_nearest(const char *word, const char *const *names, int count)
{
    int best = -1, best_distance = (int)strlen(word) / 4 + 1;
    for (int i = 0; i < count; i++) {
        int distance = edit_distance(word, names[i]);
        if (distance <= best_distance && (best < 0 || distance < best_distance)) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}

bool text_is_utf8(const char *text, size_t bytes)
{
    const unsigned char *s = (const unsigned char *)text, *end = s + bytes;
    while (s < end) {
        int more;
        uint32_t code;
        if (*s < 0x80) {
            s++;
            continue;
        }
        if ((*s & 0xe0) == 0xc0) {
            more = 1;
            code = *s & 0x1fu;
        } else if ((*s & 0xf0) == 0xe0) {
            more = 2;
            code = *s & 0x0fu;
        } else if ((*s & 0xf8) == 0xf0) {
            more = 3;
            code = *s & 0x07u;
        } else return false;
        if (end - s <= more) return false;
        for (int i = 1; i <= more; i++) {
            if ((s[i] & 0xc0) != 0x80) return false;
            code = code << 6 | (s[i] & 0x3fu);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
        s += more + 1;
    }
    return true;
}

char *text_duration(double seconds, char out[32])
{
    enum { MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR, YEAR = 365 * DAY };
    char years[32];
    if (!(seconds >= 0 && seconds < 1e18 * YEAR)) snprintf(out, 32, "?");
    else if (seconds < MINUTE) snprintf(out, 32, "%.0fs", seconds);
    else if (seconds < HOUR) snprintf(out, 32, "%dm%02ds", (int)seconds / MINUTE, (int)seconds % MINUTE);
    else if (seconds < 2 * DAY) snprintf(out, 32, "%dh%02dm", (int)seconds / HOUR, (int)seconds / MINUTE % 60);
    else if (seconds < 2 * YEAR) snprintf(out, 32, "%dd%02dh", (int)seconds / DAY, (int)seconds / HOUR % 24);
    else snprintf(out, 32, "%.24s years", text_count((int64_t)(seconds / YEAR), years));
    return out;
}

char *text_bytes(double bytes, char out[32])
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int u = 0;
    while (bytes >= 1024 && u < 5) {
        bytes /= 1024;
        u++;
    }
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", bytes, unit[u]);
    return out;
}

char *text_count(int64_t n, char out[32])
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)n);
    char *o = out;
    for (int i = 0; i < length; i++) {
        *o++ = digits[i];
        int rest = length - 1 - i;
        if (rest > 0 && rest % 3 == 0 && isdigit((unsigned char)digits[i])) *o++ = ',';
    }
    *o = '\0';
    return out;
}

static void out_of_memory(void)
{
    fputs("cytomill: no memory for a message\n", stderr);
    abort();
}

static void text_reserve(struct text *t, size_t more)
{
    if (t->length + more + 1 <= t->capacity) return;
    size_t capacity = t->capacity ? t->capacity * 2 : 256;
    while (capacity < t->length + more + 1) capacity *= 2;
    char *data = realloc(t->data, capacity);
    if (!data) out_of_memory();
    t->data = data;
    t->capacity = capacity;
}

void text_add(struct text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    text_reserve(t, (size_t)n);
    vsnprintf(t->data + t->length, (size_t)n + 1, format, again);
    va_end(again);
    t->length += (size_t)n;
}

void text_add_bytes(struct text *t, const char *bytes, size_t count)
{
    text_reserve(t, count);
    memcpy(t->data + t->length, bytes, count);
    t->length += count;
    t->data[t->length] = '\0';
}

void text_free(struct text *t)
{
    free(t->data);
    *t = (struct text){0};
}

char *text_copy(const char *s)
{
    char *copy = strdup(s);
    if (!copy) out_of_memory();
    return copy;
}

char *text_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *out = NULL;
    if (vasprintf(&out, format, args) < 0) out_of_memory();
    va_end(args);
    return out;
}

enum status text_make_folder(const char *path)
{
    char *copy = text_copy(path);
    enum status st = ST_OK;
    for (char *c = copy + 1;; c++) {
        if (*c != '/' && *c != '\0') continue;
        char kept = *c;
        *c = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            st = fail(ST_OUTPUT, "%s: cannot make the folder '%s': %s; choose another --out", path, copy,
                      strerror(errno));
        *c = kept;
        if (kept == '\0' || st != ST_OK) break;
    }
    struct stat info;
    if (st == ST_OK && (stat(copy, &info) != 0 || !S_ISDIR(info.st_mode)))
        st = fail(ST_OUTPUT, "%s: exists and is not a folder; choose another --out", path);
    free(copy);
    return st;
}

enum status text_write_file(const char *path, const char *text, size_t bytes)
{
    enum status st = ST_OK;
    char host[64] = "host";
    gethostname(host, sizeof host - 1);
    char *temporary = text_format("%s.partial.%s.%d", path, host, (int)getpid());
    FILE *file = fopen(temporary, "wb");
    if (!file) TRY(fail(ST_OUTPUT, "%s: cannot be created: %s", path, strerror(errno)));
    bool good = bytes == 0 || fwrite(text, 1, bytes, file) == bytes;
    good = fclose(file) == 0 && good;
    if (!good || rename(temporary, path) != 0) {
        st = fail(ST_OUTPUT, "%s: cannot be written: %s", path, strerror(errno));
        unlink(temporary);
    }
done:
    free(temporary);
    return st;
}

static enum status read_raw(const char *path, unsigned char **out, size_t *length)
{
    enum status st = ST_OK;
    FILE *file = fopen(path, "rb");
    unsigned char *data = NULL;
    size_t size = 0;
    struct stat info;
    if (!file) return fail(ST_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(fileno(file), &info) != 0 || S_ISDIR(info.st_mode))
        TRY(fail(ST_INPUT, "%s: is a folder where a file is needed", path));
    TRY(NEW_ARRAY(data, info.st_size + 1));
    size = fread(data, 1, (size_t)info.st_size, file);
    if (ferror(file)) TRY(fail(ST_INPUT, "%s: cannot be read: %s", path, strerror(errno)));
    *out = data;
    *length = size;
    data = NULL;
done:
    free(data);
    fclose(file);
    return st;
}

/* Inflate every member of a gzip stream (bgzip writes thousands). */
static enum status inflate_all(const char *path, const unsigned char *in, size_t in_bytes, char **out,
                               size_t *out_bytes)
{
    enum status st = ST_OK;
    struct libdeflate_decompressor *inflater = libdeflate_alloc_decompressor();
    char *data = NULL;
    size_t used = 0, capacity = in_bytes * 4 + 4096;
    if (!inflater) return fail(ST_MEMORY, "no memory to inflate %s", path);
    TRY(NEW_ARRAY(data, capacity + 1));
    while (in_bytes > 0) {
        size_t read_bytes, written;
        enum libdeflate_result result =
            libdeflate_gzip_decompress_ex(inflater, in, in_bytes, data + used, capacity - used, &read_bytes, &written);
        if (result == LIBDEFLATE_INSUFFICIENT_SPACE) {
            char *larger = realloc(data, capacity * 2 + 1);
            if (!larger) TRY(fail(ST_MEMORY, "no memory to inflate %s (%zu bytes)", path, capacity * 2));
            data = larger;
            capacity *= 2;
            continue;
        }
        if (result != LIBDEFLATE_SUCCESS)
            TRY(fail(ST_INPUT, "%s: damaged gzip stream after %zu bytes; fetch the file again", path, used));
        in += read_bytes;
        in_bytes -= read_bytes;
        used += written;
    }
    data[used] = '\0';
    *out = data;
    *out_bytes = used;
    data = NULL;
done:
    free(data);
    libdeflate_free_decompressor(inflater);
    return st;
}

enum status text_read_file(const char *path, char **out, size_t *length_bytes)
{
    enum status st = ST_OK;
    unsigned char *raw = NULL;
    size_t raw_bytes = 0;
    TRY(read_raw(path, &raw, &raw_bytes));
    if (raw_bytes > 2 && raw[0] == 0x1f && raw[1] == 0x8b) {
        TRY(inflate_all(path, raw, raw_bytes, out, length_bytes));
    } else {
        raw[raw_bytes] = '\0';
        *out = (char *)raw;
        *length_bytes = raw_bytes;
        raw = NULL;
    }
done:
    free(raw);
    return st;
}
