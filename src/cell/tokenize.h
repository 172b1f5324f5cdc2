/* Value-projection tokens (CellFM): the expressed vocabulary genes of a cell, each as (gene id,
 * ln(1 + 1e4 count / total)); and the masking of the pre-training task.
 * Equation and order of steps: CellFM's data pipeline (Nat. Commun. 16, 4679, 2025; official code). */
#ifndef CYTOMILL_CELL_TOKENIZE_H
#define CYTOMILL_CELL_TOKENIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "cell/batch.h"
#include "cell/cells.h"

struct token_rules {
    int max_genes;        /* model.max_genes: above it genes are sampled by weight ln(1+count) */
    int min_genes;        /* selection of training cells; not used when embedding */
    double scale;         /* 1e4 */
    double cap_total;     /* 1e5: larger totals are scaled down and rounded (training only) */
    double select_fraction, hide_fraction; /* 0.2 in the loss, of which the first 0.8 are hidden */
};
struct token_rules token_rules_from(const struct config *config);

/* One cell in vocabulary terms, ascending ids, before any sampling. Arrays are scratch of the caller. */
struct token_cell {
    int count;        /* expressed vocabulary genes */
    int32_t *gene;    /* [count] ids, ascending */
    float *counts;    /* [count] */
    double total;     /* sum over all its vocabulary genes */
};

/* Look row `row` of `cells` up through lookup[feature] (0 = not in the vocabulary). `capped` applies
 * cap_total first (training). Arrays of `out` must hold the row's entries. Local. */
void token_cell_read(const struct cells *cells, int64_t row, const int32_t *lookup, const struct token_rules *rules,
                     bool capped, struct token_cell *out);

/* Append the cell for embedding: cls, then every gene visible, no loss; above max_genes the sample
 * is keyed by a hash of the (id, count) pairs, so it depends on the cell alone. A cell without a
 * vocabulary gene is refused: false. Local. */
bool token_append_embed(struct batch *batch, const struct token_cell *cell, const struct token_rules *rules, int64_t id);

/* Append the cell for training: select floor(select n) positions for the loss, hide the first
 * floor(hide * that), all keyed by (seed, id, step). n < 5 selects all and hides none. Local. */
void token_append_train(struct batch *batch, const struct token_cell *cell, const struct token_rules *rules,
                        int64_t id, uint64_t seed, uint64_t step);

#endif
