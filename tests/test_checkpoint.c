/* Checkpoints.
 * plan: ranks=1,2,3 limit=180
 * What is written is read back, bit for bit, through every driver; a subset of the ranks reads what all wrote
 * and the file's bytes do not depend on who wrote it; one changed byte anywhere is noticed and the generation
 * before is taken; only train.keep stay; another model, another vocabulary, a file of another kind are refused;
 * a full disk leaves the last good checkpoint and nothing half-written. */
#include <sys/mount.h>
#include <sys/resource.h>

#include "base/hash.h"
#include "tests/checkpoint_scene.h"

/* Three shapes; the second is cut into several blocks, so that ranks share it. */
static struct param_table table_on(const struct comm *comm, uint64_t seed)
{
    static const struct param rows[] = {
        {.name = "cls_token",
         .rows = 1,
         .cols = 96,
         .shape_rank = 3,
         .shape = {1, 1, 96},
         .init = INIT_NORMAL,
         .init_scale = 1},
        {.name = "gene_emb",
         .rows = 4501,
         .cols = 1100,
         .shape_rank = 2,
         .shape = {4501, 1100},
         .init = INIT_UNIFORM,
         .init_scale = 1},
        {.name = "encoder.0.norm.gamma", .rows = 1, .cols = 96, .shape_rank = 1, .shape = {96}, .init = INIT_ONE},
    };
    struct param_table t = {0};
    for (int i = 0; i < 3; i++) assert_int_equal(param_add(&t, &rows[i], NULL), ST_OK);
    assert_int_equal(param_share(&t, comm->rank, comm->size, 1), ST_OK);
    assert_int_equal(param_allocate(&t, true), ST_OK);
    for (int64_t k = 0; k < t.size; k++) { /* cheap, but every value is its own */
        uint64_t bits = (seed * 1000003 + (uint64_t)k) * UINT64_C(0x9E3779B97F4A7C15);
        t.weight[k] = (real)((double)(bits >> 40) * 0x1p-24 - 0.5);
    }
    for (int64_t i = 0; i < t.shard.count; i++) {
        const struct piece *p = &t.shard.piece[i];
        for (int64_t k = 0; shard_owns(&t.shard, p) && k < p->reals; k++) {
            t.moment1[p->moment + k] = t.weight[p->at + k] * (real)0.25;
            t.moment2[p->moment + k] = t.weight[p->at + k] * t.weight[p->at + k];
        }
    }
    return t;
}

static struct param_table table_of(uint64_t seed) { return table_on(&world, seed); }

static enum status write_as(struct comm *comm, const char *path, const struct param_table *t, const char *assignment,
                            int64_t step)
{
    struct config *config = config_with(assignment);
    struct vocab *vocab;
    struct train_state state = {
        .step = step, .cells_seen = step * 8, .global_batch = 8, .seed = UINT64_MAX, .best_loss = NAN};
    for (int i = 0; i < GUARD_NORMS; i++) state.guard.norm[i] = 1.0 / (i + 3);
    state.guard.accepted = 70, state.guard.skipped_in_a_row = 2, state.guard.skipped = 9;
    for (int i = 0; i < 700; i++) history_add(&state.trained, (struct history_point){i + 1, 5.0 / (i + 1), NAN, 0.5});
    history_add(&state.evaluated, (struct history_point){4, 1.25, 0.5, 0});
    assert_int_equal(vocab_parse(vocabulary, strlen(vocabulary), "test", &vocab), ST_OK);
    memset(state.atlas_hash, 'a', sizeof state.atlas_hash - 1);
    struct mesh mesh;
    assert_int_equal(mesh_open(comm, (struct mesh_shape){0, 1, 1}, &mesh), ST_OK);
    enum status st = checkpoint_write(&mesh, path, t, config, vocab, "test-model", &state);
    mesh_close(&mesh);
    vocab_destroy(&vocab);
    config_destroy(&config);
    return st;
}

/* Weights everywhere, and the moments that the second has, which are those of its weights. */
static bool tables_equal(const struct param_table *a, const struct param_table *b)
{
    for (int64_t i = 0; i < b->shard.count; i++) {
        const struct piece *p = &b->shard.piece[i];
        if (memcmp(a->weight + p->at, b->weight + p->at, sizeof(real) * (size_t)p->reals) != 0) return false;
        for (int64_t k = 0; shard_owns(&b->shard, p) && k < p->reals; k++) {
            real w = a->weight[p->at + k];
            if (b->moment1[p->moment + k] != w * (real)0.25 || b->moment2[p->moment + k] != w * w) return false;
        }
    }
    return true;
}

