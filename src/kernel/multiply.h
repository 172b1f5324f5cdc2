/* One matrix product of fixed shape, C[m,n] = A[m,k] B[k,n] (or +=), with B packed: the only part
 * of products that knows oneDNN (multiply_onednn.c) or, in the double build, OpenBLAS
 * (multiply_blas.c). Where oneDNN has no kernel for packed fp32 weights (2.6: before AVX-512), panels of
 * our own do it (panel.h). Row-major, dense. Used by product.c alone.
 *
 * Made once; a run allocates nothing of ours and works on one thread, so that callers share runs
 * among theirs. */
#ifndef CYTOMILL_KERNEL_MULTIPLY_H
#define CYTOMILL_KERNEL_MULTIPLY_H

#include <stdbool.h>

#include "base/status.h"
#include "kernel/dtype.h"

struct multiply;

struct multiply_spec {
    int64_t m, n, k;
    enum dtype type; /* of A and B */
    enum dtype c_type;
    bool accumulate;     /* += instead of = */
    bool left_packed;    /* A comes from multiply_pack_left */
    bool plain;          /* the library even where our own panels are faster: the yardstick of benchmarks */
    int threads;         /* threads 0..threads-1 may run and pack at the same time */
    int library_threads; /* threads the library may use inside a run; 0 means 1 */
};

/* ST_CONFIG: the library cannot do it. Local. */
MUST_CHECK enum status multiply_create(const struct multiply_spec *spec, struct multiply **out);
void multiply_destroy(struct multiply **multiply);
/* Bytes of packed B, and of the scratch of one thread. Local. */
size_t multiply_packed_bytes(const struct multiply *multiply);
size_t multiply_scratch_bytes(const struct multiply *multiply);

/* Pack B, given as [k,n], or as [n,k] if `transposed`, in `b_type` (the operand type or fp32).
 * Runs on the calling thread; `scratch` as for a run. Local. */
void multiply_pack(struct multiply *multiply, int thread, void *packed, const void *b, enum dtype b_type,
                   bool transposed, void *scratch);
/* Pack A, given as its transpose: k_given rows, `stride` apart, of m numbers; rows up to k are 0. packed holds
 * m k numbers of the operand type. For a multiplication whose spec says left_packed. Local. */
void multiply_pack_left(struct multiply *multiply, void *packed, const void *a, enum dtype a_type, int64_t stride,
                        int64_t k_given);
/* Run once. Local. */
void multiply_run(struct multiply *multiply, int thread, void *c, const void *a, const void *packed, void *scratch);

/* Does the library multiply bf16 in hardware here? Local. */
bool multiply_bf16_native(void);
/* "oneDNN 2.6.3", with ", fp32 in panels" where they are ours, or "OpenBLAS 0.3.21". Never NULL. */
const char *multiply_version_text(void);
/* Keep the library to "generic", "avx2" or "avx512"; only before its first use. Local. */
void multiply_limit_isa(const char *isa);

#endif
