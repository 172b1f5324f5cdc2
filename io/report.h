/* Sections of report.html: each adds its headings, pictures, tables and a sentence or two for a
 * biologist who did not run the job. A section says what it shows, what is good, and what not to read
 * into it. Local, on one rank; errors as of the files they read. */
#ifndef CYTOMILL_IO_REPORT_H
#define CYTOMILL_IO_REPORT_H

#include <stdint.h>

#include "base/text.h"

/* ATLAS/ingest_report.tsv: cells, genes, what was flagged, what the vocabulary keeps. */
MUST_CHECK enum status report_ingest(struct text *page, const char *atlas);

/* RUN/metrics.jsonl and RUN/learning.tsv: curves, the references, what the model beats. */
MUST_CHECK enum status report_learning(struct text *page, const char *run);

/* RUN/expert_usage.tsv, if it is there: which experts work for which cell types in the last evaluation. */
MUST_CHECK enum status report_usage(struct text *page, const char *run);

/* A map of cells. Borrowed. */
struct report_map {
    int index;                   /* of the maps on the page, from 0 */
    int64_t shown, usable, rows; /* cells on the map, with an embedding, of the file */
    const double *xy;            /* [shown, 2] */
    const char *embedding;       /* "embeddings.h5ad X_cellfm" */
    const int32_t *type;         /* [shown] called cell type, or NULL when there are no counts or markers */
    int types;
    const char *const *type_name;
    const int32_t *label; /* [shown] obs column, or NULL */
    int labels;
    const char *label_column;
    const char *const *label_name;
    const int32_t *group; /* [shown] another obs column, or NULL; the largest groups have names, the rest are -1 */
    int groups, groups_in_all;
    const char *group_column;
    const char *const *group_name;
    const int32_t *cluster; /* [shown] Leiden */
    int clusters;
};
MUST_CHECK enum status report_map(struct text *page, const struct report_map *map);

/* DIR/results.h5 and DIR/hits.tsv: heat map of pairs and the `hits` best. */
MUST_CHECK enum status report_screen(struct text *page, const char *sweep, int64_t hits);

/* Table of cytomill-analyze score. */
MUST_CHECK enum status report_scores(struct text *page, const char *path);

#endif
