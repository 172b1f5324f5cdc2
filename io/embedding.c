#include "io/embedding.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "io/embedding_obs.h"
#include "io/h5.h"

struct embedding {
    struct embedding_plan plan;
    struct h5ad_layout layout;
    struct obs_layout obs; /* carried columns, then `embedded` and `embedding_reason` */
    struct h5ad_matrix obsm;
    char **var_names; /* [D] when the embedding is X */
    struct h5ad_file *file;
    struct partial partial;
    int matrix; /* number of the dataset of embeddings */
    bool complete;
};

const char *embed_reason_words(enum embed_reason reason)
{
    static const char *const words[] = {
#define X(name, text) text,
        EMBED_REASON_LIST(X)
#undef X
    };
    return words[reason];
}

/* ---- layout ---- */

static enum status name_dimensions(struct embedding *e)
{
    enum status st = NEW_ARRAY(e->var_names, e->plan.width);
    if (st != ST_OK) return st;
    for (int d = 0; d < e->plan.width; d++) e->var_names[d] = text_format("%s_%d", e->plan.model, d);
    e->layout.x = H5AD_DENSE;
    e->layout.var = (struct h5ad_frame){.rows = e->plan.width,
                                        .index_bytes = (int32_t)strlen(e->plan.model) + 12,
                                        .index = (const char *const *)e->var_names};
    return ST_OK;
}

static enum status plan_layout(struct comm *comm, struct embedding *e)
{
    enum status st = ST_OK;
    TRY(obs_layout_create(comm, e->plan.input, &e->obs));
    e->layout = (struct h5ad_layout){
        .obs = e->obs.frame, .var = {.index_bytes = 1}, .uns = e->plan.notes, .uns_count = e->plan.note_count};
    if ((double)e->obs.frame.rows * e->plan.width * sizeof(float) > e->plan.obsm_max_bytes) {
        TRY(comm_agree(comm, name_dimensions(e)));
    } else {
        e->obsm = (struct h5ad_matrix){text_format("X_%s", e->plan.model), e->plan.width};
        e->layout.obsm = &e->obsm;
        e->layout.obsm_count = 1;
    }
done:
    return st;
}

static enum status lay_out(const char *temporary, void *context)
{
    const struct embedding *e = context;
    struct h5ad_file *file = NULL;
    enum status st = h5ad_create_local(temporary, &e->layout, &file);
    h5ad_close(&file);
    return st;
}

/* ---- open ---- */

static enum status read_key(const char *path, char **key)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    *key = NULL;
    TRY(h5_open(path, &file));
    TRY(h5_read_text(file, "uns/cytomill/key", key));
done:
    h5_drop(&file);
    return st;
}

static uint64_t hash_chunk(const struct embedding *e, const float *z, const uint8_t *reasons, int64_t cells)
{
    uint64_t h = hash_block(z, sizeof *z * (size_t)(cells * e->plan.width), 0);
    return hash_block(reasons, (size_t)cells, h);
}

void embedding_chunk_cells(const struct embedding *e, int64_t chunk, int64_t *first, int64_t *count)
{
    int64_t left = e->plan.input->count - chunk * e->plan.chunk_cells;
    *first = chunk * e->plan.chunk_cells;
    *count = left < e->plan.chunk_cells ? left : e->plan.chunk_cells;
}

static enum status chunk_matches(void *context, int64_t chunk, uint64_t hash, bool *matches)
{
    enum status st = ST_OK;
    struct embedding *e = context;
    int64_t first, count;
    float *z = NULL;
    uint8_t *reasons = NULL;
    embedding_chunk_cells(e, chunk, &first, &count);
    TRY(NEW_ARRAY(z, count * e->plan.width));
    TRY(NEW_ARRAY(reasons, count));
    TRY(h5ad_read(e->file, e->matrix, first, count, z));
    TRY(obs_layout_read_reasons(&e->obs, e->file, first, count, reasons));
    *matches = hash_chunk(e, z, reasons, count) == hash;
    if (*matches) TRY(obs_layout_write(&e->obs, e->plan.input, e->file, first, count, reasons)); /* not in the hash */
done:
    free(z);
    free(reasons);
    return st;
}

