/* Has this process been asked to end in good order: by SIGTERM, SIGUSR1, SIGINT, or by a file that appears?
 *
 *     stop_watch("run/stop", 0);
 *     for each block: if (stop_asked()) return ST_REQUEUE;      the ranks then agree on that (mpi/comm.h)
 *
 * Signals belong to a process, so what is asked is kept once for the whole of it. A stage that does not look can
 * still be ended: the same signal a second time (TERM, INT; more than a second later, because launchers send some
 * twice) does what it does to any program. */
#ifndef CYTOMILL_BASE_STOP_H
#define CYTOMILL_BASE_STOP_H

#include <stdbool.h>

/* Catch the signals from now on, and look for `file` ("" = none; copied) at most every `every_s` seconds. Local. */
void stop_watch(const char *file, double every_s);
/* Cheap enough for every block of work. The answer is this process's alone. Local. */
bool stop_asked(void);

#endif
