#include "tape/op.h"

const struct op *const op_table[] = {
#define X(name) &op_row_##name,
    OP_LIST(X)
#undef X
};
const int op_count = sizeof op_table / sizeof *op_table;
