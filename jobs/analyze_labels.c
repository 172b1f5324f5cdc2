#include "jobs/analyze_labels.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { MOST_LABELS = 10000 };

/* Place of `text` among the sorted labels, or where it belongs (found = false). */
static int find(const struct label_list *l, const char *text, bool *found)
{
    int low = 0, high = l->count;
    while (low < high) {
        int middle = (low + high) / 2, order = strcmp(l->name[middle], text);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    *found = false;
    return low;
}

/* All different values of the column, sorted. */
static enum status collect(const struct column *c, struct label_list *l)
{
    char buffer[32];
    for (int64_t i = 0; i < c->count; i++) {
        const char *text = column_as_text(c, i, buffer);
        bool found;
        int at = find(l, text, &found);
        if (!*text || found) continue;
        if (l->count == MOST_LABELS)
            return fail(ST_INPUT,
                        "obs column '%s' has more than %d different values; labels are few: choose another column",
                        c->name, MOST_LABELS);
        memmove(l->name + at + 1, l->name + at, sizeof *l->name * (size_t)(l->count - at));
        l->name[at] = text_copy(text);
        l->count++;
    }
    return ST_OK;
}

enum status label_list_read(struct embedding_table *table, const char *column, struct label_list *out)
{
    enum status st = ST_OK;
    struct column c = {0};
    struct label_list l = {0};
    char buffer[32];
    bool found;
    TRY(embedding_table_column(table, column, &c));
    l.column = text_copy(column);
    TRY(NEW_ARRAY(l.name, MOST_LABELS + 1));
    TRY(NEW_ARRAY(l.code, table->rows));
    TRY(collect(&c, &l));
    for (int64_t i = 0; i < table->rows; i++) {
        int at = find(&l, column_as_text(&c, i, buffer), &found);
        l.code[i] = found ? at : -1;
    }
    if (l.count == 0) TRY(fail(ST_INPUT, "%s: obs column '%s' is empty", table->path, column));
    *out = l;
    l = (struct label_list){0};
done:
    label_list_free(&l);
    column_free(&c);
    return st;
}

enum status label_list_keep_largest(struct label_list *l, int64_t rows, int most)
{
    enum status st = ST_OK;
    int64_t *size = NULL;
    int32_t *kept = NULL;
    int larger, count = 0;
    TRY(NEW_ARRAY(size, l->count));
    TRY(NEW_ARRAY(kept, l->count));
    for (int64_t i = 0; i < rows; i++)
        if (l->code[i] >= 0) size[l->code[i]]++;
    for (int a = 0; a < l->count; a++) {
        larger = 0;
        for (int b = 0; b < l->count; b++) larger += size[b] > size[a] || (size[b] == size[a] && b < a);
        kept[a] = larger < most ? count++ : -1;
    }
    for (int64_t i = 0; i < rows; i++)
        if (l->code[i] >= 0) l->code[i] = kept[l->code[i]];
    for (int a = 0; a < l->count; a++) {
        if (kept[a] < 0) free(l->name[a]);
        else l->name[kept[a]] = l->name[a];
    }
    l->count = count;
done:
    free(kept);
    free(size);
    return st;
}

void label_list_free(struct label_list *l)
{
    for (int i = 0; i < l->count; i++) free(l->name[i]);
    free(l->name);
    free(l->column);
    free(l->code);
    *l = (struct label_list){0};
}
