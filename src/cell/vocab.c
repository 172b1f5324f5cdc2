#include "cell/vocab.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/names.h"
#include "base/text.h"
#include "cell/identity.h"

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

/* ---- our table: id, symbol, ensembl, hgnc between tabs ---- */

/* A data line; its id must be the one that follows the last. `line` is cut up. */
static enum status parse_tsv_line(struct vocab *v, char *line, const char *origin)
{
    char *field[4];
    int64_t id;
    for (int i = 0; i < 4; i++) field[i] = strsep(&line, "\t");
    if (!field[3] || !text_to_int(field[0], &id) || id != v->count + 1)
        return fail(ST_INPUT,
                    "%s: line %d is '%s'; four tab-separated fields 'id symbol ensembl hgnc' with id %d are needed",
                    origin, v->count + 2, field[0] ? field[0] : "", v->count + 1);
    if (!*field[1] && !*field[2])
        return fail(ST_INPUT, "%s: line %d has neither a symbol nor an Ensembl id", origin, v->count + 2);
    v->genes[v->count++] = (struct vocab_gene){text_copy(field[1]), text_copy(field[2]), text_copy(field[3])};
    return ST_OK;
}

/* ---- CellFM's table: a gene's id is the number of its row, its symbol the first of nine fields ---- */

enum { CELLFM_FIELDS = 9 };

/* Fields of a line of comma-separated values, in which "…" may hold commas. */
static int count_csv_fields(const char *line)
{
    int fields = 1;
    bool quoted = false;
    for (; *line; line++) {
        quoted ^= *line == '"';
        fields += *line == ',' && !quoted;
    }
    return fields;
}

static enum status parse_cellfm_line(struct vocab *v, char *line, const char *origin)
{
    int fields = count_csv_fields(line);
    size_t symbol_bytes = strcspn(line, ",");
    if (fields != CELLFM_FIELDS)
        return fail(ST_INPUT, "%s: line %d has %d comma-separated fields, CellFM's table has %d; is the file whole?",
                    origin, v->count + 2, fields, CELLFM_FIELDS);
    line[symbol_bytes] = '\0';
    if (symbol_bytes == 0 || strpbrk(line, "\" \t"))
        return fail(ST_INPUT, "%s: line %d begins with '%.40s', which is not a gene symbol", origin, v->count + 2,
                    line);
    v->genes[v->count++] = (struct vocab_gene){text_copy(line), text_copy(""), text_copy("")};
    return ST_OK;
}

/* Every row stands for its own symbol, and the last one is whole. */
static enum status check_cellfm(const struct vocab *v, const char *origin)
{
    enum status st = ST_OK;
    struct names *seen = NULL;
    if (v->text[v->text_bytes - 1] != '\n')
        return fail(ST_INPUT, "%s: ends in the middle of line %d; fetch the file again", origin, v->count + 1);
    TRY(names_create(&seen, v->count));
    for (int32_t i = 0; i < v->count; i++) {
        int64_t line;
        TRY(names_add(seen, v->genes[i].symbol, i + 2, &line));
        if (line != i + 2)
            TRY(fail(ST_INPUT, "%s: line %d repeats the symbol '%s' of line %lld; ids would be ambiguous", origin,
                     i + 2, v->genes[i].symbol, (long long)line));
    }
done:
    names_destroy(&seen);
    return st;
}

/* ---- both ---- */

/* The tables that are read, each known by its first line. */
static const struct vocab_form {
    const char *header;
    enum status (*parse_line)(struct vocab *, char *, const char *);
    enum status (*check)(const struct vocab *, const char *); /* or NULL */
} forms[] = {
    {"id\tsymbol\tensembl\thgnc", parse_tsv_line, NULL},
    {"HGNC_gene,h5_sample_frequency,biotype,gene_length,exon_count,exon_length_total,unique_exon_count,"
     "unique_exon_length_total,feature",
     parse_cellfm_line, check_cellfm},
};

static const struct vocab_form *find_form(const char *text, size_t header_bytes)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strlen(forms[i].header) == header_bytes && strncmp(text, forms[i].header, header_bytes) == 0)
            return &forms[i];
    return NULL;
}

static enum status parse_lines(struct vocab *v, const char *origin)
{
    enum status st = ST_OK;
    const char *c = v->text, *end = v->text + v->text_bytes;
    char *line = NULL;
    const struct vocab_form *form = find_form(c, line_bytes(c, end));
    if (!form)
        return fail(ST_INPUT,
                    "%s: starts with '%.*s'; a vocabulary is a TSV whose first line is 'id symbol ensembl hgnc' "
                    "(tabs), or CellFM's gene_info.csv or expand_gene_info.csv as published",
                    origin, (int)(line_bytes(c, end) < 40 ? line_bytes(c, end) : 40), c);
    int64_t lines = 0;
    for (const char *at = c; *at; at = next_line(at)) lines++;
    TRY(NEW_ARRAY(v->genes, lines));
    for (c = next_line(c); c < end && *c; c = next_line(c)) {
        if (line_bytes(c, end) == 0) continue;
        free(line);
        line = strndup(c, line_bytes(c, end));
        if (!line) TRY(fail(ST_MEMORY, "%s: no memory for a vocabulary line", origin));
        TRY(form->parse_line(v, line, origin));
    }
    if (v->count == 0) TRY(fail(ST_INPUT, "%s: holds no gene", origin));
    if (form->check) TRY(form->check(v, origin));
done:
    free(line);
    return st;
}

enum status vocab_parse(const char *text, size_t bytes, const char *origin, struct vocab **out)
{
    enum status st = ST_OK;
    struct vocab *v = NULL;
    if (!text_is_utf8(text, bytes) || memchr(text, '\0', bytes))
        return fail(ST_INPUT, "%s: is not UTF-8 text; a vocabulary is a TSV 'id symbol ensembl hgnc' or CellFM's CSV",
                    origin);
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
