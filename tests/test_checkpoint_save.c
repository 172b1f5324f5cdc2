/* Checkpoints that are written while training goes on, and by meshes.
 * plan: ranks=1,2,3,4 limit=120
 * Every mesh of up to four ranks, data or pipe or both, writes the same bytes, at once and beside a training that changes
 * everything as soon as it may; every mesh reads them, weights and moments bit for bit. A full disk is told at the end,
 * with the older file whole; what was left half-written goes with the next; without memory for the copy, through MPI-IO,
 * from hosts that do not see alike what they write, or when told so, files are written at once. */
#include <malloc.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "base/hash.h"
#include "tests/checkpoint_scene.h"

/* ---- a table as a stage of a pipeline holds it ---- */

enum { TENSORS = 5, BLOCKS = 3 };
static const struct {
    const char *name;
    int64_t shape[2];
    int block;
} tensors[TENSORS] = {{"gene_emb", {2300, 1000}, 0}, /* cut into blocks; tied: the last stage has it too */
                      {"cls_token", {1, 96}, 0},
                      {"encoder.0.weight", {70, 90}, 0},
                      {"encoder.1.weight", {230, 1003}, 1},
                      {"encoder.2.gamma", {1, 77}, 2}};

static void fill(real *x, int64_t count, uint64_t key)
{
    for (int64_t k = 0; k < count; k++)
        x[k] = (real)((double)(((key + (uint64_t)k) * UINT64_C(0x9E3779B97F4A7C15)) >> 40) * 0x1p-24 - 0.5);
}

static struct param_table stage_table(const struct mesh *mesh, uint64_t seed)
{
    struct param_table t = {0};
    int stage = mesh->pipe.rank, last = mesh->pipe.size - 1;
    for (int i = 0; i < TENSORS; i++) {
        struct param p = {.rows = tensors[i].shape[0], .cols = tensors[i].shape[1], .shape_rank = 2, .tied = i == 0};
        snprintf(p.name, sizeof p.name, "%s", tensors[i].name);
        memcpy(p.shape, tensors[i].shape, sizeof tensors[i].shape);
        bool here = tensors[i].block * (last + 1) / BLOCKS == stage;
        p.copy = p.tied && last > 0 && stage == last;
        p.elsewhere = !here && !p.copy;
        assert_int_equal(param_add(&t, &p, NULL), ST_OK);
    }
    assert_int_equal(param_share(&t, mesh->dense.rank, mesh->dense.size, 1), ST_OK);
    assert_int_equal(param_allocate(&t, true), ST_OK);
    for (int64_t i = 0; i < t.shard.count; i++) {
        const struct piece *p = &t.shard.piece[i];
        uint64_t key = (seed * 1000 + (uint64_t)i) << 20;
        if (p->owner >= 0) fill(t.weight + p->at, p->reals, key);
        if (!shard_owns(&t.shard, p)) continue;
        fill(t.moment1 + p->moment, p->reals, key + (UINT64_C(1) << 60));
        fill(t.moment2 + p->moment, p->reals, key + (UINT64_C(2) << 60));
    }
    return t;
}

static void spoil(struct param_table *t)
{
    for (int64_t k = 0; k < t->size; k++) t->weight[k] = (real)1e30;
    for (int64_t k = 0; k < t->shard.reals; k++) t->moment1[k] = t->moment2[k] = (real)1e30;
}

static void expect_values(const struct param_table *a, const struct param_table *b)
{
    for (int64_t i = 0; i < a->shard.count; i++) {
        const struct piece *p = &a->shard.piece[i];
        size_t bytes = sizeof(real) * (size_t)p->reals;
        if (p->owner >= 0) assert_memory_equal(a->weight + p->at, b->weight + p->at, bytes);
        if (!shard_owns(&a->shard, p)) continue;
        assert_memory_equal(a->moment1 + p->moment, b->moment1 + p->moment, bytes);
        assert_memory_equal(a->moment2 + p->moment, b->moment2 + p->moment, bytes);
    }
}

/* ---- writing ---- */

