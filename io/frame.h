/* Read obs and var of any AnnData version: the compound table of 0.5 and 0.6 (categories in uns), the
 * group of 0.7 (categories behind references), and the encodings of 0.8 and later (categorical,
 * nullable integer, boolean and string, string arrays). Slices of rows; nothing is kept but names and
 * categories. All local. */
#ifndef CYTOMILL_IO_FRAME_H
#define CYTOMILL_IO_FRAME_H

#include <hdf5.h>
#include <stdint.h>

#include "cell/feature.h"

struct frame;

/* Open the table at `path` ("obs", "raw/var", "raw.var") of a file, which stays open as long as the frame
 * (0.5 keeps categories in its uns). ST_INPUT: absent, no index, columns of other lengths. */
MUST_CHECK enum status frame_open(hid_t file, const char *path, struct frame **out);
void frame_close(struct frame **frame);

int64_t frame_row_count(const struct frame *frame);
int frame_column_count(const struct frame *frame);
const char *frame_column_name(const struct frame *frame, int column);
int frame_find(const struct frame *frame, const char *name); /* -1 if absent */
const char *frame_version(const struct frame *frame);        /* "0.5", "0.7", "0.8" */
/* Columns left out, one "name: reason" a line; "" if none. */
const char *frame_skipped(const struct frame *frame);

/* Names of rows [first, first+count), COLUMN_TEXT. ST_INPUT: not UTF-8. The caller frees with column_free. */
MUST_CHECK enum status frame_read_names(struct frame *frame, int64_t first, int64_t count, struct column *out);
/* A slice of a column; categories are the whole table's. ST_INPUT: damaged. The caller frees with column_free. */
MUST_CHECK enum status frame_read(struct frame *frame, int column, int64_t first, int64_t count, struct column *out);

#endif
