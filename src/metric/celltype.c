#include "metric/celltype.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "metric/expression.h"

enum { MOST_TYPES = 64, TOP_CELLS = 10, TOP_SHARE = 250 };

/* ---- table ---- */

static int find_type(struct marker_table *t, const char *name)
{
    for (int i = 0; i < t->type_count; i++)
        if (strcmp(t->type[i], name) == 0) return i;
    return -1;
}

static enum status add_row(struct marker_table *t, const char *type, const char *gene)
{
    enum status st = ST_OK;
    int index = find_type(t, type);
    if (index < 0) {
        if (t->type_count == MOST_TYPES) return fail(ST_INPUT, "more than %d cell types; split the table", MOST_TYPES);
        index = t->type_count;
        t->type[t->type_count++] = text_copy(type);
    }
    t->rows[t->count++] = (struct marker){index, text_copy(gene)};
    return st;
}

static enum status parse_line(struct marker_table *t, char *line, int number, const char *path)
{
    char *rest = line, *type = strsep(&rest, "\t"), *gene = rest ? strsep(&rest, "\t") : NULL;
    if (*line == '\0' || *line == '#') return ST_OK;
    if (!gene || !*type || !*gene)
        return fail(ST_INPUT, "%s line %d: '%s' has no gene; each line is type, gene and citation, separated by tabs",
                    path, number, line);
    if (number == 1 && strcmp(type, "type") == 0) return ST_OK;
    return add_row(t, type, gene);
}

enum status marker_table_read(const char *path, struct marker_table *out)
{
    enum status st = ST_OK;
    struct marker_table t = {0};
    char *text = NULL;
    size_t bytes = 0;
    TRY(text_read_file(path, &text, &bytes));
    int64_t lines = 1;
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    TRY(NEW_ARRAY(t.type, MOST_TYPES));
    TRY(NEW_ARRAY(t.rows, lines));
    int number = 0;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        line[strcspn(line, "\r")] = '\0';
        TRY(parse_line(&t, line, ++number, path));
    }
    if (t.count == 0)
        TRY(fail(ST_INPUT, "%s lists no marker gene; each line is type, gene and citation, separated by tabs", path));
    *out = t;
    t = (struct marker_table){0};
done:
    free(text);
    marker_table_free(&t);
    return st;
}

void marker_table_free(struct marker_table *t)
{
    for (int i = 0; i < t->type_count; i++) free(t->type[i]);
    for (int64_t i = 0; i < t->count; i++) free(t->rows[i].gene);
    free(t->type);
    free(t->rows);
    *t = (struct marker_table){0};
}

/* ---- map ---- */

/* The feature a gene name means, -1 if none. */
static int64_t find_feature(const struct feature_table *features, const char *gene)
{
    int64_t by_name = -1;
    for (int64_t f = 0; f < features->count; f++) {
        const struct feature *x = &features->rows[f];
        if (strcmp(x->symbol, gene) == 0) return f;
        if (by_name < 0 && (strcmp(x->name, gene) == 0 || strcmp(x->id, gene) == 0)) by_name = f;
    }
    return by_name;
}

enum status marker_map_create(const struct marker_table *table, const struct feature_table *features,
                              struct marker_map *out)
{
    enum status st = ST_OK;
    struct marker_map m = {.type_count = table->type_count, .features = features->count};
    int64_t all = 0;
    TRY(NEW_ARRAY(m.types, m.features));
    TRY(NEW_ARRAY(m.found, m.type_count));
    memset(m.types, 0, sizeof *m.types * (size_t)m.features);
    memset(m.found, 0, sizeof *m.found * (size_t)m.type_count);
    for (int64_t i = 0; i < table->count; i++) {
        int64_t f = find_feature(features, table->rows[i].gene);
        if (f < 0 || m.types[f] >> table->rows[i].type & 1) continue;
        m.types[f] |= (uint64_t)1 << table->rows[i].type;
        m.found[table->rows[i].type]++;
        all++;
    }
    if (all == 0)
        TRY(fail(ST_INPUT,
                 "none of %lld marker genes is among the %lld features (first marker %s, first feature %s); give "
                 "markers of this species and these names",
                 (long long)table->count, (long long)features->count, table->rows[0].gene,
                 features->count ? features->rows[0].name : "none"));
    *out = m;
    m = (struct marker_map){0};
done:
    marker_map_free(&m);
    return st;
}

void marker_map_free(struct marker_map *m)
{
    free(m->types);
    free(m->found);
    *m = (struct marker_map){0};
}

/* ---- score and call ---- */

void celltype_score(const struct marker_map *map, const struct cells *cells, float *score)
{
    int types = map->type_count;
    memset(score, 0, sizeof *score * (size_t)(cells->count * types));
    for (int64_t r = 0; r < cells->count; r++) {
        double total = expression_total(cells, r);
        for (int64_t e = cells->start[r]; e < cells->start[r + 1]; e++) {
            uint64_t of = map->types[cells->feature[e]];
            if (of == 0) continue;
            float y = expression_log(cells->value[e], total);
            for (int t = 0; t < types; t++)
                if (of >> t & 1) score[r * types + t] += y / (float)map->found[t];
        }
    }
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

/* What a clear member of type t scores. */
static double type_scale(const float *score, int types, int64_t n, int t, float *scratch)
{
    int64_t top = n / TOP_SHARE > TOP_CELLS ? n / TOP_SHARE : TOP_CELLS;
    if (top > n) top = n;
    for (int64_t i = 0; i < n; i++) scratch[i] = score[i * types + t];
    qsort(scratch, (size_t)n, sizeof *scratch, descending);
    double sum = 0;
    for (int64_t i = 0; i < top; i++) sum += scratch[i];
    double mean = top > 0 ? sum / (double)top : 0;
    return mean > 1 ? mean : 1;
}

enum status celltype_call(int types, int64_t n, float *score, int32_t *type)
{
    enum status st = ST_OK;
    float *scratch = NULL;
    TRY(NEW_ARRAY(scratch, n));
    for (int t = 0; t < types; t++) {
        double scale = type_scale(score, types, n, t, scratch);
        for (int64_t i = 0; i < n; i++) score[i * types + t] /= (float)scale;
    }
    for (int64_t i = 0; i < n; i++) {
        const float *s = score + i * types;
        int best = 0;
        float second = 0;
        for (int t = 1; t < types; t++)
            if (s[t] > s[best]) best = t;
        for (int t = 0; t < types; t++)
            if (t != best && s[t] > second) second = s[t];
        type[i] = s[best] >= (float)CELLTYPE_LEAST && s[best] - second >= (float)CELLTYPE_LEAD ? best : -1;
    }
done:
    free(scratch);
    return st;
}
