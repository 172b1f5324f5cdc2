#include "kernel/multiply.h"

#ifndef CYTOMILL_DOUBLE
#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/panel.h"
#include "kernel/vector.h"

/* oneDNN 2.x passes memory descriptors by value and describes a product before making it; 3.x has
 * handles and one call. These few functions are all the difference. */
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout;
typedef const_dnnl_memory_desc_t layout_view;
static bool layout_make(layout *out, dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(out, 2, dims, type, tag) == dnnl_success;
}
static void layout_free(layout *x) { dnnl_memory_desc_destroy(*x); }
static layout_view layout_of(const layout *x) { return *x; }
static dnnl_status_t describe_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *a,
                                      const layout *b, const layout *c, dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c, attr);
}
static void append_sum(dnnl_post_ops_t ops) { dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef); }
#else
typedef dnnl_memory_desc_t layout;
typedef const dnnl_memory_desc_t *layout_view;
static bool layout_make(layout *out, dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(out, 2, dims, type, tag) == dnnl_success;
}
static void layout_free(layout *x) {}
static layout_view layout_of(const layout *x) { return x; }
static dnnl_status_t describe_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *a,
                                      const layout *b, const layout *c, dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t desc;
    dnnl_status_t failed = dnnl_matmul_desc_init(&desc, a, b, NULL, c);
    return failed ? failed : dnnl_primitive_desc_create(out, &desc, attr, engine, NULL);
}
static void append_sum(dnnl_post_ops_t ops) { dnnl_post_ops_append_sum(ops, 1.0f); }
#endif

/* Memory objects of one thread: only their addresses change from run to run. */
struct operands {
    dnnl_memory_t a, b, c, scratch;
};

struct reorder {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    struct operands *operands; /* [threads] a -> b */
    enum dtype from;
    bool transposed;
};

enum { MAX_REORDERS = 4 }; /* {operand type, fp32} x {as is, transposed} */

struct multiply {
    struct multiply_spec spec;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    struct operands *operands;         /* [threads] */
    enum { PACKED, ROWS, PANELS } how; /* B in oneDNN's own layout; as plain [n,k]; not oneDNN but our panels */
    struct reorder reorders[MAX_REORDERS];
    int reorder_count;
    size_t packed_bytes, scratch_bytes;
};

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static enum status engine_open(void)
{
    if (engine) return ST_OK;
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success)
        return fail(ST_CONFIG, "oneDNN cannot open its CPU engine; check its installation");
    return ST_OK;
}

static dnnl_data_type_t data_type(enum dtype type) { return type == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32; }

static dnnl_primitive_attr_t attributes_make(bool accumulate)
{
    dnnl_primitive_attr_t attr;
    dnnl_primitive_attr_create(&attr);
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (accumulate) {
        dnnl_post_ops_t ops;
        dnnl_post_ops_create(&ops);
        append_sum(ops);
        dnnl_primitive_attr_set_post_ops(attr, ops);
        dnnl_post_ops_destroy(ops);
    }
    return attr;
}

/* Describe the product with B in layout `tag`. NULL if oneDNN has no implementation. */
static dnnl_primitive_desc_t product_describe(const struct multiply_spec *s, dnnl_format_tag_t tag)
{
    dnnl_dims_t a_dims = {s->m, s->k}, b_dims = {s->k, s->n}, c_dims = {s->m, s->n};
    layout a, b, c;
    layout_make(&a, a_dims, data_type(s->type), dnnl_ab);
    layout_make(&b, b_dims, data_type(s->type), tag);
    layout_make(&c, c_dims, data_type(s->c_type), dnnl_ab);
    dnnl_primitive_attr_t attr = attributes_make(s->accumulate);
    dnnl_primitive_desc_t desc = NULL;
    if (describe_product(&desc, engine, &a, &b, &c, attr) != dnnl_success) desc = NULL;
    dnnl_primitive_attr_destroy(attr);
    layout_free(&a);
    layout_free(&b);
    layout_free(&c);
    return desc;
}

static bool is_blocked_kernel(dnnl_primitive_desc_t desc)
{
    const char *name = "";
    dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    return strncmp(name, "brg", 3) == 0;
}

/* oneDNN's blocked kernels want their own layout of B. Its older ones copy B at every call, whatever its
 * layout, and run fastest on [n,k] rows: good for one large product, not for tiles of rows, where panels
 * that are cut once gain 10 to 25 %. */
static void product_choose(struct multiply *m)
{
    m->desc = product_describe(&m->spec, dnnl_format_tag_any);
    m->how = PACKED;
    if (m->desc && is_blocked_kernel(m->desc)) return;
    if (m->desc) dnnl_primitive_desc_destroy(m->desc);
    m->how = m->spec.type == DTYPE_F32 && m->spec.c_type == DTYPE_F32 && !m->spec.plain ? PANELS : ROWS;
    m->desc = m->how == ROWS ? product_describe(&m->spec, dnnl_ba) : NULL;
}

