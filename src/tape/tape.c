#include "tape/tape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/vector.h"
#include "tape/op.h"

struct segment {
    const char *name;
    int index;
    int first_node;
    size_t mark;          /* arena position before its first activation */
    struct tensor *input; /* NULL for the first segment */
    bool undrained;       /* it ran backward and left weight gradients to compute: */
    int first_deferred, deferred_count;
};

struct deferred {
    const struct node *node;
    void (*weights)(const struct node *node);
};

struct tape {
    struct arena *arena;
    enum tape_mode mode;
    int max_nodes, max_tensors;
    int node_count, tensor_count, segment_count, deferred_count;
    int backward_at;      /* segments from here on ran backward */
    int node_at;          /* of the one that runs backward, the node that comes next, */
    struct node *stopped; /* and the cut that it stopped at; NULL between segments */
    int undrained;        /* how many of them keep weight gradients to compute */
    struct node *nodes;
    struct tensor *tensors;
    struct segment *segments;
    struct deferred *deferred;
    double forward_flops, backward_flops;
    tape_tap_fn *tap;
    void *tap_context;
};

/* Running out of a measured size means that the measurement ran other code than the pass. */
static void require(bool holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "tape: broken invariant: %s\n", what);
    abort();
}

enum status tape_create(struct arena *arena, int max_nodes, struct tape **out)
{
    enum status st = ST_OK;
    struct tape *t = NULL;
    TRY(NEW_ARRAY(t, 1));
    *t = (struct tape){.arena = arena, .max_nodes = max_nodes, .max_tensors = 2 * max_nodes};
    TRY(NEW_ARRAY(t->nodes, max_nodes));
    TRY(NEW_ARRAY(t->tensors, t->max_tensors));
    TRY(NEW_ARRAY(t->segments, max_nodes));
    TRY(NEW_ARRAY(t->deferred, max_nodes));
done:
    if (st != ST_OK) tape_destroy(&t);
    *out = t;
    return st;
}

void tape_destroy(struct tape **tape)
{
    struct tape *t = *tape;
    if (!t) return;
    free(t->nodes);
    free(t->tensors);
    free(t->segments);
    free(t->deferred);
    free(t);
    *tape = NULL;
}

void tape_again(struct tape *t, enum tape_mode mode, size_t mark)
{
    arena_reset(t->arena, mark);
    t->mode = mode;
    t->node_count = t->tensor_count = t->segment_count = t->deferred_count = 0;
    t->backward_at = t->undrained = 0;
    t->stopped = NULL;
}

void tape_begin(struct tape *t, enum tape_mode mode)
{
    tape_again(t, mode, 0);
    t->forward_flops = t->backward_flops = 0;
}

bool tape_measures(const struct tape *t) { return t->arena->base == NULL; }
bool tape_trains(const struct tape *t) { return t->mode == TAPE_TRAIN; }
double tape_forward_flops(const struct tape *t) { return t->forward_flops; }
double tape_backward_flops(const struct tape *t) { return t->backward_flops; }

void tape_set_tap(struct tape *t, tape_tap_fn *tap, void *context)
{
    t->tap = tap;
    t->tap_context = context;
}

void tape_tap(struct tape *t, const char *name, const struct tensor *value)
{
    if (!t->tap || tape_measures(t)) return;
    const struct segment *s = &t->segments[t->segment_count - 1];
    t->tap(t->tap_context, s->name, s->index, name, value);
}

/* ---- tensors ---- */

static size_t tensor_bytes(const struct tensor *x) { return (size_t)(x->rows * x->cols) * dtype_bytes(x->type); }

struct tensor *tape_wrap(struct tape *t, void *data, enum dtype type, int64_t rows, int64_t cols)
{
    require(t->tensor_count < t->max_tensors, "more tensors than the tape was made for");
    struct tensor *x = &t->tensors[t->tensor_count++];
    *x = (struct tensor){.data = data, .rows = rows, .cols = cols, .type = type};
    return x;
}

