#include "model/build.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* CellFM's exclusion from weight decay tests substrings of the name, so its norms, named
 * post_norm*, and cls_token are decayed. */
static bool name_decays(const char *name)
{
    return !strstr(name, "emb") && !strstr(name, "layernorm") && !strstr(name, "bias");
}

/* Whose the parameter is: its module's, and if it is tied the heads' too. */
static void place(const struct build *b, struct param *p)
{
    bool home = model_hold_has(b->hold, b->module, b->layers);
    bool read = p->tied && model_hold_has(b->hold, b->layers, b->layers);
    p->module = b->module;
    p->routed = b->experts_total > 0;
    p->elsewhere = !home && !read;
    if (p->routed && !model_hold_has_expert(b->hold, b->expert, b->experts_total)) p->elsewhere = true;
    p->copy = !home && read;
    p->two_ends = home && read;
}

enum status build_param(struct build *build, struct param spec, int *index, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(spec.name, sizeof spec.name, format, args);
    va_end(args);
    spec.rows = spec.cols = 1;
    for (int i = 0; i < spec.shape_rank - 1; i++) spec.rows *= spec.shape[i];
    spec.cols = spec.shape[spec.shape_rank - 1];
    spec.trainable = spec.clip = true;
    spec.decay = name_decays(spec.name);
    place(build, &spec);
    return param_add(build->params, &spec, index);
}

struct param build_xavier(int64_t rows, int64_t cols, double gain)
{
    return (struct param){.shape_rank = 2,
                          .shape = {rows, cols},
                          .init = INIT_NORMAL,
                          .init_scale = gain * sqrt(2.0 / (double)(rows + cols))};
}

struct param build_dense(int64_t rows, int64_t cols)
{
    return (struct param){
        .shape_rank = 2, .shape = {rows, cols}, .init = INIT_UNIFORM, .init_scale = 1 / sqrt((double)cols)};
}

struct param build_vector(int64_t cols, enum param_init init)
{
    return (struct param){.shape_rank = 1, .shape = {cols}, .init = init};
}

/* Nothing else may read a linear map's weights while it is trained. */
static void note_packed(struct build *build, const int *param, int parts, bool fine)
{
    for (int i = 0; i < parts; i++) {
        build->params->rows[param[i]].packed = true;
        build->params->rows[param[i]].fine = fine;
    }
}

enum status build_linear(struct build *build, const int *param, int parts, const struct linear **out)
{
    *out = NULL;
    note_packed(build, param, parts, false);
    if (build->params->rows[param[0]].elsewhere) return ST_OK;
    return linears_add(build->linears, build->params, param, parts, false, out);
}

enum status build_linear_fine(struct build *build, int param, const struct linear **out)
{
    *out = NULL;
    note_packed(build, &param, 1, true);
    if (build->params->rows[param].elsewhere) return ST_OK;
    return linears_add(build->linears, build->params, &param, 1, true, out);
}
