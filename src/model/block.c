#include "model/block.h"

#include <stdio.h>

enum status block_create(struct build *b, const char *prefix, struct block *out)
{
    enum status st = ST_OK;
    char name[80];
    *out = (struct block){0};
    snprintf(name, sizeof name, "%s.attn", prefix);
    TRY(mixer_create(b, name, &out->mixer));
    snprintf(name, sizeof name, "%s.ffn", prefix);
    TRY(ffn_create(b, name, &out->ffn));
    for (int i = 0; i < 2; i++) TRY(norm_create(b, prefix, i, &out->norm[i]));
done:
    return st;
}

void block_destroy(struct block *block)
{
    mixer_destroy(&block->mixer);
    ffn_destroy(&block->ffn);
    for (int i = 0; i < 2; i++) norm_destroy(&block->norm[i]);
}

static struct tensor *select_rows(const struct pass *pass, struct tensor *x, const struct rows *rows)
{
    return rows->some ? op_rows(pass->tape, x, rows->index, rows->count) : x;
}

/* Join what the feed-forward gave to the stream. */
static struct tensor *finish(const struct block *b, const struct pass *pass, const struct rows *read, struct tensor *y,
                             struct tensor *f)
{
    const struct norm *second = b->norm[1];
    tape_tap(pass->tape, "ffn", f);
    struct tensor *out = second->kind->after(second, pass, read, y, f);
    tape_tap(pass->tape, "norm2", out);
    return out;
}

struct tensor *block_forward(const struct block *b, const struct pass *pass, struct tensor *x, const struct rows *read)
{
    const struct norm *first = b->norm[0], *second = b->norm[1];
    struct tensor *keys = first->kind->before(first, pass, x);
    struct tensor *readers = select_rows(pass, keys, read);
    struct tensor *a = mixer_full(b->mixer, pass, keys, &pass->all, readers, read);
    tape_tap(pass->tape, "mixer", a);
    struct tensor *stream = keys == x ? readers : select_rows(pass, x, read);
    struct tensor *y = first->kind->after(first, pass, read, stream, a);
    tape_tap(pass->tape, "norm1", y);
    struct tensor *f = b->ffn->kind->run(b->ffn, pass, second->kind->before(second, pass, y));
    if (f) return finish(b, pass, read, y, f);
    pass->stop->stream = y;
    pass->stop->read = read;
    return NULL;
}

struct tensor *block_resume(const struct block *b, const struct pass *pass)
{
    struct tensor *f = b->ffn->kind->resume(b->ffn, pass);
    return f ? finish(b, pass, pass->stop->read, pass->stop->stream, f) : NULL;
}
