/* Inner state of an atlas writer, shared by its three files: atlas_layout.c (create), atlas_write.c
 * (put), atlas_commit.c (commit).
 *
 * Files below <path>.partial: mod/<modality>/shard-*.h5ad at their final size; obs-*.records, one record
 * of fixed size a row (a mark, then the row's obs values), turned into columns at the commit: one small
 * write a row instead of one a column; `plan`, the digest that tells whether another run fits. */
#ifndef CYTOMILL_IO_ATLAS_WRITER_H
#define CYTOMILL_IO_ATLAS_WRITER_H

#include "io/atlas_index.h"
#include "io/atlas_write.h"
#include "io/shard_files.h"

enum { PERM_KEY_ROWS = 1 }; /* key of the permutation of rows */

struct atlas_writer {
    struct atlas_index index;
    char *path, *partial;
    bool names_unique;
    int plan_fields;            /* columns the caller puts; has_<modality> follow */
    /* this rank's rows: ranges of global source rows, numbered through as local rows */
    int range_count;
    int64_t *first, *count, *base; /* [range_count] base = local row of the range's first */
    int64_t rows;
    int32_t **entries;          /* [modality][rows] -1 = lacks it */
    int64_t **starts;           /* [modality][rows] first entry in its shard */
    struct shard_files files;   /* modality * shard_count + shard; then shard_count of records */
    int64_t record_bytes;
    int64_t *field_at;          /* [field_count] place of a field in a record; its mask byte follows it */
    int data, indices, indptr;  /* pieces */
    bool resumed;
    int64_t resumed_rows;
};

/* Atlas row of a global source row. */
int64_t writer_place(const struct atlas_writer *w, int64_t source_row);
/* The rank that lays out and finishes a shard. */
int writer_owner(const struct comm *comm, int64_t shard);
char *writer_records_path(const struct atlas_writer *w, int64_t shard);
/* Descriptor of a shard of a modality, or with modality == modality_count of a shard's records. */
MUST_CHECK enum status writer_file(struct atlas_writer *w, int modality, int64_t shard, int *fd);
/* Place of a piece of a shard in its file. */
int64_t writer_offset(const struct atlas_writer *w, int modality, int64_t shard, int piece);
/* Local row of a global source row, -1 if it is not of this rank's share. */
int64_t writer_local_row(const struct atlas_writer *w, int64_t source_row);

#endif
