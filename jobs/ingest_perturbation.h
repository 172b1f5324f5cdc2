/* The perturbation record among the obs columns of an atlas: which of them hold it (configuration keys
 * ingest.perturbation…), and the columns made from them. */
#ifndef CYTOMILL_JOBS_INGEST_PERTURBATION_H
#define CYTOMILL_JOBS_INGEST_PERTURBATION_H

#include "base/config.h"
#include "cell/perturbation.h"
#include "io/h5ad_write.h"

struct ingest_perturbation {
    int label, mode, dose, guide; /* obs columns, -1 = none; label -1: no record */
    enum perturb_mode mode_default;
    struct perturbation_plan plan;
    int count; /* columns of the record */
};

/* Find the columns among fields[count] (a column label holds labels of categories or text) and plan the
 * record. ST_CONFIG: no such column. ST_INPUT: a label that cannot be read. Local. */
MUST_CHECK enum status ingest_perturbation_plan(const struct config *config, const struct h5ad_field *fields, int count,
                                                struct ingest_perturbation *out);
void ingest_perturbation_free(struct ingest_perturbation *p);
/* Fields of the record to out[p->count]; borrow from p. Local. */
void ingest_perturbation_fields(const struct ingest_perturbation *p, const struct h5ad_field *fields,
                                struct h5ad_field *out);
/* The record of the rows in columns[], to out[p->count]. Local. */
MUST_CHECK enum status ingest_perturbation_build(const struct ingest_perturbation *p, const struct h5ad_field *fields,
                                                 const struct column *columns, struct column *out);

#endif
