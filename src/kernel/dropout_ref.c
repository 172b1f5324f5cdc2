#include "kernel/dropout.h"

#include "kernel/philox.h"

double dropout_factor_ref(const struct dropout *d, int64_t row, int64_t channel, int64_t width)
{
    struct dropout_stream stream = dropout_stream_at(d, row, width);
    uint32_t threshold = dropout_threshold(d->p), words[4];
    int64_t run = channel / DROPOUT_RUN, half = channel % DROPOUT_RUN / (DROPOUT_RUN / 2);
    int64_t block = run * DROPOUT_RUN_BLOCKS + channel % (DROPOUT_RUN / 2) / 4;
    dropout_words(&stream, (uint32_t)block, words);
    uint64_t draws = (uint64_t)words[2 * half] << 32 | words[2 * half + 1];
    uint32_t draw = draws >> (channel % 4 * 16) & 0xffffu;
    return draw < threshold ? 65536.0 / threshold : 0;
}
