/* Inner state of an atlas writer, shared by its files: atlas_layout.c (create) with atlas_plan.c,
 * atlas_sizes.c and atlas_var.c; atlas_write.c (put); atlas_commit.c (commit).
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
    int plan_fields; /* columns the caller puts; has_<modality> follow */
    /* this rank's rows: ranges of global source rows, numbered through as local rows */
    int range_count;
    int64_t *first, *count, *base; /* [range_count] base = local row of the range's first */
    int64_t rows;
    int32_t **entries;        /* [modality][rows] -1 = lacks it */
    int64_t **starts;         /* [modality][rows] first entry in its shard */
    struct shard_files files; /* modality * shard_count + shard; then shard_count of records */
    int64_t record_bytes;
    int64_t *field_at;         /* [field_count] place of a field in a record; its mask byte follows it */
    int data, indices, indptr; /* pieces */
    bool resumed;
    int64_t resumed_rows;
};

/* Atlas row of a global source row. This and what follows is local unless it says otherwise. */
int64_t writer_place(const struct atlas_writer *w, int64_t source_row);
/* The rank that lays out and finishes a shard. */
int writer_owner(const struct comm *comm, int64_t shard);
/* Path of a shard's records; the caller frees. */
char *writer_records_path(const struct atlas_writer *w, int64_t shard);
/* Descriptor of a shard of a modality, or with modality == modality_count of a shard's records. ST_OUTPUT. */
MUST_CHECK enum status writer_file(struct atlas_writer *w, int modality, int64_t shard, int *fd);
/* Place of a piece of a shard in its file. */
int64_t writer_offset(const struct atlas_writer *w, int modality, int64_t shard, int piece);
/* Local row of a global source row, -1 if it is not of this rank's share. */
int64_t writer_local_row(const struct atlas_writer *w, int64_t source_row);

/* ---- of create ---- */

/* Check a plan and copy it; `some_lack` adds columns has_<modality>. ST_INPUT: no rows. ST_INTERNAL. Local. */
MUST_CHECK enum status plan_to_index(const struct atlas_plan *plan, bool some_lack, struct atlas_index *index);
/* Names plan and sizes (their order-independent digest): what the files of a partial atlas depend on. Local. */
void writer_digest(const struct atlas_writer *w, uint64_t sizes, char out[SHA256_HEX]);

/* Row starts of the shards this rank owns: starts[(shard / size) * modalities + m] is [rows+1]. */
struct owned {
    int64_t **starts;
    int64_t shard_count;
    uint64_t digest; /* of all sizes, whatever their order */
};
/* ST_MEMORY; owned_free also after a failure. */
MUST_CHECK enum status owned_create(const struct comm *comm, const struct atlas_writer *w, struct owned *owned);
/* Sizes to starts. ST_INTERNAL: a row that nobody announced. Local. */
MUST_CHECK enum status owned_sum_up(const struct comm *comm, const struct atlas_writer *w, struct owned *owned);
void owned_free(const struct atlas_writer *w, struct owned *owned);
/* Send sizes to their owners (answer false), or fetch the rows' starts from them (true), in rounds of
 * 16,384 rows. Collective, agreed. ST_INTERNAL: a row that two ranks announced. */
MUST_CHECK enum status sizes_travel(struct comm *comm, struct atlas_writer *w, struct owned *owned, bool answer);

/* var of a modality's shards: made once, written into each. Borrows the strings of the table. */
enum { VAR_FIELDS = 9 };
struct var_frame {
    char **names; /* unique, owned */
    struct h5ad_field fields[VAR_FIELDS];
    struct column columns[VAR_FIELDS];
    struct h5ad_frame frame;
};
MUST_CHECK enum status var_create(const struct feature_table *table, struct var_frame *out);
void var_free(struct var_frame *var);

#endif
