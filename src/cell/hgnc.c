#include "cell/hgnc.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { H_ID, H_SYMBOL, H_GROUP, H_STATUS, H_LOCATION, H_ALIAS, H_PREVIOUS, H_ENSEMBL, H_MODIFIED, H_COLUMNS };
static const char *const column_names[H_COLUMNS] = {"hgnc_id",     "symbol",          "locus_group",
                                                    "status",      "location",        "alias_symbol",
                                                    "prev_symbol", "ensembl_gene_id", "date_modified"};

/* Where each column stands in this file; -1 = absent (allowed for date_modified only). */
struct layout {
    int place[H_COLUMNS];
};

/* Cut the next line off *text (NULL at the end), without its line end. */
static char *next_line(char **text)
{
    char *line = *text;
    if (!line || !*line) return NULL;
    char *end = strchr(line, '\n');
    *text = end ? end + 1 : NULL;
    if (end) *end = '\0';
    size_t n = strlen(line);
    if (n > 0 && line[n - 1] == '\r') line[n - 1] = '\0';
    return line;
}

/* HGNC's own export quotes fields that hold '|'. */
static char *unquote(char *field)
{
    size_t n = strlen(field);
    if (n < 2 || field[0] != '"' || field[n - 1] != '"') return field;
    field[n - 1] = '\0';
    return field + 1;
}

static enum status find_columns(const char *path, char *header, struct layout *layout)
{
    for (int c = 0; c < H_COLUMNS; c++) layout->place[c] = -1;
    int place = 0;
    for (char *field; (field = strsep(&header, "\t")); place++)
        for (int c = 0; c < H_COLUMNS; c++)
            if (strcmp(unquote(field), column_names[c]) == 0) layout->place[c] = place;
    for (int c = 0; c < H_MODIFIED; c++)
        if (layout->place[c] < 0)
            return fail(ST_INPUT, "%s: has no column '%s'; an HGNC complete set (TSV from genenames.org) is needed",
                        path, column_names[c]);
    return ST_OK;
}

static void split_fields(char *line, const struct layout *layout, char *field[H_COLUMNS])
{
    static char nothing[1];
    for (int c = 0; c < H_COLUMNS; c++) field[c] = nothing;
    int place = 0;
    for (char *word; (word = strsep(&line, "\t")); place++)
        for (int c = 0; c < H_COLUMNS; c++)
            if (layout->place[c] == place) field[c] = unquote(word);
}

/* "19q13.43" → "19", "mitochondria" → "MT", "Xp22 and Yp11" → "X". */
static void read_chromosome(const char *location, char out[4])
{
    out[0] = '\0';
    if (strncmp(location, "mitochondria", 12) == 0) strcpy(out, "MT");
    else if (*location == 'X' || *location == 'Y') snprintf(out, 4, "%c", *location);
    else if (isdigit((unsigned char)*location)) {
        int n = atoi(location);
        if (n >= 1 && n <= 22) snprintf(out, 4, "%d", n);
    }
}

/* Every name of a '|'-separated list leads to `gene`; a name of two genes leads to `several`. */
static enum status claim_names(struct names *names, char *list, int64_t gene, int64_t several)
{
    enum status st = ST_OK;
    int64_t held;
    for (char *name; (name = strsep(&list, "|"));) {
        while (*name == ' ') name++;
        if (!*name) continue;
        TRY(names_add(names, name, gene, &held));
        if (held != gene) TRY(names_set(names, name, several));
    }
done:
    return st;
}

static enum status add_gene(struct hgnc *h, char *field[H_COLUMNS], int64_t several)
{
    enum status st = ST_OK;
    struct hgnc_gene *g = &h->genes[h->count];
    *g = (struct hgnc_gene){field[H_ID], field[H_SYMBOL], field[H_GROUP], field[H_ENSEMBL], ""};
    read_chromosome(field[H_LOCATION], g->chromosome);
    if (*g->ensembl) TRY(names_add(h->by_id, g->ensembl, h->count, NULL));
    TRY(names_add(h->by_symbol, g->symbol, h->count, NULL));
    TRY(claim_names(h->by_previous, field[H_PREVIOUS], h->count, several));
    TRY(claim_names(h->by_alias, field[H_ALIAS], h->count, several));
    h->count++;
done:
    return st;
}

