/* Finds the rank that a job hangs on, says what every rank is in, and ends the job.
 *
 * The main thread notes the exchange that it is in (one line in each function that waits for other ranks); a thread
 * beside it, which never calls MPI, looks at the clock. When an exchange lasts longer than run.watchdog_s, one line for
 * each rank of the host says which exchange it is in and since when; the rank that everybody waits for is the one in
 * no exchange. After twice that time the process ends with exit code 8, so that mpirun or srun end the others and a
 * batch script can start the job again. A rank that is in no exchange and uses no processor (a file system that does
 * not answer) says so itself after run.watchdog_s; it is ended by those that wait for it.
 * Notes of ranks that share a host lie in memory that they share, so that a stopped process can be told too; every
 * host speaks for itself.
 *
 *     TRY(watchdog_start(&world, "cytomill-pretrain", config_real(c, "run.watchdog_s")));
 *     void comm_barrier(struct comm *comm) { WATCH_EXCHANGE(); MPI_Barrier(comm->handle); }
 *     watchdog_stop();
 *
 * Time in which the whole job was suspended does not count. What may rightly last long is not watched: waiting for
 * others' chunks (queue.h), ScaLAPACK. */
#ifndef CYTOMILL_MPI_WATCHDOG_H
#define CYTOMILL_MPI_WATCHDOG_H

#include <stdint.h>

#include "base/status.h"

struct comm;

/* Begin to watch this process; limit_s 0 does nothing. `program` (borrowed) begins the lines. Where the host's ranks
 * can share no memory, each tells its own line. ST_MEMORY: no thread. Collective, agreed. */
MUST_CHECK enum status watchdog_start(struct comm *world, const char *program, double limit_s);
/* End the thread; no-op if there is none. Local. */
void watchdog_stop(void);

/* The step that the lines name. Local; the main thread's. */
void watchdog_step(int64_t step);
/* Note that the main thread is in exchange `name` (up to 39 characters are kept) or has left it; of nested ones the
 * outermost counts. Both together cost two looks at the clock, some 0.2 us. Local; the main thread's. */
void watchdog_enter(const char *name);
void watchdog_leave(void);

/* From here to the end of the block the main thread is in the exchange named as this function. */
#define WATCH_EXCHANGE() \
    __attribute__((cleanup(watchdog_leave_block), unused)) int watched_block_ = (watchdog_enter(__func__), 0)
static inline void watchdog_leave_block(int *block) { watchdog_leave(); }

#endif
