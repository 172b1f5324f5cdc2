#include "io/inference.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/text.h"
#include "io/checkpoint.h"
#include "kernel/isa.h"
#include "kernel/product.h"
#include "screen/combination.h"

/* A micro-batch of short cells is cut by their number: per-cell memory is bounded too. */
enum { SHORTEST_CELL = 64 };

static struct model_limits limits_of(const struct inference *inf, const struct config *config, int threads)
{
    int64_t tokens = config_int(config, "embed.tokens");
    int64_t longest = inf->rules.max_genes + 1 + SET_SIZE_MAX; /* a sweep may insert a set of genes */
    if (tokens < longest) tokens = longest;
    int64_t cells = tokens / SHORTEST_CELL;
    return (struct model_limits){
        .cells = cells > 1 ? (int)cells : 1, .tokens = tokens, .threads = threads, .bf16 = inf->bf16};
}

static enum status prepare(struct inference *inf, const struct config *config, int threads)
{
    enum status st = ST_OK;
    struct model_limits limits = limits_of(inf, config, threads);
    TRY(model_measure(inf->model, &limits, NULL, &inf->cost));
    TRY(model_prepare(inf->model, &limits));
    TRY(model_pack(inf->model));
    TRY(batch_create(limits.cells, limits.tokens, &inf->batch));
    batch_clear(&inf->batch);
done:
    return st;
}

/* run.model, or the newest checkpoint in it when it is a folder; the caller frees. */
static enum status find_checkpoint(struct comm *comm, const struct config *config, char **path)
{
    enum status st = ST_OK;
    struct stat info;
    const char *given = config_text(config, "run.model");
    *path = NULL;
    if (!*given)
        st = fail(ST_USAGE, "no model given; name a checkpoint, or the folder of a training run, with --model");
    TRY(comm_agree(comm, st));
    int64_t folder = stat(given, &info) == 0 && S_ISDIR(info.st_mode);
    comm_max_i64(comm, &folder, 1);
    if (folder) TRY(checkpoint_find(comm, given, path));
    else *path = text_copy(given);
    if (!*path) st = fail(ST_INPUT, "%s: no checkpoint in this folder; train first, or name a checkpoint file", given);
    st = comm_agree(comm, st);
done:
    return st;
}

enum status inference_open(struct comm *comm, struct config *config, int threads, struct inference *inf)
{
    enum status st = ST_OK;
    char *path = NULL;
    *inf = (struct inference){0};
    TRY(find_checkpoint(comm, config, &path));
    TRY(checkpoint_open_model(comm, path, config, &inf->vocab));
    st = kernel_select(config_text(config, "run.isa"));
    inf->bf16 = product_choose_bf16(config_text(config, "run.precision"));
    if (st == ST_OK) st = model_create(config, inf->vocab, NULL, &inf->model);
    if (st == ST_OK) st = param_share(model_params(inf->model), comm->rank, comm->size, 1); /* who reads what */
    if (st == ST_OK) st = param_allocate(model_params(inf->model), false);
    TRY(comm_agree(comm, st));
    TRY(checkpoint_read(comm, path, model_params(inf->model), NULL));
    inf->width = model_width(inf->model);
    inf->rules = token_rules_from(config);
    inf->config_text = config_yaml(config, "model data");
    snprintf(inf->weights, sizeof inf->weights, "xxh3:%016lx", (unsigned long)param_hash(model_params(inf->model)));
    TRY(comm_agree(comm, prepare(inf, config, threads)));
done:
    free(path);
    if (st != ST_OK) inference_close(inf);
    return st;
}

void inference_close(struct inference *inf)
{
    model_destroy(&inf->model);
    vocab_destroy(&inf->vocab);
    if (inf->batch.offsets) batch_destroy(&inf->batch);
    free(inf->lookup);
    free(inf->config_text);
    *inf = (struct inference){0};
}

enum status inference_map(struct inference *inf, const struct feature_table *features, const char *input)
{
    enum status st = ST_OK;
    free(inf->lookup);
    inf->lookup = NULL;
    TRY(NEW_ARRAY(inf->lookup, features->count));
    inf->mapped = vocab_map(inf->vocab, features, inf->lookup);
    if (inf->mapped == 0)
        TRY(fail(ST_INPUT,
                 "%s: none of its %ld features is among the %d genes of the model's vocabulary (first feature "
                 "'%s', first gene '%s' %s); is it another species, or are the gene names not in var?",
                 input, (long)features->count, inf->vocab->count, features->count ? features->rows[0].name : "",
                 inf->vocab->genes[0].symbol, inf->vocab->genes[0].ensembl));
done:
    return st;
}

enum status inference_embed(struct inference *inf, float *z)
{
    batch_find_levels(&inf->batch);
    return model_embed(inf->model, &inf->batch, z);
}

bool inference_is_full(const struct inference *inf, int64_t tokens)
{
    const struct batch *b = &inf->batch;
    return b->cell_count == b->cell_capacity || b->token_count + tokens > b->token_capacity;
}
