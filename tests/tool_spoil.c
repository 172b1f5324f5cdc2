/* cytomill-pretrain whose last rank's memory errs: at the second look at the replicas one bit of a norm's weight there is
 * another. For tests/test_pretrain.sh. */
#include <string.h>

#include "mpi/train_step.h"

int pretrain_main(int argc, char **argv);
static enum status spoil_and_check(struct mesh *mesh, struct trainer *trainer);
#define train_check_replicas spoil_and_check
#define main                 pretrain_main
#include "jobs/pretrain.c"
#undef main
#undef train_check_replicas

static enum status spoil_and_check(struct mesh *mesh, struct trainer *trainer)
{
    static int looks;
    const struct param_table *params = model_params(trainer->model);
    int norm = 0;
    while (norm < params->count - 1 && !strstr(params->rows[norm].name, "norm")) norm++;
    hand_out_finish(mesh, trainer->hand_out);
    if (++looks == 2 && mesh->data.rank == mesh->data.size - 1) *(unsigned char *)param_weight(params, norm) ^= 1;
    return train_check_replicas(mesh, trainer);
}

int main(int argc, char **argv) { return pretrain_main(argc, argv); }
