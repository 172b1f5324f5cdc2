/* The file of embeddings: an .h5ad in the input's order, written in numbered chunks by any ranks.
 *
 * Every cell of the input that takes part has a row. A cell that could not be embedded has a row of
 * NaN, embedded=False and a reason; obs otherwise carries the input's own columns. The embedding is
 * obsm/X_<model>, or above a size X itself (readers load obsm whole). The file is laid out as
 * NAME.partial (io/partial.h) and renamed when every chunk is done.
 *
 *     TRY(embedding_open(comm, &plan, &e));                           resumes, or finds it complete
 *     TRY(partial_queue(comm, embedding_partial(e), &queue));
 *     for each chunk of this rank: TRY(embedding_put(e, chunk, z, reasons));
 *     TRY(embedding_commit(comm, &e)); */
#ifndef CYTOMILL_IO_EMBEDDING_H
#define CYTOMILL_IO_EMBEDDING_H

#include <stdbool.h>
#include <stdint.h>

#include "io/cell_input.h"
#include "io/h5ad_write.h"
#include "io/partial.h"
#include "mpi/comm.h"

/* Why a cell has no embedding. */
#define EMBED_REASON_LIST(X) \
    X(EMBED_OK, "embedded") \
    X(EMBED_NO_GENE, "no gene of the vocabulary") \
    X(EMBED_NOT_FINITE, "embedding is not finite")
enum embed_reason {
#define X(name, words) name,
    EMBED_REASON_LIST(X)
#undef X
};
enum { EMBED_REASON_COUNT = 3 };
/* Its words, as above: static. Local. */
const char *embed_reason_words(enum embed_reason reason);

/* All borrowed until the commit. */
struct embedding_plan {
    const char *path; /* final name */
    struct cell_input *input;
    const char *model; /* obsm/X_<model> */
    int width;         /* D */
    int64_t chunk_cells;
    double obsm_max_bytes;
    const struct h5ad_note *notes; /* [note_count] provenance, under uns */
    int note_count;
    char key[SHA256_HEX]; /* names all that the content depends on */
    bool fresh;           /* refuse what is there already */
};

struct embedding;

/* Lay out, resume or recognise. Done chunks are read back and compared with their hashes; what does
 * not match is done again. Collective, agreed. ST_OUTPUT: the path holds something else, or (fresh)
 * anything; not writable; no space. */
MUST_CHECK enum status embedding_open(struct comm *comm, const struct embedding_plan *plan, struct embedding **out);
void embedding_close(struct embedding **embedding);

/* The finished file with this key is there already: nothing to do. Local. */
bool embedding_is_complete(const struct embedding *embedding);
/* First cell of a chunk, and how many. Local. */
void embedding_chunk_cells(const struct embedding *embedding, int64_t chunk, int64_t *first, int64_t *count);
/* Its chunks: queue, progress, what other jobs did (not when complete). Borrowed. */
struct partial *embedding_partial(struct embedding *embedding);

/* Write a chunk, obs and names too: z[cells, D] and reasons[cells] in the order of the cells; rows
 * without embedding become NaN. Then mark it done. Local. ST_OUTPUT: disk full, I/O error. */
MUST_CHECK enum status embedding_put(struct embedding *embedding, int64_t chunk, float *z, const uint8_t *reasons);

/* After all chunks are done: see what the other ranks wrote. Collective, agreed. */
MUST_CHECK enum status embedding_reopen(struct comm *comm, struct embedding *embedding);
/* Cells without embedding, by reason: counts[EMBED_REASON_COUNT]. All chunks must be done. Collective, agreed. */
MUST_CHECK enum status embedding_count_reasons(struct comm *comm, struct embedding *embedding, int64_t *counts);
/* All chunks must be done: flush, rename, remove the ledger, close. Collective, agreed. */
MUST_CHECK enum status embedding_commit(struct comm *comm, struct embedding **embedding);

#endif
