/* What a sweep works on: the panel of genes, the cells of the group and of the goal. */
#ifndef CYTOMILL_IO_SCREEN_INPUT_H
#define CYTOMILL_IO_SCREEN_INPUT_H

#include <stdint.h>

#include "base/config.h"
#include "io/cell_input.h"
#include "io/inference.h"
#include "mpi/comm.h"
#include "screen/cohort.h"

/* Genes by vocabulary id, in the user's order. */
struct gene_list {
    int count;
    int32_t *gene; /* [count] */
};
void gene_list_free(struct gene_list *list);

/* The genes that key `name` lists (symbols, Ensembl or HGNC ids, or one file with a gene a line;
 * lines may hold more columns, # opens a comment). Local. ST_INPUT: unknown genes, each with the nearest name;
 * ST_CONFIG: a gene given twice. */
MUST_CHECK enum status gene_list_read(const struct config *config, const char *name, const struct vocab *vocab,
                                      struct gene_list *out);

/* Rows of the atlas that run.cells and `expression` both select, ascending; the caller frees. Collective, agreed.
 * ST_CONFIG: a syntax error or an unknown column; ST_INPUT: nothing selected. */
MUST_CHECK enum status screen_select(struct comm *comm, const struct config *config, struct atlas *atlas,
                                     const char *expression, int64_t **rows, int64_t *count);

/* Up to `most` of rows[count], drawn by the keyed permutation of the seed, as token lists in atlas
 * order; every rank gets all (cohort_free). Genes with hidden[V+1] set are taken out of every cell; cells without a
 * token are left out. Collective, agreed. ST_INPUT: no cell is left, a damaged shard. */
MUST_CHECK enum status screen_draw(struct comm *comm, struct cell_input *input, const struct inference *inference,
                                   const int64_t *rows, int64_t count, int64_t most, uint64_t seed,
                                   const uint8_t *hidden, struct cohort *out);

/* The `count` genes detected in most cells of rows[], ties by vocabulary id, without mitochondrial
 * (MT-), ribosomal (RPL, RPS) and hidden genes. Ranks share the reading. Collective, agreed. */
MUST_CHECK enum status screen_most_detected(struct comm *comm, struct cell_input *input,
                                            const struct inference *inference, const int64_t *rows, int64_t row_count,
                                            const uint8_t *hidden, int count, struct gene_list *out);

/* raised[i]: the 99th percentile of the counts of panel gene i among the cells of rows[] that express
 * it; 0 where none does. Exact. Ranks share the reading. Collective, agreed. */
MUST_CHECK enum status screen_percentiles(struct comm *comm, struct cell_input *input,
                                          const struct inference *inference, const int64_t *rows, int64_t row_count,
                                          const struct gene_list *panel, float *raised);

#endif
