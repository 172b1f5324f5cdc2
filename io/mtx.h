/* Matrix Market coordinate files (math.nist.gov/MatrixMarket/formats.html) of features x cells, plain or
 * gzipped. Rank 0 inflates the stream once and deals blocks of lines to all ranks, which parse them
 * into spools (io/spool.h); the result is read by cells. */
#ifndef CYTOMILL_IO_MTX_H
#define CYTOMILL_IO_MTX_H

#include "io/matrix.h"
#include "mpi/comm.h"

/* Read `path`, which must have `features` rows and `cells` columns. ST_INPUT: header, size line or an entry
 * is wrong (with its line), entries missing or left over, damaged gzip. ST_OUTPUT: no room in `folder`.
 * Collective, agreed. */
MUST_CHECK enum status mtx_read(struct comm *comm, const char *path, int64_t cells, int64_t features,
                                const char *folder, struct matrix **out);

#endif