static void expect_same(struct comm *comm, const char *path, const struct param_table *t)
{
    struct param_table back = table_on(comm, 99);
    struct train_state state;
    assert_int_equal(checkpoint_read(comm, path, &back, &state), ST_OK);
    assert_true(tables_equal(t, &back));
    assert_true(state.step == 5 && state.cells_seen == 40 && state.global_batch == 8 && state.seed == UINT64_MAX &&
                isnan(state.best_loss) && state.atlas_hash[63] == 'a');
    assert_true(state.guard.accepted == 70 && state.guard.skipped_in_a_row == 2 && state.guard.skipped == 9 &&
                state.guard.norm[0] == 1.0 / 3 && state.guard.norm[GUARD_NORMS - 1] == 1.0 / (GUARD_NORMS + 2));
    const struct history *h = &state.trained;
    assert_true(h->count == 350 && h->offered == 700 && h->halvings == 1 && h->point[349].step == 699);
    for (int k = 0; k < 350; k++)
        assert_true(h->point[k].loss == 5.0 / (2 * k + 1) && isnan(h->point[k].hidden) && h->point[k].rate == 0.5);
    assert_true(state.evaluated.count == 1 && state.evaluated.offered == 1 && state.evaluated.point[0].loss == 1.25);
    param_free(&back);
}

static void reads_back_what_any_driver_wrote(void **state)
{
    static const char *const drivers[] = {"run.io=auto", "run.io=posix", "run.io=ompio"};
    struct param_table t = table_of(1);
    for (int d = 0; d < 3; d++) {
        char *path = path_of("any.h5");
        assert_int_equal(write_as(&world, path, &t, drivers[d], 5), ST_OK);
        expect_same(&world, path, &t);
        free(path);
    }
    param_free(&t);
}

/* All ranks write one file, rank 0 another; each of the two groups then reads the other's. */
static void bytes_and_reading_do_not_depend_on_ranks(void **state)
{
    struct param_table t = table_of(2), own;
    struct comm some;
    char *all = path_of("all.h5"), *alone = path_of("alone.h5"), hash[2][SHA256_HEX];
    assert_int_equal(comm_split(&world, world.rank > 0, &some), ST_OK);
    assert_int_equal(write_as(&world, all, &t, "run.io=posix", 5), ST_OK);
    own = table_on(&some, 2);
    if (world.rank == 0) assert_int_equal(write_as(&some, alone, &own, "run.io=posix", 5), ST_OK);
    comm_barrier(&world);
    assert_int_equal(hash_sha256_file(all, hash[0]), ST_OK);
    assert_int_equal(hash_sha256_file(alone, hash[1]), ST_OK);
    assert_string_equal(hash[0], hash[1]);
    expect_same(&some, all, &t);
    expect_same(&world, alone, &t);
    comm_free(&some);
    free(all);
    free(alone);
    param_free(&t);
    param_free(&own);
}

static void gives_back_configuration_and_vocabulary(void **state)
{
    struct param_table t = table_of(3);
    char *path = path_of("config.h5");
    assert_int_equal(write_as(&world, path, &t, "model.heads=12", 5), ST_OK);
    struct config *config;
    struct vocab *vocab = NULL;
    assert_int_equal(config_create(&config), ST_OK);
    assert_int_equal(config_set(config, "model.max_genes=1000", "test"), ST_OK);
    assert_int_equal(checkpoint_open_model(&world, path, config, &vocab), ST_OK);
    assert_int_equal(config_int(config, "model.layers"), 4);
    assert_int_equal(config_int(config, "model.heads"), 12);
    assert_int_equal(config_int(config, "model.max_genes"), 1000); /* the user's choice of genes stays */
    assert_int_equal(vocab->count, 2);
    vocab_destroy(&vocab);
    config_destroy(&config);
    config = config_with("model.heads=24");
    assert_int_equal(checkpoint_open_model(&world, path, config, &vocab), ST_INPUT); /* the architecture does not */
    config_destroy(&config);
    free(path);
    param_free(&t);
}

static void flip_byte(const char *path, int64_t at)
{
    if (world.rank == 0) {
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        fseek(f, (long)at, SEEK_SET);
        int c = fgetc(f);
        fseek(f, (long)at, SEEK_SET);
        fputc(c ^ 0x10, f);
        fclose(f);
    }
    comm_barrier(&world);
}

static int64_t bytes_of(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    int64_t bytes = ftell(f);
    fclose(f);
    return bytes;
}

static void expect_found(int64_t step)
{
    char *run = path_of("run"), *found = NULL, *expected = text_format("%s/checkpoint-%lld.h5", run, (long long)step);
    assert_int_equal(checkpoint_find(&world, run, &found), ST_OK);
    assert_non_null(found);
    assert_string_equal(found, expected);
    free(run);
    free(found);
    free(expected);
}

