#include <stdlib.h>
#include <string.h>

#include "io/figure.h"
#include "io/html.h"
#include "io/report.h"

enum { MOST_GROUPS = 40 };

static enum status add_map(struct text *page, const struct report_map *m, const int32_t *group, int groups,
                           const char *const *names, const char *none, const char *caption)
{
    enum status st = ST_OK;
    char *svg = NULL;
    struct figure_points points = {m->shown, m->xy, group, groups, names, none};
    TRY(figure_map("UMAP 1", "UMAP 2", &points, &svg));
    html_figure(page, svg, caption);
done:
    free(svg);
    return st;
}

/* Rows: groups a; columns: groups b and, last, what has none. */
static enum status add_cross_table(struct text *page, const struct report_map *m, const char *corner, const int32_t *a,
                                   int a_count, const char *const *a_name, const int32_t *b, int b_count,
                                   const char *const *b_name, const char *none)
{
    enum status st = ST_OK;
    int64_t *count = NULL;
    char **text = NULL;
    const char *cells[MOST_GROUPS + 2];
    int columns = b_count + 2;
    TRY(NEW_ARRAY(count, (int64_t)a_count * (b_count + 1)));
    TRY(NEW_ARRAY(text, columns));
    memset(count, 0, sizeof *count * (size_t)a_count * (size_t)(b_count + 1));
    for (int64_t i = 0; i < m->shown; i++)
        if (a[i] >= 0) count[a[i] * (b_count + 1) + (b[i] >= 0 ? b[i] : b_count)]++;
    cells[0] = corner;
    for (int c = 0; c <= b_count; c++) cells[c + 1] = c < b_count ? b_name[c] : none;
    html_table_begin(page, cells, columns);
    for (int r = 0; r < a_count; r++) {
        cells[0] = a_name[r];
        for (int c = 0; c <= b_count; c++)
            cells[c + 1] = text[c] = text_format("%lld", (long long)count[r * (b_count + 1) + c]);
        html_table_row(page, cells, columns);
        for (int c = 0; c <= b_count; c++) free(text[c]);
    }
    html_table_end(page);
done:
    free(count);
    free(text);
    return st;
}

static enum status add_types(struct text *page, const struct report_map *m)
{
    enum status st = ST_OK;
    TRY(add_map(page, m, m->type, m->types, m->type_name, "unassigned",
                "Each dot is a cell; cells that are alike in it lie together. Colours are cell types called from "
                "published marker genes, which the map "
                "does not know: if colours form islands, the embedding has found the types by itself. Distances "
                "between islands and their sizes mean little."));
    html_paragraph(page, "A type is called when the mean expression of its markers, relative to the clearest cells of "
                         "that type, is at least 0.2 and leads "
                         "the next type by 0.05; the other cells are unassigned. The marker list ships as "
                         "configs/genes/markers_pbmc.tsv.");
    if (!m->label || m->labels > MOST_GROUPS || m->types > MOST_GROUPS) goto done;
    html_paragraph(
        page, "The same cells by their label in column '%s' (rows) and by called type (columns):", m->label_column);
    TRY(add_cross_table(page, m, m->label_column, m->label, m->labels, m->label_name, m->type, m->types, m->type_name,
                        "unassigned"));
done:
    return st;
}

/* Communities by type or label, whichever there is. */
static enum status add_clusters(struct text *page, const struct report_map *m)
{
    enum status st = ST_OK;
    char *name[MOST_GROUPS] = {NULL};
    const int32_t *group = m->type ? m->type : m->label;
    int groups = m->type ? m->types : m->labels;
    if (m->clusters > MOST_GROUPS || groups > MOST_GROUPS) return ST_OK;
    for (int c = 0; c < m->clusters; c++) name[c] = text_format("%d", c);
    const char *const *names = (const char *const *)name;
    html_paragraph(page, "Without any gene list, Leiden finds %d communities of cells in the embedding%s", m->clusters,
                   group ? m->type ? "; rows are communities, columns are called types:"
                                   : "; rows are communities, columns are labels:"
                         : ".");
    if (group)
        TRY(add_cross_table(page, m, "community", m->cluster, m->clusters, names, group, groups,
                            m->type ? m->type_name : m->label_name, m->type ? "unassigned" : "no label"));
    else
        TRY(add_map(page, m, m->cluster, m->clusters, names, "none",
                    "Each dot is a cell; cells that are alike in it lie together. Colours are communities found in "
                    "the embedding."));
done:
    for (int c = 0; c < m->clusters; c++) free(name[c]);
    return st;
}

/* Donors, batches: what should not separate the cells. */
static enum status add_groups(struct text *page, const struct report_map *m)
{
    struct text caption = {0};
    text_add(&caption, "The same map coloured by column '%s' of the input", m->group_column);
    if (m->groups < m->groups_in_all)
        text_add(&caption, ": the %d largest of its %d values, the others in grey", m->groups, m->groups_in_all);
    text_add(&caption, ". Groups that should not differ, such as batches, should mix.");
    enum status st = add_map(page, m, m->group, m->groups, m->group_name,
                             m->groups < m->groups_in_all ? "others" : "no value", caption.data);
    text_free(&caption);
    return st;
}

enum status report_map(struct text *page, const struct report_map *m)
{
    enum status st = ST_OK;
    char shown[32], usable[32], rows[32];
    char *id = m->index ? text_format("map-%d", m->index + 1) : text_copy("map");
    char *title = text_format("A map of the cells: %s", m->embedding);
    html_section(page, id, title);
    free(id);
    free(title);
    html_paragraph(page,
                   "%s of %s cells with an embedding are drawn (%s cells in the file). Layout: UMAP of the graph "
                   "of nearest neighbours.",
                   text_count(m->shown, shown), text_count(m->usable, usable), text_count(m->rows, rows));
    if (m->type) TRY(add_types(page, m));
    if (m->label) {
        char *caption = text_format("The same map coloured by column '%s' of the input.", m->label_column);
        st = add_map(page, m, m->label, m->labels, m->label_name, "no label", caption);
        free(caption);
        if (st != ST_OK) goto done;
    }
    if (m->group) TRY(add_groups(page, m));
    TRY(add_clusters(page, m));
done:
    return st;
}
