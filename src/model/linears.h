/* Every linear map of a model as rows of one list, so that packing, preparing and measuring loop
 * over it. A row names its parameters; maps of the same shape share one product. */
#ifndef CYTOMILL_MODEL_LINEARS_H
#define CYTOMILL_MODEL_LINEARS_H

#include "model/param.h"
#include "model/part.h"
#include "tape/linear.h"

struct linears_row {
    struct linear map;
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
/* Take packed weights and the one shared scratch block (measure mode allowed). Local. */
void linears_take(struct linears *list, struct arena *arena);
/* Pack every weight from the table. Allocates nothing. Local. */
void linears_pack(struct linears *list, const struct param_table *params);
/* Those of one module. from[tensor] is where a tensor's masters lie, in the type of its map, unless it is NULL (or
 * `from` is): then they are the table's. Allocates nothing. Local. */
void linears_pack_module(struct linears *list, const struct param_table *params, int module, enum dtype type,
                         const void *const *from);
/* hash[tensor] of the packed weights of the tensor's map, where a rank computes with nothing else of it (param_split).
 * Local. */
void linears_hash(const struct linears *list, const struct param_table *params, uint64_t *hash);
/* Bytes of the packed weights that a part of a model of `layers` blocks has, without keeping anything. Local. */
MUST_CHECK enum status linears_measure(const struct linears *list, const struct param_table *params,
                                       struct model_part part, int layers, enum dtype type, bool train, int threads,
                                       size_t *packed_bytes);
void linears_free_products(struct linears *list);
void linears_free(struct linears *list);

#endif
