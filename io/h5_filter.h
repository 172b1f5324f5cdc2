/* Decode the chunks of compressed datasets ourselves, with bounds checked.
 *
 * H5Dread_chunk hands out a chunk as it lies in the file; the compression libraries decode it
 * (libdeflate: 2.6 times faster than through H5Dread). Blosc, LZ4, bzip2 and Zstandard are loaded when
 * a file asks for them, as plain libraries: Debian builds the HDF5 plugins for the serial HDF5, which
 * must not be loaded beside the parallel one. The same decoders are registered with HDF5, so that
 * strings and other datasets read through H5Dread understand them too. */
#ifndef CYTOMILL_IO_H5_FILTER_H
#define CYTOMILL_IO_H5_FILTER_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

enum { H5_FILTERS_MAX = 8, H5_FILTER_VALUES = 16 };

/* The filters of one dataset, in the order in which they were applied on writing. */
struct h5_pipeline {
    int count;
    bool ours; /* every filter is one of ours: h5_pipeline_decode works */
    struct {
        H5Z_filter_t id;
        unsigned values[H5_FILTER_VALUES]; /* the filter's parameters */
        size_t value_count;
    } stage[H5_FILTERS_MAX];
};

/* Make our decoders known to HDF5; cheap to repeat. Local. */
void h5_filter_register(void);

/* The pipeline of a dataset. ST_INPUT: a filter that nobody installed, with its name and the Debian
 * package that has it. `object` is for the message. Local. */
MUST_CHECK enum status h5_pipeline_open(hid_t dataset, const char *object, struct h5_pipeline *out);

/* Undo the pipeline on one stored chunk: `stored` (stored_bytes, destroyed) → `out`, exactly
 * chunk_bytes. `mask`: bit i set = stage i was skipped for this chunk. `scratch` and
 * `out` have room for chunk_bytes + H5_FILTER_SLACK. False if the chunk is damaged. Local. */
#define H5_FILTER_SLACK 64
bool h5_pipeline_decode(const struct h5_pipeline *pipeline, unsigned mask, unsigned char *stored, size_t stored_bytes,
                        unsigned char *scratch, unsigned char *out, size_t chunk_bytes);

#endif
