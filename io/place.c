#include "io/place.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Linux moves at most about 2 GiB a call, and a network file system is happier with less. */
enum { PIECE_BYTES = 1 << 30 };

/* 0 or an error number. */
static int put(int fd, int64_t offset, const char *at, int64_t bytes)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, at, (size_t)(bytes < PIECE_BYTES ? bytes : PIECE_BYTES), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        at += n;
        offset += n;
        bytes -= n;
    }
    return 0;
}

enum status place_write(int fd, const char *path, int64_t offset, const void *data, int64_t bytes)
{
    int error = put(fd, offset, data, bytes);
    if (!error) return ST_OK;
    return fail(ST_OUTPUT, "%s: writing %lld bytes failed: %s; free some space and run again", path, (long long)bytes,
                strerror(error));
}

int place_put(int fd, int direct, int64_t offset, const void *data, int64_t bytes)
{
    const char *at = data;
    int64_t head = (PLACE_PAGE - offset % PLACE_PAGE) % PLACE_PAGE, pages = (bytes - head) / PLACE_PAGE * PLACE_PAGE;
    if (direct < 0 || pages <= 0) return put(fd, offset, at, bytes);
    int error = put(fd, offset, at, head);
    if (!error) error = put(direct, offset + head, at + head, pages);
    if (error == EINVAL) error = put(fd, offset + head, at + head, pages); /* it wants other pages */
    return error ? error : put(fd, offset + head + pages, at + head + pages, bytes - head - pages);
}

enum status place_read(int fd, const char *path, int64_t offset, void *data, int64_t bytes)
{
    char *at = data;
    while (bytes > 0) {
        ssize_t n = pread(fd, at, (size_t)(bytes < PIECE_BYTES ? bytes : PIECE_BYTES), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return fail(ST_INPUT, "%s: reading %lld bytes at %lld failed: %s", path, (long long)bytes,
                        (long long)offset, n < 0 ? strerror(errno) : "the file ends before; it is truncated");
        at += n;
        offset += n;
        bytes -= n;
    }
    return ST_OK;
}

enum status place_create(const char *path, int64_t bytes)
{
    enum status st = ST_OK;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return fail(ST_OUTPUT, "%s: cannot be created: %s", path, strerror(errno));
    TRY(place_reserve(fd, path, bytes));
    if (ftruncate(fd, bytes) != 0 || fsync(fd) != 0)
        st = fail(ST_OUTPUT, "%s: cannot be made %lld bytes long: %s", path, (long long)bytes, strerror(errno));
done:
    close(fd);
    return st;
}

int place_try_reserve(int fd, int64_t bytes)
{
    /* A file size limit must be an error here, not a signal. */
    signal(SIGXFSZ, SIG_IGN);
    if (bytes <= 0 || fallocate(fd, 0, 0, bytes) == 0) return 0;
    return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? errno : 0;
}

enum status place_reserve(int fd, const char *path, int64_t bytes)
{
    int error = place_try_reserve(fd, bytes);
    if (!error) return ST_OK;
    return fail(ST_OUTPUT, "%s: no room for its %lld bytes: %s; free some space or choose another folder", path,
                (long long)bytes, strerror(error));
}

enum status place_check_limit(const char *path, int64_t bytes)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || (int64_t)limit.rlim_cur >= bytes)
        return ST_OK;
    return fail(ST_OUTPUT,
                "%s: its %lld bytes exceed this process's file size limit of %lld; raise it (ulimit -f unlimited)",
                path, (long long)bytes, (long long)limit.rlim_cur);
}
