/* var of an atlas: unique names and the columns of its features. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/atlas_writer.h"

/* ---- names of features ---- */

static const char *key_of(const struct feature *f) { return *f->id ? f->id : f->name; }

struct keyed {
    const char *key;
    int64_t row;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : (x->row > y->row) - (x->row < y->row);
}

static bool is_taken(const struct keyed *sorted, int64_t n, const char *key)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (strcmp(sorted[middle].key, key) < 0) low = middle + 1;
        else high = middle;
    }
    return low < n && strcmp(sorted[low].key, key) == 0;
}

/* Unique names of var rows, as anndata makes them: repeats get -1, -2, … */
static enum status name_features(const struct feature_table *table, char **names)
{
    enum status st = ST_OK;
    struct keyed *sorted = NULL;
    int64_t n = table->count, suffix = 0;
    TRY(NEW_ARRAY(sorted, n));
    for (int64_t i = 0; i < n; i++) sorted[i] = (struct keyed){key_of(&table->rows[i]), i};
    qsort(sorted, (size_t)n, sizeof *sorted, by_key);
    for (int64_t i = 0; i < n; i++) {
        bool repeats = i > 0 && strcmp(sorted[i].key, sorted[i - 1].key) == 0;
        char *name = text_copy(sorted[i].key);
        for (suffix = repeats ? suffix : 0; repeats && is_taken(sorted, n, name);) {
            free(name);
            name = text_format("%s-%lld", sorted[i].key, (long long)++suffix);
        }
        names[sorted[i].row] = name;
    }
done:
    free(sorted);
    return st;
}

/* ---- columns ---- */

static int32_t widest(char *const *texts, int64_t count)
{
    size_t width = 1;
    for (int64_t i = 0; i < count; i++)
        if (texts[i] && strlen(texts[i]) > width) width = strlen(texts[i]);
    return (int32_t)width;
}

static enum status var_text(struct var_frame *v, int k, const char *name, const struct feature_table *t, size_t member)
{
    enum status st = ST_OK;
    struct column *c = &v->columns[k];
    *c = (struct column){.type = COLUMN_TEXT, .count = t->count};
    TRY(NEW_ARRAY(c->text, t->count));
    for (int64_t i = 0; i < t->count; i++) c->text[i] = *(char **)(void *)((char *)&t->rows[i] + member);
    v->fields[k] = (struct h5ad_field){.name = name, .type = COLUMN_TEXT, .text_bytes = widest(c->text, t->count)};
done:
    return st;
}

static enum status var_number(struct var_frame *v, int k, const char *name, const struct feature_table *t,
                              size_t member)
{
    enum status st = ST_OK;
    struct column *c = &v->columns[k];
    *c = (struct column){.type = COLUMN_INT, .count = t->count};
    TRY(NEW_ARRAY(c->i, t->count));
    for (int64_t i = 0; i < t->count; i++) {
        memcpy(&c->i[i], (char *)&t->rows[i] + member, sizeof *c->i);
        if (c->i[i] < 0) c->i[i] = INT64_MIN;
    }
    v->fields[k] = (struct h5ad_field){.name = name, .type = COLUMN_INT, .nullable = true};
done:
    return st;
}

static enum status var_rule(struct var_frame *v, int k, const struct feature_table *t)
{
    static const char *const words[] = {
#define X(name, word) word,
        MAP_RULE_LIST(X)
#undef X
    };
    enum status st = ST_OK;
    v->columns[k] = (struct column){.type = COLUMN_CATEGORY, .count = t->count};
    TRY(NEW_ARRAY(v->columns[k].code, t->count));
    for (int64_t i = 0; i < t->count; i++) v->columns[k].code[i] = (int32_t)t->rows[i].rule;
    v->fields[k] = (struct h5ad_field){.name = "rule",
                                       .type = COLUMN_CATEGORY,
                                       .category = words,
                                       .category_count = (int32_t)(sizeof words / sizeof *words)};
done:
    return st;
}

enum status var_create(const struct feature_table *t, struct var_frame *v)
{
    enum status st = ST_OK;
    *v = (struct var_frame){0};
    TRY(NEW_ARRAY(v->names, t->count));
    TRY(name_features(t, v->names));
    TRY(var_text(v, 0, "name", t, offsetof(struct feature, name)));
    TRY(var_text(v, 1, "id", t, offsetof(struct feature, id)));
    TRY(var_text(v, 2, "symbol", t, offsetof(struct feature, symbol)));
    TRY(var_text(v, 3, "hgnc", t, offsetof(struct feature, hgnc)));
    TRY(var_text(v, 4, "biotype", t, offsetof(struct feature, biotype)));
    TRY(var_text(v, 5, "chromosome", t, offsetof(struct feature, chromosome)));
    TRY(var_number(v, 6, "start", t, offsetof(struct feature, start)));
    TRY(var_number(v, 7, "end", t, offsetof(struct feature, end)));
    TRY(var_rule(v, 8, t));
    v->frame = (struct h5ad_frame){.rows = t->count,
                                   .index_bytes = widest(v->names, t->count),
                                   .fields = v->fields,
                                   .field_count = VAR_FIELDS,
                                   .index = (const char *const *)v->names,
                                   .values = v->columns};
done:
    return st;
}

void var_free(struct var_frame *v)
{
    for (int64_t i = 0; v->names && i < v->frame.rows; i++) free(v->names[i]);
    free(v->names);
    for (int k = 0; k < VAR_FIELDS; k++) {
        free(v->columns[k].text); /* the strings are the feature table's */
        free(v->columns[k].i);
        free(v->columns[k].code);
    }
}
