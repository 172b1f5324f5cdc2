#include "kernel/isa.h"

#include <string.h>

#include "kernel/kernel_list.h"

#define X(name, params, args) void name params { name##_ref args; }
KERNEL_LIST(X)
#undef X

enum status kernel_select(const char *isa) { return ST_OK; }
const char *kernel_isa_name(void) { return "plain"; }
