/* One pass of a model over one micro-batch: what parts may know while they run.
 *
 * Everything here that depends on the batch lies in the tape's arena. A measuring pass has no batch,
 * only sizes. Sizes: B cells, S tokens, R rows that somebody reads after the last block. */
#ifndef CYTOMILL_MODEL_PASS_H
#define CYTOMILL_MODEL_PASS_H

#include "cell/batch.h"
#include "model/param.h"
#include "tape/travel.h"

/* Which rows of the last layer are wanted: the others are not computed. */
enum read { READ_CLS, READ_LOSS, READ_ALL }; /* READ_LOSS: cls and the positions of the loss */

struct rows {
    int64_t count;
    bool some;               /* a choice of rows by index; else all tokens */
    struct ragged cells;     /* rows of each cell; the first is its cls row */
    const int64_t *index;    /* [count] rising places among all tokens; NULL for all, and while measuring */
    const int64_t *cell_id;  /* [count] keys of dropout */
    const int32_t *position; /* [count] place within the cell */
};

struct pass_sizes {
    int cells;
    int64_t tokens, levels, read;
};

/* Where a pass stands that stopped inside a block until rows have moved (tape/travel.h): what is needed to go on. */
struct stop {
    struct travel travel;
    struct routing routing;  /* of the feed-forward, */
    struct tensor *x;        /* which read this */
    struct tensor *stream;   /* of the block: what its result is joined to, */
    const struct rows *read; /* and which rows these are */
};

struct pass {
    struct tape *tape;
    const struct param_table *params;
    const struct batch *batch; /* NULL while measuring */
    struct pass_sizes sizes;
    enum dtype type;      /* of activations */
    uint64_t seed, step;  /* of dropout */
    bool drops;           /* dropout on */
    double balance_scale; /* share of the global batch's tokens: weighs terms that balance experts; 0 without */
    struct stop *stop;    /* where it stops on the way to experts on other ranks; NULL if all lie here */
    struct rows all, read;
    const uint8_t *key_mask;  /* [S] 0 on hidden genes */
    const float *value_scale; /* [B] 1/sqrt(genes of the cell) */
};

/* Sizes of a batch read in this way. Local. */
struct pass_sizes pass_sizes_of(const struct batch *batch, enum read read);
/* Start a pass on pass->tape, which has begun: fills sizes, all, read, key_mask, value_scale from
 * `batch`, or with NULL takes the same memory for `sizes`. Local. */
void pass_begin(struct pass *pass, const struct batch *batch, struct pass_sizes sizes, enum read read);

/* A parameter as ops take it; a tied one as the ops of the heads take it. Local. */
struct weight pass_weight(const struct pass *pass, int param);
struct weight pass_head_weight(const struct pass *pass, int param);
/* Dropout of `share` at place `site` of the model for these rows. Local. */
struct dropout pass_dropout(const struct pass *pass, const struct rows *rows, double share, int site);

#endif
