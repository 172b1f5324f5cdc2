#include "base/hash.h"

#include <errno.h>
#include <sha2.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

void hash_sha256(const void *data, size_t bytes, char out[SHA256_HEX]) { SHA256Data(data, bytes, out); }

enum status hash_sha256_file(const char *path, char out[SHA256_HEX])
{
    if (SHA256File(path, out)) return ST_OK;
    return fail(ST_INPUT, "%s: cannot be read: %s", path, strerror(errno));
}

uint64_t hash_block(const void *data, size_t bytes, uint64_t seed) { return XXH3_64bits_withSeed(data, bytes, seed); }

#ifdef __SSE2__
/* A store past the caches does not first read what it writes over, and leaves the caches to those who compute. */
static void copy_past_caches(char *to, const char *from, size_t bytes)
{
    size_t k = -(uintptr_t)to % sizeof(__m128i);
    if (k > bytes) k = bytes;
    memcpy(to, from, k);
    for (; k + sizeof(__m128i) <= bytes; k += sizeof(__m128i))
        _mm_stream_si128((__m128i *)(void *)(to + k), _mm_loadu_si128((const __m128i *)(const void *)(from + k)));
    memcpy(to + k, from + k, bytes - k);
    _mm_sfence();
}
#else
static void copy_past_caches(char *to, const char *from, size_t bytes) { memcpy(to, from, bytes); }
#endif

uint64_t hash_copy(void *to, const void *from, size_t bytes, uint64_t seed)
{
    copy_past_caches(to, from, bytes);
    return hash_block(from, bytes, seed); /* its bytes are near now */
}
