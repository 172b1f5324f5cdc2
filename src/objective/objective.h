/* Objectives: what a model is trained for.
 *
 * An objective returns a numerator and a denominator, never a mean, so that micro-batches, pipeline
 * stages and ranks add up to the loss of one big batch; and it says how its terms couple, so that
 * whoever cuts a batch knows what must stay together. */
#ifndef CYTOMILL_OBJECTIVE_OBJECTIVE_H
#define CYTOMILL_OBJECTIVE_OBJECTIVE_H

/* What one term of the sum looks at. */
enum coupling {
    COUPLE_TOKEN, /* one token: a batch may be cut anywhere between cells */
    COUPLE_CELL,  /* the tokens of one cell */
    COUPLE_BATCH, /* all cells of the global batch: gathered, with gradients */
    COUPLE_GROUP  /* the cells of one sample (a donor, a perturbation and its controls) */
};

struct objective {
    const char *name;
    enum coupling coupling;
};

#endif