static void keeps_the_newest_and_falls_back(void **state)
{
    struct param_table t = table_of(4);
    char *run = path_of("run"), *path[4], *found = NULL;
    assert_int_equal(checkpoint_find(&world, run, &found), ST_OK); /* no such folder: nothing to resume */
    assert_null(found);
    if (world.rank == 0) assert_int_equal(text_make_folder(run), ST_OK);
    comm_barrier(&world);
    for (int i = 0; i < 4; i++) {
        path[i] = text_format("%s/checkpoint-%d.h5", run, 9 + i);
        assert_int_equal(write_as(&world, path[i], &t, "train.keep=2", 9 + i), ST_OK);
    }
    comm_barrier(&world);
    assert_true(access(path[1], F_OK) != 0 && access(path[2], F_OK) == 0 && access(path[3], F_OK) == 0);
    expect_found(12);
    int64_t bytes = bytes_of(path[3]);
    comm_barrier(&world);
    for (int k = 0; k < 3; k++) { /* in the first tensors, the middle, the last moment */
        int64_t at = k == 0 ? bytes / 5 : k == 1 ? bytes / 2 : bytes - 5000;
        flip_byte(path[3], at);
        expect_found(11);
        flip_byte(path[3], at);
    }
    expect_found(12);
    if (world.rank == 0) assert_int_equal(truncate(path[3], bytes / 2), 0);
    comm_barrier(&world);
    expect_found(11);
    flip_byte(path[2], bytes / 2);
    assert_int_equal(checkpoint_find(&world, run, &found), ST_INPUT); /* never silently from the start */
    for (int i = 0; i < 4; i++) free(path[i]);
    free(run);
    param_free(&t);
}

static void refuses_what_does_not_fit(void **state)
{
    struct param_table t = table_of(5), other = {0};
    struct train_state s;
    char *path = path_of("other.h5"), *text = path_of("text.h5");
    assert_int_equal(write_as(&world, path, &t, NULL, 5), ST_OK);
    struct param row = t.rows[1];
    row.shape[0] = row.rows = 4502; /* one gene more */
    assert_int_equal(param_add(&other, &t.rows[0], NULL), ST_OK);
    assert_int_equal(param_add(&other, &row, NULL), ST_OK);
    assert_int_equal(param_add(&other, &t.rows[2], NULL), ST_OK);
    assert_int_equal(param_allocate(&other, true), ST_OK);
    assert_int_equal(checkpoint_read(&world, path, &other, &s), ST_INPUT);
    snprintf(t.rows[2].name, sizeof t.rows[2].name, "encoder.1.norm.gamma");
    assert_int_equal(checkpoint_read(&world, path, &t, &s), ST_INPUT);
    if (world.rank == 0) {
        FILE *f = fopen(text, "w");
        fputs("not a checkpoint at all\n", f);
        fclose(f);
    }
    comm_barrier(&world);
    assert_int_equal(checkpoint_read(&world, text, &t, &s), ST_INPUT);
    assert_int_equal(checkpoint_read(&world, "/nowhere/checkpoint-1.h5", &t, &s), ST_INPUT);
    free(path);
    free(text);
    param_free(&t);
    param_free(&other);
}

/* Write `next` over `path` as a small tmpfs, or a limit of 20 MB, stands in the way of its 59 MB. */
static void expect_no_room(const char *path, const struct param_table *t, const struct param_table *next, bool limit)
{
    static const char *const drivers[] = {"run.io=posix", "run.io=ompio"};
    char *partial = text_format("%s.partial", path);
    struct rlimit old, small = {20 << 20, 0};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    for (int d = 0; d < 2; d++) {
        if (limit) assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        assert_int_equal(write_as(&world, path, next, drivers[d], 5), ST_OUTPUT);
        setrlimit(RLIMIT_FSIZE, &old);
        comm_barrier(&world);
        assert_true(access(partial, F_OK) != 0);
        expect_same(&world, path, t);
    }
    free(partial);
}

static void a_full_disk_leaves_the_last_good_one(void **state)
{
    struct param_table t = table_of(6), next = table_of(7);
    char *disk = path_of("disk"), *path = path_of("disk/full.h5");
    int64_t mounted = 0;
    if (world.rank == 0) {
        assert_int_equal(text_make_folder(disk), ST_OK);
        mounted = mount("tmpfs", disk, "tmpfs", 0, "size=80m") == 0; /* where tests may mount */
    }
    comm_max_i64(&world, &mounted, 1);
    assert_int_equal(write_as(&world, path, &t, NULL, 5), ST_OK);
    if (mounted) expect_no_room(path, &t, &next, false);
    expect_no_room(path, &t, &next, true);
    if (world.rank == 0 && mounted) assert_int_equal(umount2(disk, MNT_DETACH), 0);
    assert_int_equal(write_as(&world, "/proc/nowhere.h5", &t, NULL, 5), ST_OUTPUT);
    free(path);
    free(disk);
    param_free(&t);
    param_free(&next);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_back_what_any_driver_wrote),
        cmocka_unit_test(bytes_and_reading_do_not_depend_on_ranks),
        cmocka_unit_test(gives_back_configuration_and_vocabulary),
        cmocka_unit_test(keeps_the_newest_and_falls_back),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(a_full_disk_leaves_the_last_good_one),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
    comm_close(&world);
    return failed;
}
