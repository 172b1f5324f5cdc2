#include "kernel/isa.h"

#include <stdbool.h>
#include <string.h>

#include "kernel/kernel_list.h"
#include "kernel/multiply.h"

#ifdef CYTOMILL_DOUBLE

#define X(name, params, args) \
    void name params { name##_ref args; }
KERNEL_LIST(X)
#undef X

enum status kernel_select(const char *isa) { return ST_OK; }
const char *kernel_isa_name(void) { return "plain"; }

#else

struct isa {
    const char *name;
    const struct kernels *kernels;
    bool (*here)(void);
};

static bool always(void) { return true; }
#if defined(__x86_64__)
/* What -march=x86-64-v3 and -v4 let the compiler use. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

/* Best last. */
static const struct isa sets[] = {
    {"generic", &kernels_generic, always},
#if defined(__x86_64__)
    {"avx2", &kernels_avx2, has_avx2},
    {"avx512", &kernels_avx512, has_avx512},
#endif
};
enum { SET_COUNT = sizeof sets / sizeof *sets };

static const struct isa *in_use;

static const struct isa *best(void)
{
    int i = SET_COUNT - 1;
    while (!sets[i].here()) i--;
    return &sets[i];
}

__attribute__((constructor)) static void start(void)
{
    if (!in_use) in_use = best();
}

enum status kernel_select(const char *isa)
{
    const struct isa *chosen = strcmp(isa, "auto") == 0 ? best() : NULL;
    for (int i = 0; i < SET_COUNT; i++)
        if (strcmp(isa, sets[i].name) == 0) chosen = &sets[i];
    if (!chosen)
        return fail(ST_CONFIG, "instruction set '%s' is unknown here; allowed: auto, generic, avx2, avx512", isa);
    if (!chosen->here())
        return fail(ST_CONFIG, "this processor has no %s; its best set is %s: take that, or 'auto'", isa, best()->name);
    in_use = chosen;
    if (strcmp(isa, "auto") != 0) multiply_limit_isa(isa);
    return ST_OK;
}

const char *kernel_isa_name(void) { return in_use->name; }

#define X(name, params, args) \
    void name params { in_use->kernels->name args; }
KERNEL_LIST(X)
#undef X

#endif
