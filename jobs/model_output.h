/* What cytomill-embed and cytomill-sweep share: the output of a trained model over cells, filled in by chunks.
 *
 *     TRY(model_output_map(job, &inf, &input));
 *     model_output_key(job, "sweep 2", &inf, &input, &text);          then what else it depends on; hash it
 *     TRY(chunk_loop_run(&job->world, partial, &loop));
 *     TRY(model_output_record(job, "DIR/run.json", seconds, metrics, count)); */
#ifndef CYTOMILL_JOBS_MODEL_OUTPUT_H
#define CYTOMILL_JOBS_MODEL_OUTPUT_H

#include "base/progress.h"
#include "base/text.h"
#include "io/cell_input.h"
#include "io/chunk_loop.h"
#include "io/inference.h"
#include "jobs/job.h"

/* Begin the text whose hash is the output's key: its kind and version, the weights, the configuration of model and
 * data, the vocabulary, the input's bytes and the selected cells. The number of ranks, paths and times do not belong
 * in a key. Local. */
void model_output_key(const struct job *job, const char *kind, const struct inference *inf,
                      const struct cell_input *input, struct text *key);

/* Look the input's features up in the model's vocabulary and print how much of its counts that keeps, from a sample of
 * cells. Collective on job->world, agreed. ST_INPUT: no feature is known, or less is kept than
 * data.min_vocabulary_share. */
MUST_CHECK enum status model_output_map(struct job *job, struct inference *inf, struct cell_input *input);

/* run_record_write of this job. Collective on job->world, agreed. */
MUST_CHECK enum status model_output_record(struct job *job, const char *path, double seconds,
                                           const struct metric *metrics, int count);
/* The same for an output that an earlier run completed, if that run was killed before its record: what it measured is
 * lost, so the time is 0. Collective on job->world, agreed. */
MUST_CHECK enum status model_output_record_missing(struct job *job, const char *path, const struct metric *metrics,
                                                   int count);

#endif
