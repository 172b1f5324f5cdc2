#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/names.h"
#include "io/figure.h"
#include "io/html.h"
#include "io/report.h"
#include "io/tsv.h"

enum { MOST_COLUMNS = 96, MOST_LAYERS = 12, MOST_TYPES = 40, MOST_NUMBER = 1024, COLUMNS = 6 };
static const char *const columns[COLUMNS] = {"step", "layer", "expert", "cell_type", "slots", "share"};
enum { STEP, LAYER, EXPERT, TYPE, SLOTS, SHARE };

/* The rows of the last evaluation: [first, rows) of the table. */
struct usage {
    struct tsv table;
    int column[COLUMNS];
    int64_t first;
    int experts, layer_count, type_count;
    int *layer;          /* [layer_count] */
    const char **type;   /* [type_count] borrowed from the table */
    struct names *names; /* of types */
};

/* A layer or an expert; -1 if it is none. */
static int number(const struct usage *u, int64_t row, int column)
{
    double x = tsv_number(&u->table, row, u->column[column]);
    return x >= 0 && x < MOST_NUMBER ? (int)x : -1;
}

static enum status read_usage(const char *path, struct usage *u)
{
    enum status st = ST_OK;
    TRY(tsv_read(path, &u->table));
    for (int c = 0; c < COLUMNS; c++)
        if ((u->column[c] = tsv_find(&u->table, columns[c])) < 0)
            TRY(fail(ST_INPUT, "%s: lacks column '%s'; is it of cytomill-pretrain?", path, columns[c]));
    if (u->table.rows == 0 || number(u, u->table.rows - 1, EXPERT) < 0)
        TRY(fail(ST_INPUT, "%s: holds no evaluation; is it of cytomill-pretrain?", path));
    const char *last = tsv_cell(&u->table, u->table.rows - 1, u->column[STEP]);
    for (u->first = u->table.rows - 1; u->first > 0; u->first--)
        if (strcmp(tsv_cell(&u->table, u->first - 1, u->column[STEP]), last) != 0) break;
done:
    return st;
}

/* Layers and types in the order they come. */
static enum status list_parts(struct usage *u)
{
    enum status st = ST_OK;
    int64_t rows = u->table.rows - u->first, held;
    TRY(NEW_ARRAY(u->layer, rows));
    TRY(NEW_ARRAY(u->type, rows));
    TRY(names_create(&u->names, 64));
    for (int64_t r = u->first; r < u->table.rows; r++) {
        const char *type = tsv_cell(&u->table, r, u->column[TYPE]);
        if (number(u, r, EXPERT) >= u->experts) u->experts = number(u, r, EXPERT) + 1;
        if (u->layer_count == 0 || u->layer[u->layer_count - 1] != number(u, r, LAYER))
            u->layer[u->layer_count++] = number(u, r, LAYER);
        if (names_find(u->names, type) >= 0) continue;
        TRY(names_add(u->names, type, u->type_count, &held));
        u->type[u->type_count++] = type;
    }
done:
    return st;
}

/* As many layers as there is room for, first and last among them. */
static int thin_layers(int *layer, int count, int experts)
{
    int shown = MOST_COLUMNS / experts < 1 ? 1 : MOST_COLUMNS / experts;
    if (shown > MOST_LAYERS) shown = MOST_LAYERS;
    if (shown >= count) return count;
    for (int i = 0; i < shown; i++) layer[i] = layer[shown > 1 ? i * (count - 1) / (shown - 1) : count - 1];
    return shown;
}

static enum status fill_shares(const struct usage *u, int layers, int types, double **out)
{
    enum status st = NEW_ARRAY(*out, (int64_t)layers * types * u->experts);
    if (st != ST_OK) return st;
    memset(*out, 0, sizeof **out * (size_t)layers * (size_t)types * (size_t)u->experts);
    for (int64_t r = u->first; r < u->table.rows; r++) {
        int64_t type = names_find(u->names, tsv_cell(&u->table, r, u->column[TYPE]));
        for (int l = 0; l < layers && type < types; l++)
            if (u->layer[l] == number(u, r, LAYER) && number(u, r, EXPERT) >= 0)
                (*out)[(l * types + type) * u->experts + number(u, r, EXPERT)] =
                    tsv_number(&u->table, r, u->column[SHARE]);
    }
    return ST_OK;
}

static enum status add_picture(struct text *page, struct usage *u)
{
    enum status st = ST_OK;
    double *share = NULL;
    char *svg = NULL;
    int layers = thin_layers(u->layer, u->layer_count, u->experts);
    int types = u->type_count < MOST_TYPES ? u->type_count : MOST_TYPES;
    TRY(fill_shares(u, layers, types, &share));
    TRY(figure_usage(&(struct figure_usage){layers, types, u->experts, u->layer, u->type, share}, &svg));
    html_figure(page, svg,
                "A column is an expert of a layer, a row a cell type, the colour the share of that type's tokens that "
                "the router sends to the expert, among those it chooses for each. Rows that differ mean experts that "
                "have specialised in cell types; a white column is an expert that nobody uses; equal rows mean that "
                "experts were chosen by other things than the type, such as the gene.");
    html_paragraph(page, "%d of %d layers with experts and %d of %d cell types are drawn; expert_usage.tsv holds all.",
                   layers, u->layer_count, types, u->type_count);
done:
    free(share);
    free(svg);
    return st;
}

enum status report_usage(struct text *page, const char *run)
{
    enum status st = ST_OK;
    struct usage u = {0};
    char *path = text_format("%s/expert_usage.tsv", run);
    if (access(path, R_OK) != 0) goto done; /* a model without experts */
    TRY(read_usage(path, &u));
    TRY(list_parts(&u));
    html_section(page, "experts", "Which experts work for which cells");
    TRY(add_picture(page, &u));
done:
    tsv_free(&u.table);
    names_destroy(&u.names);
    free(u.layer);
    free(u.type);
    free(path);
    return st;
}
