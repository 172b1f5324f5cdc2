/* The mesh of ranks: data x pipe x expert, each axis with a communicator.
 *
 *     rank = (stage * data + replica) * expert + place
 * so that the ranks that exchange tokens most (expert) are neighbours and share a node first, then those that sum
 * gradients (data), and the stages of a pipeline, whose messages are smallest, lie furthest apart. A rank's place on an
 * axis is the rank within that axis's communicator. Every communicator is embedded: who holds a const mesh cannot
 * communicate.
 *
 *     TRY(mesh_open(&world, (struct mesh_shape){.data = 0, .pipe = 4, .expert = 1}, &mesh));      data takes the rest
 *     mesh_share_layers(40, 4, 0.3, 1.1, first);                    this stage has blocks first[s] to first[s + 1]
 *     mesh_close(&mesh); */
#ifndef CYTOMILL_MPI_MESH_H
#define CYTOMILL_MPI_MESH_H

#include "mpi/comm.h"

/* Ranks along each axis; data 0 means all that the other two leave. */
struct mesh_shape {
    int data, pipe, expert;
};

struct mesh {
    struct comm world;  /* all ranks, a communicator of its own */
    struct comm data;   /* ranks that hold the same weights, experts too */
    struct comm pipe;   /* stages of one pipeline, first to last */
    struct comm expert; /* ranks that share out the experts of a layer */
    struct comm dense;  /* data x expert: ranks that hold the same weights but for experts */
};

/* ST_USAGE if the shape does not multiply to the ranks there are: the line names shapes that do. Collective. */
MUST_CHECK enum status mesh_open(struct comm *world, struct mesh_shape shape, struct mesh *out);
/* Collective. */
void mesh_close(struct mesh *mesh);

/* Share `layers` equal blocks among `parts` so that the dearest part costs least; the first part also does work worth
 * `before` blocks, the last `after`. first[parts + 1] is written; every part gets a block. ST_CONFIG if there are too
 * few. Local. */
MUST_CHECK enum status mesh_share_layers(int layers, int parts, double before, double after, int *first);

#endif
