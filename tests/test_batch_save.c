/* The batch of a bad step as a file.
 * plan: limit=30
 * Two micro-batches of unequal cells come back from the file entry by entry, with step, rank, loss and norm, NaN too; a
 * rank without cells writes an empty one; a folder that is not there is ST_OUTPUT and leaves nothing; h5py opens it where it
 * is installed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "base/text.h"
#include "io/batch_save.h"
#include "io/h5.h"

static char folder[] = "/tmp/cytomill-batch-XXXXXX";

/* Cell c of micro-batch m has 2 + m + c tokens, all numbers different. */
static struct batch batch_of(int m, int cells)
{
    struct batch b;
    assert_int_equal(batch_create(cells, 100, &b), ST_OK);
    batch_clear(&b);
    for (int c = 0; c < cells; c++) {
        b.cell_id[c] = 1000000000000 + 10 * m + c;
        for (int t = 0; t < 2 + m + c; t++) {
            int64_t s = b.token_count++;
            b.feature[s] = t == 0 ? 0 : 100 * m + 10 * c + t;
            b.value[s] = (float)b.feature[s] + 0.5f;
            b.target[s] = (float)b.feature[s] + 0.25f;
            b.visible[s] = t % 2;
            b.loss_weight[s] = (float)(t % 3 == 1);
        }
        b.offsets[++b.cell_count] = b.token_count;
    }
    return b;
}

static void what_is_saved_is_read_back(void **state)
{
    struct batch micro[2] = {batch_of(0, 3), batch_of(1, 2)};
    int64_t id[5], number[5], offsets[6], step, rank, total = micro[0].token_count + micro[1].token_count;
    int32_t feature[100];
    float value[100], target[100], weight[100];
    uint8_t visible[100];
    double loss, norm;
    char *path;
    hid_t file;
    assert_int_equal(batch_save(folder, 41, 2, micro, 2, NAN, 3.5, &path), ST_OK);
    assert_non_null(strstr(path, "/bad-step-41-rank2.h5"));
    assert_int_equal(h5_open(path, &file), ST_OK);
    assert_int_equal(h5_attr_read_int(file, "step", &step), ST_OK);
    assert_int_equal(h5_attr_read_int(file, "rank", &rank), ST_OK);
    assert_int_equal(h5_attr_read_real(file, "loss", &loss), ST_OK);
    assert_int_equal(h5_attr_read_real(file, "gradient_norm", &norm), ST_OK);
    assert_true(step == 41 && rank == 2 && isnan(loss) && norm == 3.5);
    assert_int_equal(h5_read(file, "cell_id", H5T_NATIVE_INT64, 5, id), ST_OK);
    assert_int_equal(h5_read(file, "micro_batch", H5T_NATIVE_INT64, 5, number), ST_OK);
    assert_int_equal(h5_read(file, "offsets", H5T_NATIVE_INT64, 6, offsets), ST_OK);
    assert_int_equal(h5_read(file, "feature", H5T_NATIVE_INT32, total, feature), ST_OK);
    assert_int_equal(h5_read(file, "value", H5T_NATIVE_FLOAT, total, value), ST_OK);
    assert_int_equal(h5_read(file, "target", H5T_NATIVE_FLOAT, total, target), ST_OK);
    assert_int_equal(h5_read(file, "loss_weight", H5T_NATIVE_FLOAT, total, weight), ST_OK);
    assert_int_equal(h5_read(file, "visible", H5T_NATIVE_UINT8, total, visible), ST_OK);
    assert_int_equal(offsets[5], total);
    for (int64_t cell = 0; cell < 5; cell++) {
        const struct batch *b = &micro[cell >= 3];
        int64_t c = cell >= 3 ? cell - 3 : cell;
        assert_true(id[cell] == b->cell_id[c] && number[cell] == (cell >= 3));
        assert_int_equal(offsets[cell + 1] - offsets[cell], b->offsets[c + 1] - b->offsets[c]);
        for (int64_t t = 0; t < offsets[cell + 1] - offsets[cell]; t++) {
            int64_t at = offsets[cell] + t, s = b->offsets[c] + t;
            assert_true(feature[at] == b->feature[s] && value[at] == b->value[s] && target[at] == b->target[s]);
            assert_true(weight[at] == b->loss_weight[s] && visible[at] == b->visible[s]);
        }
    }
    h5_drop(&file);
    char *command =
        text_format("python3 -c 'import h5py' 2>/dev/null || exit 0; python3 -c 'import h5py; f = "
                    "h5py.File(\"%s\"); assert f[\"feature\"].shape == (%lld,) and f.attrs[\"step\"] == 41'",
                    path, (long long)total);
    assert_int_equal(system(command), 0);
    unlink(path);
    free(command), free(path);
    batch_destroy(&micro[0]), batch_destroy(&micro[1]);
}

static void a_rank_without_cells_saves_none(void **state)
{
    char *path;
    hid_t file;
    int64_t offsets;
    assert_int_equal(batch_save(folder, 7, 0, NULL, 0, 1, 1, &path), ST_OK);
    assert_int_equal(h5_open(path, &file), ST_OK);
    assert_int_equal(h5_read(file, "offsets", H5T_NATIVE_INT64, 1, &offsets), ST_OK);
    assert_int_equal(offsets, 0);
    h5_drop(&file);
    unlink(path);
    free(path);
}

static void no_folder_is_an_error(void **state)
{
    char *nowhere = text_format("%s/none", folder);
    assert_int_equal(batch_save(nowhere, 7, 0, NULL, 0, 1, 1, NULL), ST_OUTPUT);
    assert_non_null(strstr(status_message(), "bad-step-7-rank0.h5"));
    free(nowhere);
    assert_int_equal(rmdir(folder), 0); /* nothing is left */
}

int main(void)
{
    if (!mkdtemp(folder)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_saved_is_read_back),
                                       cmocka_unit_test(a_rank_without_cells_saves_none),
                                       cmocka_unit_test(no_folder_is_an_error)};
    return cmocka_run_group_tests_name("batch_save", tests, NULL, NULL);
}