/* A date in the file's name: digits as in 2020-05 or 2020-05-01. */
static bool date_from_name(const char *path, char out[16])
{
    const char *base = strrchr(path, '/');
    for (const char *c = base ? base + 1 : path; *c; c++) {
        int year, month, day, n = 0;
        if (sscanf(c, "%4d-%2d%n", &year, &month, &n) != 2 || year < 1990 || n != 7) continue;
        if (sscanf(c + n, "-%2d", &day) == 1) n = 10;
        snprintf(out, 16, "%.*s", n, c);
        return true;
    }
    return false;
}

static enum status read_records(const char *path, char *text, struct hgnc *h)
{
    enum status st = ST_OK;
    struct layout layout;
    char *field[H_COLUMNS], *header = next_line(&text);
    int64_t lines = 0;
    bool named = date_from_name(path, h->date);
    if (!header) return fail(ST_INPUT, "%s: is empty; an HGNC complete set is needed", path);
    TRY(find_columns(path, header, &layout));
    for (const char *c = text; c && (c = strchr(c, '\n')); c++) lines++;
    int64_t several = lines + 1;
    TRY(NEW_ARRAY(h->genes, lines + 1));
    for (char *line; (line = next_line(&text));) {
        split_fields(line, &layout, field);
        if (!named && strcmp(field[H_MODIFIED], h->date) > 0 && isdigit((unsigned char)*field[H_MODIFIED]))
            snprintf(h->date, sizeof h->date, "%.10s", field[H_MODIFIED]);
        if (strcmp(field[H_STATUS], "Approved") == 0 && *field[H_SYMBOL]) TRY(add_gene(h, field, several));
    }
    if (!*h->date) strcpy(h->date, "unknown");
    if (h->count == 0) TRY(fail(ST_INPUT, "%s: holds no approved gene; an HGNC complete set is needed", path));
done:
    return st;
}

enum status hgnc_read(const char *path, struct hgnc **out)
{
    enum status st = ST_OK;
    struct hgnc *h = NULL;
    size_t bytes;
    TRY(NEW_ARRAY(h, 1));
    TRY(hash_sha256_file(path, h->sha256));
    TRY(text_read_file(path, &h->text, &bytes));
    TRY(names_create(&h->by_id, 50000));
    TRY(names_create(&h->by_symbol, 50000));
    TRY(names_create(&h->by_previous, 20000));
    TRY(names_create(&h->by_alias, 50000));
    TRY(read_records(path, h->text, h));
    *out = h;
    h = NULL;
done:
    hgnc_destroy(&h);
    return st;
}

void hgnc_destroy(struct hgnc **hgnc)
{
    struct hgnc *h = *hgnc;
    if (!h) return;
    names_destroy(&h->by_id);
    names_destroy(&h->by_symbol);
    names_destroy(&h->by_previous);
    names_destroy(&h->by_alias);
    free(h->genes);
    free(h->text);
    free(h);
    *hgnc = NULL;
}

static int64_t find(const struct hgnc *h, const struct names *names, const char *name)
{
    int64_t at = *name ? names_find(names, name) : HGNC_NONE;
    return at >= h->count ? HGNC_SEVERAL : at;
}

int64_t hgnc_find_id(const struct hgnc *h, const char *ensembl) { return find(h, h->by_id, ensembl); }
int64_t hgnc_find_symbol(const struct hgnc *h, const char *symbol) { return find(h, h->by_symbol, symbol); }
int64_t hgnc_find_previous(const struct hgnc *h, const char *symbol) { return find(h, h->by_previous, symbol); }
int64_t hgnc_find_alias(const struct hgnc *h, const char *symbol) { return find(h, h->by_alias, symbol); }
