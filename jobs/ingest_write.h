/* Pass 2 of cytomill-ingest: every rank reads its rows again, gives them the features of the union,
 * flags their quality, and puts them into the atlas. */
#ifndef CYTOMILL_JOBS_INGEST_WRITE_H
#define CYTOMILL_JOBS_INGEST_WRITE_H

#include "io/atlas_write.h"
#include "jobs/ingest_obs.h"
#include "jobs/job.h"

/* What was seen on the way, summed over ranks; counts are whole numbers, so the sums do not depend on ranks. */
struct ingest_figures {
    double *feature_total;   /* [features of the first modality] sum of values */
    int64_t *source_flags;   /* [inputs][4] cells with each QC_ flag, and with none */
    double *source_total;    /* [inputs] sum of values */
    int64_t *source_entries; /* [inputs] non-zero values of all modalities */
};
MUST_CHECK enum status ingest_figures_create(const struct ingest_inputs *in, struct ingest_figures *out);
void ingest_figures_free(struct ingest_figures *figures);

/* Write the rows of this rank; rows that an earlier run wrote are looked at again but not written. Stops at a
 * signal or stop file with ST_REQUEUE (what is written stays for the next run). Collective, agreed. */
MUST_CHECK enum status ingest_write_rows(struct comm *comm, struct job *job, struct ingest_inputs *in,
                                         const struct ingest_obs *obs, struct atlas_writer *writer,
                                         struct ingest_figures *figures);

#endif
