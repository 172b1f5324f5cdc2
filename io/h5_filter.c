#include "io/h5_filter.h"

#include <dlfcn.h>
#include <libdeflate.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Decode `in` into at most `capacity` bytes of `out`; the bytes written, or 0 if it is damaged or
 * does not fit. */
typedef size_t decode_fn(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                         unsigned char *out, size_t capacity);

/* ---- always there ---- */

static size_t decode_deflate(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                             unsigned char *out, size_t capacity)
{
    static struct libdeflate_decompressor *inflater;
    size_t written = 0;
    if (!inflater) inflater = libdeflate_alloc_decompressor();
    if (!inflater || libdeflate_zlib_decompress(inflater, in, in_bytes, out, capacity, &written) != LIBDEFLATE_SUCCESS)
        return 0;
    return written;
}

/* Bytes of equal significance lie together; values[0] is the size of an element. */
static size_t decode_shuffle(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                             unsigned char *out, size_t capacity)
{
    size_t width = value_count > 0 ? values[0] : 0;
    if (width == 0 || in_bytes > capacity) return 0;
    size_t n = in_bytes / width;
    if (width == 4) {
        const unsigned char *a = in, *b = in + n, *c = in + 2 * n, *d = in + 3 * n;
        for (size_t i = 0; i < n; i++) {
            uint32_t word = (uint32_t)a[i] | (uint32_t)b[i] << 8 | (uint32_t)c[i] << 16 | (uint32_t)d[i] << 24;
            word = htole32(word);
            memcpy(out + 4 * i, &word, 4);
        }
    } else {
        for (size_t k = 0; k < width; k++)
            for (size_t i = 0; i < n; i++) out[i * width + k] = in[k * n + i];
    }
    memcpy(out + n * width, in + n * width, in_bytes - n * width);
    return in_bytes;
}

/* Fletcher's checksum over big-endian 16-bit words, as HDF5 appends it. */
static uint32_t fletcher32(const unsigned char *data, size_t bytes)
{
    uint32_t low = 0, high = 0;
    size_t words = bytes / 2;
    while (words > 0) {
        size_t block = words > 360 ? 360 : words;
        words -= block;
        for (; block > 0; block--, data += 2) {
            low += (uint32_t)(data[0] << 8 | data[1]);
            high += low;
        }
        low = (low & 0xffff) + (low >> 16);
        high = (high & 0xffff) + (high >> 16);
    }
    if (bytes % 2) {
        low += (uint32_t)*data << 8;
        high += low;
        low = (low & 0xffff) + (low >> 16);
        high = (high & 0xffff) + (high >> 16);
    }
    low = (low & 0xffff) + (low >> 16);
    high = (high & 0xffff) + (high >> 16);
    return high << 16 | low;
}

static size_t decode_fletcher32(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                                unsigned char *out, size_t capacity)
{
    if (in_bytes < 5 || in_bytes - 4 > capacity) return 0;
    size_t bytes = in_bytes - 4;
    uint32_t stored, sum = fletcher32(in, bytes);
    memcpy(&stored, in + bytes, 4);
    stored = le32toh(stored);
    /* HDF5 before 1.6.3 wrote the bytes of each half swapped; its reader takes both, so do we */
    uint32_t swapped = (sum & 0x00ff00ffu) << 8 | (sum >> 8 & 0x00ff00ffu);
    if (stored != sum && stored != swapped) return 0;
    memcpy(out, in, bytes);
    return bytes;
}

/* LZF (Marc Lehmann's format): a control byte below 32 announces that many literals plus one; else
 * its top three bits are a length and the rest, with the next byte, a distance back. */
static size_t decode_lzf(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                         unsigned char *out, size_t capacity)
{
    const unsigned char *end = in + in_bytes;
    size_t at = 0;
    while (in < end) {
        size_t control = *in++;
        if (control < 32) {
            size_t n = control + 1;
            if (n > (size_t)(end - in) || n > capacity - at) return 0;
            memcpy(out + at, in, n);
            in += n;
            at += n;
            continue;
        }
        size_t n = control >> 5;
        if (n == 7) {
            if (in == end) return 0;
            n += *in++;
        }
        n += 2;
        if (in == end) return 0;
        size_t back = ((control & 31) << 8 | *in++) + 1;
        if (back > at || n > capacity - at) return 0;
        for (size_t i = 0; i < n; i++, at++) out[at] = out[at - back]; /* may overlap: a run */
    }
    return at;
}

/* ---- loaded when a file asks for them ---- */

static void *load_symbol(void **library, const char *file, const char *symbol)
{
    if (!*library) *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    return *library ? dlsym(*library, symbol) : NULL;
}

