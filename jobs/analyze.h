/* What the verbs of cytomill-analyze share. */
#ifndef CYTOMILL_JOBS_ANALYZE_H
#define CYTOMILL_JOBS_ANALYZE_H

#include "base/text.h"
#include "io/cell_input.h"
#include "io/embedding_read.h"
#include "jobs/job.h"
#include "mpi/pca.h"

extern const struct job_spec analyze_pca, analyze_score, analyze_umap, analyze_report;

/* Is there an input of counts (--atlas, or run.input)? Local. */
bool analyze_has_counts(const struct job *job);
/* Open it and select run.cells. ST_USAGE if there is none. Collective, agreed. */
MUST_CHECK enum status analyze_open_counts(struct job *job, struct cell_input *out);
/* text_write_file, after making the folders above it. ST_OUTPUT. Local: one rank. */
MUST_CHECK enum status analyze_write_text(const char *path, const struct text *text);
/* ST_USAGE unless run.out is given. Local. */
MUST_CHECK enum status analyze_need_out(const struct job *job);

/* analyze.components and analyze.genes as numbers (0 = all). ST_CONFIG. Local. */
MUST_CHECK enum status analyze_pca_size(const struct job *job, int64_t *genes, int *components);
/* Principal components of the input. Collective, agreed. */
MUST_CHECK enum status analyze_fit_pca(struct job *job, struct cell_input *input, struct pca **out);

/* Open embedding file number `index` of analyze.embedding. Collective, agreed. */
MUST_CHECK enum status analyze_open_embedding(struct job *job, int index, struct embedding_table **out);
int analyze_embedding_count(const struct job *job);
/* Are the rows of the file the cells of the input, in order? Compared by name. ST_INPUT: the first that
 * differs, and what to do. Collective, agreed. */
MUST_CHECK enum status analyze_check_rows(struct job *job, struct embedding_table *table, struct cell_input *input);

#endif