static size_t query_bytes(dnnl_primitive_desc_t desc, dnnl_query_t what)
{
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(desc, what, 0));
}

static void memory_make(dnnl_memory_t *out, dnnl_primitive_desc_t desc, dnnl_query_t what)
{
    dnnl_memory_create(out, dnnl_primitive_desc_query_md(desc, what, 0), engine, DNNL_MEMORY_NONE);
}

static struct operands *operands_make(dnnl_primitive_desc_t desc, dnnl_query_t b, int threads)
{
    struct operands *all;
    if (NEW_ARRAY(all, threads) != ST_OK) return NULL;
    for (int t = 0; t < threads; t++) {
        memory_make(&all[t].a, desc, dnnl_query_src_md);
        memory_make(&all[t].b, desc, b);
        memory_make(&all[t].c, desc, dnnl_query_dst_md);
        memory_make(&all[t].scratch, desc, dnnl_query_scratchpad_md);
    }
    return all;
}

static void operands_free(struct operands *all, int threads)
{
    for (int t = 0; all && t < threads; t++) {
        dnnl_memory_destroy(all[t].a);
        dnnl_memory_destroy(all[t].b);
        dnnl_memory_destroy(all[t].c);
        dnnl_memory_destroy(all[t].scratch);
    }
    free(all);
}

/* A reorder from a plain B into the packed layout. */
static enum status reorder_create(struct multiply *m, enum dtype from, bool transposed)
{
    struct reorder *r = &m->reorders[m->reorder_count++];
    dnnl_dims_t dims = {m->spec.k, m->spec.n};
    layout plain;
    layout_make(&plain, dims, data_type(from), transposed ? dnnl_ba : dnnl_ab);
    dnnl_primitive_attr_t attr = attributes_make(false);
    dnnl_status_t failed = dnnl_reorder_primitive_desc_create(
        &r->desc, layout_of(&plain), engine, dnnl_primitive_desc_query_md(m->desc, dnnl_query_weights_md, 0), engine,
        attr);
    dnnl_primitive_attr_destroy(attr);
    layout_free(&plain);
    if (failed || dnnl_primitive_create(&r->primitive, r->desc) != dnnl_success)
        return fail(ST_CONFIG, "oneDNN cannot pack a %s weight of %ld x %ld; use precision fp32", dtype_name(from),
                    (long)m->spec.n, (long)m->spec.k);
    r->from = from;
    r->transposed = transposed;
    r->operands = operands_make(r->desc, dnnl_query_dst_md, m->spec.threads);
    size_t bytes = query_bytes(r->desc, dnnl_query_scratchpad_md);
    if (bytes > m->scratch_bytes) m->scratch_bytes = bytes;
    return r->operands ? ST_OK : ST_MEMORY;
}

static enum status reorders_create(struct multiply *m)
{
    enum status st = ST_OK;
    for (int transposed = 0; transposed < 2; transposed++) {
        TRY(reorder_create(m, m->spec.type, transposed));
        if (m->spec.type != DTYPE_F32) TRY(reorder_create(m, DTYPE_F32, transposed));
    }
done:
    return st;
}

static enum status primitive_create(struct multiply *m)
{
    product_choose(m);
    if (m->how == PANELS) {
        m->packed_bytes = panel_bytes(m->spec.n, m->spec.k);
        return ST_OK;
    }
    if (!m->desc || dnnl_primitive_create(&m->primitive, m->desc) != dnnl_success)
        return fail(ST_CONFIG, "%s has no %s product of %ld x %ld x %ld; use precision fp32", multiply_version_text(),
                    dtype_name(m->spec.type), (long)m->spec.m, (long)m->spec.n, (long)m->spec.k);
    m->packed_bytes = query_bytes(m->desc, dnnl_query_weights_md);
    m->scratch_bytes = query_bytes(m->desc, dnnl_query_scratchpad_md);
    m->operands = operands_make(m->desc, dnnl_query_weights_md, m->spec.threads);
    return m->operands ? ST_OK : ST_MEMORY;
}

enum status multiply_create(const struct multiply_spec *spec, struct multiply **out)
{
    enum status st = ST_OK;
    struct multiply *m = NULL;
    int threads_before = omp_get_max_threads();
    /* primitives plan for the threads they see: a run is one thread's, unless asked otherwise */
    omp_set_num_threads(spec->library_threads ? spec->library_threads : 1);
    *out = NULL;
    TRY(engine_open());
    TRY(mem_alloc((void **)&m, 1, sizeof *m, "product"));
    memset(m, 0, sizeof *m);
    m->spec = *spec;
    TRY(primitive_create(m));
    if (m->how == PACKED) TRY(reorders_create(m));
    *out = m;
    m = NULL;
done:
    multiply_destroy(&m);
    omp_set_num_threads(threads_before);
    return st;
}

