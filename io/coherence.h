/* Do hosts that write one file side by side, bytes of several within a page, see it alike? On a parallel file system
 * with locks they do; on one that caches pages without, or on disks that merely have the same name, they do not. */
#ifndef CYTOMILL_IO_COHERENCE_H
#define CYTOMILL_IO_COHERENCE_H

#include "mpi/comm.h"

/* Try it with a small file at `path`, which is removed: a rank of each host writes pieces of it, as io/place.h does, and
 * reads those of its neighbours. ST_OUTPUT: it cannot be created. Collective, agreed. */
MUST_CHECK enum status coherence_probe(struct comm *comm, const char *path, bool *coherent);

#endif
