/* Foreign HDF5 files are opened by someone else first: HDF5 1.10 crashes on some damaged files, and a
 * crash of one rank would take the job with it. A small program (jobs/probe.c), without MPI, with its
 * own limits of memory and time, walks all objects, attributes, obs, var, indptr and the chunk index of the
 * file; if it dies, the file is damaged. The values of X themselves are decoded by our own
 * bounds-checked code (io/h5_filter.h). */
#ifndef CYTOMILL_IO_PROBE_H
#define CYTOMILL_IO_PROBE_H

#include <stdint.h>

#include "base/status.h"

struct probe_limits {
    double time_s;      /* plus one second per GB of the file */
    int64_t memory_mib; /* address space of the probe */
};

/* Run cytomill-probe (beside the running program) on a file and wait for it. ST_INPUT: what the probe
 * said, or "corrupt file" when it was killed by a signal or a limit. Local. */
MUST_CHECK enum status probe_file(const char *path, const struct probe_limits *limits);

/* What the probe does once its limits are set: walk the whole file. ST_INPUT. Local. */
MUST_CHECK enum status probe_walk(const char *path);

#endif