void multiply_destroy(struct multiply **multiply)
{
    struct multiply *m = *multiply;
    if (!m) return;
    for (int i = 0; i < m->reorder_count; i++) {
        operands_free(m->reorders[i].operands, m->spec.threads);
        if (m->reorders[i].primitive) dnnl_primitive_destroy(m->reorders[i].primitive);
        if (m->reorders[i].desc) dnnl_primitive_desc_destroy(m->reorders[i].desc);
    }
    operands_free(m->operands, m->spec.threads);
    if (m->primitive) dnnl_primitive_destroy(m->primitive);
    if (m->desc) dnnl_primitive_desc_destroy(m->desc);
    free(m);
    *multiply = NULL;
}

size_t multiply_packed_bytes(const struct multiply *m) { return m->packed_bytes; }
size_t multiply_scratch_bytes(const struct multiply *m) { return m->scratch_bytes; }

static void address(dnnl_memory_t memory, const void *at)
{
    dnnl_memory_set_data_handle(memory, (void *)(uintptr_t)at);
}

/* A call that was accepted when it was prepared cannot fail but by a broken invariant. */
static void must_run(dnnl_status_t failed)
{
    if (!failed) return;
    fprintf(stderr, "oneDNN failed with status %d in a prepared call: internal error\n", (int)failed);
    abort();
}

static void reorder_run(struct reorder *r, int thread, void *packed, const void *b, void *scratch)
{
    struct operands *o = &r->operands[thread];
    address(o->a, b);
    address(o->b, packed);
    address(o->scratch, scratch);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, o->a}, {DNNL_ARG_TO, o->b}, {DNNL_ARG_SCRATCHPAD, o->scratch}};
    must_run(dnnl_primitive_execute(r->primitive, stream, 3, args));
}

void multiply_pack(struct multiply *m, int thread, void *packed, const void *b, enum dtype b_type, bool transposed,
                   void *scratch)
{
    int64_t n = m->spec.n, k = m->spec.k;
    if (m->how == PANELS) panel_pack(packed, b, n, k, transposed);
    else if (m->how == PACKED) {
        int i = 0;
        while (i < m->reorder_count && (m->reorders[i].from != b_type || m->reorders[i].transposed != transposed)) i++;
        must_run(i < m->reorder_count ? dnnl_success : dnnl_invalid_arguments);
        reorder_run(&m->reorders[i], thread, packed, b, scratch);
    } else if (transposed) vector_convert(packed, m->spec.type, b, b_type, n * k);
    else vector_transpose(packed, m->spec.type, b, b_type, k, n, n, k);
}

void multiply_pack_left(struct multiply *m, void *packed, const void *a, enum dtype a_type, int64_t stride,
                        int64_t k_given)
{
    int64_t rows = m->spec.m, k = m->spec.k;
    if (m->how == PANELS) {
        panel_pack_left(packed, a, a_type, stride, k_given, rows, k);
        return;
    }
    vector_transpose(packed, m->spec.type, a, a_type, k_given, rows, stride, k);
    size_t gap = (size_t)(k - k_given) * dtype_bytes(m->spec.type);
    for (int64_t i = 0; gap && i < rows; i++) memset(dtype_at(packed, i * k + k_given, m->spec.type), 0, gap);
}

static void panels_run(const struct multiply *m, void *c, const void *a, const void *packed)
{
    const struct multiply_spec *s = &m->spec;
    struct panel_shape shape = {s->m, s->n, s->k, s->accumulate, s->left_packed};
    panel_product(c, a, packed, &shape);
}

void multiply_run(struct multiply *m, int thread, void *c, const void *a, const void *packed, void *scratch)
{
    if (m->how == PANELS) {
        panels_run(m, c, a, packed);
        return;
    }
    struct operands *o = &m->operands[thread];
    address(o->a, a);
    address(o->b, packed);
    address(o->c, c);
    address(o->scratch, scratch);
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, o->a}, {DNNL_ARG_WEIGHTS, o->b}, {DNNL_ARG_DST, o->c}, {DNNL_ARG_SCRATCHPAD, o->scratch}};
    must_run(dnnl_primitive_execute(m->primitive, stream, 4, args));
}

static bool limited_below_avx512;

void multiply_limit_isa(const char *isa)
{
    limited_below_avx512 = strcmp(isa, "avx512") != 0;
    if (limited_below_avx512 && !engine)
        dnnl_set_max_cpu_isa(strcmp(isa, "avx2") == 0 ? dnnl_cpu_isa_avx2 : dnnl_cpu_isa_sse41);
}

bool multiply_bf16_native(void)
{
#if defined(__x86_64__)
    return !limited_below_avx512 && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

/* Does an ordinary fp32 product of ours run on panels here? */
static bool panels_in_use(void)
{
    struct multiply m = {.spec = {.m = 128, .n = 256, .k = 256, .type = DTYPE_F32, .c_type = DTYPE_F32}};
    if (engine_open() != ST_OK) return false;
    product_choose(&m);
    if (m.desc) dnnl_primitive_desc_destroy(m.desc);
    return m.how == PANELS;
}

const char *multiply_version_text(void)
{
    static char text[64];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d%s", v->major, v->minor, v->patch,
             panels_in_use() ? ", fp32 in panels" : "");
    return text;
}
#endif
