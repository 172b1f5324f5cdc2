/* The number type of master weights, gradients and reference arithmetic: float, or double in the
 * build in which gradients are checked against central differences (make CONFIG=double). */
#ifndef CYTOMILL_BASE_REAL_H
#define CYTOMILL_BASE_REAL_H

#ifdef CYTOMILL_DOUBLE
typedef double real;
#else
typedef float real;
#endif

#endif