struct tensor *tape_stop(struct tape *t, const struct tensor *x)
{
    return tape_wrap(t, x->data, x->type, x->rows, x->cols);
}

struct tensor *tape_tensor(struct tape *t, enum dtype type, int64_t rows, int64_t cols)
{
    struct tensor *x = tape_wrap(t, NULL, type, rows, cols);
    x->data = arena_take(t->arena, tensor_bytes(x));
    return x;
}

void *tape_take(struct tape *t, size_t bytes) { return arena_take(t->arena, bytes); }
struct arena *tape_arena(struct tape *t) { return t->arena; }

/* ---- forward ---- */

/* Drop everything above `mark`, except `bytes` at `keep`, which move down to the mark. */
static void *stack_drop(struct tape *t, size_t mark, void *keep, size_t bytes)
{
    arena_reset(t->arena, mark);
    void *kept = arena_take(t->arena, bytes);
    if (kept && kept != keep) memmove(kept, keep, bytes);
    return kept;
}

struct tensor *tape_segment(struct tape *t, const char *name, int index, struct tensor *x)
{
    require(t->segment_count < t->max_nodes, "more segments than the tape was made for");
    if (x && t->segment_count > 0 && t->mode == TAPE_INFER) {
        struct segment *old = &t->segments[t->segment_count - 1];
        x->data = stack_drop(t, old->mark, x->data, tensor_bytes(x));
        t->node_count = 0;
    }
    t->segments[t->segment_count++] = (struct segment){
        .name = name, .index = index, .first_node = t->node_count, .mark = arena_mark(t->arena), .input = x};
    t->backward_at = t->segment_count;
    return x;
}

struct node *tape_node(struct tape *t, const struct op *op)
{
    require(t->node_count < t->max_nodes, "more ops than the tape was made for");
    struct node *n = &t->nodes[t->node_count];
    memset(n, 0, sizeof *n);
    n->op = op;
    return n;
}

static bool is_cut(const struct node *n) { return !n->op->forward; }

/* Run one kernel of a node with its scratch memory around it. */
static void run_kernel(struct tape *t, struct node *n, bool backward)
{
    size_t mark = arena_mark(t->arena);
    size_t bytes = n->op->scratch_bytes ? n->op->scratch_bytes(n, backward) : 0;
    n->scratch = bytes ? arena_take(t->arena, bytes) : NULL;
    if (!tape_measures(t) && !is_cut(n)) {
        if (backward) n->op->backward(t, n);
        else n->op->forward(n);
    }
    arena_reset(t->arena, mark);
}

struct tensor *tape_run(struct tape *t, struct node *n, bool parameters)
{
    bool wants = parameters;
    for (int i = 0; i < TAPE_INPUTS; i++) wants = wants || (n->in[i] && n->in[i]->wants_gradient);
    wants = wants && tape_trains(t);
    if (n->out) n->out->wants_gradient = wants;
    t->forward_flops += n->op->flops ? n->op->flops(n) : 0;
    run_kernel(t, n, false);
    if (wants) t->node_count++;
    return n->out;
}

/* ---- backward ---- */

void tape_defer(struct tape *t, const struct node *node, void (*weights)(const struct node *node))
{
    require(t->deferred_count < t->max_nodes, "more weight gradients than the tape was made for");
    t->deferred[t->deferred_count++] = (struct deferred){node, weights};
}

/* Where the gradients of the inputs go: the first consumer writes x->gradient, later ones add to it,
 * through memory of their own if the op cannot add. */
static void input_gradients(struct tape *t, struct node *n)
{
    for (int i = 0; i < TAPE_INPUTS; i++) {
        struct tensor *x = n->in[i];
        if (!x || (!x->wants_gradient && n->op->adds)) continue;
        n->add[i] = x->wants_gradient && x->gradient != NULL;
        bool shares = n->add[i] && n->op->adds;
        n->din[i] = shares ? x->gradient : arena_take(t->arena, tensor_bytes(x));
        if (x->wants_gradient && !n->add[i]) x->gradient = tape_measures(t) ? (void *)t : n->din[i]; /* t: "has one" */
    }
}

