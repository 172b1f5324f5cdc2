#include "io/batch_save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "io/h5.h"

/* Micro-batches side by side. */
struct cells {
    int64_t cell_count, token_count;
    int64_t *cell_id, *micro_batch, *offsets;
};

static enum status join_cells(const struct batch *micro, int count, struct cells *out)
{
    enum status st = ST_OK;
    *out = (struct cells){0};
    for (int i = 0; i < count; i++) out->cell_count += micro[i].cell_count;
    TRY(NEW_ARRAY(out->cell_id, out->cell_count));
    TRY(NEW_ARRAY(out->micro_batch, out->cell_count));
    TRY(NEW_ARRAY(out->offsets, out->cell_count + 1));
    int64_t cell = 0;
    for (int i = 0; i < count; i++) {
        for (int c = 0; c < micro[i].cell_count; c++, cell++) {
            out->cell_id[cell] = micro[i].cell_id[c];
            out->micro_batch[cell] = i;
            out->offsets[cell] = out->token_count + micro[i].offsets[c];
        }
        out->token_count += micro[i].token_count;
    }
    out->offsets[out->cell_count] = out->token_count;
done:
    return st;
}

static void free_cells(struct cells *cells)
{
    free(cells->cell_id);
    free(cells->micro_batch);
    free(cells->offsets);
}

static enum status write_cells(hid_t file, const struct cells *cells)
{
    enum status st = ST_OK;
    int64_t ends = cells->cell_count + 1;
    TRY(h5_write(file, "cell_id", H5T_NATIVE_INT64, 1, &cells->cell_count, cells->cell_id));
    TRY(h5_write(file, "micro_batch", H5T_NATIVE_INT64, 1, &cells->cell_count, cells->micro_batch));
    TRY(h5_write(file, "offsets", H5T_NATIVE_INT64, 1, &ends, cells->offsets));
done:
    return st;
}

/* The arrays of a batch that have one entry a token. */
static const void *token_array(const struct batch *b, int which)
{
    const void *const arrays[] = {b->feature, b->value, b->target, b->loss_weight, b->visible};
    return arrays[which];
}

static enum status write_tokens(hid_t file, const struct batch *micro, int count, int64_t tokens)
{
    const struct {
        const char *name;
        hid_t type;
        size_t bytes;
    } rows[] = {{"feature", H5T_NATIVE_INT32, 4},
                {"value", H5T_NATIVE_FLOAT, 4},
                {"target", H5T_NATIVE_FLOAT, 4},
                {"loss_weight", H5T_NATIVE_FLOAT, 4},
                {"visible", H5T_NATIVE_UINT8, 1}};
    enum status st = ST_OK;
    float *joined = NULL;
    TRY(NEW_ARRAY(joined, tokens));
    for (int k = 0; k < 5; k++) {
        char *to = (char *)joined;
        for (int i = 0; i < count; i++) {
            size_t bytes = (size_t)micro[i].token_count * rows[k].bytes;
            memcpy(to, token_array(&micro[i], k), bytes);
            to += bytes;
        }
        TRY(h5_write(file, rows[k].name, rows[k].type, 1, &tokens, joined));
    }
done:
    free(joined);
    return st;
}

static enum status write_about(hid_t file, int64_t step, int rank, double loss, double gradient_norm)
{
    enum status st = ST_OK;
    TRY(h5_attr_write_int(file, "step", step));
    TRY(h5_attr_write_int(file, "rank", rank));
    TRY(h5_attr_write_real(file, "loss", loss));
    TRY(h5_attr_write_real(file, "gradient_norm", gradient_norm));
done:
    return st;
}

enum status batch_save(const char *folder, int64_t step, int rank, const struct batch *micro, int count, double loss,
                       double gradient_norm, char **path)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    struct cells cells = {0};
    char *name = text_format("%s/bad-step-%lld-rank%d.h5", folder, (long long)step, rank);
    char *partial = text_format("%s.partial", name);
    TRY(join_cells(micro, count, &cells));
    TRY(h5_create(partial, &file));
    TRY(write_about(file, step, rank, loss, gradient_norm));
    TRY(write_cells(file, &cells));
    TRY(write_tokens(file, micro, count, cells.token_count));
    TRY(h5_close(&file));
    if (rename(partial, name) != 0) TRY(fail(ST_OUTPUT, "%s: cannot be named so: %s", name, strerror(errno)));
    if (path) {
        *path = name;
        name = NULL;
    }
done:
    if (st != ST_OK) unlink(partial);
    h5_drop(&file);
    free_cells(&cells);
    free(name);
    free(partial);
    return st;
}
