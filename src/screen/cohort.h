/* The cells of a screen as token lists, kept in memory for the whole run: each is edited thousands
 * of times. About 12 bytes a token. */
#ifndef CYTOMILL_SCREEN_COHORT_H
#define CYTOMILL_SCREEN_COHORT_H

#include <stdint.h>

#include "cell/tokenize.h"
#include "screen/edit.h"

/* Zero-initialise; free with cohort_free. */
struct cohort {
    int64_t count;
    int64_t *start; /* [count+1] first token of each cell */
    int64_t *id;    /* [count] row of the atlas */
    double *total;  /* [count] counts over vocabulary genes: the library size that stays */
    int32_t *gene;  /* [start[count]] ascending in a cell */
    float *value;   /* [start[count]] */
    int32_t *drawn; /* [start[count]] place in the order of drawing */
    int64_t cell_capacity, token_capacity;
};

/* Sample the cell as embedding does and append its tokens, without those of hidden genes
 * (hidden[gene] != 0; NULL hides none). A cell that keeps no token is left out. ST_MEMORY. Local. */
MUST_CHECK enum status cohort_add(struct cohort *cohort, struct token_cell *cell, const struct token_rules *rules,
                                  const uint8_t *hidden, int64_t id);
void cohort_free(struct cohort *cohort);

/* The tokens of cell i; borrowed. */
static inline struct token_list cohort_tokens(const struct cohort *cohort, int64_t i)
{
    int64_t at = cohort->start[i];
    return (struct token_list){(int)(cohort->start[i + 1] - at), cohort->gene + at, cohort->value + at,
                               cohort->drawn + at};
}
/* Cells that have a token of this gene. Local. */
int64_t cohort_carriers(const struct cohort *cohort, int32_t gene);
/* Most tokens of any cell, cls not included. Local. */
int cohort_longest(const struct cohort *cohort);

#endif
