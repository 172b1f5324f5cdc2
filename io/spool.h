/* Turn a stream of (row, column, value) entries in any order into a matrix that is read by rows,
 * without holding it in memory: the transposition of CSC files and Matrix Market streams.
 *
 * Rows are dealt into buckets of neighbouring rows. Every rank adds the entries it decoded; each bucket
 * has a small buffer, and full buffers are appended to one file of this rank. Afterwards any rank
 * reads a bucket by gathering its pieces from all files, and sorts it in memory.
 *
 *     TRY(spool_create(folder, comm->rank, rows, columns, entries, &spool));   local
 *     TRY(spool_add(spool, row, column, value));                              local, for each entry
 *     TRY(spool_finish(comm, &spool, &matrix));                               collective
 *     matrix_close(&matrix);                                                  nothing stays on disk */
#ifndef CYTOMILL_IO_SPOOL_H
#define CYTOMILL_IO_SPOOL_H

#include "io/matrix.h"
#include "mpi/comm.h"

struct spool;

/* A file of this rank in `folder`, which exists. `entries` is the expected number of all ranks and only
 * sets the size of buckets. ST_OUTPUT: cannot be created. Local. */
MUST_CHECK enum status spool_create(const char *folder, int rank, int64_t rows, int64_t columns, int64_t entries,
                                    struct spool **out);
/* ST_INPUT: row or column out of range; ST_OUTPUT: the folder's disk is full. Local. */
MUST_CHECK enum status spool_add(struct spool *spool, int64_t row, int64_t column, float value);
/* The matrix of what all ranks added. The spool is used up, also on failure. Memory: 8 bytes a row,
 * and one bucket. Collective, agreed. */
MUST_CHECK enum status spool_finish(struct comm *comm, struct spool **spool, struct matrix **out);
void spool_destroy(struct spool **spool);

#endif
