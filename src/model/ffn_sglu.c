/* CellFM's SGLU, y = Wo ((Wu x) * (Wv x)): square matrices, no hidden expansion, no activation. */
#include <math.h>
#include <stdlib.h>

#include "model/ffn.h"

struct sglu {
    struct ffn base;
    const struct linear *uv, *o;
};

static enum status sglu_create(struct build *b, const char *prefix, struct ffn **out)
{
    static const char *const names[] = {"u", "v", "o"};
    enum { U, V, O, COUNT };
    enum status st = ST_OK;
    struct sglu *s = NULL;
    int p[COUNT];
    struct param spec = build_xavier(b->width, b->width, pow(8.0 * b->layers, -0.25));
    TRY(NEW_ARRAY(s, 1));
    *s = (struct sglu){0};
    for (int i = 0; i < COUNT; i++) TRY(build_param(b, spec, &p[i], "%s.%s_proj.weight", prefix, names[i]));
    TRY(build_linear(b, &p[U], 2, &s->uv));
    TRY(build_linear(b, &p[O], 1, &s->o));
done:
    *out = s ? &s->base : NULL;
    return st;
}

static void sglu_destroy(struct ffn *f) { free(f); }

static struct tensor *sglu_run(const struct ffn *f, const struct pass *pass, struct tensor *x)
{
    const struct sglu *s = (const void *)f;
    struct tensor *g = op_gate_product(pass->tape, op_linear(pass->tape, s->uv, x));
    tape_tap(pass->tape, "gate", g);
    return op_linear(pass->tape, s->o, g);
}

const struct ffn_kind ffn_sglu = {"sglu", sglu_create, sglu_destroy, sglu_run, NULL};
