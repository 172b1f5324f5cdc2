/* Labels of the rows of an embedding file as small numbers. */
#ifndef CYTOMILL_JOBS_ANALYZE_LABELS_H
#define CYTOMILL_JOBS_ANALYZE_LABELS_H

#include <stdint.h>

#include "io/embedding_read.h"

struct label_list {
    char *column; /* name of the obs column */
    int count;
    char **name;   /* [count] sorted by bytes */
    int32_t *code; /* [rows] -1 = missing or empty */
};

/* Any obs column that has at most 10,000 different values. ST_INPUT. Local. */
MUST_CHECK enum status label_list_read(struct embedding_table *table, const char *column, struct label_list *out);
void label_list_free(struct label_list *labels);
/* Keep the `most` labels with the most rows (equal ones by name), in the order of their names; the others become -1.
 * Local. ST_MEMORY. */
MUST_CHECK enum status label_list_keep_largest(struct label_list *labels, int64_t rows, int most);

#endif
