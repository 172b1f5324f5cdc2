/* Every linear map of a model as rows of one list, so that packing, preparing and measuring loop
 * over it. A row names its parameters; maps of the same shape share one product. */
#ifndef CYTOMILL_MODEL_LINEARS_H
#define CYTOMILL_MODEL_LINEARS_H

#include "model/param.h"
#include "model/part.h"
#include "tape/linear.h"

/* Ranks of a host that hold the same maps may keep one packed copy of them in memory they share, each packing its part:
 * those that hold the same but for experts of these, those that hold the same experts of theirs. */
enum pack_kind { PACK_DENSE, PACK_ROUTED, PACK_KINDS };

struct linears_row {
    struct linear map;
    bool away;                    /* another rank packs it */
    int param[PRODUCT_MAX_PARTS]; /* rows of the parameter table, in the order of their columns in y */
};

/* Owns its rows and products; zero-initialise. */
struct linears {
    int count, capacity;
    struct linears_row **rows; /* each at a fixed address: parts keep pointers to row->map */
    int product_count;
    struct product **products; /* [count] at most */
};

/* Add the map whose weights are params[param[0 .. parts)], all [out, in] alike; `fine` ones are
 * computed in `real`. *out is borrowed and stays valid. Local. */
MUST_CHECK enum status linears_add(struct linears *list, const struct param_table *params, const int *param, int parts,
                                   bool fine, const struct linear **out);
/* Make the products and, if `train`, bind gradients. Local. */
MUST_CHECK enum status linears_prepare(struct linears *list, const struct param_table *params, enum dtype type,
                                       bool train, int threads);
/* Take packed weights and the one shared scratch block (measure mode allowed); the same apart, weights of one kind. Local. */
void linears_take(struct linears *list, const struct param_table *params, struct arena *arena);
void linears_take_packed(struct linears *list, const struct param_table *params, enum pack_kind kind,
                         struct arena *arena);
void linears_take_scratch(struct linears *list, struct arena *arena);
/* packer[tensor] for all of the table: which of `ranks` that share the maps of its kind packs it, -1 if no map reads it.
 * Evenly by size, and the same on every rank that holds these maps. ST_MEMORY. Local. */
MUST_CHECK enum status linears_packers(const struct linears *list, const struct param_table *params,
                                       enum pack_kind kind, int ranks, int *packer);
/* From now on pack only the maps of this kind that are rank `rank`'s by such a list; NULL: all. Local. */
void linears_pack_some(struct linears *list, const struct param_table *params, enum pack_kind kind, const int *packer,
                       int rank);
/* Pack every weight from the table that is this rank's to pack. Allocates nothing. Local. */
void linears_pack(struct linears *list, const struct param_table *params);
/* Those of one module. from[tensor] is where a tensor's masters lie, in the type of its map, unless it is NULL (or
 * `from` is): then they are the table's. Allocates nothing. Local. */
void linears_pack_module(struct linears *list, const struct param_table *params, int module, enum dtype type,
                         const void *const *from);
/* hash[tensor] of the packed weights of the tensor's map, where a rank computes with nothing else of it (param_split).
 * Local. */
void linears_hash(const struct linears *list, const struct param_table *params, uint64_t *hash);
/* packed_bytes[kind] of the packed weights that a part of a model of `layers` blocks has, without keeping anything. Local. */
MUST_CHECK enum status linears_measure(const struct linears *list, const struct param_table *params,
                                       struct model_part part, int layers, enum dtype type, bool train, int threads,
                                       size_t *packed_bytes);
void linears_free_products(struct linears *list);
void linears_free(struct linears *list);

#endif
