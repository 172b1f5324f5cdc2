/* obs of the atlas: where each cell came from, its quality figures, the columns of its source, the
 * columns of a table of labels, and the perturbation record made from them. Columns of one name in several
 * sources become one, of a type that holds all of them. */
#ifndef CYTOMILL_JOBS_INGEST_OBS_H
#define CYTOMILL_JOBS_INGEST_OBS_H

#include "io/h5ad_write.h"
#include "jobs/ingest_inputs.h"
#include "jobs/ingest_perturbation.h"
#include "jobs/label_table.h"

/* Quality flags of a cell; a set of them is a category of qc_flags: "low_features;high_mt", "ok". */
enum { QC_LOW_FEATURES = 1, QC_HIGH_MT = 2, QC_HIGH_TOTAL = 4, QC_SETS = 8 };
const char *qc_set_name(int set);

/* The columns that come before the sources' own. */
enum { OBS_FILE, OBS_ROW, OBS_NAME, OBS_TOTAL, OBS_FEATURES, OBS_PCT_MT, OBS_FLAGS, OBS_FIXED };

struct obs_column; /* one column of the sources or of the table */

struct ingest_obs {
    struct h5ad_field *fields; /* [count], the first OBS_FIXED as above */
    struct obs_column *from;   /* [own - OBS_FIXED] where the values come from */
    int count;
    int own; /* fields before the perturbation record, which comes last */
    struct ingest_perturbation perturbation;
    const char **files; /* [inputs] categories of source_file */
    bool names_unique;
    struct label_table *labels;  /* NULL without --obs-table */
    int64_t matched, unmatched;  /* cells with and without a row in it */
    struct text unmatched_names; /* the first of them, one a line */
    struct text notes;           /* columns renamed or left out, one a line */
};

/* Look at the columns of all inputs and at this rank's names and values: types, widths, missing values,
 * whether names are unique, matches of the table. ST_INPUT. Collective, agreed. */
MUST_CHECK enum status ingest_obs_plan(struct comm *comm, const struct config *config, struct ingest_inputs *in,
                                       struct ingest_obs *out);
void ingest_obs_free(struct ingest_obs *obs);

/* Columns OBS_FIXED and on, and names, for rows [first, first+count) of input `i` (rows of that input) into
 * columns[obs->count]; the four quality columns are the caller's. The caller frees each with column_free. Local. */
MUST_CHECK enum status ingest_obs_read(const struct ingest_obs *obs, struct ingest_inputs *in, int i, int64_t first,
                                       int64_t count, struct column *columns);

#endif