static size_t decode_blosc(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                           unsigned char *out, size_t capacity)
{
    static void *library;
    static int (*validate)(const void *, size_t, size_t *);
    static int (*decompress)(const void *, void *, size_t, int);
    if (!validate) {
        *(void **)&decompress = load_symbol(&library, "libblosc.so.1", "blosc_decompress_ctx");
        *(void **)&validate = load_symbol(&library, "libblosc.so.1", "blosc_cbuffer_validate");
    }
    size_t bytes = 0;
    if (!validate || !decompress || validate(in, in_bytes, &bytes) != 0 || bytes > capacity) return 0;
    int written = decompress(in, out, capacity, 1);
    return written > 0 ? (size_t)written : 0;
}

static uint32_t read_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The HDF5 LZ4 filter: 8 bytes of size, 4 of block size (big-endian), then blocks with 4 bytes of length. */
static size_t decode_lz4(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                         unsigned char *out, size_t capacity)
{
    static void *library;
    static int (*decompress)(const char *, char *, int, int);
    if (!decompress) *(void **)&decompress = load_symbol(&library, "liblz4.so.1", "LZ4_decompress_safe");
    if (!decompress || in_bytes < 12 || read_be32(in) != 0) return 0;
    size_t total = read_be32(in + 4), block = read_be32(in + 8), at = 0;
    if (block == 0 || block > INT32_MAX || total > capacity) return 0;
    in += 12;
    in_bytes -= 12;
    while (at < total) {
        size_t plain = total - at < block ? total - at : block;
        if (in_bytes < 4) return 0;
        size_t packed = read_be32(in);
        in += 4;
        in_bytes -= 4;
        if (packed > in_bytes || packed > plain) return 0;
        if (packed == plain) memcpy(out + at, in, plain);
        else if (decompress((const char *)in, (char *)out + at, (int)packed, (int)plain) != (int)plain) return 0;
        in += packed;
        in_bytes -= packed;
        at += plain;
    }
    return total;
}

static size_t decode_bzip2(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                           unsigned char *out, size_t capacity)
{
    static void *library;
    static int (*decompress)(char *, unsigned *, char *, unsigned, int, int);
    if (!decompress) *(void **)&decompress = load_symbol(&library, "libbz2.so.1.0", "BZ2_bzBuffToBuffDecompress");
    unsigned written = (unsigned)capacity;
    if (!decompress || in_bytes > UINT32_MAX || capacity > UINT32_MAX) return 0;
    return decompress((char *)out, &written, (char *)(uintptr_t)in, (unsigned)in_bytes, 0, 0) == 0 ? written : 0;
}

static size_t decode_zstd(const unsigned *values, size_t value_count, const unsigned char *in, size_t in_bytes,
                          unsigned char *out, size_t capacity)
{
    static void *library;
    static size_t (*decompress)(void *, size_t, const void *, size_t);
    static unsigned (*is_error)(size_t);
    if (!is_error) {
        *(void **)&decompress = load_symbol(&library, "libzstd.so.1", "ZSTD_decompress");
        *(void **)&is_error = load_symbol(&library, "libzstd.so.1", "ZSTD_isError");
    }
    if (!decompress || !is_error) return 0;
    size_t written = decompress(out, capacity, in, in_bytes);
    return is_error(written) ? 0 : written;
}

/* ---- the table ---- */

static const struct filter {
    H5Z_filter_t id;
    const char *name;
    const char *library; /* NULL = built in */
    const char *package; /* Debian package that has it */
    decode_fn *decode;
} filters[] = {{H5Z_FILTER_DEFLATE, "deflate", NULL, "libhdf5", decode_deflate},
               {H5Z_FILTER_SHUFFLE, "shuffle", NULL, "libhdf5", decode_shuffle},
               {H5Z_FILTER_FLETCHER32, "fletcher32", NULL, "libhdf5", decode_fletcher32},
               {32000, "lzf", NULL, "hdf5-plugin-lzf", decode_lzf},
               {32001, "blosc", "libblosc.so.1", "libblosc1", decode_blosc},
               {32004, "lz4", "liblz4.so.1", "liblz4-1", decode_lz4},
               {307, "bzip2", "libbz2.so.1.0", "libbz2-1.0", decode_bzip2},
               {32015, "zstd", "libzstd.so.1", "libzstd1", decode_zstd}};
enum { FILTER_COUNT = sizeof filters / sizeof *filters };

static const struct filter *find_filter(H5Z_filter_t id)
{
    for (int f = 0; f < FILTER_COUNT; f++)
        if (filters[f].id == id) return &filters[f];
    return NULL;
}

static bool is_installed(const struct filter *f)
{
    void *library = f->library ? dlopen(f->library, RTLD_NOW | RTLD_LOCAL) : NULL;
    return !f->library || library; /* left open: it is about to be used */
}

/* ---- as HDF5 filters: only the size of the result is not known beforehand ---- */

