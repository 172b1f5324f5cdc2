#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/figure.h"
#include "io/h5.h"
#include "io/html.h"
#include "io/report.h"
#include "io/tsv.h"

/* Genes of the largest heat map; of more, those with the strongest effect alone are drawn. */
enum { MOST_GENES = 60, MOST_ORDER = 8 };
/* Largest effect below which the reader is warned: cosines this close to 1 are nearly rounding. */
#define FAINT 1e-5

/* The sets of one gene and of two that results.h5 holds. */
struct screen {
    int64_t genes, sets;
    int order;
    char **symbol;                /* [genes] */
    int32_t *size, *member;       /* [sets], [sets, order] places in the panel, -1 beyond the size */
    int64_t *cells;               /* [sets] */
    double *effect, *interaction; /* [sets] */
    double min_cells;
    char *mode, *goal;
};

static enum status read_sizes(hid_t file, struct screen *s)
{
    enum status st = ST_OK;
    int rank;
    int64_t dims[8];
    TRY(h5_shape(file, "panel/symbol", &rank, dims));
    s->genes = dims[0];
    TRY(h5_shape(file, "sets/genes", &rank, dims));
    if (rank != 2 || dims[1] < 1 || dims[1] > MOST_ORDER)
        TRY(fail(ST_INPUT, "sets/genes is not a table of sets x genes"));
    s->sets = dims[0];
    s->order = (int)dims[1];
done:
    return st;
}

static enum status read_values(hid_t file, struct screen *s)
{
    enum status st = ST_OK;
    TRY(NEW_ARRAY(s->symbol, s->genes));
    memset(s->symbol, 0, sizeof *s->symbol * (size_t)s->genes);
    TRY(NEW_ARRAY(s->size, s->sets));
    TRY(NEW_ARRAY(s->member, s->sets * s->order));
    TRY(NEW_ARRAY(s->cells, s->sets));
    TRY(NEW_ARRAY(s->effect, s->sets));
    TRY(NEW_ARRAY(s->interaction, s->sets));
    TRY(h5_read_texts(file, "panel/symbol", 0, s->genes, s->symbol));
    TRY(h5_read(file, "sets/size", H5T_NATIVE_INT32, s->sets, s->size));
    TRY(h5_read(file, "sets/genes", H5T_NATIVE_INT32, s->sets * s->order, s->member));
    TRY(h5_read(file, "sets/cells", H5T_NATIVE_INT64, s->sets, s->cells));
    TRY(h5_read(file, "sets/effect", H5T_NATIVE_DOUBLE, s->sets, s->effect));
    TRY(h5_read(file, "sets/interaction", H5T_NATIVE_DOUBLE, s->sets, s->interaction));
    TRY(h5_attr_read_real(file, "min_cells", &s->min_cells));
    TRY(h5_attr_read_text(file, "mode", &s->mode));
    TRY(h5_attr_read_text(file, "goal", &s->goal));
done:
    return st;
}

static enum status read_screen(const char *path, struct screen *s)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    TRY(h5_open(path, &file));
    TRY(read_sizes(file, s));
    TRY(read_values(file, s));
    for (int64_t i = 0; i < s->sets * s->order; i++)
        if (s->member[i] < -1 || s->member[i] >= s->genes)
            TRY(fail(ST_INPUT, "sets/genes names gene %d of a panel of %lld", s->member[i], (long long)s->genes));
done:
    h5_drop(&file);
    if (st != ST_OK) status_prefix("%s: ", path);
    return st;
}

static void screen_free(struct screen *s)
{
    for (int64_t g = 0; s->symbol && g < s->genes; g++) free(s->symbol[g]);
    free(s->symbol);
    free(s->size);
    free(s->member);
    free(s->cells);
    free(s->effect);
    free(s->interaction);
    free(s->mode);
    free(s->goal);
}

/* ---- heat map ---- */

struct strength {
    double effect;
    int32_t gene;
};

static int by_strength(const void *a, const void *b)
{
    const struct strength *x = a, *y = b;
    if (x->effect != y->effect) return x->effect < y->effect ? 1 : -1;
    return x->gene < y->gene ? -1 : 1;
}

