/* A vocabulary: the genes a model knows, as a view on any atlas.
 *
 * Ids are 1-based (0 = not in the vocabulary, and the pad row of CellFM's table). Two forms of file are
 * read, each known by its first line: our TSV `id symbol ensembl hgnc`, and CellFM's gene tables as they
 * are published (CSV, `HGNC_gene,h5_sample_frequency,…`; the id is the number of the row, only symbols are
 * known). The SHA-256 of the file is stored in every checkpoint. */
#ifndef CYTOMILL_CELL_VOCAB_H
#define CYTOMILL_CELL_VOCAB_H

#include <stdint.h>

#include "base/hash.h"
#include "cell/feature.h"

struct vocab_gene {
    char *symbol, *ensembl, *hgnc; /* owned by the vocabulary; "" where unknown */
};

struct vocab {
    int32_t count;            /* V: ids are 1..V */
    struct vocab_gene *genes; /* [V], genes[id-1] */
    char *text;               /* the file's bytes, stored inside checkpoints */
    size_t text_bytes;
    char sha256[SHA256_HEX];
};

/* Parse the text of a file of either form (copied). `origin` names it in messages. ST_INPUT: line, what was
 * found. Local. */
MUST_CHECK enum status vocab_parse(const char *text, size_t bytes, const char *origin, struct vocab **out);
MUST_CHECK enum status vocab_read(const char *path, struct vocab **out);
void vocab_destroy(struct vocab **vocab);

/* lookup[f] = vocabulary id of feature f or 0 (caller allocates [table->count]). Matches by Ensembl
 * id first, then by approved symbol, then by a unique original name. A gene claimed by several
 * features keeps the first by id; repeated names without ids are never mapped. Returns the number
 * of features mapped. Local. */
int64_t vocab_map(const struct vocab *vocab, const struct feature_table *table, int32_t *lookup);

/* Id of a gene given as symbol, Ensembl id or HGNC id; 0 if unknown. Local. */
int32_t vocab_find(const struct vocab *vocab, const char *name);

#endif
