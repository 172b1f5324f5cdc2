#include "model/trunk.h"

#include <stdio.h>
#include <stdlib.h>

enum status trunk_create(struct build *b, const char *prefix, struct trunk *out)
{
    enum status st = ST_OK;
    *out = (struct trunk){0};
    TRY(NEW_ARRAY(out->blocks, b->layers));
    for (b->layer = 0; b->layer < b->layers; b->layer++) {
        char name[64];
        b->module = b->layer;
        snprintf(name, sizeof name, "%s.%d", prefix, b->layer);
        out->count++;
        TRY(block_create(b, name, &out->blocks[b->layer]));
    }
done:
    return st;
}

void trunk_destroy(struct trunk *trunk)
{
    for (int i = 0; i < trunk->count; i++) block_destroy(&trunk->blocks[i]);
    free(trunk->blocks);
    *trunk = (struct trunk){0};
}

struct tensor *trunk_block(const struct trunk *trunk, const struct pass *pass, int i, struct tensor *x)
{
    const struct rows *read = i + 1 < trunk->count ? &pass->all : &pass->read;
    return block_forward(&trunk->blocks[i], pass, tape_segment(pass->tape, "block", i, x), read);
}

struct tensor *trunk_resume(const struct trunk *trunk, const struct pass *pass, int i)
{
    return block_resume(&trunk->blocks[i], pass);
}