/* place[gene] = row in the picture, strongest first, or -1. Returns how many are drawn. */
static enum status order_genes(const struct screen *s, int32_t *place, int *drawn)
{
    enum status st = ST_OK;
    struct strength *list = NULL;
    TRY(NEW_ARRAY(list, s->genes));
    for (int64_t g = 0; g < s->genes; g++) list[g] = (struct strength){-1, (int32_t)g};
    for (int64_t i = 0; i < s->sets; i++)
        if (s->size[i] == 1 && (double)s->cells[i] >= s->min_cells && isfinite(s->effect[i]))
            list[s->member[i * s->order]].effect = fabs(s->effect[i]);
    qsort(list, (size_t)s->genes, sizeof *list, by_strength);
    *drawn = s->genes < MOST_GENES ? (int)s->genes : MOST_GENES;
    for (int64_t g = 0; g < s->genes; g++) place[list[g].gene] = g < *drawn ? (int32_t)g : -1;
done:
    free(list);
    return st;
}

static void fill_panel(const struct screen *s, const int32_t *place, int genes, double *effect, double *interaction)
{
    for (int64_t i = 0; i < (int64_t)genes * genes; i++) effect[i] = interaction[i] = NAN;
    for (int64_t i = 0; i < s->sets; i++) {
        if (s->size[i] > 2 || (double)s->cells[i] < s->min_cells) continue;
        const int32_t *member = s->member + i * s->order;
        int a = place[member[0]], b = s->size[i] == 2 ? place[member[1]] : a;
        if (a < 0 || b < 0) continue;
        effect[a * genes + b] = effect[b * genes + a] = s->effect[i];
        interaction[a * genes + b] = interaction[b * genes + a] = s->interaction[i];
    }
}

static enum status add_heat_map(struct text *page, const struct screen *s)
{
    enum status st = ST_OK;
    int32_t *place = NULL;
    double *effect = NULL, *interaction = NULL;
    const char **symbol = NULL;
    char *svg = NULL;
    int genes = 0;
    TRY(NEW_ARRAY(place, s->genes));
    TRY(order_genes(s, place, &genes));
    TRY(NEW_ARRAY(effect, (int64_t)genes * genes));
    TRY(NEW_ARRAY(interaction, (int64_t)genes * genes));
    TRY(NEW_ARRAY(symbol, genes));
    fill_panel(s, place, genes, effect, interaction);
    for (int64_t g = 0; g < s->genes; g++)
        if (place[g] >= 0) symbol[place[g]] = s->symbol[g];
    TRY(figure_pairs(&(struct figure_panel){genes, symbol, effect, interaction}, &svg));
    html_figure(page, svg,
                "Each square is a pair of genes; the diagonal is a gene alone. Below: how far the pair moves the "
                "cells. Above: how far that differs from what "
                "the two single genes add up to. Orange is less than expected (the genes may do the same job), purple "
                "is more (they may back each other up). "
                "Grey squares have too few cells that carry both genes. Point at a square to read its numbers.");
done:
    free(place);
    free(effect);
    free(interaction);
    free(symbol);
    free(svg);
    return st;
}

static double largest_effect(const struct screen *s)
{
    double top = 0;
    for (int64_t i = 0; i < s->sets; i++)
        if ((double)s->cells[i] >= s->min_cells && fabs(s->effect[i]) > top) top = fabs(s->effect[i]);
    return top;
}

static void add_introduction(struct text *page, const struct screen *s)
{
    bool knock_out = strcmp(s->mode, "knock-out") == 0;
    html_paragraph(page,
                   "In silico %s of %lld genes, alone and together, in a chosen group of cells. The effect is %s. "
                   "These are the model's expectations: "
                   "they suggest experiments and replace none.",
                   knock_out ? "knock-out (the gene is removed from the cell)"
                             : "over-expression (the gene is raised to a high value)",
                   (long long)s->genes,
                   *s->goal ? "how much closer the cell's embedding comes to the goal group (cosine similarity)"
                            : "how far the cell's embedding turns (1 minus cosine similarity; 0 = not at all)");
    html_paragraph(page, "Only sets that at least %.0f cells carry are ranked and drawn.", s->min_cells);
    if (largest_effect(s) < FAINT)
        html_paragraph(page,
                       "All effects are very small (at most %.1g): this model hardly tells an edited cell from the "
                       "original. Train longer before reading "
                       "anything into this picture.",
                       largest_effect(s));
}

