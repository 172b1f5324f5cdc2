/* Times the reading of an atlas for bench_atlas.sh: tool_read ATLAS. Prints `name value unit` lines, medians of
 * five passes over at most 50,000 cells from the page cache; `plain` is read(2) of the same bytes without checks. */
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/progress.h"
#include "base/rng.h"
#include "base/text.h"
#include "io/atlas.h"
#include "mpi/comm.h"

enum { PASSES = 5, MOST = 50000 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One pass over `count` cells in blocks of `block` cells, in order or at random. */
static enum status pass(struct atlas *atlas, int64_t count, int64_t block, bool random, struct cells *cells)
{
    enum status st = ST_OK;
    struct rng r = rng_at(1, RNG_TEST, (uint64_t)block, 0);
    for (int64_t at = 0; at + block <= count && st == ST_OK; at += block) {
        int64_t first = random ? (int64_t)rng_below(&r, (uint64_t)(count - block + 1)) : at;
        st = atlas_read(atlas, 0, first, block, cells);
    }
    return st;
}

static enum status time_passes(struct atlas *atlas, const char *name, int64_t block, bool random)
{
    enum status st = ST_OK;
    struct cells cells = {0};
    double rate[PASSES];
    int64_t count = atlas_cell_count(atlas) < MOST ? atlas_cell_count(atlas) : MOST;
    TRY(pass(atlas, count, block, random, &cells));
    for (int k = 0; k < PASSES; k++) {
        double start = clock_s();
        TRY(pass(atlas, count, block, random, &cells));
        rate[k] = (double)(count / block * block) / (clock_s() - start);
    }
    qsort(rate, PASSES, sizeof *rate, by_value);
    printf("%s %.0f cells/s\n", name, rate[PASSES / 2]);
done:
    cells_free(&cells);
    return st;
}

/* Bytes a second of plain reads of the first shard. */
static enum status time_plain(const struct atlas *atlas)
{
    enum { BUFFER = 1 << 18 };
    static char buffer[BUFFER];
    double rate[PASSES];
    char *path = text_format("%s/mod/%s/shard-00000.h5ad", atlas_path(atlas), atlas_modality(atlas, 0)->name);
    int fd = open(path, O_RDONLY);
    for (int k = 0; k < PASSES && fd >= 0; k++) {
        double start = clock_s(), bytes = 0;
        for (ssize_t n; (n = pread(fd, buffer, BUFFER, (off_t)bytes)) > 0;) bytes += (double)n;
        rate[k] = bytes / (clock_s() - start);
    }
    free(path);
    if (fd < 0) return fail(ST_INPUT, "no shard");
    close(fd);
    qsort(rate, PASSES, sizeof *rate, by_value);
    printf("plain %.3g bytes/s\n", rate[PASSES / 2]);
    return ST_OK;
}

int main(int argc, char **argv)
{
    struct comm world;
    struct atlas *atlas = NULL;
    struct cells all = {0};
    enum status st = comm_open(&argc, &argv, &world);
    comm_set_program("tool_read");
    TRY(atlas_open(&world, argv[1], &atlas));
    TRY(atlas_read(atlas, 0, 0, atlas_cell_count(atlas) < 1000 ? atlas_cell_count(atlas) : 1000, &all));
    printf("entries %.1f per-cell\n", (double)all.start[all.count] / (double)all.count);
    TRY(time_passes(atlas, "sequential", 1024, false));
    TRY(time_passes(atlas, "random-64", 64, true));
    TRY(time_passes(atlas, "random-16", 16, true));
    TRY(time_passes(atlas, "random-1", 1, true));
    TRY(time_plain(atlas));
done:
    st = comm_agree(&world, st);
    cells_free(&all);
    atlas_close(&atlas);
    comm_close(&world);
    return (int)st;
}
