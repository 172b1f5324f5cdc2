/* OUT.run.json: what a result does not contain so that its bytes can be compared: when, where and by
 * how many ranks it was made, how long it took, and the whole configuration. */
#ifndef CYTOMILL_IO_RUN_RECORD_H
#define CYTOMILL_IO_RUN_RECORD_H

#include "base/config.h"
#include "base/progress.h"
#include "mpi/comm.h"

/* Write (or replace) `path`: program, version, start and end in UTC, seconds, ranks, threads of a
 * rank, hosts, configuration, and metrics[count]. Collective, agreed. ST_OUTPUT. */
MUST_CHECK enum status run_record_write(struct comm *comm, const char *path, const char *program, const char *version,
                                        double seconds, int threads, const struct config *config,
                                        const struct metric *metrics, int count);

#endif
