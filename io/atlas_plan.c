/* An atlas plan checked and copied into an index, and named by a digest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/atlas_writer.h"

/* ---- checks ---- */

static enum status check_sources(const struct atlas_plan *plan)
{
    int64_t row = 0;
    for (int k = 0; k < plan->source_count; k++) {
        if (plan->sources[k].first_row != row || plan->sources[k].rows < 0)
            return fail(ST_INTERNAL, "source %d begins at row %lld instead of %lld", k,
                        (long long)plan->sources[k].first_row, (long long)row);
        row += plan->sources[k].rows;
    }
    if (row != plan->rows)
        return fail(ST_INTERNAL, "sources have %lld rows, the plan %lld", (long long)row, (long long)plan->rows);
    if (row == 0) return fail(ST_INPUT, "no cells in the input; give files with at least one cell");
    return ST_OK;
}

static enum status check_obs(const struct atlas_plan *plan)
{
    static const struct h5ad_field first[] = {{.name = "source_file", .type = COLUMN_CATEGORY},
                                              {.name = "source_row", .type = COLUMN_INT},
                                              {.name = "source_obs_name", .type = COLUMN_TEXT}};
    for (int k = 0; k < 3; k++)
        if (k >= plan->obs_count || strcmp(plan->obs[k].name, first[k].name) != 0 || plan->obs[k].type != first[k].type)
            return fail(ST_INTERNAL, "obs column %d must be %s", k, first[k].name);
    for (int k = 0; k < plan->obs_count; k++)
        for (int j = 0; j < k; j++)
            if (strcmp(plan->obs[k].name, plan->obs[j].name) == 0)
                return fail(ST_INTERNAL, "two obs columns '%s'", plan->obs[k].name);
    return ST_OK;
}

/* ---- copies ---- */

static enum status copy_sources(const struct atlas_plan *plan, struct atlas_index *index)
{
    enum status st = ST_OK;
    index->source_count = plan->source_count;
    TRY(NEW_ARRAY(index->sources, plan->source_count));
    for (int k = 0; k < plan->source_count; k++)
        index->sources[k] = (struct index_source){.path = text_copy(plan->sources[k].path),
                                                  .identity = text_copy(plan->sources[k].identity),
                                                  .first_row = plan->sources[k].first_row,
                                                  .rows = plan->sources[k].rows};
done:
    return st;
}

static enum status copy_field(const struct h5ad_field *from, struct h5ad_field *to)
{
    enum status st = ST_OK;
    char **category = NULL;
    TRY(NEW_ARRAY(category, from->category_count));
    for (int32_t k = 0; k < from->category_count; k++) category[k] = text_copy(from->category[k]);
    *to = *from;
    to->name = text_copy(from->name);
    to->category = (const char *const *)category;
    to->nullable = from->nullable && (from->type == COLUMN_INT || from->type == COLUMN_BOOL);
    if (to->text_bytes < 1) to->text_bytes = 1;
done:
    return st;
}

/* The plan's columns, then has_<modality> for all modalities if any cell lacks one. */
static enum status copy_fields(const struct atlas_plan *plan, bool some_lack, struct atlas_index *index)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(index->fields, plan->obs_count + plan->modality_count));
    for (int k = 0; k < plan->obs_count; k++) {
        TRY(copy_field(&plan->obs[k], &index->fields[k]));
        index->field_count++;
    }
    for (int m = 0; some_lack && m < plan->modality_count; m++)
        index->fields[index->field_count++] =
            (struct h5ad_field){.name = text_format("has_%s", plan->modalities[m].name), .type = COLUMN_BOOL};
done:
    return st;
}

/* Store each distinct mask once. */
static enum status copy_masks(const struct atlas_modality_plan *from, int source_count, struct index_modality *to)
{
    enum status st = ST_OK;
    size_t n = (size_t)from->features->count;
    TRY(NEW_ARRAY(to->mask_of_source, source_count));
    for (int k = 0; k < source_count; k++) {
        const uint8_t *mask = from->measured ? from->measured[k] : NULL;
        int32_t found = -1;
        for (int32_t j = 0; mask && j < to->mask_count && found < 0; j++)
            if (memcmp(to->masks + (size_t)j * n, mask, n) == 0) found = j;
        if (mask && found < 0) {
            uint8_t *more = realloc(to->masks, (size_t)(to->mask_count + 1) * n + 1);
            if (!more) TRY(fail(ST_MEMORY, "no memory for masks of %zu features", n));
            to->masks = more;
            memcpy(to->masks + (size_t)to->mask_count * n, mask, n);
            found = to->mask_count++;
        }
        to->mask_of_source[k] = found;
    }
done:
    return st;
}

