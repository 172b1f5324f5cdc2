/* OUT/run.json: what this run is, for whoever finds the folder later. Rewritten at every start. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "jobs/pretrain_state.h"
#include "kernel/isa.h"
#include "kernel/product.h"

static void now_text(char out[32])
{
    time_t now = time(NULL);
    struct tm utc;
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
}

static json_t *record(const struct job *job, int64_t hosts, const char *yaml)
{
    const struct pretrain *p = job->state;
    char now[32];
    now_text(now);
    return json_pack("{s:s, s:s, s:s, s:i, s:I, s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:s}", "program",
                     "cytomill-pretrain", "version", job_version_text(), "started", now, "ranks", job->world.size,
                     "hosts", (json_int_t)hosts, "threads_per_rank", job->placement.threads, "isa", kernel_isa_name(),
                     "products", product_version_text(), "precision", p->limits.bf16 ? "bf16" : "fp32", "atlas",
                     atlas_path(p->atlas), "atlas_hash", atlas_hash(p->atlas), "vocabulary_sha256", p->vocab->sha256,
                     "vocabulary_genes", p->vocab->count, "training_cells", (json_int_t)p->survey.train_count,
                     "held_out_cells", (json_int_t)p->survey.held_out_count, "first_step", (json_int_t)p->state.step,
                     "config", yaml);
}

static enum status write_record(const struct job *job, int64_t hosts)
{
    enum status st = ST_OK;
    char *yaml = config_yaml(job->config, NULL),
         *path = text_format("%s/run.json", config_text(job->config, "run.out"));
    json_t *json = record(job, hosts, yaml);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    if (!text) TRY(fail(ST_MEMORY, "%s: no memory for the record of this run", path));
    TRY(text_write_file(path, text, strlen(text)));
done:
    free(text);
    json_decref(json);
    free(yaml);
    free(path);
    return st;
}

enum status pretrain_record(struct job *job)
{
    int64_t hosts = job->world.node_rank == 0;
    comm_sum_i64(&job->world, &hosts, 1);
    return comm_agree(&job->world, job->world.rank == 0 ? write_record(job, hosts) : ST_OK);
}
