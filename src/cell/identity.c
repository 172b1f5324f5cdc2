#include "cell/identity.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void identity_report_free(struct identity_report *report)
{
    text_free(&report->ambiguous);
    text_free(&report->conflicts);
    text_free(&report->repeated);
    *report = (struct identity_report){0};
}

/* "ENS", up to five letters of species, "G", eleven digits, perhaps ".version". */
bool identity_trim_id(char *id)
{
    if (strncmp(id, "ENS", 3) != 0) return false;
    char *c = id + 3;
    while (isupper((unsigned char)*c)) c++;
    if (c[-1] != 'G' || c - id > 9) return false;
    size_t digits = strspn(c, "0123456789");
    if (digits != 11) return false;
    if (c[digits] == '.' && isdigit((unsigned char)c[digits + 1])) {
        if (c[digits + 1 + strspn(c + digits + 1, "0123456789")] != '\0') return false;
        c[digits] = '\0';
    }
    return c[digits] == '\0';
}

static bool is_human_id(const char *id) { return strncmp(id, "ENSG", 4) == 0; }

/* What the passes over one table share. */
struct work {
    const struct hgnc *hgnc;
    struct feature_table *table;
    struct identity_report *report;
    struct names *uses; /* symbol given → number of features that give it */
    int64_t *target;    /* [count] gene of each feature, HGNC_NONE, or HGNC_SEVERAL */
    uint8_t *present;   /* [genes] the gene itself is in the file, by id or approved symbol */
    int32_t *claims;    /* [genes] features that would be renamed to it */
};

/* The name by which the source calls the gene. */
static const char *given_symbol(const struct feature *f) { return *f->symbol ? f->symbol : f->name; }

static enum status take_name_as_id(struct feature *f)
{
    char *id = text_copy(f->name);
    if (!*f->id && identity_trim_id(id)) {
        free(f->id);
        f->id = id;
        return ST_OK;
    }
    free(id);
    identity_trim_id(f->id);
    return ST_OK;
}

static enum status refuse_repeated_ids(const struct feature_table *table)
{
    enum status st = ST_OK;
    struct names *ids = NULL;
    int64_t held;
    TRY(names_create(&ids, table->count));
    for (int64_t i = 0; i < table->count; i++) {
        const char *id = table->rows[i].id;
        if (!*id) continue;
        TRY(names_add(ids, id, i, &held));
        if (held != i)
            TRY(fail(ST_INPUT,
                     "gene id %s stands twice, at features %lld ('%s') and %lld ('%s'); ids must be unique: remove or "
                     "rename one",
                     id, (long long)held + 1, table->rows[held].name, (long long)i + 1, table->rows[i].name));
    }
done:
    names_destroy(&ids);
    return st;
}

static enum status count_uses(struct work *w)
{
    enum status st = ST_OK;
    for (int64_t i = 0; i < w->table->count; i++) {
        const char *symbol = given_symbol(&w->table->rows[i]);
        int64_t before = names_find(w->uses, symbol);
        TRY(names_set(w->uses, symbol, before < 0 ? 1 : before + 1));
    }
done:
    return st;
}

/* May this feature's symbol say which gene it is? Not if it has a foreign id, nor if its name is repeated without ids. */
static bool symbol_counts(const struct work *w, const struct feature *f)
{
    if (*f->id) return is_human_id(f->id);
    return names_find(w->uses, given_symbol(f)) == 1;
}

static void note_conflict(struct work *w, const struct feature *f, int64_t by_id)
{
    const char *symbol = given_symbol(f);
    int64_t by_symbol = hgnc_find_symbol(w->hgnc, symbol);
    if (by_symbol < 0 || by_symbol == by_id || !w->report) return;
    const struct hgnc_gene *id_gene = &w->hgnc->genes[by_id], *symbol_gene = &w->hgnc->genes[by_symbol];
    if (strcmp(id_gene->ensembl, symbol_gene->ensembl) == 0) return;
    text_add(&w->report->conflicts, "%s\t%s\t%s\t%s\t%s\n", f->name, f->id, id_gene->symbol, symbol,
             symbol_gene->ensembl);
    w->report->conflict_count++;
}

/* First pass: ids and approved symbols, which rename nothing. */
static void match_exactly(struct work *w)
{
    for (int64_t i = 0; i < w->table->count; i++) {
        struct feature *f = &w->table->rows[i];
        f->rule = MAP_NONE;
        int64_t gene = hgnc_find_id(w->hgnc, f->id);
        if (gene >= 0) {
            note_conflict(w, f, gene);
            f->rule = MAP_ID;
        }
        w->target[i] = gene;
        if (gene >= 0) w->present[gene] = 1;
    }
    for (int64_t i = 0; i < w->table->count; i++) {
        struct feature *f = &w->table->rows[i];
        if (f->rule != MAP_NONE || !symbol_counts(w, f)) continue;
        int64_t gene = hgnc_find_symbol(w->hgnc, given_symbol(f));
        if (gene < 0 || w->present[gene]) continue;
        f->rule = MAP_SYMBOL;
        w->target[i] = gene;
    }
    for (int64_t i = 0; i < w->table->count; i++)
        if (w->table->rows[i].rule == MAP_SYMBOL) w->present[w->target[i]] = 1;
}

