/* One file written by many ranks through MPI-IO, at places each rank knows. For files whose layout is
 * already on disk (io/place.h does the same by plain POSIX calls). */
#ifndef CYTOMILL_MPI_FILE_H
#define CYTOMILL_MPI_FILE_H

#include "mpi/comm.h"

struct shared_file {
    MPI_File handle;  /* MPI_FILE_NULL when closed */
    const char *path; /* borrowed, for messages */
};

/* Open an existing file for writing. `driver`: the value of run.io ("ompio", "romio"; else Open MPI
 * chooses); the first file opened decides for the whole run. Collective; agreed. ST_OUTPUT. */
MUST_CHECK enum status file_open(struct comm *comm, const char *path, const char *driver, struct shared_file *out);
/* Write `bytes` at `offset`, independently of other ranks. Local. ST_OUTPUT. */
MUST_CHECK enum status file_write(struct shared_file *file, int64_t offset, const void *data, int64_t bytes);
/* Put everything on disk and close. Collective; agreed. ST_OUTPUT. */
MUST_CHECK enum status file_close(struct comm *comm, struct shared_file *file);

#endif
