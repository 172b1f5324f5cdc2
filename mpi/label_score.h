/* How well a representation keeps labels: each test cell takes the majority label of its k nearest
 * training cells (Euclidean), and the predictions are compared with the truth. */
#ifndef CYTOMILL_MPI_LABEL_SCORE_H
#define CYTOMILL_MPI_LABEL_SCORE_H

#include <stdint.h>

#include "metric/classify.h"
#include "mpi/neighbours.h"

/* What is known of all rows, on all ranks. Borrowed. */
struct labelled {
    int64_t rows;
    int labels;
    const int32_t *code;  /* [rows] 0 .. labels-1, -1 = no label */
    const uint8_t *train; /* [rows] */
    const uint8_t *test;  /* [rows] */
};

/* Confusion of the test cells of all ranks by their k nearest, the same on every rank (confusion_free). Rows without
 * label take no part. Training and test cells are apart, or the same rows: then no cell is its own neighbour
 * (leave-one-out). ST_INPUT: no training or no test cell, or the training cells have one label only; ST_CONFIG: the two
 * overlap in part. Collective, agreed. */
MUST_CHECK enum status label_score(struct comm *comm, const struct spread_rows *rows, const struct labelled *labelled,
                                   int k, struct confusion *out);

#endif
