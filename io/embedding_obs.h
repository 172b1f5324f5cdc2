/* obs of an embedding file: the input's own columns, then `embedded` and `embedding_reason`. */
#ifndef CYTOMILL_IO_EMBEDDING_OBS_H
#define CYTOMILL_IO_EMBEDDING_OBS_H

#include <stdint.h>

#include "io/cell_input.h"
#include "io/h5ad_write.h"

struct obs_layout {
    struct h5ad_frame frame;   /* for h5ad_create; rows = cells that take part */
    struct h5ad_field *fields; /* [field_count] what frame points to */
    int *column;               /* [carried] obs column of the input */
    struct column *sample;     /* [carried] one row of each: owns the categories */
    int carried, field_count;  /* field_count = carried + 2 */
};

/* Look at all of the input's obs for the width of texts and for missing values; each rank reads its
 * share. Columns that bear our two names are left out. Collective, agreed. */
MUST_CHECK enum status obs_layout_create(struct comm *comm, struct cell_input *input, struct obs_layout *out);
void obs_layout_free(struct obs_layout *layout);

/* obs and names of cells [first, first+count), with reasons[count] (enum embed_reason). Local. */
MUST_CHECK enum status obs_layout_write(const struct obs_layout *layout, struct cell_input *input,
                                        struct h5ad_file *file, int64_t first, int64_t count, const uint8_t *reasons);
/* Read the reasons back. Local. */
MUST_CHECK enum status obs_layout_read_reasons(const struct obs_layout *layout, struct h5ad_file *file, int64_t first,
                                               int64_t count, uint8_t *reasons);

#endif
