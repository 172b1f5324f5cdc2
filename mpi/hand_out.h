/* New weights, from the owners of their pieces (model/shard.h) to all ranks that compute with them, ahead of use.
 *
 * After an update every owner sends its pieces at once, in the order in which the forward pass takes the modules, while
 * the ranks do other things and compute with the modules that have come. Tensors that are read as they lie (norms, gene
 * tables) come to their place in the table. Split ones (param_split) come to a window of WINDOW modules, are packed from
 * there when their module is needed, and make room for the next; in a bf16 model they travel as bf16, since a product
 * packs the rounding of its master: the bits are those of packing the masters themselves. Ranks of a NUMA domain share
 * one packed copy (mpi/pack_group.h): each takes and packs its part of it.
 * Whatever a rank waits for here has been sent, so that nobody waits for a rank that waits.
 *
 *     TRY(hand_out_create(&mesh, model, placement.numa_node, &h));
 *     hand_out_start(&mesh, h);                      the owners' weights have changed
 *     hand_out_poll(h);                              now and then
 *     hand_out_need(&mesh, h, module);               from model_how.need
 *     hand_out_finish(&mesh, h);                     before anything else reads weights, and before they change again
 *
 * Alone a rank packs its model at once. Nothing here allocates after hand_out_create. */
#ifndef CYTOMILL_MPI_HAND_OUT_H
#define CYTOMILL_MPI_HAND_OUT_H

#include "model/model.h"
#include "mpi/pack_group.h"

struct hand_out;

/* For a model (borrowed) prepared with packed_apart, whose table is shared out over mesh->dense; ranks of a host with the
 * same `domain` share packed weights, none with PACK_ALONE. Collective. ST_MEMORY agreed. */
MUST_CHECK enum status hand_out_create(struct mesh *mesh, struct model *model, int domain, struct hand_out **out);
/* After hand_out_finish; before the model's end, which nothing may use any more. Collective over the world. */
void hand_out_destroy(struct hand_out **hand_out);
/* Bytes of the window and of own pieces as they travel, where `ranks` share a split table, `replicas` an expert's rows, and
 * `sharers` packed weights; it need not be shared out yet. Local. */
size_t hand_out_bytes(const struct param_table *params, int ranks, int replicas, int sharers, bool bf16);

/* Expire the model and send what this rank owns; none may be under way. Weights that are split or trained travel; others
 * change nowhere, or by a rule that all ranks follow. Collective over mesh->dense: all its ranks start. */
void hand_out_start(struct mesh *mesh, struct hand_out *hand_out);
/* Let messages move. Local. */
void hand_out_poll(struct hand_out *hand_out);
/* Wait for the weights of all modules up to `module` and pack them. Collective over mesh->dense only in that all its
 * ranks have started or will. */
void hand_out_need(struct mesh *mesh, struct hand_out *hand_out, int module);
/* All modules, and wait until others have this rank's pieces; nothing if none is under way. Collective over mesh->dense. */
void hand_out_finish(struct mesh *mesh, struct hand_out *hand_out);

/* Seconds this rank has waited in need and finish. Local. */
double hand_out_waited_s(const struct hand_out *hand_out);

#endif
