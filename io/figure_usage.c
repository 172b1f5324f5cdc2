/* The heat map of experts: a column for each expert of the layers shown, a row for each cell type. */
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "io/figure.h"
#include "io/figure_square.h"
#include "io/html.h"

enum { HEIGHT = 18, MOST_LETTERS = 48, LEGEND = 340, TOP = 40, GAP = 8, BODY = 640 };

static void add_square(struct text *t, const struct figure_usage *u, int layer, int type, int expert, double x,
                       double side, double top)
{
    double share = u->share[((int64_t)layer * u->types + type) * u->experts + expert];
    square_open(t, x, TOP + type * HEIGHT, side - (side > 4), HEIGHT - 1, square_blue(share / top));
    text_add(t, "><title>");
    html_text(t, u->type[type]);
    text_add(t, ": %.1f %% of its tokens in layer %d at expert %d</title></rect>\n", 100 * share, u->layer[layer],
             expert);
}

static void add_layer(struct text *t, const struct figure_usage *u, int layer, double x, double side, double top)
{
    char name[32];
    snprintf(name, sizeof name, "layer %d", u->layer[layer]);
    square_label(t, x, TOP - 10, "start", "", name);
    for (int k = 0; k < u->types; k++)
        for (int e = 0; e < u->experts; e++) add_square(t, u, layer, k, e, x + e * side, side, top);
}

/* Room for the longest name. */
static double margin_of(const struct figure_usage *u)
{
    size_t longest = 0;
    for (int k = 0; k < u->types; k++) longest = strlen(u->type[k]) > longest ? strlen(u->type[k]) : longest;
    return 16 + 7.0 * fmin((double)longest, MOST_LETTERS);
}

enum status figure_usage(const struct figure_usage *u, char **svg)
{
    struct text t = {0};
    char bar[80];
    double margin = margin_of(u);
    double side = fmin(HEIGHT, ((double)BODY / u->layers - GAP) / u->experts), step = u->experts * side + GAP, top = 0;
    for (int64_t i = 0; i < (int64_t)u->layers * u->types * u->experts; i++) top = fmax(top, u->share[i]);
    text_add(&t,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"experts by cell type\" viewBox=\"0 0 "
             "%.0f %d\" font-family=\"Helvetica,Arial,sans-serif\" font-size=\"13\" fill=\"#1b1f24\">\n",
             margin + fmax(step * u->layers, LEGEND), TOP + HEIGHT * u->types + 40);
    for (int k = 0; k < u->types; k++) square_label(&t, margin - 8, TOP + k * HEIGHT + 13, "end", "", u->type[k]);
    for (int l = 0; l < u->layers; l++) add_layer(&t, u, l, margin + l * step, side, top > 0 ? top : 1);
    snprintf(bar, sizeof bar, "white: none of the type's tokens, darkest: %.0f %%", 100 * top);
    square_label(&t, margin, TOP + HEIGHT * u->types + 24, "start", "", bar);
    text_add(&t, "</svg>\n");
    *svg = t.data;
    return ST_OK;
}