static enum status resume(struct comm *comm, struct embedding *e)
{
    enum status st = ST_OK;
    int64_t chunks = (e->plan.input->count + e->plan.chunk_cells - 1) / e->plan.chunk_cells;
    TRY(partial_open(comm, e->plan.path, chunks, e->plan.key, lay_out, e, &e->partial));
    TRY(h5ad_reopen(comm, e->partial.work, &e->layout, &e->file));
    char *name = e->layout.obsm_count ? text_format("obsm/%s", e->obsm.name) : text_copy("X");
    e->matrix = h5ad_find(e->file, name);
    free(name);
    TRY(partial_verify(comm, &e->partial, chunk_matches, e));
done:
    return st;
}

enum status embedding_open(struct comm *comm, const struct embedding_plan *plan, struct embedding **out)
{
    enum status st = ST_OK;
    struct embedding *e = NULL;
    *out = NULL;
    TRY(comm_agree(comm, NEW_ARRAY(e, 1)));
    *e = (struct embedding){.plan = *plan};
    TRY(partial_find_final(comm, plan->path, plan->key, "this model's embedding of this input", plan->fresh, read_key,
                           &e->complete));
    if (!e->complete) {
        TRY(plan_layout(comm, e));
        TRY(resume(comm, e));
    }
    *out = e;
    e = NULL;
done:
    embedding_close(&e);
    return st;
}

void embedding_close(struct embedding **embedding)
{
    struct embedding *e = *embedding;
    if (!e) return;
    h5ad_close(&e->file);
    partial_close(&e->partial);
    obs_layout_free(&e->obs);
    for (int d = 0; e->var_names && d < e->plan.width; d++) free(e->var_names[d]);
    free(e->var_names);
    free((char *)(uintptr_t)e->obsm.name);
    free(e);
    *embedding = NULL;
}

/* ---- chunks ---- */

bool embedding_is_complete(const struct embedding *e) { return e->complete; }
struct partial *embedding_partial(struct embedding *e) { return &e->partial; }

enum status embedding_put(struct embedding *e, int64_t chunk, float *z, const uint8_t *reasons)
{
    enum status st = ST_OK;
    int64_t first, count;
    embedding_chunk_cells(e, chunk, &first, &count);
    for (int64_t i = 0; i < count; i++)
        for (int d = 0; reasons[i] != EMBED_OK && d < e->plan.width; d++) z[i * e->plan.width + d] = NAN;
    TRY(h5ad_write(e->file, e->matrix, first, count, z));
    TRY(obs_layout_write(&e->obs, e->plan.input, e->file, first, count, reasons));
    TRY(partial_mark(&e->partial, chunk, hash_chunk(e, z, reasons, count)));
done:
    return st;
}

/* ---- commit ---- */

enum status embedding_reopen(struct comm *comm, struct embedding *e)
{
    enum status st = ST_OK;
    h5ad_close(&e->file);
    if (access(e->partial.work, F_OK) == 0) TRY(h5ad_reopen(comm, e->partial.work, &e->layout, &e->file));
    else TRY(h5ad_reopen(comm, e->plan.path, &e->layout, &e->file)); /* another job was first */
done:
    return st;
}

enum status embedding_count_reasons(struct comm *comm, struct embedding *e, int64_t *counts)
{
    enum { BLOCK = 65536 };
    enum status st = ST_OK;
    uint8_t *reasons = NULL;
    int64_t first, count;
    memset(counts, 0, sizeof *counts * EMBED_REASON_COUNT);
    comm_share(comm, e->plan.input->count, &first, &count);
    st = NEW_ARRAY(reasons, BLOCK);
    for (int64_t at = 0; at < count && st == ST_OK; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        st = obs_layout_read_reasons(&e->obs, e->file, first + at, n, reasons);
        for (int64_t i = 0; i < n && st == ST_OK; i++) counts[reasons[i]]++;
    }
    free(reasons);
    comm_sum_i64(comm, counts, EMBED_REASON_COUNT);
    return comm_agree(comm, st);
}

enum status embedding_commit(struct comm *comm, struct embedding **embedding)
{
    struct embedding *e = *embedding;
    h5ad_close(&e->file);
    enum status st = partial_commit(comm, &e->partial);
    embedding_close(embedding);
    return st;
}
