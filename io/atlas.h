/* Read an atlas: mod/<modality>/shard-*.h5ad plus index.h5 (SEMANTICS "Atlas"; written by
 * io/atlas_write.h). An open atlas holds the index (modalities, features, shards, permutation key,
 * sources), and reads shards as they are asked for: by place (the index knows where each dataset lies) when they are not
 * compressed, else through HDF5's serial driver. A file whose size or index hash is wrong is refused.
 *
 *     TRY(atlas_open(comm, path, &a));                     collective
 *     int rna = atlas_find_modality(a, "rna");
 *     TRY(atlas_read(a, rna, first, count, &cells));       local
 *     atlas_close(&a); */
#ifndef CYTOMILL_IO_ATLAS_H
#define CYTOMILL_IO_ATLAS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "cell/cells.h"
#include "cell/feature.h"
#include "mpi/comm.h"

struct atlas;

struct modality {
    char *name; /* "rna" */
    enum value_kind kind;
    struct feature_table features;
};

/* Open and check the index on every rank. ST_INPUT: not an atlas, damaged, or a shard is missing. Collective. */
MUST_CHECK enum status atlas_open(struct comm *comm, const char *path, struct atlas **out);
void atlas_close(struct atlas **atlas);

int64_t atlas_cell_count(const struct atlas *atlas);
int atlas_modality_count(const struct atlas *atlas);
const struct modality *atlas_modality(const struct atlas *atlas, int index);
/* Index of a modality by name, -1 if it has none. */
int atlas_find_modality(const struct atlas *atlas, const char *name);
/* SHA-256 of the index file: names this atlas in checkpoints and results. */
const char *atlas_hash(const struct atlas *atlas);
const char *atlas_path(const struct atlas *atlas);

/* Sources, in the order of the category source_file. Borrowed. */
int atlas_source_count(const struct atlas *atlas);
const char *atlas_source_path(const struct atlas *atlas, int source);
int64_t atlas_source_rows(const struct atlas *atlas, int source);
/* [features] flags, 1 = this source measured the feature (a 0 of other features means "not measured");
 * NULL if the source lacks the modality. Borrowed. */
const uint8_t *atlas_measured(const struct atlas *atlas, int modality, int source);
/* YAML configuration of the ingest. Borrowed. */
const char *atlas_config(const struct atlas *atlas);

/* Rows [first, first+count) in atlas order into `out` (overwritten; its memory is reused), ids set
 * to atlas rows. Entries are checked: features ascending and
 * in range, values finite and not 0. A cell that lacks the modality is an empty row. Local, independent; one
 * caller thread; about 600,000 cells a second from the page cache. ST_INPUT names the shard. */
MUST_CHECK enum status atlas_read(struct atlas *atlas, int modality, int64_t first, int64_t count, struct cells *out);
/* The given rows, in the order given (any order, repeats allowed). Neighbouring rows are read together. Local. */
MUST_CHECK enum status atlas_read_rows(struct atlas *atlas, int modality, const int64_t *rows, int64_t count,
                                       struct cells *out);

/* obs columns: source_file, source_row, source_obs_name, …; has_<modality> says which cells have one, and
 * is there only if some lack one. Missing text is NULL, never "". Names are borrowed. */
int atlas_obs_count(const struct atlas *atlas);
const char *atlas_obs_name(const struct atlas *atlas, int index);
bool atlas_obs_has(const struct atlas *atlas, const char *name);
/* Rows [first, first+count) of one obs column; categories are the whole atlas's list, so codes agree
 * between slices. The caller frees with column_free. ST_INPUT: no such column (with nearest name). Local. */
MUST_CHECK enum status atlas_obs_read(struct atlas *atlas, const char *name, int64_t first, int64_t count,
                                      struct column *out);

/* Names of rows [first, first+count), unique in the atlas, as COLUMN_TEXT; the caller frees. Local. */
MUST_CHECK enum status atlas_names_read(struct atlas *atlas, int64_t first, int64_t count, struct column *out);

/* The cells an expression selects (--cells; "" selects all), as ascending atlas rows; the caller
 * frees *rows. Each rank evaluates its share and all get the list. Collective. ST_CONFIG: a syntax
 * error or unknown column; ST_INPUT: nothing selected. */
MUST_CHECK enum status atlas_select(struct comm *comm, struct atlas *atlas, const char *expression, int64_t **rows,
                                    int64_t *count);

#endif
