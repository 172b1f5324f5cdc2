#include "cell/feature.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static const char *const kind_words[] = {
#define X(name, word) word,
    VALUE_KIND_LIST(X)
#undef X
};
static const char *const rule_words[] = {
#define X(name, word) word,
    MAP_RULE_LIST(X)
#undef X
};

const char *value_kind_word(enum value_kind kind) { return kind_words[kind]; }
const char *map_rule_word(enum map_rule rule) { return rule_words[rule]; }

bool value_kind_parse(const char *word, enum value_kind *out)
{
    for (size_t k = 0; k < sizeof kind_words / sizeof *kind_words; k++)
        if (strcmp(word, kind_words[k]) == 0) {
            *out = (enum value_kind)k;
            return true;
        }
    return false;
}

static char *copy_or_empty(const char *s) { return text_copy(s ? s : ""); }

enum status feature_table_add(struct feature_table *table, const struct feature *f)
{
    if (table->count == table->capacity) {
        int64_t capacity = table->capacity ? table->capacity * 2 : 1024;
        struct feature *rows = realloc(table->rows, sizeof *rows * (size_t)capacity);
        if (!rows) return fail(ST_MEMORY, "no memory for %lld features", (long long)capacity);
        table->rows = rows;
        table->capacity = capacity;
    }
    table->rows[table->count++] = (struct feature){.name = copy_or_empty(f->name),
                                                   .id = copy_or_empty(f->id),
                                                   .symbol = copy_or_empty(f->symbol),
                                                   .hgnc = copy_or_empty(f->hgnc),
                                                   .biotype = copy_or_empty(f->biotype),
                                                   .chromosome = copy_or_empty(f->chromosome),
                                                   .start = f->start,
                                                   .end = f->end,
                                                   .rule = f->rule};
    return ST_OK;
}

void feature_table_free(struct feature_table *table)
{
    for (int64_t i = 0; i < table->count; i++) {
        struct feature *f = &table->rows[i];
        free(f->name);
        free(f->id);
        free(f->symbol);
        free(f->hgnc);
        free(f->biotype);
        free(f->chromosome);
    }
    free(table->rows);
    *table = (struct feature_table){0};
}

void column_free(struct column *c)
{
    for (int32_t i = 0; c->category && i < c->category_count; i++) free(c->category[i]);
    for (int64_t i = 0; c->text && i < c->count; i++) free(c->text[i]);
    free(c->name);
    free(c->i);
    free(c->r);
    free(c->code);
    free(c->category);
    free(c->text);
    *c = (struct column){0};
}

const char *column_as_text(const struct column *c, int64_t row, char buffer[32])
{
    switch (c->type) {
    case COLUMN_INT:
        if (c->i[row] == INT64_MIN) return "";
        snprintf(buffer, 32, "%lld", (long long)c->i[row]);
        return buffer;
    case COLUMN_BOOL: return c->i[row] == INT64_MIN ? "" : c->i[row] ? "True" : "False";
    case COLUMN_REAL:
        if (isnan(c->r[row])) return "";
        snprintf(buffer, 32, "%.9g", c->r[row]);
        return buffer;
    case COLUMN_CATEGORY: return c->code[row] < 0 ? "" : c->category[c->code[row]];
    case COLUMN_TEXT: return c->text[row] ? c->text[row] : "";
    }
    return "";
}
