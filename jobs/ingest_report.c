#include "jobs/ingest_report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LOST_LISTED = 200, LOST_SHOWN = 8, NAMES_LISTED = 1000 };

enum status vocab_share_find(const struct ingest_inputs *in, const struct ingest_figures *figures,
                             struct vocab_share *s)
{
    enum status st = ST_OK;
    const struct feature_table *features = &in->modalities[0].features;
    TRY(NEW_ARRAY(s->lookup, features->count));
    s->genes = vocab_map(s->vocab, features, s->lookup);
    for (int64_t f = 0; f < features->count; f++) {
        s->total += figures->feature_total[f];
        s->kept += s->lookup[f] ? figures->feature_total[f] : 0;
    }
done:
    return st;
}

void vocab_share_free(struct vocab_share *s)
{
    vocab_destroy(&s->vocab);
    free(s->lookup);
    s->lookup = NULL;
}

static double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

/* ---- genes that a vocabulary loses, by counts ---- */

struct lost {
    int64_t feature;
    double total;
};

static int by_total(const void *a, const void *b)
{
    const struct lost *x = a, *y = b;
    if (x->total != y->total) return x->total < y->total ? 1 : -1;
    return (x->feature > y->feature) - (x->feature < y->feature);
}

/* Features without an id that have counts, most first. The caller frees. */
static struct lost *list_lost(const struct ingest_report *r, const struct vocab_share *s, int64_t *count)
{
    int64_t n = r->in->modalities[0].features.count;
    struct lost *lost = calloc((size_t)n + 1, sizeof *lost);
    *count = 0;
    for (int64_t f = 0; lost && f < n; f++)
        if (!s->lookup[f] && r->figures->feature_total[f] > 0)
            lost[(*count)++] = (struct lost){f, r->figures->feature_total[f]};
    if (lost) qsort(lost, (size_t)*count, sizeof *lost, by_total);
    return lost;
}

/* The name a reader knows. */
static const char *gene_name(const struct feature *f) { return *f->symbol ? f->symbol : f->name; }

/* Losing these changes what a model can see: HLA tells cell types apart, MT tells dying cells. */
static const char *warning_about(const struct feature *f)
{
    if (strncmp(gene_name(f), "HLA-", 4) == 0) return "HLA";
    if (strncmp(gene_name(f), "MT-", 3) == 0) return "MT";
    return "";
}

/* ---- the table ---- */

static void row(FILE *file, const char *section, const char *item, double value, const char *detail)
{
    fprintf(file, "%s\t%s\t%.15g\t%s\n", section, item, value, detail);
}

static void write_sources(const struct ingest_report *r, FILE *file)
{
    static const char *const flags[] = {"low_features", "high_mt", "high_total", "ok"};
    for (int i = 0; i < r->in->count; i++) {
        const struct ingest_input *input = &r->in->inputs[i];
        const char *path = source_path(input->source);
        row(file, "source_cells", path, (double)input->rows, source_format(input->source));
        for (int v = 0; v < source_modality_count(input->source); v++) {
            const struct source_modality *m = source_modality(input->source, v);
            char *detail = text_format("%s from %s, %s", m->name, m->taken, value_kind_word(m->kind));
            row(file, "source_features", path, (double)m->feature_count, detail);
            free(detail);
        }
        row(file, "source_values", path, (double)r->figures->source_entries[i], "non-zero");
        row(file, "source_total", path, r->figures->source_total[i], r->in->modalities[0].name);
        for (int f = 0; f < 4; f++)
            row(file, "source_cells_flagged", path, (double)r->figures->source_flags[4 * i + f], flags[f]);
    }
}

/* Lines "item TAB rest" of a list, each as a row of its section. */
static void write_list(FILE *file, const char *section, const struct text *list)
{
    for (const char *c = list->data; c && *c;) {
        size_t n = strcspn(c, "\n"), item = strcspn(c, "\t\n");
        fprintf(file, "%s\t%.*s\t1\t", section, (int)item, c);
        for (const char *d = c + item + (item < n); d < c + n; d++) fputc(*d == '\t' ? ' ' : *d, file);
        fputc('\n', file);
        c += n + (c[n] == '\n');
    }
}