static struct train_state state_at(int64_t step) { return (struct train_state){.step = step, .best_loss = NAN}; }

/* What a saver needs besides the table. */
struct scene {
    struct mesh mesh;
    struct param_table table;
    struct config *config;
    struct vocab *vocab;
    struct checkpoint_saver *saver;
};

static struct scene scene_of(struct comm *comm, int pipe, uint64_t seed, const char *assignment)
{
    struct scene s = {.config = config_with(assignment)};
    assert_int_equal(mesh_open(comm, (struct mesh_shape){0, pipe, 1}, &s.mesh), ST_OK);
    s.table = stage_table(&s.mesh, seed);
    assert_int_equal(vocab_parse(vocabulary, strlen(vocabulary), "test", &s.vocab), ST_OK);
    assert_int_equal(checkpoint_saver_create(&s.mesh, &s.table, s.config, &s.saver), ST_OK);
    return s;
}

static void scene_free(struct scene *s)
{
    checkpoint_saver_destroy(&s->saver);
    param_free(&s->table);
    vocab_destroy(&s->vocab);
    config_destroy(&s->config);
    mesh_close(&s->mesh);
}

static enum status begin(struct scene *s, const char *path)
{
    struct train_state state = state_at(5);
    return checkpoint_begin(&s->mesh, s->saver, path, &s->table, s->config, s->vocab, "test-model", &state);
}

static void write_at_once(struct scene *s, const char *path)
{
    struct train_state state = state_at(5);
    assert_int_equal(checkpoint_write(&s->mesh, path, &s->table, s->config, s->vocab, "test-model", &state), ST_OK);
}

/* As a training does: everything changes as soon as it may. */
static void write_beside(struct scene *s, const char *path)
{
    assert_int_equal(begin(s, path), ST_OK);
    assert_true(checkpoint_under_way(s->saver));
    checkpoint_hold(s->saver);
    spoil(&s->table);
    assert_int_equal(checkpoint_finish(&s->mesh, s->saver), ST_OK);
    assert_true(!checkpoint_under_way(s->saver) && !checkpoint_poll(s->saver) && checkpoint_stall_s(s->saver) > 0);
}

/* ---- meshes ---- */

/* `visit` on every mesh that the first 1, 2, … ranks can be. */
static void on_every_mesh(void (*visit)(struct comm *ranks, int pipe))
{
    for (int size = 1; size <= world.size; size++) {
        struct comm ranks;
        assert_int_equal(comm_split(&world, world.rank < size, &ranks), ST_OK);
        for (int pipe = 1; pipe <= size; pipe++)
            if (size % pipe == 0 && world.rank < size) visit(&ranks, pipe);
        comm_free(&ranks);
        comm_barrier(&world);
    }
}

static void write_and_compare(struct comm *ranks, int pipe)
{
    char *first = path_of("mesh.h5"), *path = path_of("again.h5"), hash[3][SHA256_HEX];
    struct scene s = scene_of(ranks, pipe, 1, NULL);
    write_at_once(&s, ranks->size == 1 ? first : path);
    if (ranks->rank == 0) {
        assert_int_equal(hash_sha256_file(first, hash[0]), ST_OK);
        assert_int_equal(hash_sha256_file(ranks->size == 1 ? first : path, hash[1]), ST_OK);
    }
    write_beside(&s, path);
    if (ranks->rank == 0) {
        assert_int_equal(hash_sha256_file(path, hash[2]), ST_OK);
        assert_string_equal(hash[0], hash[1]);
        assert_string_equal(hash[0], hash[2]);
    }
    scene_free(&s);
    free(first);
    free(path);
}

static void read_and_compare(struct comm *ranks, int pipe)
{
    char *path = path_of("mesh.h5");
    struct mesh mesh;
    struct train_state state;
    assert_int_equal(mesh_open(ranks, (struct mesh_shape){0, pipe, 1}, &mesh), ST_OK);
    struct param_table wanted = stage_table(&mesh, 1), t = stage_table(&mesh, 2);
    assert_int_equal(checkpoint_read(&mesh.dense, path, &t, &state), ST_OK);
    expect_values(&wanted, &t);
    assert_int_equal(state.step, 5);
    param_free(&wanted);
    param_free(&t);
    mesh_close(&mesh);
    free(path);
}

