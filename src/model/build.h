/* What a part is told when it is built: where to read its configuration, where to put its
 * parameters and linear maps, and which layer it belongs to. */
#ifndef CYTOMILL_MODEL_BUILD_H
#define CYTOMILL_MODEL_BUILD_H

#include "base/config.h"
#include "model/experts.h"
#include "model/linears.h"
#include "model/param.h"
#include "model/part.h"

struct build {
    const struct config *config;
    struct param_table *params;
    struct linears *linears;
    struct expert_layers *experts; /* needed where model.feed_forward has any */
    const struct model_hold *hold; /* what this rank holds of the model */
    int module;                    /* what is being built: MODULE_EMBEDDING, a block, or `layers` for the heads */
    int layer, layers;             /* this block's index, and how many there are */
    int expert, experts_total;     /* the expert that is being built, of so many; 0: none is */
    int64_t width;                 /* D */
};

/* Add a parameter of build->module named by `format`; spec needs shape_rank, shape and init, and `tied` if the heads
 * read it too. rows and cols follow from the shape, `decay` from the name as CellFM's optimiser has it, and whether
 * it lies here from build->hold. Local. */
MUST_CHECK enum status build_param(struct build *build, struct param spec, int *index, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A [rows, cols] matrix, Xavier-normal with this gain: sd = gain sqrt(2 / (rows + cols)). */
struct param build_xavier(int64_t rows, int64_t cols, double gain);
/* A [rows, cols] matrix, uniform in +-1/sqrt(cols). */
struct param build_dense(int64_t rows, int64_t cols);
/* A [cols] vector of zeros or ones. */
struct param build_vector(int64_t cols, enum param_init init);

/* One linear map over parameters param[0 .. parts); and one that stays in `real` under bf16. NULL if the parameters lie
 * elsewhere. Local. */
MUST_CHECK enum status build_linear(struct build *build, const int *param, int parts, const struct linear **out);
MUST_CHECK enum status build_linear_fine(struct build *build, int param, const struct linear **out);

#endif
