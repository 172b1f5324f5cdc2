/* What the tests of checkpoints share: the world, a folder, a vocabulary, a configuration. */
#ifndef CYTOMILL_TESTS_CHECKPOINT_SCENE_H
#define CYTOMILL_TESTS_CHECKPOINT_SCENE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#undef fail /* ours is in base/status.h */

#include "base/text.h"
#include "io/checkpoint.h"

static struct comm world;
static char *folder; /* of this run, the same on all ranks */

static const char vocabulary[] =
    "id\tsymbol\tensembl\thgnc\n1\tA1BG\tENSG00000121410\tHGNC:5\n2\tA2M\tENSG00000175899\tHGNC:7\n";

static inline struct config *config_with(const char *assignment)
{
    struct config *c;
    assert_int_equal(config_create(&c), ST_OK);
    assert_int_equal(config_set(c, "model.layers=4", "test"), ST_OK);
    if (assignment) assert_int_equal(config_set(c, assignment, "test"), ST_OK);
    return c;
}

static inline char *path_of(const char *name) { return text_format("%s/%s", folder, name); }

static inline int make_folder(void **state)
{
    if (world.rank == 0) {
        folder = text_format("%s/cytomill-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        if (!mkdtemp(folder)) return -1;
    }
    comm_bcast_text(&world, &folder, 0);
    return 0;
}

static inline int remove_folder(void **state)
{
    char *command = text_format("rm -rf '%s'", folder);
    comm_barrier(&world);
    int rc = world.rank == 0 ? system(command) : 0;
    free(command);
    free(folder);
    return rc;
}

#endif
