/* Inside of a model, shared by model.c (what it is), slot.c (a pass of a part of it) and model_run.c (what callers
 * do with it). */
#ifndef CYTOMILL_MODEL_MODEL_INSIDE_H
#define CYTOMILL_MODEL_MODEL_INSIDE_H

#include "model/family.h"
#include "model/model.h"

/* A micro-batch on its way through a part: its pass, and the memory of its activations. */
struct slot {
    struct arena activations;
    struct tape *tape;
    struct pass pass;
    struct stop stop; /* on the way to experts on other ranks */
    struct model_part part;
    struct model_how how;
    bool splits, recomputes; /* weight gradients wait; activations are computed again */
    bool waits;              /* for stop.travel.move */
    bool backward;           /* which of the two runs, */
    int block, segment;      /* and where it is */
    bool again;              /* recompute: the block has run forward once more, and runs backward */
    struct tensor *in, *out; /* what the part was handed and hands on; NULL at the ends of the model. With recomputation
                                `in` is what enters the block */
    size_t above;            /* recompute: arena position above what is kept, */
    void **kept;             /* [blocks + 1] what enters each block, and the heads */
    void *carried;           /* [S, D] the gradient on its way from block to block */
};

struct model {
    char *name;
    int layers;
    int64_t width;
    uint64_t seed;
    double select_fraction;
    const struct family *family;
    void *self; /* the family's */
    struct model_hold hold;
    struct param_table params;
    struct linears linears;
    struct expert_layers experts;

    int experts_per_token; /* K */

    struct model_limits limits;               /* below: made by model_prepare */
    struct arena packed[PACK_KINDS], scratch; /* scratch: the products', and what the family prepares */
    bool *expired;                            /* [layers + 2] of module m at m + 1 */
    int slot_count;
    struct slot *slots;
    struct tape *spare;        /* for rows beyond a slot's room for those of other ranks (tape/travel.h); NULL if all */
    struct arena spare_memory; /* experts lie here */
};

/* The type of activations. */
static inline enum dtype model_type(const struct model_limits *limits)
{
    return limits->bf16 ? DTYPE_BF16 : DTYPE_REAL;
}

/* How the experts of the held layers are shared out: on 1 rank, all lie here. Local. */
struct expert_ranks slot_expert_ranks(const struct model *model, const struct model_limits *limits);
/* Start a pass of `part` in a slot with an arena and a tape: batch NULL measures `sizes`. Local. */
void slot_begin(const struct model *model, struct slot *slot, struct model_part part, const struct batch *batch,
                struct pass_sizes sizes, enum read read, const struct model_limits *limits,
                const struct model_how *how);
/* Forward and backward of what was begun, and its weight gradients, as model.h has them. Forward and backward stop for
 * slot->stop.travel.move while slot->waits, and slot_go_on when the move is done. Local. */
void slot_forward(const struct model *model, struct slot *slot, const void *in);
void slot_end_forward(const struct model *model, struct slot *slot, void *out, struct loss_sum *loss);
void slot_backward(const struct model *model, struct slot *slot, const void *d_out);
void slot_end_backward(const struct model *model, struct slot *slot, void *d_in);
void slot_weights(struct slot *slot);
void slot_go_on(const struct model *model, struct slot *slot);
void slot_meanwhile(struct slot *slot);

#endif
