#include "kernel/multiply.h"

#ifdef CYTOMILL_DOUBLE
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/vector.h"

struct multiply {
    struct multiply_spec spec;
};

enum status multiply_create(const struct multiply_spec *spec, struct multiply **out)
{
    *out = NULL;
    if (spec->type != DTYPE_F64)
        return fail(ST_INTERNAL, "the double build multiplies fp64, not %s", dtype_name(spec->type));
    struct multiply *m;
    enum status st = mem_alloc((void **)&m, 1, sizeof *m, "product");
    if (st != ST_OK) return st;
    m->spec = *spec;
    *out = m;
    return ST_OK;
}

void multiply_destroy(struct multiply **multiply)
{
    free(*multiply);
    *multiply = NULL;
}

size_t multiply_packed_bytes(const struct multiply *m) { return (size_t)(m->spec.n * m->spec.k) * sizeof(double); }
size_t multiply_scratch_bytes(const struct multiply *m) { return 0; }

/* Packed B is [n,k]. */
void multiply_pack(struct multiply *m, int thread, void *packed, const void *b, enum dtype b_type, bool transposed,
                   void *scratch)
{
    if (transposed) vector_convert(packed, DTYPE_F64, b, b_type, m->spec.n * m->spec.k);
    else vector_transpose(packed, DTYPE_F64, b, b_type, m->spec.k, m->spec.n, m->spec.n, m->spec.k);
}

void multiply_pack_left(struct multiply *m, void *packed, const void *a, enum dtype a_type, int64_t stride,
                        int64_t k_given)
{
    int64_t k = m->spec.k;
    vector_transpose(packed, DTYPE_F64, a, a_type, k_given, m->spec.m, stride, k);
    for (int64_t i = 0; i < m->spec.m; i++)
        memset((double *)packed + i * k + k_given, 0, (size_t)(k - k_given) * sizeof(double));
}

void multiply_run(struct multiply *m, int thread, void *c, const void *a, const void *packed, void *scratch)
{
    const struct multiply_spec *s = &m->spec;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)s->m, (int)s->n, (int)s->k, 1, a, (int)s->k, packed,
                (int)s->k, s->accumulate ? 1 : 0, c, (int)s->n);
}

bool multiply_bf16_native(void) { return false; }
const char *multiply_version_text(void) { return openblas_get_config(); }
void multiply_limit_isa(const char *isa) {}
#endif