static size_t run_filter(const struct filter *f, size_t value_count, const unsigned *values, size_t bytes,
                         size_t *buffer_bytes, void **buffer)
{
    for (size_t capacity = bytes * 4 + 4096; capacity <= (size_t)1 << 30; capacity *= 4) {
        unsigned char *out = H5allocate_memory(capacity, false);
        size_t written = out ? f->decode(values, value_count, *buffer, bytes, out, capacity) : 0;
        if (written > 0) {
            H5free_memory(*buffer);
            *buffer = out;
            *buffer_bytes = capacity;
            return written;
        }
        H5free_memory(out);
        if (!out) break;
    }
    return 0;
}

/* HDF5 does not tell a filter which one it is, so each has its own entry. */
#define ENTRY(row) \
    static size_t run_##row(unsigned flags, size_t n, const unsigned values[], size_t bytes, size_t *size, \
                            void **buffer) \
    { \
        return flags & H5Z_FLAG_REVERSE ? run_filter(&filters[row], n, values, bytes, size, buffer) : 0; \
    }
ENTRY(3)
ENTRY(4)
ENTRY(5)
ENTRY(6)
ENTRY(7)
static const H5Z_func_t entries[FILTER_COUNT] = {[3] = run_3, [4] = run_4, [5] = run_5, [6] = run_6, [7] = run_7};

void h5_filter_register(void)
{
    static bool done;
    for (int f = 0; f < FILTER_COUNT && !done; f++) {
        if (!entries[f] || !is_installed(&filters[f])) continue;
        H5Z_class2_t entry = {.version = H5Z_CLASS_T_VERS,
                              .id = filters[f].id,
                              .encoder_present = 0,
                              .decoder_present = 1,
                              .name = filters[f].name,
                              .filter = entries[f]};
        H5Zregister(&entry);
    }
    done = true;
}

/* ---- pipelines ---- */

static enum status check_installed(H5Z_filter_t id, const char *name, const char *object, struct h5_pipeline *out)
{
    const struct filter *f = find_filter(id);
    if (f && is_installed(f)) return ST_OK;
    if (f)
        return fail(
            ST_INPUT,
            "'%s' is compressed with %s (HDF5 filter %d), which is not installed; install the Debian package %s, "
            "or rewrite the file with h5repack -f GZIP=4",
            object, f->name, (int)id, f->package);
    out->ours = false;
    if (H5Zfilter_avail(id) > 0) return ST_OK;
    return fail(ST_INPUT,
                "'%s' is compressed with HDF5 filter %d (%s), which is not installed; known here: deflate, shuffle, "
                "fletcher32, "
                "lzf, blosc, lz4, bzip2, zstd (Debian packages hdf5-plugin-lzf, hdf5-filter-plugin, "
                "hdf5-filter-plugin-blosc-serial); "
                "rewrite the file where it was made with h5repack -f GZIP=4",
                object, (int)id, *name ? name : "no name");
}

enum status h5_pipeline_open(hid_t dataset, const char *object, struct h5_pipeline *out)
{
    enum status st = ST_OK;
    hid_t plist = H5Dget_create_plist(dataset);
    *out = (struct h5_pipeline){.ours = true};
    int n = plist < 0 ? -1 : H5Pget_nfilters(plist);
    if (n < 0 || n > H5_FILTERS_MAX)
        TRY(fail(ST_INPUT, "'%s': its list of filters cannot be read; the file is damaged", object));
    for (int i = 0; i < n; i++) {
        char name[64] = "";
        unsigned flags, config;
        out->stage[i].value_count = H5_FILTER_VALUES;
        out->stage[i].id = H5Pget_filter2(plist, (unsigned)i, &flags, &out->stage[i].value_count, out->stage[i].values,
                                          sizeof name, name, &config);
        if (out->stage[i].value_count > H5_FILTER_VALUES) out->stage[i].value_count = H5_FILTER_VALUES;
        TRY(check_installed(out->stage[i].id, name, object, out));
    }
    out->count = n;
done:
    if (plist >= 0) H5Pclose(plist);
    return st;
}

bool h5_pipeline_decode(const struct h5_pipeline *p, unsigned mask, unsigned char *stored, size_t stored_bytes,
                        unsigned char *scratch, unsigned char *out, size_t chunk_bytes)
{
    const unsigned char *from = stored;
    size_t bytes = stored_bytes;
    for (int i = p->count - 1; i >= 0; i--) {
        if (mask >> i & 1) continue;
        unsigned char *to = from == scratch ? out : scratch;
        const struct filter *f = find_filter(p->stage[i].id);
        bytes =
            f ? f->decode(p->stage[i].values, p->stage[i].value_count, from, bytes, to, chunk_bytes + H5_FILTER_SLACK)
              : 0;
        if (bytes == 0) return false;
        from = to;
    }
    if (bytes != chunk_bytes) return false;
    if (from != out) memcpy(out, from, bytes);
    return true;
}
