#include "kernel/dropout.h"

#include "kernel/philox.h"

double dropout_factor_ref(const struct dropout *d, int64_t row, int64_t channel, int64_t width)
{
    struct dropout_stream stream = dropout_stream_at(d, row, width);
    uint32_t threshold = dropout_threshold(d->p), words[4];
    int64_t blocks = dropout_blocks(width), half = channel / blocks;
    dropout_words(&stream, (uint32_t)(channel % blocks), words);
    uint32_t draw = words[half / 2] >> (half % 2 * 16) & 0xffffu;
    return draw < threshold ? 65536.0 / threshold : 0;
}
