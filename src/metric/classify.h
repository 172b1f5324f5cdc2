/* How well predicted labels match: confusion matrix, precision, recall, F1 per label, macro-F1.
 *
 * Macro-F1 is the plain mean of F1 over the labels that occur among the true or the predicted labels of
 * the scored cells; F1 of a label is 2 tp / (2 tp + fp + fn). */
#ifndef CYTOMILL_METRIC_CLASSIFY_H
#define CYTOMILL_METRIC_CLASSIFY_H

#include <stdint.h>

#include "base/status.h"

struct confusion {
    int labels;
    int64_t *count; /* [labels, labels] true x predicted */
};

MUST_CHECK enum status confusion_create(int labels, struct confusion *out);
void confusion_free(struct confusion *confusion);
void confusion_add(struct confusion *confusion, int32_t truth, int32_t predicted);

struct label_score {
    int64_t cells, predicted;     /* true and predicted members */
    double precision, recall, f1; /* 0 where undefined */
};
struct label_score confusion_label(const struct confusion *confusion, int label);

struct overall_score {
    int64_t cells;
    int labels; /* that occur */
    double macro_f1, accuracy;
};
struct overall_score confusion_overall(const struct confusion *confusion);

#endif