/* ---- hits ---- */

/* Columns of the two tables: name in hits.tsv, head, is it shown as %.4g. */
struct hit_column {
    const char *name, *head;
    bool real;
};
static const struct hit_column pair_columns[] = {{"rank", "rank", false},
                                                 {"genes", "genes", false},
                                                 {"n", "cells", false},
                                                 {"effect", "effect", true},
                                                 {"expected", "expected", true},
                                                 {"interaction", "interaction", true},
                                                 {"interaction_se", "standard error", true}},
                               single_columns[] = {{"rank", "rank", false},
                                                   {"genes", "gene", false},
                                                   {"n", "cells", false},
                                                   {"effect", "effect", true},
                                                   {"effect_se", "standard error", true}};
enum { PAIR_COLUMNS = 7, SINGLE_COLUMNS = 5 };

static void add_hits(struct text *page, const struct tsv *t, const struct hit_column *columns, int count, int64_t most,
                     bool pairs)
{
    const char *cells[PAIR_COLUMNS];
    char number[PAIR_COLUMNS][32];
    int64_t listed = 0;
    for (int c = 0; c < count; c++) cells[c] = columns[c].head;
    html_table_begin(page, cells, count);
    for (int64_t r = 0; r < t->rows && listed < most; r++) {
        if ((tsv_number(t, r, tsv_find(t, "size")) >= 2) != pairs || !*tsv_cell(t, r, tsv_find(t, "rank"))) continue;
        for (int c = 0; c < count; c++) {
            int from = tsv_find(t, columns[c].name);
            snprintf(number[c], sizeof number[c], "%.4g", tsv_number(t, r, from));
            cells[c] = columns[c].real ? number[c] : tsv_cell(t, r, from);
        }
        html_table_row(page, cells, count);
        listed++;
    }
    html_table_end(page);
    if (listed == 0) html_paragraph(page, "None is carried by enough cells.");
}

static enum status check_columns(const struct tsv *t, const char *path)
{
    if (tsv_find(t, "size") < 0) return fail(ST_INPUT, "%s has no column 'size'; is it of cytomill-sweep?", path);
    for (int c = 0; c < PAIR_COLUMNS + SINGLE_COLUMNS; c++) {
        const char *name = c < PAIR_COLUMNS ? pair_columns[c].name : single_columns[c - PAIR_COLUMNS].name;
        if (tsv_find(t, name) < 0) return fail(ST_INPUT, "%s has no column '%s'; is it of cytomill-sweep?", path, name);
    }
    return ST_OK;
}

static enum status add_tables(struct text *page, const char *path, int order, int64_t hits)
{
    enum status st = ST_OK;
    struct tsv t = {0};
    TRY(tsv_read(path, &t));
    TRY(check_columns(&t, path));
    if (order >= 2) {
        text_add(page, "<h3>Sets that differ most from expectation</h3>\n");
        add_hits(page, &t, pair_columns, PAIR_COLUMNS, hits, true);
    }
    text_add(page, "<h3>Single genes that move cells most</h3>\n");
    add_hits(page, &t, single_columns, SINGLE_COLUMNS, hits, false);
done:
    tsv_free(&t);
    return st;
}

enum status report_screen(struct text *page, const char *sweep, int64_t hits)
{
    enum status st = ST_OK;
    struct screen s = {0};
    char *results = text_format("%s/results.h5", sweep), *table = text_format("%s/hits.tsv", sweep);
    TRY(read_screen(results, &s));
    html_section(page, "screen", "The screen");
    add_introduction(page, &s);
    if (s.order >= 2) TRY(add_heat_map(page, &s));
    if (s.genes > MOST_GENES)
        html_paragraph(page,
                       "The picture shows the %d of %lld genes with the strongest effect alone; the files hold all.",
                       MOST_GENES, (long long)s.genes);
    TRY(add_tables(page, table, s.order, hits));
done:
    screen_free(&s);
    free(results);
    free(table);
    return st;
}
