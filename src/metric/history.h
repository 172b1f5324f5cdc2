/* The course of a loss over a training, thinned so that it never takes more than HISTORY_MOST points: when it is full
 * every second goes, and from then on only every second of what is offered is kept. What is kept depends on what was
 * offered alone, so a run that goes on from a checkpoint has the history of one that was not interrupted.
 *
 *     struct history h = {0};
 *     history_add(&h, (struct history_point){step, loss, hidden, rate});     in rising steps */
#ifndef CYTOMILL_METRIC_HISTORY_H
#define CYTOMILL_METRIC_HISTORY_H

#include <stdint.h>

enum { HISTORY_MOST = 512 };

struct history_point {
    double step;
    double loss;   /* per position of the loss, both heads */
    double hidden; /* gene-wise, over the hidden positions */
    double rate;   /* learning rate; 0 of an evaluation */
};

/* Zeros: empty. */
struct history {
    int64_t count, offered, halvings; /* point k was the k * 2^halvings-th that was offered */
    struct history_point point[HISTORY_MOST];
};

/* Offer a point. Local. */
void history_add(struct history *history, struct history_point point);

#endif
