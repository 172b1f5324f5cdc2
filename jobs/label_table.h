/* A TSV of labels whose rows are found by the name of a cell (--obs-table, --obs-key). */
#ifndef CYTOMILL_JOBS_LABEL_TABLE_H
#define CYTOMILL_JOBS_LABEL_TABLE_H

#include "base/names.h"
#include "cell/feature.h"

struct label_table {
    struct column *columns; /* [column_count] all but the key; whole numbers, reals, else categories */
    int column_count;
    int64_t rows;
    char **keys;         /* [rows] */
    struct names *index; /* key → row */
    int64_t *used;       /* [rows] cells that matched it */
};

/* Read it. ST_INPUT: unreadable, not UTF-8, ragged, no column `key` (with the nearest name), a key that
 * stands twice. Local. */
MUST_CHECK enum status label_table_read(const char *path, const char *key, struct label_table **out);
void label_table_destroy(struct label_table **table);

#endif
