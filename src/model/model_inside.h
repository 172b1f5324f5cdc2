/* Inside of a model, shared by model.c (what it is) and model_run.c (what it does). */
#ifndef CYTOMILL_MODEL_MODEL_INSIDE_H
#define CYTOMILL_MODEL_MODEL_INSIDE_H

#include "model/family.h"
#include "model/model.h"

/* A micro-batch on its way through a part: its pass, and the memory of its activations. */
struct slot {
    struct arena activations;
    struct tape *tape;
    struct pass pass;
    struct model_part part;
    struct model_how how;
    struct tensor *in, *out; /* what the part was handed and hands on; NULL at the ends of the model */
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

    struct model_limits limits; /* below: made by model_prepare */
    enum dtype type;
    struct arena packed;
    int slot_count;
    struct slot *slots;
    bool linked;
    struct expert_link link;   /* to experts on other ranks, */
    struct arena spare_memory; /* and what its further rounds run on */
};

/* Start a pass of `part` in a slot with an arena and a tape: batch NULL measures `sizes`. Local. */
void slot_begin(const struct model *model, struct slot *slot, struct model_part part, const struct batch *batch,
                struct pass_sizes sizes, enum read read, enum dtype type, const struct model_how *how);
/* Forward, backward and weight gradients of what was begun, as model.h has them; `limits` says how. Local. */
void slot_forward(const struct model *model, struct slot *slot, const struct model_limits *limits, const void *in,
                  void *out, struct loss_sum *loss);
void slot_backward(const struct model *model, struct slot *slot, const struct model_limits *limits, const void *d_out,
                   void *d_in);
void slot_weights(struct slot *slot);

#endif
