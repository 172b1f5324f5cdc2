/* The index of an atlas in memory, and the file index.h5 that holds it. Inner part of io/atlas.h and
 * io/atlas_write.h.
 *
 * index.h5 begins with a block of 4096 bytes (HDF5's user block) that names the format and holds the
 * SHA-256 of all bytes after it. It is checked before HDF5, which crashes on damaged files, gets to see them.
 *
 *     /            attributes version, rows, shard_rows, shuffled, seed, deflate; text config
 *     /sources     path, identity, first_row, rows
 *     /obs         name, type, text_bytes, nullable; categories/<k>
 *     /pieces      path, row_bytes: datasets of a shard that are read by place
 *     /modality/k  attributes name, kind; features/…; mask_of_source, masks;
 *                  shards/{entries, bytes, offsets}: of each shard its entries, file size, places of pieces */
#ifndef CYTOMILL_IO_ATLAS_INDEX_H
#define CYTOMILL_IO_ATLAS_INDEX_H

#include "base/hash.h"
#include "io/atlas.h"
#include "io/h5ad_write.h"

struct index_source {
    char *path, *identity;
    int64_t first_row, rows;
};

struct index_modality {
    struct modality base; /* name, kind, features */
    int mask_count;
    uint8_t *masks;          /* [mask_count x features] distinct measured masks */
    int32_t *mask_of_source; /* [source_count], -1 = the source lacks the modality */
    int64_t *entries;        /* [shard_count] stored values */
    int64_t *bytes;          /* [shard_count] size of the file */
    int64_t *offsets;        /* [shard_count x piece_count] place of each piece, -1 if empty or deflated */
};

struct atlas_index {
    int64_t rows, shard_rows, shard_count;
    uint64_t seed;
    bool shuffled;
    int deflate; /* level of compressed shards, 0 = not compressed: read by place */
    char *config;
    int source_count;
    struct index_source *sources;
    int field_count;
    struct h5ad_field *fields; /* of obs; strings owned */
    int piece_count;
    char **pieces;      /* "obs/_index", "obs/<column>…" in order of fields, "X/data", "X/indices", "X/indptr" */
    int64_t *row_bytes; /* [piece_count] */
    int modality_count;
    struct index_modality *modalities;
    char hash[SHA256_HEX];
};

void index_free(struct atlas_index *index);
/* Write index.h5 and flush it; sets index->hash. ST_OUTPUT. Local. */
MUST_CHECK enum status index_write(const char *path, struct atlas_index *index);
/* Read an index from the bytes of index.h5; `name` is for messages. ST_INPUT: not an index, another
 * version, bytes that do not match their hash, tables that contradict each other. Local. */
MUST_CHECK enum status index_parse(const char *bytes, size_t count, const char *name, struct atlas_index *index);

/* Fill fields' pieces: sets index->pieces, row_bytes, piece_count from fields and the width of names. Local. */
MUST_CHECK enum status index_set_pieces(struct atlas_index *index, int32_t name_bytes);
/* Number of a piece, -1 if there is none. Local. */
int index_piece(const struct atlas_index *index, const char *path);
/* Bytes of a row of a piece in a shard: row_bytes, but of X/indptr, whose width follows the shard's entries. Local. */
int64_t index_row_bytes(const struct atlas_index *index, int modality, int64_t shard, int piece);
/* n starts of rows as they lie in the shard, at the front of `starts`, to int64 in place. Local. */
void index_widen_starts(const struct atlas_index *index, int modality, int64_t shard, int64_t *starts, int64_t n);
/* Pieces of obs column `field`: values, and mask (-1 unless nullable). Local. */
int index_values(const struct atlas_index *index, int field);
int index_mask(const struct atlas_index *index, int field);
/* Rows of a shard: shard_rows, fewer in the last. Local. */
int64_t index_shard_rows(const struct atlas_index *index, int64_t shard);
/* Path of a shard's file below `folder`; caller frees. Local. */
char *index_shard_path(const struct atlas_index *index, const char *folder, int modality, int64_t shard);

#endif
