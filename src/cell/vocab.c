#include "cell/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/names.h"
#include "base/text.h"
#include "cell/identity.h"

static const char header[] = "id\tsymbol\tensembl\thgnc";

/* Bytes of the line at `c`, without its line end. */
static size_t line_bytes(const char *c, const char *end)
{
    size_t n = strcspn(c, "\n");
    if (c + n > end) n = (size_t)(end - c);
    return n > 0 && c[n - 1] == '\r' ? n - 1 : n;
}

static const char *next_line(const char *c)
{
    c += strcspn(c, "\n");
    return *c ? c + 1 : c;
}

/* One data line: four fields, the first the id that follows the last one. */
static enum status parse_line(struct vocab *v, const char *c, size_t bytes, const char *origin)
{
    char *line = strndup(c, bytes), *rest = line;
    if (!line) return fail(ST_MEMORY, "%s: no memory for a vocabulary line", origin);
    char *field[4];
    int64_t id;
    for (int i = 0; i < 4; i++) field[i] = strsep(&rest, "\t");
    enum status st = ST_OK;
    if (!field[3] || !text_to_int(field[0], &id) || id != v->count + 1)
        st = fail(ST_INPUT,
                  "%s: line %d is '%s'; four tab-separated fields 'id symbol ensembl hgnc' with id %d are needed",
                  origin, v->count + 2, field[0] ? field[0] : "", v->count + 1);
    else if (!*field[1] && !*field[2])
        st = fail(ST_INPUT, "%s: line %d has neither a symbol nor an Ensembl id", origin, v->count + 2);
    else v->genes[v->count++] = (struct vocab_gene){text_copy(field[1]), text_copy(field[2]), text_copy(field[3])};
    free(line);
    return st;
}

static enum status parse_lines(struct vocab *v, const char *origin)
{
    enum status st = ST_OK;
    const char *c = v->text, *end = v->text + v->text_bytes;
    if (line_bytes(c, end) != sizeof header - 1 || strncmp(c, header, sizeof header - 1) != 0)
        return fail(
            ST_INPUT,
            "%s: starts with '%.40s'; a vocabulary is a TSV whose first line is 'id symbol ensembl hgnc' (tabs)",
            origin, c);
    int64_t lines = 0;
    for (const char *at = c; *at; at = next_line(at)) lines++;
    TRY(NEW_ARRAY(v->genes, lines));
    for (c = next_line(c); c < end && *c; c = next_line(c))
        if (line_bytes(c, end) > 0) TRY(parse_line(v, c, line_bytes(c, end), origin));
    if (v->count == 0) TRY(fail(ST_INPUT, "%s: holds no gene", origin));
done:
    return st;
}

enum status vocab_parse(const char *text, size_t bytes, const char *origin, struct vocab **out)
{
    enum status st = ST_OK;
    struct vocab *v = NULL;
    if (!text_is_utf8(text, bytes) || memchr(text, '\0', bytes))
        return fail(ST_INPUT, "%s: is not UTF-8 text; a vocabulary is a TSV 'id symbol ensembl hgnc'", origin);
    TRY(NEW_ARRAY(v, 1));
    TRY(NEW_ARRAY(v->text, bytes + 1));
    memcpy(v->text, text, bytes);
    v->text_bytes = bytes;
    hash_sha256(text, bytes, v->sha256);
    TRY(parse_lines(v, origin));
    *out = v;
    v = NULL;
done:
    vocab_destroy(&v);
    return st;
}

enum status vocab_read(const char *path, struct vocab **out)
{
    char *text = NULL;
    size_t bytes;
    enum status st = text_read_file(path, &text, &bytes);
    if (st == ST_OK) st = vocab_parse(text, bytes, path, out);
    free(text);
    return st;
}

void vocab_destroy(struct vocab **vocab)
{
    struct vocab *v = *vocab;
    if (!v) return;
    for (int32_t i = 0; i < v->count; i++) {
        free(v->genes[i].symbol);
        free(v->genes[i].ensembl);
        free(v->genes[i].hgnc);
    }
    free(v->genes);
    free(v->text);
    free(v);
    *vocab = NULL;
}

/* Three views of the vocabulary by name; a name of several genes keeps the first. */
struct vocab_names {
    struct names *ensembl, *symbol;
};

static enum status index_genes(const struct vocab *v, struct vocab_names *n)
{
    enum status st = ST_OK;
    TRY(names_create(&n->ensembl, v->count));
    TRY(names_create(&n->symbol, v->count));
    for (int32_t i = 0; i < v->count; i++) {
        if (*v->genes[i].ensembl) TRY(names_add(n->ensembl, v->genes[i].ensembl, i + 1, NULL));
        if (*v->genes[i].symbol) TRY(names_add(n->symbol, v->genes[i].symbol, i + 1, NULL));
    }
done:
    return st;
}

/* Names without an id that stand once. */
static enum status count_bare_names(const struct feature_table *table, struct names **uses)
{
    enum status st = ST_OK;
    TRY(names_create(uses, table->count));
    for (int64_t f = 0; f < table->count; f++) {
        int64_t before = names_find(*uses, table->rows[f].name);
        TRY(names_set(*uses, table->rows[f].name, before < 0 ? 1 : before + 1));
    }
done:
    return st;
}

static int32_t find_or_zero(const struct names *names, const char *name)
{
    int64_t at = *name ? names_find(names, name) : -1;
    return at < 0 ? 0 : (int32_t)at;
}

/* Vocabulary id of a feature by one of the three rules; 0 if that rule does not speak. */
static int32_t match(const struct vocab_names *n, const struct names *uses, const struct feature *f, int rule)
{
    if (rule == 0) return find_or_zero(n->ensembl, f->id);
    if (rule == 1) return find_or_zero(n->symbol, f->symbol);
    bool bare = !*f->id && f->rule != MAP_AMBIGUOUS && names_find(uses, f->name) == 1;
    return bare ? find_or_zero(n->symbol, f->name) : 0;
}

int64_t vocab_map(const struct vocab *v, const struct feature_table *table, int32_t *lookup)
{
    struct vocab_names n = {0};
    struct names *uses = NULL;
    uint8_t *taken = calloc((size_t)v->count + 1, 1);
    int64_t mapped = 0;
    memset(lookup, 0, sizeof *lookup * (size_t)table->count);
    if (!taken || index_genes(v, &n) != ST_OK || count_bare_names(table, &uses) != ST_OK) abort();
    for (int rule = 0; rule < 3; rule++)
        for (int64_t f = 0; f < table->count; f++) {
            int32_t id = lookup[f] ? 0 : match(&n, uses, &table->rows[f], rule);
            if (!id || taken[id]) continue;
            lookup[f] = id;
            taken[id] = 1;
            mapped++;
        }
    names_destroy(&n.ensembl);
    names_destroy(&n.symbol);
    names_destroy(&uses);
    free(taken);
    return mapped;
}

int32_t vocab_find(const struct vocab *v, const char *name)
{
    char *id = text_copy(name);
    int32_t found = 0;
    identity_trim_id(id);
    for (int32_t i = 0; i < v->count && !found; i++) {
        const struct vocab_gene *g = &v->genes[i];
        if (strcmp(g->symbol, name) == 0 || strcmp(g->ensembl, id) == 0 || strcmp(g->hgnc, name) == 0) found = i + 1;
    }
    free(id);
    return *name ? found : 0;
}
