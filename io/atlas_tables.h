/* The tables of index.h5, each written and read by a pair of functions. Inner part of io/atlas_index.h.
 * Reading is ST_INPUT when a table is missing, has another length, or holds what it cannot; arrays go into
 * the index, which index_free frees also after a failure. Local. */
#ifndef CYTOMILL_IO_ATLAS_TABLES_H
#define CYTOMILL_IO_ATLAS_TABLES_H

#include "io/atlas_index.h"
#include "io/h5.h"

MUST_CHECK enum status table_write_sources(hid_t file, const struct atlas_index *index);
MUST_CHECK enum status table_read_sources(hid_t file, struct atlas_index *index);
/* obs columns and their categories. */
MUST_CHECK enum status table_write_fields(hid_t file, const struct atlas_index *index);
MUST_CHECK enum status table_read_fields(hid_t file, struct atlas_index *index);
/* Modality k below the group of modalities; sources, shard_count and pieces must be known. */
MUST_CHECK enum status table_write_modality(hid_t parent, int k, const struct atlas_index *index);
MUST_CHECK enum status table_read_modality(hid_t parent, int k, struct atlas_index *index);

/* Length of a list, refused above 2^24. */
MUST_CHECK enum status table_length(hid_t group, const char *name, int64_t *count);

#endif
