/* Version of the HDF5 library in use, for --version and run records. */
#ifndef CYTOMILL_IO_H5_VERSION_H
#define CYTOMILL_IO_H5_VERSION_H

/* "1.10.8". Local; static storage. */
const char *h5_version_text(void);

#endif
