/* One interface over every input: 10x folders, 10x .h5, .h5ad. A source is rows (cells) of one or
 * more modalities, obs columns, and a name per row; any rank may read any range of rows.
 *
 *     TRY(source_open(comm, path, &options, &s));                  collective; foreign HDF5 is probed first
 *     TRY(source_scan(comm, s, first, count, sizes));              collective; every value checked, kinds known
 *     TRY(source_read(s, modality, first, count, &cells));         local, as often as one likes
 *     source_close(&s);
 *
 * Row-wise matrices (CSR .h5ad, 10x .h5, dense) are read in place. Column-wise and streamed ones
 * (CSC, Matrix Market) are decoded once by source_open, which sorts them by rows into a spool folder
 * (io/spool.h). Memory is bounded by blocks of rows, never by the file. */
#ifndef CYTOMILL_IO_SOURCE_H
#define CYTOMILL_IO_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "cell/cells.h"
#include "cell/feature.h"
#include "mpi/comm.h"

/* What the user may say about an input; strings are borrowed. Start from source_options_default(). */
struct source_options {
    const char *counts;           /* "auto", "X", "raw/X" or "layers/NAME" (.h5ad) */
    const char *genome;           /* group of a 10x v2 .h5 with several; "" = there must be one */
    const char *const *rna_types; /* 10x feature types that become modality rna */
    int rna_type_count;
    const char *modality; /* of .h5ad inputs whose var does not say: "rna" */
    bool keep_other;      /* other feature types: modalities of their own, or left out */
    const char *spool;    /* folder for transposed copies; removed by source_close; NULL = $TMPDIR */
    double probe_time_s;  /* limits of the probe process (io/probe.h) */
    int64_t probe_memory_mib;
};
struct source_options source_options_default(void);

struct source;

struct source_modality {
    const char *name;     /* "rna", "adt", "hto", … */
    const char *taken;    /* where the values lie in the file: "X", "raw/X", "matrix", … */
    enum value_kind kind; /* from every value; valid after source_scan */
    int64_t entry_count;  /* values that are not 0; valid after source_scan */
    char why[96];         /* if they are not counts: "fraction 0.5 in row 3" */
    int64_t feature_count;
    struct feature_table features; /* name and id as given, symbol = the source's symbol if it has one
                                      beside the name, biotype; unmapped (cell/identity.h maps) */
};

/* Open, check and describe an input: format from the content, not the name. ST_INPUT: cannot be
 * read, damaged (the probe died), not one of the formats, groups missing, repeated gene ids, names
 * that are not UTF-8, zero cells; ST_CONFIG: several genomes and none chosen. Collective. */
MUST_CHECK enum status source_open(struct comm *comm, const char *path, const struct source_options *options,
                                   struct source **out);
/* Local; removes the spool of this rank. */
void source_close(struct source **source);

const char *source_path(const struct source *source);
const char *source_format(const struct source *source); /* "10x folder", "10x .h5 v3", "h5ad 0.8 csr", … */
int64_t source_row_count(const struct source *source);
int64_t source_entry_count(const struct source *source); /* stored entries of all modalities, zeros included */
int source_modality_count(const struct source *source);
const struct source_modality *source_modality(const struct source *source, int index);
/* Move the feature table out, to be freed by the caller; the source keeps feature_count and an empty table,
 * until source_scan turns to another place of the file. Local. */
struct feature_table source_take_features(struct source *source, int modality);
/* Give read buffers back until the next read: hundreds of inputs may be open at a time. Local. */
void source_rest(struct source *source);

/* The first row whose stored entries begin at or after `entry` of source_entry_count: cuts inputs
 * between ranks by work. ST_INPUT: indptr runs backwards. Local. */
MUST_CHECK enum status source_row_at(struct source *source, int64_t entry, int64_t *row);

/* The most rows from `first` on, below `end`, that are worth reading together: about a million stored
 * entries, at least one row. Local. */
MUST_CHECK enum status source_block(struct source *source, int64_t first, int64_t end, int64_t *count);

/* Pass 1. Every rank scans its rows [first, first+count) (ranges of ranks are disjoint and cover the
 * source; count may be 0): checks order, bounds and every value, finds the kind of each modality,
 * and writes the number of non-zero entries of each row to sizes[modality_count][count]
 * (row-major; NULL to skip). With counts "auto" a .h5ad that holds counts nowhere in X falls through to raw/X
 * and layers, so the modality's `taken` and features may change: look at them after this call. ST_INPUT:
 * indptr backwards, index out of range, repeated index in a row, NaN, infinity, named with row. Collective. */
MUST_CHECK enum status source_scan(struct comm *comm, struct source *source, int64_t first, int64_t count,
                                   int64_t *sizes);
/* The same in two steps, for many sources at once: ranks look at their rows of all of them without waiting
 * for each other, then agree source by source. Local. */
MUST_CHECK enum status source_scan_rows(struct source *source, int64_t first, int64_t count, int64_t *sizes);
/* After source_scan_rows on every rank. again = true: another place of the file was turned to, so scan
 * the rows and agree again. Collective, agreed. */
MUST_CHECK enum status source_scan_agree(struct comm *comm, struct source *source, bool *again);

/* Pass 2. Rows [first, first+count) of a modality into `out` (overwritten, memory reused): features
 * ascending, no zeros, ids = row of the source. At most 2^31 entries at a time. ST_INPUT as above. Local. */
MUST_CHECK enum status source_read(struct source *source, int modality, int64_t first, int64_t count,
                                   struct cells *out);

/* Names of rows (barcodes, obs index) as a COLUMN_TEXT slice; the caller frees with column_free. ST_INPUT:
 * damaged, not UTF-8. Local. */
MUST_CHECK enum status source_names_read(struct source *source, int64_t first, int64_t count, struct column *out);
/* obs columns of the source; categories are the file's, so codes agree between slices; the caller frees with
 * column_free. ST_INPUT: damaged. Local. */
int source_obs_count(const struct source *source);
const char *source_obs_name(const struct source *source, int index);
MUST_CHECK enum status source_obs_read(struct source *source, int index, int64_t first, int64_t count,
                                       struct column *out);
/* Columns that could not be read (nested, unknown type), one "name: reason" a line; "" if none. */
const char *source_obs_skipped(const struct source *source);

#endif
