#include "objective/masked.h"

#include "kernel/loss.h"

struct masked_rows masked_gather(struct tape *tape, const struct batch *b, const int64_t *index, int64_t count)
{
    size_t bytes = (size_t)count * sizeof(float);
    float *target = tape_take(tape, bytes), *weight = tape_take(tape, bytes), *hidden = tape_take(tape, bytes);
    for (int64_t i = 0; b && i < count; i++) {
        int64_t t = index ? index[i] : i;
        target[i] = b->target[t];
        weight[i] = b->role[t] == TOKEN_CLS ? 0 : b->loss_weight[t];
        hidden[i] = b->visible[t] ? 0 : weight[i];
    }
    return (struct masked_rows){count, target, weight, hidden};
}

void masked_loss(struct tape *tape, struct tensor *p, const struct masked_rows *rows, double scale,
                 struct masked_sum *out)
{
    *out = (struct masked_sum){0};
    op_square_loss(tape, p, &(struct op_square_loss){rows->target, rows->weight, scale, &out->error, &out->weight});
    if (tape_measures(tape)) return;
    loss_square_forward(&out->error_hidden, &out->hidden, p->data, rows->target, rows->hidden, rows->count);
}
