#include "io/embed_chunk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
#include "io/embedding.h"

enum status embed_chunk_create(const struct inference *inf, int64_t capacity, struct embed_chunk *work)
{
    enum status st = ST_OK;
    *work = (struct embed_chunk){.capacity = capacity};
    TRY(NEW_ARRAY(work->order, capacity));
    TRY(NEW_ARRAY(work->reason, capacity));
    TRY(NEW_ARRAY(work->z, capacity * inf->width));
    TRY(NEW_ARRAY(work->slot, inf->batch.cell_capacity));
    TRY(NEW_ARRAY(work->z_batch, (int64_t)inf->batch.cell_capacity * inf->width));
done:
    if (st != ST_OK) embed_chunk_free(work);
    return st;
}

void embed_chunk_free(struct embed_chunk *work)
{
    cells_free(&work->cells);
    token_cell_free(&work->cell);
    free(work->order);
    free(work->reason);
    free(work->slot);
    free(work->z_batch);
    free(work->z);
    *work = (struct embed_chunk){0};
}

/* Tokens of a row, cls included; 0 if the vocabulary knows none of its genes. */
static int64_t token_count(const struct inference *inf, const struct cells *cells, int64_t row)
{
    int64_t n = 0;
    for (int64_t e = cells->start[row]; e < cells->start[row + 1]; e++)
        n += inf->lookup[cells->feature[e]] > 0 && cells->value[e] > 0;
    if (n > inf->rules.max_genes) n = inf->rules.max_genes;
    return n > 0 ? n + 1 : 0;
}

static enum status read_chunk(struct inference *inf, struct cell_input *input, int64_t first, int64_t count,
                              struct embed_chunk *work)
{
    enum status st = ST_OK;
    int64_t longest = 0;
    work->count = count;
    TRY(cell_input_read(input, first, count, &work->cells));
    for (int64_t i = 0; i < count; i++) {
        int64_t entries = work->cells.start[i + 1] - work->cells.start[i];
        if (entries > longest) longest = entries;
        work->order[i] = (uint64_t)token_count(inf, &work->cells, i) << 32 | (uint64_t)i;
        work->reason[i] = EMBED_NO_GENE;
    }
    sort_u64(work->order, count);
    TRY(token_cell_reserve(&work->cell, longest));
done:
    return st;
}

static bool row_is_finite(const float *z, int width)
{
    float sum = 0; /* any NaN or infinity makes this NaN */
    for (int d = 0; d < width; d++) sum += z[d] * 0;
    return sum == 0;
}

static enum status flush_batch(struct inference *inf, struct embed_chunk *work)
{
    enum status st = ST_OK;
    int width = inf->width, cells = inf->batch.cell_count;
    if (cells == 0) return ST_OK;
    TRY(inference_embed(inf, work->z_batch));
    for (int b = 0; b < cells; b++) {
        const float *row = work->z_batch + (int64_t)b * width;
        memcpy(work->z + (int64_t)work->slot[b] * width, row, sizeof *row * (size_t)width);
        work->reason[work->slot[b]] = row_is_finite(row, width) ? EMBED_OK : EMBED_NOT_FINITE;
    }
    work->tokens += inf->batch.token_count;
    batch_clear(&inf->batch);
done:
    return st;
}

static void append(struct inference *inf, struct embed_chunk *work, int64_t i)
{
    work->slot[inf->batch.cell_count] = (int)i;
    token_cell_read(&work->cells, i, inf->lookup, &inf->rules, false, &work->cell);
    token_append_embed(&inf->batch, &work->cell, &inf->rules, work->cells.id[i]);
}

/* Longest cells first; what is left of a micro-batch is filled with the shortest. */
static enum status embed_by_length(struct inference *inf, struct embed_chunk *work)
{
    enum status st = ST_OK;
    int64_t low = 0, high = work->count;
    while (low < high && work->order[low] >> 32 == 0) low++; /* cells without a gene */
    while (low < high) {
        bool fits = !inference_is_full(inf, (int64_t)(work->order[high - 1] >> 32));
        if (fits) append(inf, work, (int64_t)(uint32_t)work->order[--high]);
        else if (!inference_is_full(inf, (int64_t)(work->order[low] >> 32)))
            append(inf, work, (int64_t)(uint32_t)work->order[low++]);
        else TRY(flush_batch(inf, work));
    }
    TRY(flush_batch(inf, work));
done:
    return st;
}

enum status embed_chunk_run(struct inference *inf, struct cell_input *input, int64_t first, int64_t count,
                            struct embed_chunk *work)
{
    enum status st = ST_OK;
    batch_clear(&inf->batch);
    TRY(read_chunk(inf, input, first, count, work));
    TRY(embed_by_length(inf, work));
done:
    return st;
}
