/* The link (tape/expert_link.h) over the ranks of mesh.expert: mpi/expert_exchange.h behind the calls of the ops.
 *
 *     TRY(expert_line_create(&mesh, model, &limits, config..., &line));
 *     model_set_link(model, expert_line_link(line));          before model_prepare */
#ifndef CYTOMILL_MPI_EXPERT_LINE_H
#define CYTOMILL_MPI_EXPERT_LINE_H

#include "mpi/mesh.h"
#include "tape/expert_link.h"

struct expert_line;

struct expert_line_shape {
    int experts, chosen; /* E, K */
    int64_t tokens;      /* most rows of a micro-batch */
    int64_t row_bytes;   /* of an activation, at most */
};

/* Room for twice what a rank gets if rows are spread evenly. Collective over mesh->expert. ST_CONFIG: the ranks do not
 * divide the experts; ST_MEMORY; both agreed. */
MUST_CHECK enum status expert_line_create(struct mesh *mesh, struct expert_line_shape shape, struct expert_line **out);
void expert_line_destroy(struct expert_line **line);
/* The link as model_measure needs it on rank `rank` of `ranks`, which divide the experts; it reaches nobody. Local. */
struct expert_link expert_line_shape_link(const struct expert_line_shape *shape, int rank, int ranks);
/* What model_set_link takes; lives as long as the line. Local. */
const struct expert_link *expert_line_link(const struct expert_line *line);
/* Seconds this rank has waited for rows. Local. */
double expert_line_waited_s(const struct expert_line *line);

#endif
