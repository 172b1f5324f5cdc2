#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "jobs/analyze.h"
#include "mpi/dense.h"

/* ---- input ---- */

static const char *counts_path(const struct job *job)
{
    int count;
    const char *const *inputs = config_list(job->config, "run.input", &count);
    const char *atlas = config_text(job->config, "run.atlas");
    return *atlas || count == 0 ? atlas : inputs[0];
}

bool analyze_has_counts(const struct job *job) { return *counts_path(job) != '\0'; }

enum status analyze_open_counts(struct job *job, struct cell_input *out)
{
    enum status st = ST_OK;
    if (!analyze_has_counts(job))
        st = fail(ST_USAGE, "no counts given; name an atlas, an .h5ad or a 10x file with --atlas");
    st = comm_agree(&job->world, st);
    if (st != ST_OK) return st;
    return cell_input_open(&job->world, job->config, counts_path(job), config_text(job->config, "embed.counts"), out);
}

enum status analyze_need_out(const struct job *job)
{
    return *config_text(job->config, "run.out") ? ST_OK : fail(ST_USAGE, "no output given; name it with --out");
}

enum status analyze_write_text(const char *path, const struct text *text)
{
    enum status st = ST_OK;
    char *folder = text_copy(path), *slash = strrchr(folder, '/');
    if (slash && slash > folder) {
        *slash = '\0';
        TRY(text_make_folder(folder));
    }
    TRY(text_write_file(path, text->data, text->length));
done:
    free(folder);
    return st;
}

/* ---- principal components ---- */

enum status analyze_pca_size(const struct job *job, int64_t *genes, int *components)
{
    const char *word = config_text(job->config, "analyze.genes");
    *components = (int)config_int(job->config, "analyze.components");
    *genes = 0;
    if (strcmp(word, "all") == 0) return ST_OK;
    if (text_to_int(word, genes) && *genes >= 1) return ST_OK;
    return config_fail(job->config, "analyze.genes", "is '%s'; allowed are a whole number from 1, and 'all'", word);
}

static enum status read_cells(void *context, int64_t first, int64_t count, struct cells *out)
{
    return cell_input_read(context, first, count, out);
}

enum status analyze_fit_pca(struct job *job, struct cell_input *input, struct pca **out)
{
    int64_t genes;
    int components;
    enum status st = comm_agree(&job->world, analyze_pca_size(job, &genes, &components));
    if (st != ST_OK) return st;
    struct pca_source source = {input->count, input->features->count, read_cells, input};
    dense_set_threads(job->placement.threads);
    return pca_fit(&job->world, &source, genes, components, out);
}

/* ---- embeddings ---- */

int analyze_embedding_count(const struct job *job)
{
    int count;
    config_list(job->config, "analyze.embedding", &count);
    return count;
}

enum status analyze_open_embedding(struct job *job, int index, struct embedding_table **out)
{
    int count;
    const char *const *paths = config_list(job->config, "analyze.embedding", &count);
    return embedding_table_open(&job->world, paths[index], config_text(job->config, "analyze.obsm"), out);
}

static enum status compare_names(struct embedding_table *table, struct cell_input *input)
{
    enum status st = ST_OK;
    struct column mine = {0}, theirs = {0};
    TRY(embedding_table_names(table, table->first, table->count, &mine));
    TRY(cell_input_names(input, table->first, table->count, &theirs));
    for (int64_t i = 0; i < table->count; i++)
        if (strcmp(mine.text[i] ? mine.text[i] : "", theirs.text[i] ? theirs.text[i] : "") != 0)
            TRY(fail(ST_INPUT,
                     "%s: row %lld is '%s', in %s it is '%s'; give the counts the embedding was made of, with the same "
                     "--cells",
                     table->path, (long long)(table->first + i), mine.text[i], input->path, theirs.text[i]));
done:
    column_free(&mine);
    column_free(&theirs);
    return st;
}

enum status analyze_check_rows(struct job *job, struct embedding_table *table, struct cell_input *input)
{
    enum status st = ST_OK;
    if (table->rows != input->count)
        st = fail(ST_INPUT,
                  "%s has %lld cells, %s has %lld; give the counts the embedding was made of, with the same --cells",
                  table->path, (long long)table->rows, input->path, (long long)input->count);
    else st = compare_names(table, input);
    return comm_agree(&job->world, st);
}
