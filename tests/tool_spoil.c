/* cytomill-pretrain whose last rank's memory errs: at the second look at the replicas one bit of a norm's weight there is
 * another. For tests/test_pretrain.sh. */
#include <string.h>

#include "mpi/replica.h"

int pretrain_main(int argc, char **argv);
static enum status spoil_and_check(struct comm *data, const struct param_table *params);
#define replica_check spoil_and_check
#define main          pretrain_main
#include "jobs/pretrain.c"
#undef main
#undef replica_check

static enum status spoil_and_check(struct comm *data, const struct param_table *params)
{
    static int looks;
    int norm = 0;
    while (norm < params->count - 1 && !strstr(params->rows[norm].name, "norm")) norm++;
    if (++looks == 2 && data->rank == data->size - 1) *(unsigned char *)param_weight(params, norm) ^= 1;
    return replica_check(data, params);
}

int main(int argc, char **argv) { return pretrain_main(argc, argv); }
