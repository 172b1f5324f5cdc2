#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/html.h"
#include "io/report.h"
#include "io/tsv.h"

/* Sum of `value` over the rows of a section whose `detail` is as given (NULL: any). */
static double sum(const struct tsv *t, const char *section, const char *detail)
{
    double total = 0;
    int s = tsv_find(t, "section"), v = tsv_find(t, "value"), d = tsv_find(t, "detail");
    for (int64_t r = 0; r < t->rows; r++)
        if (strcmp(tsv_cell(t, r, s), section) == 0 && (!detail || strcmp(tsv_cell(t, r, d), detail) == 0)) {
            double x = tsv_number(t, r, v);
            if (isfinite(x)) total += x;
        }
    return total;
}

/* Rows of a section: item, value and, with a third head, detail. */
static void add_section_rows(struct text *page, const struct tsv *t, const char *section, const char *const *heads,
                             int columns, int64_t most)
{
    int s = tsv_find(t, "section"), v = tsv_find(t, "value");
    int64_t listed = 0;
    char number[32];
    for (int64_t r = 0; r < t->rows && listed < most; r++) {
        if (strcmp(tsv_cell(t, r, s), section) != 0) continue;
        if (listed++ == 0) html_table_begin(page, heads, columns);
        double value = tsv_number(t, r, v);
        if (value == floor(value)) text_count((int64_t)value, number);
        else snprintf(number, sizeof number, "%.2f", value);
        html_table_row(
            page, (const char *[]){tsv_cell(t, r, tsv_find(t, "item")), number, tsv_cell(t, r, tsv_find(t, "detail"))},
            columns);
    }
    if (listed > 0) html_table_end(page);
}

static void add_flags(struct text *page, const struct tsv *t)
{
    static const char *const heads[] = {"quality flag", "cells", "meaning"};
    static const char *const rows[][2] = {{"ok", "passes all three filters"},
                                          {"low_features", "too few different genes: often an empty droplet"},
                                          {"high_mt", "large mitochondrial share: often a dying cell"},
                                          {"high_total", "unusually many counts: often two cells in one droplet"}};
    char number[32];
    html_table_begin(page, heads, 3);
    for (size_t f = 0; f < sizeof rows / sizeof *rows; f++) {
        text_count((int64_t)sum(t, "source_cells_flagged", rows[f][0]), number);
        html_table_row(page, (const char *[]){rows[f][0], number, rows[f][1]}, 3);
    }
    html_table_end(page);
}

enum status report_ingest(struct text *page, const char *atlas)
{
    enum status st = ST_OK;
    struct tsv t = {0};
    char cells[32], *path = text_format("%s/ingest_report.tsv", atlas);
    static const char *const sources[] = {"input", "cells", "format"}, *const rules[] = {"rule", "genes"},
                             *const shares[] = {"vocabulary", "percent of counts kept"},
                             *const lost[] = {"gene", "counts", "vocabulary, share, warning"};
    TRY(tsv_read(path, &t));
    if (tsv_find(&t, "section") < 0 || tsv_find(&t, "item") < 0 || tsv_find(&t, "value") < 0 ||
        tsv_find(&t, "detail") < 0)
        TRY(fail(ST_INPUT, "%s lacks the columns section, item, value, detail; is it of cytomill-ingest?", path));
    html_section(page, "data", "The data");
    html_paragraph(page,
                   "%s cells were read. Nothing is left out of the atlas: quality filters are flags, applied when a "
                   "job chooses its cells.",
                   text_count((int64_t)sum(&t, "cells", NULL), cells));
    add_section_rows(page, &t, "source_cells", sources, 3, 20);
    add_flags(page, &t);
    html_paragraph(page, "How gene names found their identity (HGNC), and how much of the counts the model's "
                         "vocabulary keeps. Ambiguous names stay unmapped.");
    add_section_rows(page, &t, "genes_by_rule", rules, 2, 10);
    add_section_rows(page, &t, "vocabulary_share", shares, 2, 5);
    html_paragraph(page, "The genes that cost most counts because the vocabulary lacks them:");
    add_section_rows(page, &t, "vocabulary_lost", lost, 3, 8);
done:
    tsv_free(&t);
    free(path);
    return st;
}