static void write_genes(const struct ingest_report *r, FILE *file)
{
    char *hgnc = text_format("%s, sha256 %s", r->hgnc->date, r->hgnc->sha256);
    row(file, "hgnc_genes", "hgnc", (double)r->hgnc->count, hgnc);
    free(hgnc);
    for (int m = 0; m < r->in->modality_count; m++) {
        const struct ingest_modality *modality = &r->in->modalities[m];
        row(file, "features", modality->name, (double)modality->features.count, value_kind_word(modality->kind));
        if (strcmp(modality->name, "rna") != 0) continue;
        for (int k = 0; k < MAP_RULE_COUNT; k++)
            row(file, "genes_by_rule", map_rule_word((enum map_rule)k), (double)modality->identity.by_rule[k],
                "summed over distinct lists of genes");
        write_list(file, "ambiguous", &modality->identity.ambiguous);
        write_list(file, "id_symbol_conflict", &modality->identity.conflicts);
        write_list(file, "repeated_name", &modality->identity.repeated);
    }
}

static void write_shares(const struct ingest_report *r, FILE *file)
{
    for (int s = 0; s < r->share_count; s++) {
        const struct vocab_share *share = &r->shares[s];
        const char *name = s == 0 ? "default" : "given";
        row(file, "vocabulary_genes", name, (double)share->genes, share->vocab->sha256);
        row(file, "vocabulary_share", name, percent(share->kept, share->total), "percent of counts kept");
        int64_t count;
        struct lost *lost = list_lost(r, share, &count);
        row(file, "vocabulary_lost_genes", name, (double)count, "features with counts that it lacks");
        for (int64_t i = 0; i < count && i < LOST_LISTED; i++) {
            const struct feature *f = &r->in->modalities[0].features.rows[lost[i].feature];
            char *detail = text_format("%s %.4f%% %s", name, percent(lost[i].total, share->total), warning_about(f));
            row(file, "vocabulary_lost", gene_name(f), lost[i].total, detail);
            free(detail);
        }
        free(lost);
    }
}

static void write_labels(const struct ingest_report *r, FILE *file)
{
    const struct label_table *t = r->obs->labels;
    int64_t unused = 0, repeated = 0;
    if (!t) return;
    for (int64_t k = 0; k < t->rows; k++) {
        unused += t->used[k] == 0;
        repeated += t->used[k] > 1;
    }
    row(file, "labels", "matched", (double)r->obs->matched, "cells with a row of the table");
    row(file, "labels", "unmatched", (double)r->obs->unmatched, "cells without");
    row(file, "labels", "unused", (double)unused, "rows of the table without a cell");
    row(file, "labels", "repeated", (double)repeated, "rows of the table with several cells");
    int64_t listed = 0;
    for (const char *c = r->obs->unmatched_names.data; c && *c && listed < NAMES_LISTED;
         c += strcspn(c, "\n") + 1, listed++)
        fprintf(file, "label_unmatched_cell\t%.*s\t1\t\n", (int)strcspn(c, "\n"), c);
    listed = 0;
    for (int64_t k = 0; k < t->rows && listed < NAMES_LISTED; k++)
        if (t->used[k] == 0) {
            fprintf(file, "label_unused_row\t%s\t1\t\n", t->keys[k]);
            listed++;
        }
}

enum status ingest_report_write(const struct ingest_report *r, const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file) return fail(ST_OUTPUT, "%s: cannot be created: %s", path, strerror(errno));
    fputs("section\titem\tvalue\tdetail\n", file);
    row(file, "cells", "all", (double)r->in->rows,
        r->obs->names_unique ? "names are unique" : "names repeat: rows are named SOURCE:ROW");
    write_sources(r, file);
    write_genes(r, file);
    write_shares(r, file);
    write_labels(r, file);
    write_list(file, "note", &r->obs->notes);
    if (fflush(file) == 0 && fclose(file) == 0) return ST_OK;
    return fail(ST_OUTPUT, "%s: cannot be written: %s", path, strerror(errno));
}

