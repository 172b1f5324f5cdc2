/* Inside of a frame, for frame.c (reading) and frame_open.c (describing) alone. */
#ifndef CYTOMILL_IO_FRAME_PARTS_H
#define CYTOMILL_IO_FRAME_PARTS_H

#include <stdbool.h>

#include "base/text.h"
#include "io/frame.h"

/* How a column lies in the file. */
enum storage {
    STORED_PLAIN,      /* a dataset of numbers, booleans or strings */
    STORED_CATEGORIES, /* codes and categories: two datasets */
    STORED_MASKED,     /* values and mask: two datasets */
    STORED_FIELD       /* a field of the compound table */
};

struct frame_column {
    char *name;
    enum storage storage;
    enum column_type type;
    char *values, *extra; /* path of values or codes; path of categories or mask */
    char **category;      /* [category_count] of a COLUMN_CATEGORY */
    int32_t category_count;
};

struct frame {
    hid_t file;
    char *path;
    const char *version;
    int64_t rows;
    struct frame_column index;
    struct frame_column *columns;
    int count, capacity;
    struct text skipped;
};

/* An empty slice of `count` rows of this type. Local. */
MUST_CHECK enum status frame_make_slice(struct column *out, const char *name, enum column_type type, int64_t count);
/* Values [first, first+count) of the dataset at `path` into a slice that was made. Local. */
MUST_CHECK enum status frame_read_values(const struct frame *frame, const char *path, enum column_type type,
                                         int64_t first, int64_t count, struct column *out);
void frame_free_column(struct frame_column *column);

#endif
