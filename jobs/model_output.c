#include "jobs/model_output.h"

#include <unistd.h>

#include "io/run_record.h"

void model_output_key(const struct job *job, const char *kind, const struct inference *inf,
                      const struct cell_input *input, struct text *key)
{
    text_add(key, "%s\n%s\n%s\n%s\n%s\n%s\n", kind, inf->weights, inf->config_text, inf->vocab->sha256, input->identity,
             config_text(job->config, "run.cells"));
}

enum status model_output_map(struct job *job, struct inference *inf, struct cell_input *input)
{
    enum { SAMPLE = 4096 };
    enum status st = ST_OK;
    double share = 0, least = config_real(job->config, "data.min_vocabulary_share");
    TRY(comm_agree(&job->world, inference_map(inf, input->features, input->path)));
    TRY(cell_input_kept_share(&job->world, input, inf->lookup, SAMPLE, &share));
    comm_note(&job->world,
              "%s: %ld of %ld features and %.1f %% of the counts are in the model's vocabulary of %d genes",
              input->path, (long)inf->mapped, (long)input->features->count, 100 * share, inf->vocab->count);
    if (share < least)
        st = fail(ST_INPUT,
                  "%s: the model's vocabulary keeps %.2f %% of its counts, below data.min_vocabulary_share = %g; "
                  "is it another species, or are gene names not in var?",
                  input->path, 100 * share, least);
    TRY(comm_agree(&job->world, st));
done:
    return st;
}

enum status model_output_record(struct job *job, const char *path, double seconds, const struct metric *metrics,
                                int count)
{
    return run_record_write(&job->world, path, job->spec->program, job_version_text(), seconds, job->placement.threads,
                            job->config, metrics, count);
}

enum status model_output_record_missing(struct job *job, const char *path, const struct metric *metrics, int count)
{
    int64_t missing = job->world.rank == 0 && access(path, F_OK) != 0;
    comm_max_i64(&job->world, &missing, 1);
    return missing ? model_output_record(job, path, 0, metrics, count) : ST_OK;
}
