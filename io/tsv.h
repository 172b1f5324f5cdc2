/* A small table from a TSV file: header line, rows, remarks (lines with #). All in memory, all text. */
#ifndef CYTOMILL_IO_TSV_H
#define CYTOMILL_IO_TSV_H

#include <stdint.h>

#include "base/status.h"

struct tsv {
    int columns;
    int64_t rows;
    char **cell;   /* [1 + rows, columns]: the header, then the rows; "" where a line is short */
    char *remarks; /* remark lines without #, joined by '\n'; "" if none */
    char *text;    /* private: what the cells point into */
};

/* ST_INPUT: unreadable, no header. Local. */
MUST_CHECK enum status tsv_read(const char *path, struct tsv *out);
void tsv_free(struct tsv *tsv);

/* Column by header name, -1 if absent. Local. */
int tsv_find(const struct tsv *tsv, const char *name);
/* A cell, borrowed; row -1 is the header. Local. */
const char *tsv_cell(const struct tsv *tsv, int64_t row, int column);
/* A cell as a number; NaN if it is none, or if column is -1. Local. */
double tsv_number(const struct tsv *tsv, int64_t row, int column);

#endif
