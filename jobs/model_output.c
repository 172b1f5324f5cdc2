#include "jobs/model_output.h"

#include "io/run_record.h"

void model_output_key(const struct job *job, const char *kind, const struct inference *inf,
                      const struct cell_input *input, struct text *key)
{
    text_add(key, "%s\n%s\n%s\n%s\n%s\n%s\n", kind, inf->weights, inf->config_text, inf->vocab->sha256, input->identity,
             config_text(job->config, "run.cells"));
}

enum status model_output_record(struct job *job, const char *path, double seconds, const struct metric *metrics,
                                int count)
{
    return run_record_write(&job->world, path, job->spec->program, job_version_text(), seconds, job->placement.threads,
                            job->config, metrics, count);
}