static void any_mesh_reads_what_any_other_wrote(void **state)
{
    on_every_mesh(write_and_compare); /* all the same bytes */
    on_every_mesh(read_and_compare);
}

/* ---- what may go wrong ---- */

static void expect_readable(struct scene *s, const char *path, uint64_t seed)
{
    struct train_state state;
    struct param_table wanted = stage_table(&s->mesh, seed), t = stage_table(&s->mesh, seed + 1);
    assert_int_equal(checkpoint_read(&s->mesh.dense, path, &t, &state), ST_OK);
    expect_values(&wanted, &t);
    param_free(&wanted);
    param_free(&t);
}

static void a_full_disk_is_told_at_the_end(void **state)
{
    char *disk = path_of("disk"), *path = path_of("disk/checkpoint-5.h5"), *next = path_of("disk/checkpoint-6.h5");
    char *partial = text_format("%s.partial", next);
    struct scene s = scene_of(&world, 1, 3, NULL);
    int64_t mounted = 0;
    if (world.rank == 0) {
        assert_int_equal(text_make_folder(disk), ST_OK);
        mounted = mount("tmpfs", disk, "tmpfs", 0, "size=40m") == 0; /* where tests may mount: 30 MB fit once */
    }
    comm_max_i64(&world, &mounted, 1);
    if (mounted) {
        write_at_once(&s, path);
        assert_int_equal(begin(&s, next), ST_OK);
        assert_int_equal(checkpoint_finish(&s.mesh, s.saver), ST_OUTPUT);
        assert_false(checkpoint_under_way(s.saver));
        comm_barrier(&world);
        assert_true(access(partial, F_OK) != 0 && access(next, F_OK) != 0);
        expect_readable(&s, path, 3);
        comm_barrier(&world);
        if (world.rank == 0) unlink(path);
        write_beside(&s, next); /* the same saver goes on */
        comm_barrier(&world);
        if (world.rank == 0) assert_int_equal(umount2(disk, MNT_DETACH), 0);
    }
    assert_int_equal(begin(&s, "/proc/nowhere.h5"), ST_OUTPUT);
    assert_false(checkpoint_under_way(s.saver));
    scene_free(&s);
    free(disk);
    free(path);
    free(next);
    free(partial);
}

/* A run that ends while it writes leaves nothing under the final name; the next checkpoint of the folder clears up. */
static void what_is_half_written_goes_with_the_next(void **state)
{
    char *run = path_of("run"), *half = path_of("run/checkpoint-4.h5"), *path = path_of("run/checkpoint-5.h5");
    char *partial = text_format("%s.partial", half), *other = path_of("run/other.h5.partial");
    if (world.rank == 0) {
        assert_int_equal(text_make_folder(run), ST_OK);
        fclose(fopen(other, "w"));
    }
    comm_barrier(&world);
    struct scene s = scene_of(&world, 1, 4, NULL);
    assert_int_equal(begin(&s, half), ST_OK);
    scene_free(&s);
    assert_true(access(partial, F_OK) == 0 && access(half, F_OK) != 0);
    s = scene_of(&world, 1, 4, NULL);
    write_beside(&s, path);
    comm_barrier(&world);
    assert_true(access(partial, F_OK) != 0 && access(path, F_OK) == 0 && access(other, F_OK) == 0);
    expect_readable(&s, path, 4);
    scene_free(&s);
    free(run);
    free(half);
    free(path);
    free(partial);
    free(other);
}

static void expect_at_once(struct scene *s)
{
    char *path = path_of("once.h5");
    assert_int_equal(begin(s, path), ST_OK);
    assert_false(checkpoint_under_way(s->saver));
    expect_readable(s, path, 5);
    assert_int_equal(checkpoint_finish(&s->mesh, s->saver), ST_OK);
    comm_barrier(&world);
    if (world.rank == 0) unlink(path);
    free(path);
}

