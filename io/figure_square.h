/* What heat maps are drawn of: coloured squares and labels as SVG elements. Local functions that add to `svg`. */
#ifndef CYTOMILL_IO_FIGURE_SQUARE_H
#define CYTOMILL_IO_FIGURE_SQUARE_H

#include "base/text.h"

struct rgb {
    double r, g, b;
};

/* From a (t = 0) to b (t = 1). */
struct rgb square_blend(struct rgb a, struct rgb b, double t);
/* From white (share 0) to dark blue (1). */
struct rgb square_blue(double share);
/* A square, left open for a child or "/>". */
void square_open(struct text *svg, double x, double y, double w, double h, struct rgb color);
/* Text at a place; anchor "start" or "end"; `more`: further attributes, or "". */
void square_label(struct text *svg, double x, double y, const char *anchor, const char *more, const char *label);

#endif
