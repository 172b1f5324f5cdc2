/* Hashes: SHA-256 to name a file or a vocabulary, XXH3 to check a block. */
#ifndef CYTOMILL_BASE_HASH_H
#define CYTOMILL_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define SHA256_HEX 65

/* Hex digest of a block of memory. Local. */
void hash_sha256(const void *data, size_t bytes, char out[SHA256_HEX]);
/* Hex digest of a file's bytes as they lie on disk. ST_INPUT if it cannot be read. Local. */
MUST_CHECK enum status hash_sha256_file(const char *path, char out[SHA256_HEX]);
/* 64-bit XXH3 with a seed. Local. */
uint64_t hash_block(const void *data, size_t bytes, uint64_t seed);
/* The same of `from`, which is copied on the way to `to`, past the caches where the processor can: for a copy that is not
 * read soon. They do not overlap. Local. */
uint64_t hash_copy(void *to, const void *from, size_t bytes, uint64_t seed);

#endif