static void add_gradients(struct tape *t, struct node *n)
{
    for (int i = 0; i < TAPE_INPUTS; i++) {
        struct tensor *x = n->in[i];
        if (n->add[i] && !n->op->adds && !tape_measures(t))
            vector_add(x->gradient, n->din[i], x->rows * x->cols, x->type);
    }
}

/* False at a cut, whose gradients are not there yet. */
static bool node_backward(struct tape *t, struct node *n)
{
    if (n->out && !n->out->gradient) return true; /* nobody used it */
    input_gradients(t, n);
    if (is_cut(n) && !tape_measures(t)) return false;
    t->backward_flops += n->op->flops ? n->op->flops(n) * n->op->backward_flops : 0;
    run_kernel(t, n, true);
    add_gradients(t, n);
    return true;
}

void *tape_start_gradient(struct tape *t, struct tensor *x)
{
    void *memory = arena_take(t->arena, tensor_bytes(x));
    x->gradient = tape_measures(t) ? (void *)t : memory; /* t: "has one" */
    return memory;
}

int tape_segment_count(const struct tape *t) { return t->segment_count; }

/* Begin a segment, or go on behind the cut that it stopped at. */
static void enter_backward(struct tape *t, struct segment *s, int end)
{
    if (t->stopped) {
        add_gradients(t, t->stopped);
        t->stopped = NULL;
        return;
    }
    s->first_deferred = t->deferred_count;
    t->node_at = end - 1;
}

bool tape_backward_segment(struct tape *t, int segment)
{
    require(tape_trains(t), "backward after a pass that kept nothing");
    require(segment == t->backward_at - 1, "segments run backward from the last to the first");
    struct segment *s = &t->segments[segment];
    enter_backward(t, s, segment + 1 < t->segment_count ? t->segments[segment + 1].first_node : t->node_count);
    while (t->node_at >= s->first_node) {
        struct node *n = &t->nodes[t->node_at--];
        if (node_backward(t, n)) continue;
        t->stopped = n;
        return false;
    }
    s->deferred_count = t->deferred_count - s->first_deferred;
    s->undrained = true;
    t->backward_at = segment;
    t->undrained++;
    return true;
}

struct node *tape_stopped_at(const struct tape *t) { return t->stopped; }

void tape_drain_early(struct tape *t)
{
    require(t->undrained == 0, "weight gradients drained early while others wait");
    for (int i = 0; i < t->deferred_count; i++)
        if (!tape_measures(t)) t->deferred[i].weights(t->deferred[i].node);
    t->deferred_count = 0;
}

/* Nothing that ran backward is needed any more but the gradient that goes to the segment before it, which takes the
 * place of the activations. */
static void release_backward(struct tape *t)
{
    struct segment *s = &t->segments[t->backward_at];
    struct tensor *x = s->input;
    t->deferred_count = 0;
    if (!x || !x->gradient) return;
    void *kept = stack_drop(t, s->mark, x->gradient, tensor_bytes(x));
    if (kept) x->gradient = kept;
}

void tape_drain_segment(struct tape *t, int segment)
{
    struct segment *s = &t->segments[segment];
    require(segment < t->segment_count && s->undrained, "weight gradients drained before their backward, or twice");
    for (int i = 0; i < s->deferred_count; i++) {
        const struct deferred *d = &t->deferred[s->first_deferred + i];
        if (!tape_measures(t)) d->weights(d->node);
    }
    s->undrained = false;
    if (--t->undrained == 0) release_backward(t);
}

bool tape_is_undrained(const struct tape *t, int segment) { return t->segments[segment].undrained; }

void tape_backward(struct tape *t)
{
    for (int i = t->segment_count - 1; i >= 0; i--) {
        require(tape_backward_segment(t, i), "a pass with cuts run backward without stops");
        tape_drain_segment(t, i);
    }
}
