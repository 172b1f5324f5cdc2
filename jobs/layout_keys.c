#include "jobs/layout_keys.h"

#include "base/text.h"

enum schedule_kind layout_schedule(const struct config *c)
{
    for (int k = 0; k < SCHEDULE_FORWARD_ONLY; k++)
        if (config_word_is(c, "mesh.schedule", schedule_name((enum schedule_kind)k))) return (enum schedule_kind)k;
    return SCHEDULE_1F1B;
}

bool layout_exchange_bf16(const struct config *c, bool products_bf16)
{
    return config_word_is(c, "train.exchange", "auto") ? products_bf16 : config_word_is(c, "train.exchange", "bf16");
}

enum status layout_read_blocks(const struct config *c, int stages, int chunks, int layers, int *blocks)
{
    int count, sum = 0;
    const char *const *words = config_list(c, "mesh.layers", &count);
    if (count != stages * chunks)
        return config_fail(c, "mesh.layers", "%d numbers for %d stages of %d chunks; give one for each", count, stages,
                           chunks);
    for (int i = 0; i < count; i++) {
        int64_t one;
        if (!text_to_int(words[i], &one) || one < 1 || one > layers)
            return config_fail(c, "mesh.layers", "'%s' is no number of blocks; each part has 1 or more", words[i]);
        blocks[i] = (int)one;
        sum += blocks[i];
    }
    if (sum == layers) return ST_OK;
    return config_fail(c, "mesh.layers", "the parts have %d blocks together, the model has %d (model.layers)", sum,
                       layers);
}
