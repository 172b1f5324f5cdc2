/* A tape of ops: model code is written once, forward only; the tape remembers what ran and runs it
 * backward (reverse-mode differentiation in coarse steps).
 *
 * An op is a row of data (op.h): a forward and a backward kernel, its FLOPs and its scratch. Model
 * code calls op functions, each of which takes its result from the tape's arena, runs the forward
 * kernel and records a node. The very same model code runs in two modes,
 *   TAPE_INFER    nothing is kept beyond its segment
 *   TAPE_TRAIN    nodes and activations are kept until tape_backward()
 * and each of them for real or, on an arena without memory, as a measurement: shapes only, no
 * kernel runs, bytes and FLOPs are counted.
 *
 * The tape is cut into segments (embed | block i | heads), the places where a pipeline may cut: what
 * leaves a segment is handed over through tape_segment(), and nothing else crosses. Memory is a
 * stack, so tape_backward gives a segment's activations back before the next one starts.
 *
 *     tape_begin(t, TAPE_TRAIN);
 *     x = op_embed(t, ...);
 *     for (i...) x = block_forward(t, &block[i], tape_segment(t, "block", i, x), ...);
 *     objective ops
 *     tape_backward(t);
 *
 * Everything is local to one rank and called by one thread; kernels use OpenMP inside. Nothing
 * allocates between tape_begin and the end of tape_backward: running out of the measured memory is
 * a broken invariant and aborts. */
#ifndef CYTOMILL_TAPE_TAPE_H
#define CYTOMILL_TAPE_TAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "kernel/dtype.h"

enum tape_mode { TAPE_INFER, TAPE_TRAIN };
enum { TAPE_INPUTS = 4, TAPE_SAVED = 4, TAPE_ATTR_BYTES = 320 };

struct tape;
struct op;

/* A value on the tape: row-major [rows, cols]. Owned by the tape; dies with its segment. */
struct tensor {
    void *data;     /* NULL while measuring */
    void *gradient; /* same type and shape; NULL until backward reaches it */
    int64_t rows, cols;
    enum dtype type;
    bool wants_gradient;
};

/* One op that ran. */
struct node {
    const struct op *op;
    struct tensor *in[TAPE_INPUTS];                   /* unused ones NULL */
    struct tensor *out;                               /* NULL for an objective, where gradients start */
    void *din[TAPE_INPUTS];                           /* backward: where the gradient of in[i] goes */
    bool add[TAPE_INPUTS];                            /* ... and whether it is added to what is there */
    void *saved[TAPE_SAVED];                          /* kept from forward for backward */
    void *scratch;                                    /* op->scratch_bytes, valid inside forward or backward only */
    _Alignas(16) unsigned char attr[TAPE_ATTR_BYTES]; /* the op's own struct */
};

/* What a tap sees: an inner value the moment it exists, in the tape's own memory. */
typedef void tape_tap_fn(void *context, const char *segment, int index, const char *name, const struct tensor *value);

/* Room for `max_nodes` ops and as many tensors per pass. Activations come from *arena, which the
 * caller creates from what a measuring pass found (arena.high_bytes) and which must outlive the tape. */
MUST_CHECK enum status tape_create(struct arena *arena, int max_nodes, struct tape **out);
void tape_destroy(struct tape **tape);

/* Forget everything and start a pass. */
void tape_begin(struct tape *tape, enum tape_mode mode);
/* Start another stretch of the same pass: ops and tensors are forgotten, memory below `mark` stays, FLOPs go on. */
void tape_again(struct tape *tape, enum tape_mode mode, size_t mark);
bool tape_measures(const struct tape *tape); /* no memory: shapes only */
bool tape_trains(const struct tape *tape);
double tape_forward_flops(const struct tape *tape); /* of this pass so far, as executed */
double tape_backward_flops(const struct tape *tape);

/* Start segment `name` number `index`, whose only input is `x` (NULL, or a tensor of the caller's, for the first). Returns the
 * input as the new segment sees it. While inferring, the activations of the old segment are gone
 * afterwards, all but x, which moves to the bottom of the stack. */
struct tensor *tape_segment(struct tape *tape, const char *name, int index, struct tensor *x);

/* Gradients may also start at x, a tensor that the last segment hands on: memory for its gradient, which the caller
 * fills before backward. NULL while measuring. */
void *tape_start_gradient(struct tape *tape, struct tensor *x);

/* Backward in the two instructions of a pipeline schedule (zero bubble: Qi et al. 2023). The first runs one
 * segment backward, from the last of the pass to the first: gradients of its inputs, and of parameters that are
 * no linear maps (+=); its linear maps leave (X, dY, W) on a list. The second drains that list, once for each
 * segment, now or later: their weight gradients (+=), the same bits whenever it happens. Memory is a stack:
 * activations and gradients stay until every segment that ran backward is drained, and then go at once. */
int tape_segment_count(const struct tape *tape);
/* False where it stopped at a cut: the caller puts gradients where the node's din say and calls again. Nothing stops while
 * measuring. */
bool tape_backward_segment(struct tape *tape, int segment);
/* The cut (op.h) that the last tape_backward_segment stopped at. */
struct node *tape_stopped_at(const struct tape *tape);
/* Drain what the segment that runs backward has left so far; nothing else may be undrained. The same bits as later. */
void tape_drain_early(struct tape *tape);
void tape_drain_segment(struct tape *tape, int segment);
bool tape_is_undrained(const struct tape *tape, int segment); /* ran backward, not drained yet */
/* Both, segment after segment, from the objectives to the first: the order of least memory. For a pass without cuts. */
void tape_backward(struct tape *tape);

/* Show `value` to the tap, if one is set, as "name" of the current segment. */
void tape_set_tap(struct tape *tape, tape_tap_fn *tap, void *context);
void tape_tap(struct tape *tape, const char *name, const struct tensor *value);

/* ---- for ops ---- */

/* A new tensor, not cleared. */
struct tensor *tape_tensor(struct tape *tape, enum dtype type, int64_t rows, int64_t cols);
/* A constant of the caller as a tensor; it wants no gradient. */
struct tensor *tape_wrap(struct tape *tape, void *data, enum dtype type, int64_t rows, int64_t cols);
/* x without its past: gradients stop here. */
struct tensor *tape_stop(struct tape *tape, const struct tensor *x);
/* Memory that lives as long as a tensor made now. NULL while measuring. */
void *tape_take(struct tape *tape, size_t bytes);
struct arena *tape_arena(struct tape *tape);
/* A fresh node of `op`; the caller fills in, out, attr and saved, then tape_run() runs its forward
 * kernel, counts its FLOPs and keeps it if the pass trains. out->wants_gradient follows the inputs
 * and `parameters` (has the op weights to train?). */
struct node *tape_node(struct tape *tape, const struct op *op);
struct tensor *tape_run(struct tape *tape, struct node *node, bool parameters);
/* In the backward of an op of linear maps: `weights`, which adds dW += dY^T X of this node, runs when the segment is
 * drained. */
void tape_defer(struct tape *tape, const struct node *node, void (*weights)(const struct node *node));

#endif
