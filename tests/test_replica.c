/* Replicas of the weights.
 * plan: ranks=1,2,3 limit=60
 * Equal tables pass; one flipped bit on one rank, in the first, middle or last tensor, is ST_NUMERIC on every rank, and one
 * rank prints the odd rank, its host and the tensor; padding between tensors, gradients and rows held elsewhere do not
 * count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "base/text.h"
#include "mpi/replica.h"

static struct comm world;

enum { TENSORS = 4 };

static struct param_table table_of(void)
{
    static const struct param rows[TENSORS] = {
        {.name = "cls_token", .rows = 1, .cols = 5, .init = INIT_NORMAL, .init_scale = 1, .trainable = true},
        {.name = "gene_emb", .rows = 300, .cols = 33, .init = INIT_NORMAL, .init_scale = 1, .trainable = true},
        {.name = "not_here", .rows = 30, .cols = 33, .elsewhere = true},
        {.name = "norm.gamma", .rows = 1, .cols = 7, .init = INIT_ONE, .trainable = true}};
    struct param_table t = {0};
    for (int i = 0; i < TENSORS; i++) assert_int_equal(param_add(&t, &rows[i], NULL), ST_OK);
    assert_int_equal(param_allocate(&t, true), ST_OK);
    param_initialise(&t, 3);
    return t;
}

static void flip(real *x) { ((unsigned char *)x)[0] ^= 1; } /* the lowest bit of its mantissa */

static enum status check(const struct param_table *t)
{
    uint64_t hashes[TENSORS];
    param_hash_each(t, hashes);
    return replica_check(&world, t, hashes);
}

/* replica_check with what this rank prints in *printed (caller frees). */
static enum status check_caught(const struct param_table *t, char **printed)
{
    char path[] = "/tmp/cytomill-replica-XXXXXX";
    size_t length;
    int file = mkstemp(path), kept = dup(STDERR_FILENO);
    fflush(stderr);
    dup2(file, STDERR_FILENO);
    enum status st = check(t);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(file);
    assert_int_equal(text_read_file(path, printed, &length), ST_OK);
    unlink(path);
    return st;
}

static void equal_weights_pass(void **state)
{
    struct param_table t = table_of();
    if (world.rank > 0) t.weight[5] = 9, t.gradient[0] = 3; /* behind the 5 numbers of cls_token */
    assert_int_equal(check(&t), ST_OK);
    param_free(&t);
}

static void a_flipped_bit_is_found(void **state)
{
    static const int tensors[] = {0, 1, 3};
    for (int odd = 0; odd < world.size && world.size > 1; odd++)
        for (int k = 0; k < 3; k++) {
            struct param_table t = table_of();
            const struct param *p = &t.rows[tensors[k]];
            if (world.rank == odd) flip(param_weight(&t, tensors[k]) + param_reals(p) - 1);
            char *printed, line[512];
            assert_int_equal(check_caught(&t, &printed), ST_NUMERIC);
            /* of two ranks, none is the majority: the lowest is taken for right */
            int named = world.size == 2 ? 1 : odd, good = named == 0 ? 1 : 0;
            snprintf(
                line, sizeof line,
                "replicas of the weights differ: of %d ranks of the data axis, rank %d on %s not as rank %d on %s; the "
                "first tensor that differs is %s;",
                world.size, named, world.host, good, world.host, p->name);
            if (world.rank == 0) assert_non_null(strstr(printed, line));
            else assert_string_equal(printed, "");
            free(printed);
            param_free(&t);
        }
}

int main(int argc, char **argv)
{
    if (comm_open(&argc, &argv, &world) != ST_OK) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(equal_weights_pass), cmocka_unit_test(a_flipped_bit_is_found)};
    int failed = cmocka_run_group_tests_name("replica", tests, NULL, NULL);
    comm_close(&world);
    return failed;
}
