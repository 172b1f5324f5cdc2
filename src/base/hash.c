#include "base/hash.h"

#include <errno.h>
#include <sha2.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

void hash_sha256(const void *data, size_t bytes, char out[SHA256_HEX]) { SHA256Data(data, bytes, out); }

enum status hash_sha256_file(const char *path, char out[SHA256_HEX])
{
    if (SHA256File(path, out)) return ST_OK;
    return fail(ST_INPUT, "%s: cannot be read: %s", path, strerror(errno));
}

uint64_t hash_block(const void *data, size_t bytes, uint64_t seed) { return XXH3_64bits_withSeed(data, bytes, seed); }
