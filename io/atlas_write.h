/* Write an atlas (SEMANTICS "Atlas") from all ranks, with the same bytes for any number of them.
 *
 * Rows of all sources are numbered through: global source row = sources[k].first_row + row in source
 * k. Row r lies at atlas row perm_apply(seed, 1, rows, r), or at r when not shuffled.
 *
 * Two passes over the sources. In the first, each rank learns for its share of source rows how many
 * entries each row has; with that, atlas_writer_create lays out every shard at its final size. In the
 * second, each rank writes the rows of its share, in any order, without talking to the others.
 *
 *     TRY(atlas_writer_create(comm, "out/atlas", &plan, &share, &w));     collective
 *     for each block of my source rows:
 *         if (atlas_writer_has(w, first, count)) continue;                an earlier, killed run wrote it
 *         for each modality m: TRY(atlas_writer_put_cells(w, m, &cells)); local; cells.id = global source rows
 *         TRY(atlas_writer_put_obs(w, first, columns));                   local; marks the rows as written
 *     TRY(atlas_writer_commit(comm, &w));                                 collective: checks, index.h5, rename
 *
 * Until the commit everything lies in <path>.partial, and a second run with the same plan and sizes
 * goes on where it stopped; with another plan it starts over (and says so). Memory of a rank: 8 bytes
 * a row of its share and modality, and a buffer; nothing else grows with the atlas. */
#ifndef CYTOMILL_IO_ATLAS_WRITE_H
#define CYTOMILL_IO_ATLAS_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "cell/cells.h"
#include "cell/feature.h"
#include "io/h5ad_write.h"
#include "mpi/comm.h"

/* An input, as the atlas remembers it. */
struct atlas_source {
    const char *path;     /* as the user gave it */
    const char *identity; /* "xxh3:… size:…" of the file's bytes; above 1 GiB "size:… mtime:…" */
    int64_t first_row;    /* global source row of its first row */
    int64_t rows;
};

struct atlas_modality_plan {
    const char *name; /* "rna"; letters, digits, - and _ */
    enum value_kind kind;
    const struct feature_table *features; /* union over sources */
    /* [source_count] pointers to [features->count] flags, 1 = the source measured the feature; sources may
     * share an array; NULL = the source lacks this modality. Equal masks are stored once. */
    const uint8_t *const *measured;
};

/* The same on every rank. All pointers are borrowed until the commit. */
struct atlas_plan {
    const struct atlas_modality_plan *modalities; /* [modality_count] */
    int modality_count;
    const struct atlas_source *sources; /* [source_count], in order of first_row, without gaps */
    int source_count;
    /* Columns of obs. The first three must be source_file (COLUMN_CATEGORY, code = source), source_row
     * (COLUMN_INT, row in that source) and source_obs_name (COLUMN_TEXT). The writer adds the names of rows,
     * and has_<modality> when a cell lacks one. */
    const struct h5ad_field *obs;
    int obs_count;
    bool obs_names_unique; /* names of rows: source_obs_name if true, else "<source>:<row>" */
    int64_t rows;          /* of all sources */
    int64_t shard_rows;
    uint64_t seed;
    bool shuffle;
    const char *config; /* YAML of the ingest, stored in index.h5; must not depend on the number of ranks */
};

/* The source rows this rank will write: ranges of global source rows, disjoint over ranks, together all
 * rows. A rank may have none. */
struct atlas_share {
    int range_count;
    const int64_t *first, *count; /* [range_count], ascending */
    /* [modality_count] pointers to the entries of each row of the ranges, one after another; -1 = the
     * cell lacks the modality. Not needed after atlas_writer_create. */
    const int32_t *const *entries;
};

struct atlas_writer;

/* Lay out all shards in <path>.partial, or go on with what is there. Collective, agreed. ST_OUTPUT: an
 * atlas or anything else is already at `path`; no space; not writable. ST_INTERNAL: shares that overlap
 * or leave rows out. ST_INPUT: no rows. */
MUST_CHECK enum status atlas_writer_create(struct comm *comm, const char *path, const struct atlas_plan *plan,
                                           const struct atlas_share *share, struct atlas_writer **out);

/* Rows of one modality. cells->id are global source rows of this rank's share, in any order; the number
 * of entries must be the announced one; features ascending, values not 0. Local. ST_OUTPUT: disk full, I/O error. */
MUST_CHECK enum status atlas_writer_put_cells(struct atlas_writer *writer, int modality, const struct cells *cells);
/* obs of source rows [first, first + columns[0].count): one column for each field of plan.obs, in that
 * order. After all modalities of these rows: it marks them as written. Local. */
MUST_CHECK enum status atlas_writer_put_obs(struct atlas_writer *writer, int64_t first, const struct column *columns);
/* Are all these rows written, by this run or an earlier one? Local. */
bool atlas_writer_has(const struct atlas_writer *writer, int64_t first, int64_t count);
/* Rows that an earlier run had written when this one began. Local. */
int64_t atlas_writer_resumed_rows(const struct atlas_writer *writer);

/* Every row must be there: writes obs and index.h5, flushes, renames <path>.partial to <path>. Frees the
 * writer, also on failure. Collective, agreed. ST_INTERNAL: rows are missing. ST_OUTPUT: then nothing
 * lies under the final name. */
MUST_CHECK enum status atlas_writer_commit(struct comm *comm, struct atlas_writer **writer);
/* Give up; what was written stays in <path>.partial for the next run. NULL is fine. Local. */
void atlas_writer_destroy(struct atlas_writer **writer);

/* Was the finished atlas at `path` made by this plan? Compared are its config, seed, and paths and identities of
 * sources; the rest of the plan follows from them and need not be filled in. Local. ST_INPUT: not an atlas, damaged. */
MUST_CHECK enum status atlas_was_made_by(const char *path, const struct atlas_plan *plan, bool *same);

/* Deflate all shards of a committed atlas (ingest.compress), shards dealt out to ranks. Reading is then
 * about 10 times slower and the atlas 4 times smaller. One that was killed meanwhile is finished, one of that level is
 * left alone. Collective, agreed. ST_OUTPUT: no space; the atlas is as it was. */
MUST_CHECK enum status atlas_compress(struct comm *comm, const char *path, int level);

#endif