static enum status copy_modality(const struct atlas_plan *plan, int m, struct atlas_index *index)
{
    enum status st = ST_OK;
    const struct atlas_modality_plan *from = &plan->modalities[m];
    struct index_modality *to = &index->modalities[m];
    to->base.name = text_copy(from->name);
    to->base.kind = from->kind;
    for (int64_t i = 0; i < from->features->count; i++)
        TRY(feature_table_add(&to->base.features, &from->features->rows[i]));
    TRY(copy_masks(from, plan->source_count, to));
    TRY(NEW_ARRAY(to->entries, index->shard_count));
    TRY(NEW_ARRAY(to->bytes, index->shard_count));
    TRY(NEW_ARRAY(to->offsets, index->shard_count * index->piece_count));
done:
    return st;
}

static int digits(int64_t n)
{
    char text[32];
    return snprintf(text, sizeof text, "%lld", (long long)n);
}

enum status plan_to_index(const struct atlas_plan *plan, bool some_lack, struct atlas_index *index)
{
    enum status st = ST_OK;
    TRY(check_sources(plan));
    TRY(check_obs(plan));
    *index = (struct atlas_index){
        .rows = plan->rows, .shard_rows = plan->shard_rows, .seed = plan->seed, .shuffled = plan->shuffle};
    index->shard_count = (plan->rows - 1) / plan->shard_rows + 1;
    index->config = text_copy(plan->config ? plan->config : "");
    TRY(copy_sources(plan, index));
    TRY(copy_fields(plan, some_lack, index));
    int32_t counted = digits(plan->source_count) + 1 + digits(plan->rows);
    TRY(index_set_pieces(index, plan->obs_names_unique ? plan->obs[2].text_bytes : counted));
    TRY(NEW_ARRAY(index->modalities, plan->modality_count));
    index->modality_count = plan->modality_count;
    for (int m = 0; m < plan->modality_count; m++) TRY(copy_modality(plan, m, index));
done:
    return st;
}

/* ---- a finished atlas ---- */

static bool same_sources(const struct atlas_index *index, const struct atlas_plan *plan)
{
    if (index->source_count != plan->source_count) return false;
    for (int k = 0; k < plan->source_count; k++)
        if (strcmp(index->sources[k].path, plan->sources[k].path) != 0 ||
            strcmp(index->sources[k].identity, plan->sources[k].identity) != 0)
            return false;
    return true;
}

enum status atlas_was_made_by(const char *path, const struct atlas_plan *plan, bool *same)
{
    enum status st = ST_OK;
    struct atlas_index index = {0};
    char *name = text_format("%s/index.h5", path), *bytes = NULL;
    size_t count;
    *same = false;
    TRY(text_read_file(name, &bytes, &count));
    TRY(index_parse(bytes, count, name, &index));
    *same = strcmp(index.config, plan->config) == 0 && index.seed == plan->seed && same_sources(&index, plan);
done:
    index_free(&index);
    free(bytes);
    free(name);
    return st;
}

/* ---- digest ---- */

void writer_digest(const struct atlas_writer *w, uint64_t sizes, char out[SHA256_HEX])
{
    struct text t = {0};
    const struct atlas_index *x = &w->index;
    text_add(&t, "%s\n", x->config);
    text_add(&t, "%lld %lld %llu %d %d %llu %lld\n", (long long)x->rows, (long long)x->shard_rows,
             (unsigned long long)x->seed, x->shuffled, w->names_unique, (unsigned long long)sizes,
             (long long)w->record_bytes);
    for (int k = 0; k < x->source_count; k++)
        text_add(&t, "%s %s %lld\n", x->sources[k].path, x->sources[k].identity, (long long)x->sources[k].rows);
    for (int k = 0; k < x->field_count; k++) {
        text_add(&t, "%s %d %d %d\n", x->fields[k].name, x->fields[k].type, x->fields[k].text_bytes,
                 x->fields[k].nullable);
        for (int32_t c = 0; c < x->fields[k].category_count; c++) text_add(&t, "%s\n", x->fields[k].category[c]);
    }
    for (int m = 0; m < x->modality_count; m++) {
        const struct feature_table *f = &x->modalities[m].base.features;
        text_add(&t, "%s %d\n", x->modalities[m].base.name, x->modalities[m].base.kind);
        for (int64_t i = 0; i < f->count; i++)
            text_add(&t, "%s|%s|%s|%d\n", f->rows[i].name, f->rows[i].id, f->rows[i].symbol, f->rows[i].rule);
    }
    hash_sha256(t.data, t.length, out);
    text_free(&t);
}
