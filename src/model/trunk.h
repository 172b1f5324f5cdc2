/* A trunk: blocks one after another, each a segment of the tape. */
#ifndef CYTOMILL_MODEL_TRUNK_H
#define CYTOMILL_MODEL_TRUNK_H

#include "model/block.h"

struct trunk {
    int count; /* L */
    struct block *blocks;
};

/* build->layers blocks with parameters under "<prefix>.0", "<prefix>.1", ...; those that build->hold has can run. Local. */
MUST_CHECK enum status trunk_create(struct build *build, const char *prefix, struct trunk *out);
void trunk_destroy(struct trunk *trunk);

/* Block i, which must lie here: x[S, D] -> [S, D], or after the last block of the trunk [R, D], the rows of pass->read.
 * NULL where it stops (pass->stop); trunk_resume goes on when the move is done, and may stop again. Local. */
struct tensor *trunk_block(const struct trunk *trunk, const struct pass *pass, int i, struct tensor *x);
struct tensor *trunk_resume(const struct trunk *trunk, const struct pass *pass, int i);

#endif
