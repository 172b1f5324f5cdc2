/* A trunk: blocks one after another, each a segment of the tape. */
#ifndef CYTOMILL_MODEL_TRUNK_H
#define CYTOMILL_MODEL_TRUNK_H

#include "model/block.h"

struct trunk {
    int count; /* L */
    struct block *blocks;
};

/* build->layers blocks with parameters under "<prefix>.0", "<prefix>.1", ... Local. */
MUST_CHECK enum status trunk_create(struct build *build, const char *prefix, struct trunk *out);
void trunk_destroy(struct trunk *trunk);

/* x[S, D] -> [R, D], the rows of pass->read. Local. */
struct tensor *trunk_forward(const struct trunk *trunk, const struct pass *pass, struct tensor *x);

#endif
