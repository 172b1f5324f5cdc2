#include "screen/edit.h"

#include <string.h>

int token_list_find(const struct token_list *list, int32_t gene)
{
    int low = 0, high = list->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (list->gene[middle] < gene) low = middle + 1;
        else high = middle;
    }
    return low < list->count && list->gene[low] == gene ? low : -1;
}

bool token_list_has_all(const struct token_list *list, const int32_t *gene, int size)
{
    for (int i = 0; i < size; i++)
        if (token_list_find(list, gene[i]) < 0) return false;
    return true;
}

static int place_in_set(const struct edit *edit, int32_t gene)
{
    for (int i = 0; i < edit->size; i++)
        if (edit->gene[i] == gene) return i;
    return -1;
}

static int knock_out(const struct token_list *list, const struct edit *edit, int32_t *gene_out, float *value_out)
{
    int n = 0;
    for (int t = 0; t < list->count; t++) {
        if (place_in_set(edit, list->gene[t]) >= 0) continue;
        gene_out[n] = list->gene[t];
        value_out[n++] = list->value[t];
    }
    return n;
}

/* Smallest place of drawing that must make room for `excess` inserted genes; genes of the set stay. */
static int32_t drawn_limit(const struct token_list *list, const struct edit *edit, int excess)
{
    int32_t limit = INT32_MAX;
    for (; excess > 0; excess--) {
        int32_t last = -1;
        for (int t = 0; t < list->count; t++)
            if (list->drawn[t] > last && list->drawn[t] < limit && place_in_set(edit, list->gene[t]) < 0)
                last = list->drawn[t];
        if (last < 0) break; /* nothing but the set is left */
        limit = last;
    }
    return limit;
}

static int over_express(const struct token_list *list, const struct edit *edit, int32_t *gene_out, float *value_out)
{
    int absent = 0, n = 0, next = 0;
    for (int i = 0; i < edit->size; i++) absent += token_list_find(list, edit->gene[i]) < 0;
    int32_t limit = drawn_limit(list, edit, list->count + absent - edit->max_tokens);
    for (int t = 0; t <= list->count; t++) {
        int32_t gene = t < list->count ? list->gene[t] : INT32_MAX;
        for (; next < edit->size && edit->gene[next] < gene; next++) { /* absent genes that belong before this token */
            gene_out[n] = edit->gene[next];
            value_out[n++] = edit->raised[next];
        }
        if (t == list->count) break;
        bool in_set = next < edit->size && edit->gene[next] == gene;
        if (!in_set && list->drawn[t] >= limit) continue;
        float raised = in_set ? edit->raised[next++] : list->value[t];
        gene_out[n] = gene;
        value_out[n++] = raised > list->value[t] ? raised : list->value[t];
    }
    return n;
}

int edit_apply(const struct token_list *list, const struct edit *edit, int32_t *gene_out, float *value_out)
{
    return edit->mode == EDIT_KNOCK_OUT ? knock_out(list, edit, gene_out, value_out)
                                        : over_express(list, edit, gene_out, value_out);
}

static void append_token(struct batch *batch, int32_t gene, float value, enum token_role role, int32_t position)
{
    int64_t s = batch->token_count++;
    batch->feature[s] = gene;
    batch->value[s] = value;
    batch->target[s] = value;
    batch->modality[s] = 0;
    batch->role[s] = (uint8_t)role;
    batch->visible[s] = role == TOKEN_FEATURE;
    batch->loss_weight[s] = 0;
    batch->position[s] = position;
}

void edit_append(struct batch *batch, const int32_t *gene, const float *value, int count, int64_t cell_id)
{
    batch->cell_id[batch->cell_count] = cell_id;
    append_token(batch, 0, 0, TOKEN_CLS, 0);
    for (int t = 0; t < count; t++) append_token(batch, gene[t], value[t], TOKEN_FEATURE, t + 1);
    batch->offsets[++batch->cell_count] = batch->token_count;
}
