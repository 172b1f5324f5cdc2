/* A block: a mixer and a feed-forward, each joined to the residual stream by a norm placement. */
#ifndef CYTOMILL_MODEL_BLOCK_H
#define CYTOMILL_MODEL_BLOCK_H

#include "model/ffn.h"
#include "model/mixer.h"
#include "model/norm.h"

struct block {
    struct mixer *mixer;
    struct ffn *ffn;
    struct norm *norm[2]; /* around the mixer, around the feed-forward */
};

/* Parameters under "<prefix>.attn", "<prefix>.ffn" and "<prefix>". Local. */
MUST_CHECK enum status block_create(struct build *build, const char *prefix, struct block *out);
void block_destroy(struct block *block);

/* x[S, D] -> [R, D]: only `read` rows are computed past the keys. NULL where it stops (pass->stop); block_resume goes on
 * when the move is done, and may stop again. Local. */
struct tensor *block_forward(const struct block *block, const struct pass *pass, struct tensor *x,
                             const struct rows *read);
struct tensor *block_resume(const struct block *block, const struct pass *pass);

#endif
