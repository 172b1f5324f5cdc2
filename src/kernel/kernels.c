#include "kernel/kernel_list.h"

/* The table of this instruction set. */
const struct kernels ISA_NAME(kernels) = {
#define X(name, params, args) .name = ISA_NAME(name),
    KERNEL_LIST(X)
#undef X
};
