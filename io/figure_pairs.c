/* The heat map of a screen of pairs, drawn as plain SVG: every square carries its numbers as a tool tip. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/figure.h"
#include "io/figure_square.h"
#include "io/html.h"

enum { SQUARE_MOST = 44, SQUARE_LEAST = 7, MARGIN = 110, BAR = 22, PANEL_SIDE = 560 };

/* Orange below 0, white at 0, purple above: told apart without red and green. */
static struct rgb interaction_color(double share)
{
    static const struct rgb low = {179, 88, 6}, zero = {247, 247, 247}, high = {84, 39, 136};
    return share < 0 ? square_blend(zero, low, -share) : square_blend(zero, high, share);
}

/* Largest magnitude of a half of the matrix; 1 if there is none, so that division is safe. */
static double largest(const struct figure_panel *p, const double *values, bool diagonal)
{
    double top = 0;
    for (int i = 0; i < p->genes; i++)
        for (int j = 0; j < i + (diagonal ? 1 : 0); j++)
            if (isfinite(values[i * p->genes + j])) top = fmax(top, fabs(values[i * p->genes + j]));
    return top > 0 ? top : 1;
}

struct drawing {
    const struct figure_panel *panel;
    double side; /* of a square */
    double effect_top, interaction_top;
    bool is_signed; /* effects towards a goal may be negative: then they take the two-sided colours */
};

static struct rgb cell_color(const struct drawing *d, bool effect, double value)
{
    double share = value / (effect ? d->effect_top : d->interaction_top);
    if (!isfinite(value)) return (struct rgb){225, 228, 232};
    share = fmin(1, fmax(-1, share));
    return effect && !d->is_signed ? square_blue(fmax(0, share)) : interaction_color(share);
}

static void add_cell(struct text *t, const struct drawing *d, int row, int column)
{
    const struct figure_panel *p = d->panel;
    bool effect = column <= row;
    double value = (effect ? p->effect : p->interaction)[row * p->genes + column];
    square_open(t, MARGIN + column * d->side, MARGIN + row * d->side, d->side - 1, d->side - 1,
                cell_color(d, effect, value));
    text_add(t, "><title>");
    html_text(t, p->gene[row]);
    if (row != column) {
        text_add(t, " + ");
        html_text(t, p->gene[column]);
    }
    if (isfinite(value)) text_add(t, ": %s %.4g", effect ? "effect" : "interaction", value);
    else text_add(t, ": too few cells");
    text_add(t, "</title></rect>\n");
}

static void add_names(struct text *t, const struct drawing *d)
{
    char turn[80];
    for (int i = 0; i < d->panel->genes; i++) {
        double middle = MARGIN + (i + 0.5) * d->side;
        square_label(t, MARGIN - 8, middle + 4, "end", "", d->panel->gene[i]);
        snprintf(turn, sizeof turn, " transform=\"rotate(-60 %.1f %d)\"", middle + 3, MARGIN - 8);
        square_label(t, middle + 3, MARGIN - 8, "start", turn, d->panel->gene[i]);
    }
}

/* A colour bar with its two ends named. */
static void add_bar(struct text *t, double x, double y, bool one_sided, double top, const char *title)
{
    enum { STEPS = 40, LENGTH = 160 };
    char end[32];
    square_label(t, x, y - 8, "start", " font-weight=\"600\"", title);
    for (int s = 0; s < STEPS; s++) {
        double share = (s + 0.5) / STEPS;
        square_open(t, x + (double)s * LENGTH / STEPS, y, LENGTH / STEPS + 0.5, BAR,
                    one_sided ? square_blue(share) : interaction_color(2 * share - 1));
        text_add(t, "/>\n");
    }
    snprintf(end, sizeof end, "%.2g", one_sided ? 0 : -top);
    square_label(t, x, y + BAR + 17, "start", "", end);
    snprintf(end, sizeof end, "%s%.2g", one_sided ? "" : "+", top);
    square_label(t, x + LENGTH, y + BAR + 17, "end", "", end);
}

enum status figure_pairs(const struct figure_panel *panel, char **svg)
{
    struct text t = {0};
    double side = (double)PANEL_SIDE / panel->genes;
    struct drawing d = {panel, fmax(SQUARE_LEAST, fmin(SQUARE_MOST, side)), largest(panel, panel->effect, true),
                        largest(panel, panel->interaction, false), false};
    for (int i = 0; i < panel->genes * panel->genes; i++)
        d.is_signed = d.is_signed || panel->effect[i] < -0.01 * d.effect_top;
    double body = d.side * panel->genes, width = MARGIN + body + 230, height = MARGIN + fmax(body, 200) + 20;
    text_add(&t,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"pairs of genes\" viewBox=\"0 0 %.0f "
             "%.0f\" "
             "font-family=\"Helvetica,Arial,sans-serif\" font-size=\"%.0f\" fill=\"#1b1f24\">\n",
             width, height, d.side < 14 ? d.side : 14);
    for (int i = 0; i < panel->genes; i++)
        for (int j = 0; j < panel->genes; j++) add_cell(&t, &d, i, j);
    add_names(&t, &d);
    text_add(&t, "<g font-size=\"14\">\n");
    add_bar(&t, MARGIN + body + 36, MARGIN + 20, !d.is_signed, d.effect_top, "effect (below, diagonal)");
    add_bar(&t, MARGIN + body + 36, MARGIN + 110, false, d.interaction_top, "interaction (above)");
    square_open(&t, MARGIN + body + 36, MARGIN + 176, 14, 14, (struct rgb){225, 228, 232});
    text_add(&t, "/>\n");
    square_label(&t, MARGIN + body + 58, MARGIN + 188, "start", "", "too few cells");
    text_add(&t, "</g>\n</svg>\n");
    *svg = t.data;
    return ST_OK;
}
