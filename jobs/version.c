#include <dnnl.h>
#include <stdio.h>
#include <string.h>

#include "io/h5_version.h"
#include "jobs/job.h"

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
    const dnnl_version_t *dnnl = dnnl_version();
    snprintf(text, sizeof text, "cytomill %s (revision %s)\ncompiler gcc %s\nMPI %s\nHDF5 %s\noneDNN %d.%d.%d",
             CYTOMILL_VERSION, CYTOMILL_REVISION, __VERSION__, mpi, h5_version_text(), dnnl->major, dnnl->minor, dnnl->patch);
    return text;
}
