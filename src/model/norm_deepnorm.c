/* DeepNorm (Wang et al., arXiv:2203.00555): y = LN(lambda x + Drop(F(x))), lambda = (2L)^(1/4), with
 * CellFM's dropout, which grows linearly with the layer unless asked to be the same in all. */
#include <math.h>
#include <stdlib.h>

#include "model/norm.h"

struct deepnorm {
    struct norm base;
    int gamma, beta; /* parameters, [D] */
    double lambda, eps, dropout;
    int site; /* which dropout of the model this is */
};

static double dropout_of(const struct build *b)
{
    double most = config_real(b->config, "model.dropout");
    return config_word_is(b->config, "model.dropout_by_layer", "constant") ? most : most * b->layer / b->layers;
}

static enum status deepnorm_create(struct build *b, const char *prefix, int sublayer, struct norm **out)
{
    enum status st = ST_OK;
    struct deepnorm *n = NULL;
    TRY(NEW_ARRAY(n, 1));
    *n = (struct deepnorm){.lambda = pow(2.0 * b->layers, 0.25),
                           .eps = config_real(b->config, "model.norm_eps"),
                           .dropout = dropout_of(b),
                           .site = 2 * b->layer + sublayer};
    TRY(build_param(b, build_vector(b->width, INIT_ONE), &n->gamma, "%s.post_norm%d.gamma", prefix, sublayer + 1));
    TRY(build_param(b, build_vector(b->width, INIT_ZERO), &n->beta, "%s.post_norm%d.beta", prefix, sublayer + 1));
done:
    *out = n ? &n->base : NULL;
    return st;
}

static void deepnorm_destroy(struct norm *n) { free(n); }

static struct tensor *deepnorm_before(const struct norm *n, const struct pass *pass, struct tensor *x) { return x; }

static struct tensor *deepnorm_after(const struct norm *norm, const struct pass *pass, const struct rows *rows,
                                     struct tensor *x, struct tensor *f)
{
    const struct deepnorm *n = (const void *)norm;
    struct op_norm how = {pass_weight(pass, n->gamma), pass_weight(pass, n->beta), n->lambda, n->eps,
                          pass_dropout(pass, rows, n->dropout, n->site)};
    return op_norm_residual(pass->tape, x, f, &how);
}

const struct norm_kind norm_deepnorm = {"deepnorm", deepnorm_create, deepnorm_destroy, deepnorm_before, deepnorm_after};
