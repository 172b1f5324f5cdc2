/* Value-projection tokens (CellFM): the expressed vocabulary genes of a cell, each as (gene id,
 * ln(1 + 1e4 count / total)); and the masking of the pre-training task.
 * Equation and order of steps: CellFM's data pipeline (Nat. Commun. 16, 4679, 2025; official code).
 *
 *     struct token_cell cell = {0};
 *     TRY(token_cell_reserve(&cell, most_entries_of_a_row));           once
 *     token_cell_read(&cells, row, lookup, &rules, true, &cell);
 *     if (token_cell_selected(&cell, &rules)) token_append_train(&batch, &cell, &rules, id, seed, step);
 *     token_cell_free(&cell); */
#ifndef CYTOMILL_CELL_TOKENIZE_H
#define CYTOMILL_CELL_TOKENIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "cell/batch.h"
#include "cell/cells.h"

struct token_rules {
    int max_genes;                         /* model.max_genes: above it genes are sampled by weight ln(1+count) */
    int min_genes;                         /* selection of training cells; not used when embedding */
    bool drop_long_cells;                  /* likewise: leave out cells above max_genes instead of sampling */
    double scale;                          /* 1e4 */
    double cap_total;                      /* 1e5: larger totals are scaled down and rounded (training only); 0 never */
    double select_fraction, hide_fraction; /* 0.2 in the loss, of which the first 0.8 are hidden */
};
struct token_rules token_rules_from(const struct config *config);

/* One cell in vocabulary terms, ascending ids, before any sampling. Owns its arrays. */
struct token_cell {
    int count;        /* expressed vocabulary genes */
    int32_t *gene;    /* [count] ids, ascending */
    float *counts;    /* [count] */
    uint64_t *key;    /* [count] scratch: sort keys of lookup, sampling and masking */
    double total;     /* sum of counts over its vocabulary genes, T */
    int64_t capacity; /* entries the arrays hold; at most 2^21, the places a key can name */
};
/* Room for a row of `entries` entries, keeping nothing. Zero-initialise before the first call. Local.
 * ST_INPUT: a row of more than 2^21 entries. */
MUST_CHECK enum status token_cell_reserve(struct token_cell *cell, int64_t entries);
void token_cell_free(struct token_cell *cell);

/* Look row `row` of `cells` up through lookup[feature] (0 = not in the vocabulary). `capped` (training)
 * first rounds counts to whole numbers, scaling totals over *all* features above cap_total down to it;
 * genes that round to 0 are dropped. `out` must be reserved for the row's entries. Local. */
void token_cell_read(const struct cells *cells, int64_t row, const int32_t *lookup, const struct token_rules *rules,
                     bool capped, struct token_cell *out);

/* Does training take this cell (min_genes, and max_genes if long cells are dropped)? Local. */
bool token_cell_selected(const struct token_cell *cell, const struct token_rules *rules);

/* Model input of a count in a cell of this total: ln(1 + scale count / total). Local. */
float token_value(double count, double total, const struct token_rules *rules);

/* Shorten the cell to the genes that embedding shows (all, up to max_genes); its total stays. drawn
 * (NULL, or room for max_genes) gets each kept gene's place in the order of drawing. Local. */
void token_sample_embed(struct token_cell *cell, const struct token_rules *rules, int32_t *drawn);

/* Append the cell for embedding: cls, then every gene visible, no loss; above max_genes the sample
 * is keyed by a hash of the (id, count) pairs, so it depends on the cell alone. A cell without a
 * vocabulary gene is refused: false. Shortens `cell` to the sample; its total stays. Local. */
bool token_append_embed(struct batch *batch, struct token_cell *cell, const struct token_rules *rules, int64_t id);

/* Append the cell for training: select floor(select n) positions for the loss, hide the first
 * floor(hide * that), all keyed by (seed, id, step). n < 5 selects all and hides none. Above
 * max_genes, genes are sampled as in embedding but keyed like the mask. Local. */
void token_append_train(struct batch *batch, struct token_cell *cell, const struct token_rules *rules, int64_t id,
                        uint64_t seed, uint64_t step);

#endif