/* Every rank a host of its own, as far as the saver knows. */
static struct scene scene_of_hosts(uint64_t seed)
{
    struct scene s = scene_of(&world, 1, seed, NULL);
    s.mesh.world.node_rank = 0, s.mesh.world.node_size = 1;
    checkpoint_saver_destroy(&s.saver);
    assert_int_equal(checkpoint_saver_create(&s.mesh, &s.table, s.config, &s.saver), ST_OK);
    return s;
}

static void several_hosts_write_beside_the_training(void **state)
{
    char *path = path_of("hosts.h5"), *probe = path_of("hosts.h5.probe");
    struct scene s = scene_of_hosts(8);
    write_beside(&s, path);
    expect_readable(&s, path, 8);
    assert_true(access(probe, F_OK) != 0);
    scene_free(&s);
    free(path);
    free(probe);
}

/* To each rank the file of the probe is one of its own. */
static void hosts_apart_write_at_once(void **state)
{
    if (world.size == 1) return;
    char *path = path_of("once.h5.probe"), *own = text_format("%s-%d", path, world.rank), here[4096];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(text_make_folder(own), ST_OK);
    struct scene s = scene_of_hosts(5);
    assert_int_equal(chdir(own), 0);
    FILE *f = fopen("probe", "w");
    assert_int_equal(ftruncate(fileno(f), 1 << 20), 0);
    fclose(f);
    if (world.rank == 0) assert_int_equal(symlink("/proc/self/cwd/probe", path), 0);
    comm_barrier(&world);
    expect_at_once(&s);
    assert_int_equal(chdir(here), 0);
    scene_free(&s);
    free(path);
    free(own);
}

static void otherwise_files_are_written_at_once(void **state)
{
    static const char *const how[] = {"train.checkpoint_async=false", "run.io=ompio"};
    for (int i = 0; i < 2; i++) {
        struct scene s = scene_of(&world, 1, 5, how[i]);
        int64_t bytes;
        assert_int_equal(checkpoint_saver_bytes(&s.mesh, &s.table, s.config, &bytes), ST_OK);
        assert_int_equal(bytes, 0);
        expect_at_once(&s);
        scene_free(&s);
    }
}

/* The first rank may take 2 MB more: its share of the copy is larger. The others do as it does. */
static void without_memory_files_are_written_at_once(void **state)
{
    struct scene s = scene_of(&world, 1, 5, NULL);
    struct rlimit old, tight;
    long pages = 0;
    checkpoint_saver_destroy(&s.saver);
    FILE *f = fopen("/proc/self/statm", "r");
    assert_int_equal(fscanf(f, "%ld", &pages), 1);
    fclose(f);
    getrlimit(RLIMIT_AS, &old);
    tight = (struct rlimit){(rlim_t)(pages * sysconf(_SC_PAGESIZE) + (2 << 20)), old.rlim_max};
    if (world.rank == 0) assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    assert_int_equal(checkpoint_saver_create(&s.mesh, &s.table, s.config, &s.saver), ST_OK);
    setrlimit(RLIMIT_AS, &old);
    expect_at_once(&s);
    scene_free(&s);
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    mallopt(M_MMAP_THRESHOLD, 1 << 20); /* large blocks go back when they are freed: a limit of memory is one */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_mesh_reads_what_any_other_wrote),
        cmocka_unit_test(a_full_disk_is_told_at_the_end),
        cmocka_unit_test(what_is_half_written_goes_with_the_next),
        cmocka_unit_test(otherwise_files_are_written_at_once),
        cmocka_unit_test(without_memory_files_are_written_at_once),
        cmocka_unit_test(several_hosts_write_beside_the_training),
        cmocka_unit_test(hosts_apart_write_at_once),
    };
    cmocka_set_message_output(CM_OUTPUT_STDOUT);
    int failed = cmocka_run_group_tests(tests, make_folder, remove_folder);
    comm_close(&world);
    return failed;
}
