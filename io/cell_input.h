/* The cells a job works on: an atlas, or a foreign file (.h5ad, 10x) read as it is, in its own order.
 *
 *     TRY(cell_input_open(comm, config, path, "embed.counts", &in));
 *     TRY(cell_input_read(&in, first, count, &cells));          cells first … of the in.count that take part
 *     cell_input_close(&in); */
#ifndef CYTOMILL_IO_CELL_INPUT_H
#define CYTOMILL_IO_CELL_INPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/hash.h"
#include "cell/cells.h"
#include "cell/feature.h"
#include "io/atlas.h"
#include "io/source.h"
#include "mpi/comm.h"

struct cell_input {
    const char *path;    /* as given; borrowed */
    struct atlas *atlas; /* one of the two is NULL */
    struct source *source;
    int modality;                         /* the one of data.modality */
    const struct feature_table *features; /* borrowed from atlas or source */
    int64_t row_count;                    /* all rows of the input */
    int64_t count;                        /* cells that take part: those run.cells selects */
    int64_t *rows;                        /* [count] their rows, ascending; NULL = all */
    const char *counts;        /* where counts lie in an .h5ad: "X", "raw/X", "layers/NAME"; "" for other inputs */
    char identity[SHA256_HEX]; /* of the atlas index, or of the file's bytes (above 8 GiB of its size and time) */
};

/* Open and select. `counts` says where counts lie in an .h5ad ("auto", …). The modality's kind must be
 * counts. Collective, agreed. ST_INPUT: as atlas_open and source_open; no such modality (those there are
 * listed); values of another kind, with its name. ST_CONFIG: run.cells. */
MUST_CHECK enum status cell_input_open(struct comm *comm, const struct config *config, const char *path,
                                       const char *counts, struct cell_input *out);
void cell_input_close(struct cell_input *input);

/* Cells [first, first+count) of those that take part (`out` is overwritten, its memory reused); ids are rows of the
 * input. ST_INPUT: damaged. Local. */
MUST_CHECK enum status cell_input_read(struct cell_input *input, int64_t first, int64_t count, struct cells *out);
/* Their names as COLUMN_TEXT; free with column_free. Local. */
MUST_CHECK enum status cell_input_names(struct cell_input *input, int64_t first, int64_t count, struct column *out);
/* obs columns: number, name, and values of the same cells (categories are the whole input's; free with
 * column_free). ST_INPUT: damaged. Local. */
int cell_input_obs_count(const struct cell_input *input);
const char *cell_input_obs_name(const struct cell_input *input, int index);
MUST_CHECK enum status cell_input_obs_read(struct cell_input *input, int index, int64_t first, int64_t count,
                                           struct column *out);

/* Share of the counts of up to `sample` cells, evenly spread, that lookup[features] keeps. Every rank
 * reads its part. Collective, agreed. */
MUST_CHECK enum status cell_input_kept_share(struct comm *comm, struct cell_input *input, const int32_t *lookup,
                                             int64_t sample, double *share);

#endif
