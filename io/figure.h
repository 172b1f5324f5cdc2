/* Pictures as SVG text, to stand in an HTML page: curves and maps drawn by gnuplot, heat maps drawn here.
 * Colours are those of Okabe and Ito (2008), which people with colour-blindness tell apart; where there are
 * more groups than colours, the mark's shape changes too. */
#ifndef CYTOMILL_IO_FIGURE_H
#define CYTOMILL_IO_FIGURE_H

#include <stdint.h>

#include "base/status.h"

/* Is gnuplot there? ST_CONFIG with the Debian package if not. Local. */
MUST_CHECK enum status figure_check(void);

/* A curve, or a level that holds for all x. */
struct figure_curve {
    const char *name;
    int64_t count;       /* points; 0 = a level */
    const double *x, *y; /* [count]; NaN in y breaks the line */
    double level;
};

/* Curves over a common x. *svg: the caller frees. ST_OUTPUT: gnuplot failed, with its message. Local. */
MUST_CHECK enum status figure_curves(const char *x_label, const char *y_label, const struct figure_curve *curves,
                                     int count, char **svg);

/* Points in the plane coloured by group: xy[n, 2], group[n] (-1 = none, drawn grey beneath the rest). */
struct figure_points {
    int64_t n;
    const double *xy;
    const int32_t *group;
    int groups;
    const char *const *name; /* [groups] */
    const char *none;        /* what -1 is called */
};
/* *svg and errors as figure_curves. Local. */
MUST_CHECK enum status figure_map(const char *x_label, const char *y_label, const struct figure_points *points,
                                  char **svg);

/* All pairs of a panel: effect[genes, genes] symmetric, singles on the diagonal, and interaction[genes,
 * genes]; NaN where not ranked or not known. Effects are drawn below and on the diagonal, interactions above. */
struct figure_panel {
    int genes;
    const char *const *gene;
    const double *effect, *interaction;
};
/* *svg: the caller frees. Local. */
MUST_CHECK enum status figure_pairs(const struct figure_panel *panel, char **svg);

/* For which cell types the experts of some layers work: share[layers, types, experts], each row of a type adding up
 * to 1. */
struct figure_usage {
    int layers, types, experts;
    const int *layer; /* [layers] numbers */
    const char *const *type;
    const double *share;
};
/* *svg: the caller frees. Local. */
MUST_CHECK enum status figure_usage(const struct figure_usage *usage, char **svg);

#endif
