/* Ranks of a NUMA domain that compute with the same weights keep one packed copy of them, in an MPI shared-memory window.
 *
 * Each packs some of the linear maps (model/linears.h), and takes from others (mpi/hand_out.h) only what it packs. There
 * are two such groups: of ranks that hold the same but for experts, and of ranks that hold the same experts too; a rank
 * that is alone in one keeps that copy for itself, as do all where the host has no room for windows (/dev/shm). Weights
 * change in turns: every rank begins when it has stopped reading the old ones, nobody packs before all have begun, and
 * nobody reads a module before all have packed their maps of it.
 *
 *     TRY(pack_group_create(&mesh, model, placement.numa_node, &g));
 *     pack_group_begin(g);                             this rank reads no packed weight until wait_packed
 *     pack_group_wait_begun(g);                        once, before
 *     model_pack_module(model, module, from); pack_group_tell(g, module);
 *     pack_group_wait_packed(g, module);               now it may be read
 *
 * Waits let MPI's messages move. */
#ifndef CYTOMILL_MPI_PACK_GROUP_H
#define CYTOMILL_MPI_PACK_GROUP_H

#include "model/model.h"
#include "mpi/mesh.h"

struct pack_group;

enum { PACK_ALONE = -1 }; /* a domain of its own for every rank */

/* Place the packed weights of a model prepared with packed_apart. Ranks of a host with the same `domain` share.
 * Collective over the world. ST_MEMORY agreed. */
MUST_CHECK enum status pack_group_create(struct mesh *mesh, struct model *model, int domain, struct pack_group **out);
/* Before the model goes nothing may use it. Collective over the world. */
void pack_group_destroy(struct pack_group **group);

/* How many ranks will share, this one included: ranks[kind], if hosts have room. Collective over the world. */
MUST_CHECK enum status pack_group_count(struct mesh *mesh, int domain, int ranks[PACK_KINDS]);

/* Does rank `rank` of mesh->dense pack tensor `tensor`, of those that it holds? Local. */
bool pack_group_packs(const struct pack_group *group, int rank, int tensor);
/* Local, but for waiting for the ranks of the group. */
void pack_group_begin(struct pack_group *group);
void pack_group_wait_begun(struct pack_group *group);
void pack_group_tell(struct pack_group *group, int module);
void pack_group_wait_packed(struct pack_group *group, int module);

#endif
