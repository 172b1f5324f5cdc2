#include "io/shard_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Descriptors left to MPI, HDF5 and the rest of the program, and the most we take. */
enum { RESERVE = 256, MOST = 16384 };

static int64_t descriptor_limit(void)
{
    struct rlimit limit = {1024, 1024};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        struct rlimit more = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0) limit = more;
    }
    int64_t n = limit.rlim_cur > MOST ? MOST : (int64_t)limit.rlim_cur - RESERVE;
    return n < 16 ? 16 : n;
}

enum status shard_files_create(struct shard_files *files, int64_t count, int flags)
{
    enum status st = ST_OK;
    *files = (struct shard_files){.count = count, .flags = flags};
    files->limit = descriptor_limit();
    if (files->limit > count) files->limit = count > 0 ? count : 1;
    TRY(NEW_ARRAY(files->fd, count));
    for (int64_t k = 0; k < count; k++) files->fd[k] = -1;
    TRY(NEW_ARRAY(files->open, files->limit));
done:
    return st;
}

int shard_files_get(const struct shard_files *files, int64_t id) { return files->fd[id]; }

static void close_oldest(struct shard_files *files)
{
    int64_t id = files->open[files->oldest];
    close(files->fd[id]);
    files->fd[id] = -1;
    files->oldest = (files->oldest + 1) % files->limit;
    files->open_count--;
}

enum status shard_files_open(struct shard_files *files, int64_t id, const char *path, int *fd)
{
    enum status kind = (files->flags & O_ACCMODE) == O_RDONLY ? ST_INPUT : ST_OUTPUT;
    if (files->open_count == files->limit) close_oldest(files);
    *fd = open(path, files->flags | O_CLOEXEC);
    if (*fd < 0) return fail(kind, "%s: cannot be opened: %s", path, strerror(errno));
    files->fd[id] = *fd;
    files->open[(files->oldest + files->open_count++) % files->limit] = id;
    return ST_OK;
}

void shard_files_destroy(struct shard_files *files)
{
    while (files->open_count > 0) close_oldest(files);
    free(files->fd);
    free(files->open);
    *files = (struct shard_files){0};
}
