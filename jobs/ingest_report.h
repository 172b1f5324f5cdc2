/* What cytomill-ingest found, as a table (ingest_report.tsv) and in words. */
#ifndef CYTOMILL_JOBS_INGEST_REPORT_H
#define CYTOMILL_JOBS_INGEST_REPORT_H

#include "cell/vocab.h"
#include "jobs/ingest_write.h"

/* How much of the first modality's counts a vocabulary keeps. */
struct vocab_share {
    const char *path;
    struct vocab *vocab;
    int32_t *lookup;    /* [features] */
    int64_t genes;      /* features with an id */
    double kept, total; /* sums of values */
};

struct ingest_report {
    const struct ingest_inputs *in;
    const struct ingest_obs *obs;
    const struct ingest_figures *figures;
    const struct hgnc *hgnc;
    const char *hgnc_path;
    struct vocab_share *shares; /* the default vocabulary, then the given one */
    int share_count;
};

/* Fill genes, kept and total of a share whose path and vocab are set. Local. */
MUST_CHECK enum status vocab_share_find(const struct ingest_inputs *in, const struct ingest_figures *figures,
                                        struct vocab_share *share);
void vocab_share_free(struct vocab_share *share);

/* Tab-separated: section, item, value, detail; the header says so. Depends on the inputs alone. ST_OUTPUT. Local. */
MUST_CHECK enum status ingest_report_write(const struct ingest_report *report, const char *path);
/* A readable page. Local. */
void ingest_report_print(const struct ingest_report *report, FILE *file);

#endif
