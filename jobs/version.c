#include <stdio.h>
#include <string.h>

#include "io/h5_version.h"
#include "jobs/job.h"
#include "kernel/product.h"

#ifndef CYTOMILL_REVISION
#define CYTOMILL_REVISION "unknown"
#endif
#define CYTOMILL_VERSION "0.1.0"

const char *job_version_text(void)
{
    static char text[512];
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = '\0';
    snprintf(text, sizeof text, "cytomill %s (revision %s)\ncompiler gcc %s\nMPI %s\nHDF5 %s\n%s", CYTOMILL_VERSION,
             CYTOMILL_REVISION, __VERSION__, mpi, h5_version_text(), product_version_text());
    return text;
}
