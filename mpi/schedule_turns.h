/* Cuts the F and B of a schedule into pieces between exchanges, and lets pairs of micro-batches take turns. Only schedule.c
 * calls this. */
#ifndef CYTOMILL_MPI_SCHEDULE_TURNS_H
#define CYTOMILL_MPI_SCHEDULE_TURNS_H

#include "mpi/schedule.h"

/* The same without exchanges, for what goes through together: a micro-batch, or in turns two of them as one. Local. */
struct schedule_spec schedule_units(const struct schedule_spec *spec);
/* From a table of schedule_units(spec) the table of spec. ST_MEMORY. Local. */
MUST_CHECK enum status schedule_cut(const struct schedule *units, const struct schedule_spec *spec,
                                    struct schedule *out);

#endif
