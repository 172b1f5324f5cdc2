/* A perturbed cell: what knocking genes out, or over-expressing them, does to a list of tokens.
 *
 * Library size stays as it was: every untouched token keeps its value bit for bit.
 *   knock-out        the tokens of the set are removed; a gene without a token changes nothing
 *   over-expression  the value becomes at least `raised` (never lower); a gene without a token is inserted in its
 *                    place, and where the model's cap leaves no room it takes the place of the gene drawn last */
#ifndef CYTOMILL_SCREEN_EDIT_H
#define CYTOMILL_SCREEN_EDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "cell/batch.h"

enum edit_mode { EDIT_KNOCK_OUT, EDIT_OVER_EXPRESS };

/* The feature tokens of a cell without its cls; borrowed. */
struct token_list {
    int count;
    const int32_t *gene;  /* [count] vocabulary ids, ascending */
    const float *value;   /* [count] model input, ln(1 + scale * count / total) */
    const int32_t *drawn; /* [count] place of each in the order of drawing (0 = first) */
};

/* A set of genes and what is done to it. */
struct edit {
    enum edit_mode mode;
    int size;
    const int32_t *gene; /* [size] vocabulary ids, ascending */
    const float *raised; /* [size] values to raise to in this cell; over-expression only */
    int max_tokens;      /* the model's cap; over-expression only */
};

/* Place of `gene` in the list, -1 if the cell has no token of it. Local. */
int token_list_find(const struct token_list *list, int32_t gene);
/* Has the cell a token of every gene of the set? Local. */
bool token_list_has_all(const struct token_list *list, const int32_t *gene, int size);

/* The perturbed tokens into gene_out and value_out (room for count + size each); returns their
 * number. Local. */
int edit_apply(const struct token_list *list, const struct edit *edit, int32_t *gene_out, float *value_out);

/* Append a cell of these tokens to a batch as embedding wants it: cls, all visible, no loss; the
 * batch must have room. Call batch_find_levels after the last. Local. */
void edit_append(struct batch *batch, const int32_t *gene, const float *value, int count, int64_t cell_id);

#endif
