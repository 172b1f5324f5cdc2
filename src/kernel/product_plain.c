/* Products on unpacked weights, in the build that has no oneDNN type: double through OpenBLAS. */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/product.h"

struct product {
    struct product_spec spec;
};

enum status product_create(const struct product_spec *spec, struct product **out)
{
    struct product *p;
    enum status st = mem_alloc((void **)&p, 1, sizeof *p, "product");
    if (st != ST_OK) return st;
    p->spec = *spec;
    if (p->spec.parts == 0) p->spec.parts = 1;
    *out = p;
    return ST_OK;
}

void product_destroy(struct product **product)
{
    free(*product);
    *product = NULL;
}

size_t product_weight_bytes(const struct product *p) { return (size_t)(p->spec.in * p->spec.out) * sizeof(real); }
size_t product_scratch_bytes(const struct product *p) { return 0; }
void product_set_scratch(struct product *p, void *scratch) {}

struct product_weight product_weight_take(const struct product *p, struct arena *arena)
{
    void *w = arena_take(arena, product_weight_bytes(p));
    return (struct product_weight){w, w};
}

void product_pack(struct product *p, struct product_weight *weight, const real *const *masters)
{
    size_t part_bytes = product_weight_bytes(p) / (size_t)p->spec.parts;
    for (int i = 0; i < p->spec.parts; i++) memcpy((char *)weight->forward + (size_t)i * part_bytes, masters[i], part_bytes);
}

#ifdef CYTOMILL_DOUBLE
void product_forward(struct product *p, void *y, const void *x, const struct product_weight *weight, int64_t rows)
{
    int in = (int)p->spec.in, out = (int)p->spec.out;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, out, in, 1, x, in, weight->forward, in, 0, y, out);
}

void product_backward_data(struct product *p, void *dx, const void *dy, const struct product_weight *weight, int64_t rows,
                           bool accumulate)
{
    int in = (int)p->spec.in, out = (int)p->spec.out;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, in, out, 1, dy, out, weight->backward, in,
                accumulate ? 1 : 0, dx, in);
}

void product_backward_weight(struct product *p, real *const *dw, const void *dy, const void *x, int64_t rows)
{
    int in = (int)p->spec.in, out = (int)p->spec.out, part = out / p->spec.parts;
    for (int i = 0; i < p->spec.parts; i++)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, part, in, (int)rows, 1, (const double *)dy + i * part, out, x,
                    in, 1, dw[i], in);
}
#else
void product_forward(struct product *p, void *y, const void *x, const struct product_weight *weight, int64_t rows)
{
    product_forward_ref(y, x, weight->forward, rows, p->spec.in, p->spec.out, p->spec.type);
}
void product_backward_data(struct product *p, void *dx, const void *dy, const struct product_weight *weight, int64_t rows,
                           bool accumulate)
{
    product_backward_data_ref(dx, dy, weight->forward, rows, p->spec.in, p->spec.out, p->spec.type, accumulate);
}
void product_backward_weight(struct product *p, real *const *dw, const void *dy, const void *x, int64_t rows)
{
    int64_t out = p->spec.out, part = out / p->spec.parts, in = p->spec.in;
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t r = 0; r < rows; r++)
                sum += dtype_load(dy, r * out + o, p->spec.type) * dtype_load(x, r * in + i, p->spec.type);
            dw[o / part][o % part * in + i] += (real)sum;
        }
}
#endif

void product_set_poll(void (*poll)(void *context), void *context) {}
bool product_bf16_native(void) { return false; }
const char *product_version_text(void) { return openblas_get_config(); }