/* Second pass, once per rule: propose a new name to what is still unmapped, then accept the names
 * that one feature alone claims. */
static void rename_by(struct work *w, enum map_rule rule, int64_t (*find)(const struct hgnc *, const char *))
{
    memset(w->claims, 0, sizeof *w->claims * (size_t)w->hgnc->count);
    for (int64_t i = 0; i < w->table->count; i++) {
        struct feature *f = &w->table->rows[i];
        if (f->rule != MAP_NONE || !symbol_counts(w, f)) continue;
        if (hgnc_find_symbol(w->hgnc, given_symbol(f)) >= 0) continue; /* its gene stands beside it under its id */
        w->target[i] = find(w->hgnc, given_symbol(f));
        if (w->target[i] >= 0 && w->present[w->target[i]]) w->target[i] = HGNC_NONE;
        if (w->target[i] >= 0) w->claims[w->target[i]]++;
        if (w->target[i] != HGNC_NONE) f->rule = rule;
    }
    for (int64_t i = 0; i < w->table->count; i++) {
        struct feature *f = &w->table->rows[i];
        if (f->rule != rule) continue;
        bool several_genes = w->target[i] == HGNC_SEVERAL;
        if (!several_genes && w->claims[w->target[i]] == 1) {
            w->present[w->target[i]] = 1;
            continue;
        }
        if (w->report)
            text_add(&w->report->ambiguous, "%s\t%s of %s\n", given_symbol(f), map_rule_word(rule),
                     several_genes ? "several genes" : "a gene that other features of the file claim too");
        f->rule = MAP_AMBIGUOUS;
        w->target[i] = HGNC_NONE;
    }
}

static void replace(char **old, const char *text)
{
    char *copy = text_copy(text);
    free(*old);
    *old = copy;
}

static void write_identity(struct work *w)
{
    for (int64_t i = 0; i < w->table->count; i++) {
        struct feature *f = &w->table->rows[i];
        const struct hgnc_gene *gene = w->target[i] >= 0 ? &w->hgnc->genes[w->target[i]] : NULL;
        replace(&f->symbol, gene ? gene->symbol : "");
        replace(&f->hgnc, gene ? gene->id : "");
        if (w->report) w->report->by_rule[f->rule]++;
        if (!gene) continue;
        if (!*f->id) replace(&f->id, gene->ensembl);
        if (!*f->biotype) replace(&f->biotype, gene->group);
        if (!*f->chromosome) replace(&f->chromosome, gene->chromosome);
    }
}

/* List names that stand several times, with whether ids tell their features apart. */
static enum status list_repeated(struct work *w)
{
    enum status st = ST_OK;
    for (int64_t i = 0; i < w->table->count && w->report; i++) {
        const struct feature *f = &w->table->rows[i];
        int64_t times = names_find(w->uses, given_symbol(f));
        if (times < 2) continue;
        text_add(&w->report->repeated, "%s\t%lld\t%s\n", given_symbol(f), (long long)times,
                 *f->id ? "unique ids" : "no ids");
        w->report->repeated_count++;
        TRY(names_set(w->uses, given_symbol(f), 0)); /* listed once */
    }
done:
    return st;
}

enum status identity_assign(const struct hgnc *hgnc, struct feature_table *table, struct identity_report *report)
{
    enum status st = ST_OK;
    struct work w = {.hgnc = hgnc, .table = table, .report = report};
    for (int64_t i = 0; i < table->count; i++) TRY(take_name_as_id(&table->rows[i]));
    TRY(refuse_repeated_ids(table));
    TRY(names_create(&w.uses, table->count));
    TRY(NEW_ARRAY(w.target, table->count));
    TRY(NEW_ARRAY(w.present, hgnc->count));
    TRY(NEW_ARRAY(w.claims, hgnc->count));
    TRY(count_uses(&w));
    match_exactly(&w);
    rename_by(&w, MAP_PREVIOUS, hgnc_find_previous);
    rename_by(&w, MAP_ALIAS, hgnc_find_alias);
    TRY(list_repeated(&w));
    write_identity(&w);
done:
    names_destroy(&w.uses);
    free(w.target);
    free(w.present);
    free(w.claims);
    return st;
}
