#include "jobs/label_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* The table as text: fields[row * width + column], pointing into `text`; row 0 is the header. */
struct grid {
    char *text, **fields;
    int64_t rows;
    int width, key;
};

static int count_fields(const char *line)
{
    int n = 1;
    for (; *line && *line != '\n'; line++) n += *line == '\t';
    return n;
}

static void cut_line_end(char *line)
{
    size_t n = strlen(line);
    if (n > 0 && line[n - 1] == '\r') line[n - 1] = '\0';
}

static enum status split(const char *path, struct grid *g)
{
    enum status st = ST_OK;
    int64_t lines = 1;
    for (const char *c = g->text; *c; c++) lines += *c == '\n';
    g->width = count_fields(g->text);
    TRY(NEW_ARRAY(g->fields, lines * g->width));
    for (char *rest = g->text, *line; rest && *rest && (line = strsep(&rest, "\n"));) {
        cut_line_end(line);
        if (!*line) continue;
        int fields = count_fields(line);
        if (fields != g->width)
            TRY(fail(ST_INPUT,
                     "%s: line %lld has %d fields and the header %d; every line needs as many, separated by tabs", path,
                     (long long)g->rows + 1, fields, g->width));
        for (int f = 0; f < g->width; f++) g->fields[g->rows * g->width + f] = strsep(&line, "\t");
        g->rows++;
    }
    if (g->rows < 2) TRY(fail(ST_INPUT, "%s: holds no labels; a header and one line a cell are needed", path));
done:
    return st;
}

static enum status find_key(const char *path, const char *key, struct grid *g)
{
    for (g->key = 0; g->key < g->width; g->key++)
        if (strcmp(g->fields[g->key], key) == 0) return ST_OK;
    int near = text_nearest(key, (const char *const *)g->fields, g->width);
    return fail(ST_INPUT,
                "%s: has no column '%s'%s%s%s; name the column of barcodes with --obs-key (its first is '%s')", path,
                key, near >= 0 ? ", did you mean '" : "", near >= 0 ? g->fields[near] : "", near >= 0 ? "'?" : "",
                g->fields[0]);
}

static bool is_missing(const char *word)
{
    return !*word || strcmp(word, "NA") == 0 || strcmp(word, "nan") == 0 || strcmp(word, "NaN") == 0;
}

static enum column_type type_of(const struct grid *g, int f)
{
    enum column_type type = COLUMN_INT;
    int64_t whole, values = 0;
    double real;
    for (int64_t r = 1; r < g->rows; r++) {
        const char *word = g->fields[r * g->width + f];
        if (is_missing(word)) continue;
        values++;
        if (type == COLUMN_INT && !text_to_int(word, &whole)) type = COLUMN_REAL;
        if (type == COLUMN_REAL && !text_to_real(word, &real)) return COLUMN_CATEGORY;
    }
    return values ? type : COLUMN_CATEGORY;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Distinct values in alphabetical order, as pandas has them. */
static enum status take_categories(const struct grid *g, int f, struct column *c)
{
    enum status st = ST_OK;
    struct names *codes = NULL;
    char **sorted = NULL;
    TRY(NEW_ARRAY(c->code, c->count));
    TRY(NEW_ARRAY(c->category, c->count));
    TRY(NEW_ARRAY(sorted, c->count));
    TRY(names_create(&codes, 64));
    for (int64_t r = 0; r < c->count; r++) {
        char *word = g->fields[(r + 1) * g->width + f];
        if (is_missing(word) || names_find(codes, word) >= 0) continue;
        TRY(names_add(codes, word, 0, NULL));
        sorted[c->category_count++] = word;
    }
    qsort(sorted, (size_t)c->category_count, sizeof *sorted, by_text);
    for (int32_t i = 0; i < c->category_count; i++) {
        c->category[i] = text_copy(sorted[i]);
        TRY(names_set(codes, sorted[i], i));
    }
    for (int64_t r = 0; r < c->count; r++) {
        const char *word = g->fields[(r + 1) * g->width + f];
        c->code[r] = is_missing(word) ? -1 : (int32_t)names_find(codes, word);
    }
done:
    free(sorted);
    names_destroy(&codes);
    return st;
}

static enum status take_numbers(const struct grid *g, int f, struct column *c)
{
    enum status st = ST_OK;
    if (c->type == COLUMN_INT) TRY(NEW_ARRAY(c->i, c->count));
    else TRY(NEW_ARRAY(c->r, c->count));
    for (int64_t r = 0; r < c->count; r++) {
        const char *word = g->fields[(r + 1) * g->width + f];
        bool missing = is_missing(word);
        if (c->i && (missing || !text_to_int(word, &c->i[r]))) c->i[r] = INT64_MIN;
        if (c->r && (missing || !text_to_real(word, &c->r[r]))) c->r[r] = NAN;
    }
done:
    return st;
}

static enum status take_columns(const struct grid *g, struct label_table *t)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(t->columns, g->width));
    for (int f = 0; f < g->width; f++) {
        if (f == g->key) continue;
        struct column *c = &t->columns[t->column_count++];
        *c = (struct column){.name = text_copy(g->fields[f]), .type = type_of(g, f), .count = t->rows};
        TRY(c->type == COLUMN_CATEGORY ? take_categories(g, f, c) : take_numbers(g, f, c));
    }
done:
    return st;
}

static enum status take_keys(const char *path, const struct grid *g, struct label_table *t)
{
    enum status st = ST_OK;
    int64_t held;
    t->rows = g->rows - 1;
    TRY(NEW_ARRAY(t->keys, t->rows));
    TRY(NEW_ARRAY(t->used, t->rows));
    TRY(names_create(&t->index, t->rows));
    for (int64_t r = 0; r < t->rows; r++) {
        t->keys[r] = text_copy(g->fields[(r + 1) * g->width + g->key]);
        TRY(names_add(t->index, t->keys[r], r, &held));
        if (held != r)
            TRY(fail(ST_INPUT, "%s: '%s' stands twice, on lines %lld and %lld; each cell may have one line", path,
                     t->keys[r], (long long)held + 2, (long long)r + 2));
    }
done:
    return st;
}

enum status label_table_read(const char *path, const char *key, struct label_table **out)
{
    enum status st = ST_OK;
    struct grid g = {0};
    struct label_table *t = NULL;
    size_t bytes;
    TRY(text_read_file(path, &g.text, &bytes));
    if (!text_is_utf8(g.text, bytes) || memchr(g.text, '\0', bytes))
        TRY(fail(ST_INPUT, "%s: is not UTF-8 text; save it as UTF-8", path));
    TRY(split(path, &g));
    TRY(find_key(path, key, &g));
    TRY(NEW_ARRAY(t, 1));
    TRY(take_keys(path, &g, t));
    TRY(take_columns(&g, t));
    *out = t;
    t = NULL;
done:
    label_table_destroy(&t);
    free(g.text);
    free(g.fields);
    return st;
}

void label_table_destroy(struct label_table **table)
{
    struct label_table *t = *table;
    if (!t) return;
    for (int c = 0; c < t->column_count; c++) column_free(&t->columns[c]);
    for (int64_t r = 0; t->keys && r < t->rows; r++) free(t->keys[r]);
    names_destroy(&t->index);
    free(t->columns);
    free(t->keys);
    free(t->used);
    free(t);
    *table = NULL;
}