/* ---- in words ---- */

static void print_sources(const struct ingest_report *r, FILE *file)
{
    char cells[32];
    int64_t flags[4] = {0};
    for (int i = 0; i < r->in->count; i++) {
        const struct ingest_input *input = &r->in->inputs[i];
        fprintf(file, "  %s: %s cells, %s", source_path(input->source), text_count(input->rows, cells),
                source_format(input->source));
        for (int v = 0; v < source_modality_count(input->source); v++) {
            const struct source_modality *m = source_modality(input->source, v);
            fprintf(file, ", %s: %s of %lld features from %s", m->name, value_kind_word(m->kind),
                    (long long)m->feature_count, m->taken);
        }
        fputc('\n', file);
        for (int f = 0; f < 4; f++) flags[f] += r->figures->source_flags[4 * i + f];
    }
    fprintf(file, "quality flags (nothing is left out): %lld low_features, %lld high_mt, %lld high_total, %lld ok\n",
            (long long)flags[0], (long long)flags[1], (long long)flags[2], (long long)flags[3]);
}

static void print_genes(const struct ingest_report *r, FILE *file)
{
    int m = ingest_find_modality(r->in, "rna");
    fprintf(file, "gene identity: HGNC of %s, sha256 %.12s…\n", r->hgnc->date, r->hgnc->sha256);
    if (m < 0) return;
    const struct identity_report *id = &r->in->modalities[m].identity;
    for (int k = 0; k < MAP_RULE_COUNT; k++)
        fprintf(file, "  %s %lld", map_rule_word((enum map_rule)k), (long long)id->by_rule[k]);
    fprintf(
        file,
        "\n  id and symbol disagree: %lld (the id wins); names that repeat: %lld; all listed in ingest_report.tsv\n",
        (long long)id->conflict_count, (long long)id->repeated_count);
}

static void print_share(const struct ingest_report *r, const struct vocab_share *s, FILE *file)
{
    int64_t count, warned = 0;
    struct lost *lost = list_lost(r, s, &count);
    fprintf(file, "vocabulary %s: keeps %.2f%% of counts, %lld of %d genes measured\n", s->path,
            percent(s->kept, s->total), (long long)s->genes, s->vocab->count);
    if (count > 0) fputs("  lost, by counts:", file);
    for (int64_t i = 0; i < count && i < LOST_SHOWN; i++)
        fprintf(file, " %s %.2f%%", gene_name(&r->in->modalities[0].features.rows[lost[i].feature]),
                percent(lost[i].total, s->total));
    if (count > 0) fprintf(file, "%s\n", count > LOST_SHOWN ? " …" : "");
    for (int64_t i = 0; i < count; i++) {
        const struct feature *f = &r->in->modalities[0].features.rows[lost[i].feature];
        if (*warning_about(f) && warned++ < LOST_SHOWN)
            fprintf(file, "  warning: %s gene %s is lost (%.0f counts)\n", warning_about(f), gene_name(f),
                    lost[i].total);
    }
    free(lost);
}

void ingest_report_print(const struct ingest_report *r, FILE *file)
{
    char cells[32];
    fprintf(file, "%s cells from %d input%s\n", text_count(r->in->rows, cells), r->in->count,
            r->in->count == 1 ? "" : "s");
    print_sources(r, file);
    print_genes(r, file);
    for (int s = 0; s < r->share_count; s++) print_share(r, &r->shares[s], file);
    if (r->obs->labels)
        fprintf(file, "labels: %lld cells matched, %lld not (listed in ingest_report.tsv)\n",
                (long long)r->obs->matched, (long long)r->obs->unmatched);
    if (r->obs->notes.data) fputs(r->obs->notes.data, file);
}
