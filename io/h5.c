#include "io/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/text.h"
#include "io/place.h"

/* ---- errors ---- */

static void quiet(void) { H5Eset_auto2(H5E_DEFAULT, NULL, NULL); }

static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *out)
{
    if (n == 0 && error->desc) snprintf(out, 256, ": %s", error->desc);
    return 0;
}

enum status h5_fail_at(enum status st, const char *file, int line, const char *format, ...)
{
    char ours[1024], theirs[256] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, theirs);
    H5Eclear2(H5E_DEFAULT);
    for (char *c = theirs; *c; c++)
        if (*c == '\n') *c = ' ';
    va_list args;
    va_start(args, format);
    vsnprintf(ours, sizeof ours, format, args);
    va_end(args);
    return status_fail(st, file, line, "%s%s", ours, theirs);
}

/* ---- files ---- */

static hid_t access_list(void)
{
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
    H5Pset_file_locking(list, false, true);
    /* 1.8 format: attributes above 64 KiB, checksummed metadata, no times in groups. Page alignment of
     * larger datasets costs nothing and lets the page cache serve them whole. */
    H5Pset_libver_bounds(list, H5F_LIBVER_V18, H5F_LIBVER_V110);
    H5Pset_alignment(list, 65536, 4096);
    return list;
}

static enum status open_with(const char *path, unsigned flags, enum status kind, hid_t *file)
{
    quiet();
    if (access(path, flags == H5F_ACC_RDWR ? R_OK | W_OK : R_OK) != 0)
        return fail(kind, "%s: cannot be opened: %s", path, strerror(errno));
    hid_t list = access_list();
    *file = H5Fopen(path, flags, list);
    enum status st = *file < 0 ? h5_fail(kind, "%s: not a readable HDF5 file", path) : ST_OK;
    h5_drop(&list);
    return st;
}

enum status h5_open(const char *path, hid_t *file) { return open_with(path, H5F_ACC_RDONLY, ST_INPUT, file); }
enum status h5_open_rw(const char *path, hid_t *file) { return open_with(path, H5F_ACC_RDWR, ST_OUTPUT, file); }

enum status h5_open_image(const void *image, size_t bytes, const char *name, hid_t *file)
{
    quiet();
    hid_t list = access_list();
    H5Pset_fapl_core(list, 1 << 20, false);
    enum status st = ST_OK;
    char *memory_name = text_format("%s in memory", name); /* HDF5 refuses the name of a file that exists */
    if (H5Pset_file_image(list, (void *)image, bytes) < 0 || (*file = H5Fopen(memory_name, H5F_ACC_RDONLY, list)) < 0)
        st = h5_fail(ST_INPUT, "%s: not a readable HDF5 file", name);
    free(memory_name);
    h5_drop(&list);
    return st;
}

static enum status create_with(const char *path, hid_t access, int64_t block_bytes, hid_t *file)
{
    quiet();
    hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(creation, false);
    if (block_bytes > 0) H5Pset_userblock(creation, (hsize_t)block_bytes);
    *file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    enum status st = *file < 0 ? h5_fail(ST_OUTPUT, "%s: cannot be created", path) : ST_OK;
    h5_drop(&creation);
    return st;
}

static enum status create_serial(const char *path, int64_t block_bytes, hid_t *file)
{
    hid_t access = access_list();
    enum status st = create_with(path, access, block_bytes, file);
    h5_drop(&access);
    return st;
}

enum status h5_create_on_disk(const char *path, hid_t *file) { return create_serial(path, 0, file); }

/* ---- files made in memory ---- */

/* Files of h5_create that are open: few at a time. */
struct draft {
    hid_t file;
    int fd; /* memory */
    char *path;
    struct draft *next;
};
static struct draft *drafts;

static double free_bytes(const char *folder)
{
    struct statvfs system;
    if (access(folder, W_OK) != 0 || statvfs(folder, &system) != 0) return 0;
    return (double)system.f_bavail * (double)system.f_frsize;
}

/* Memory if it has a GiB to spare (containers often get 64 MiB), else the temporary folder. */
static const char *draft_folder(void)
{
    const char *memory = "/dev/shm", *disk = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    double have = free_bytes(memory);
    return have >= 0x1p30 || have >= free_bytes(disk) ? memory : disk;
}

/* A file of no name, opened both by HDF5 and by us. */
static enum status open_nameless(int64_t block_bytes, int *fd, hid_t *file)
{
    const char *folder = draft_folder();
    char *name = text_format("%s/cytomill-XXXXXX", folder);
    *fd = mkostemp(name, O_CLOEXEC);
    enum status st = *fd < 0 ? fail(ST_OUTPUT, "%s: cannot be created: %s", name, strerror(errno)) : ST_OK;
    if (st == ST_OK) st = create_serial(name, block_bytes, file);
    if (*fd >= 0) unlink(name);
    if (*fd >= 0 && st != ST_OK) close(*fd);
    free(name);
    return st;
}

enum status h5_create(const char *path, hid_t *file) { return h5_create_after(path, 0, file); }

enum status h5_create_after(const char *path, int64_t block_bytes, hid_t *file)
{
    struct draft *draft = NULL;
    *file = H5_NONE;
    enum status st = NEW_ARRAY(draft, 1);
    if (st != ST_OK) return st;
    st = open_nameless(block_bytes, &draft->fd, file);
    if (st != ST_OK) {
        free(draft);
        return st;
    }
    draft->file = *file;
    draft->path = text_copy(path);
    draft->next = drafts;
    drafts = draft;
    return ST_OK;
}

/* Take the draft of a file off the list; NULL if it is not one. */
static struct draft *take_draft(hid_t file)
{
    for (struct draft **at = &drafts; *at; at = &(*at)->next)
        if ((*at)->file == file) {
            struct draft *found = *at;
            *at = found->next;
            return found;
        }
    return NULL;
}

static void free_draft(struct draft *draft)
{
    if (!draft) return;
    close(draft->fd);
    free(draft->path);
    free(draft);
}

/* Copy what was written, leaving out the holes, in blocks. */
static enum status copy_written(int from, int to, const char *path)
{
    enum status st = ST_OK;
    enum { BLOCK = 1 << 20 };
    char *block = NULL;
    off_t end = lseek(from, 0, SEEK_END), at = 0;
    TRY(NEW_ARRAY(block, BLOCK));
    while (at < end && (at = lseek(from, at, SEEK_DATA)) >= 0) {
        off_t hole = lseek(from, at, SEEK_HOLE);
        for (; at < hole; at += BLOCK) {
            int64_t bytes = hole - at < BLOCK ? hole - at : BLOCK;
            TRY(place_read(from, path, at, block, bytes));
            TRY(place_write(to, path, at, block, bytes));
        }
        at = hole;
    }
    if (ftruncate(to, end) != 0)
        TRY(fail(ST_OUTPUT, "%s: cannot grow to %lld bytes: %s", path, (long long)end, strerror(errno)));
done:
    free(block);
    return st;
}

static enum status save_draft(const struct draft *draft)
{
    enum status st = ST_OK;
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error, not a signal */
    int to = open(draft->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (to < 0) return fail(ST_OUTPUT, "%s: cannot be created: %s", draft->path, strerror(errno));
    st = copy_written(draft->fd, to, draft->path);
    if (close(to) != 0 && st == ST_OK) st = fail(ST_OUTPUT, "%s: closing failed: %s", draft->path, strerror(errno));
    return st;
}

enum status h5_close(hid_t *file)
{
    if (*file < 0) return ST_OK;
    enum status st = ST_OK;
    struct draft *draft = take_draft(*file);
    if (H5Fflush(*file, H5F_SCOPE_LOCAL) < 0) st = h5_fail(ST_OUTPUT, "flush to disk failed");
    if (H5Fclose(*file) < 0 && st == ST_OK) st = h5_fail(ST_OUTPUT, "closing failed");
    *file = H5_NONE;
    if (draft && st == ST_OK) st = save_draft(draft);
    free_draft(draft);
    return st;
}

void h5_drop(hid_t *id)
{
    if (*id >= 0) free_draft(take_draft(*id));
    if (*id >= 0 && H5Iis_valid(*id) > 0) H5Idec_ref(*id);
    *id = H5_NONE;
}

/* ---- objects ---- */

bool h5_exists(hid_t parent, const char *path)
{
    char part[1024];
    for (size_t n = 0; path[n]; n++) {
        size_t end = n + strcspn(path + n, "/");
        if (end >= sizeof part) return false;
        memcpy(part, path, end);
        part[end] = '\0';
        if (end > n && (H5Lexists(parent, part, H5P_DEFAULT) <= 0 || H5Oexists_by_name(parent, part, H5P_DEFAULT) <= 0))
            return false;
        n = end;
        if (!path[n]) break;
    }
    return true;
}

bool h5_attr_exists(hid_t object, const char *name) { return H5Aexists(object, name) > 0; }

enum status h5_group_create(hid_t parent, const char *name, hid_t *group)
{
    hid_t list = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(list, false);
    *group = H5Gcreate2(parent, name, H5P_DEFAULT, list, H5P_DEFAULT);
    enum status st = *group < 0 ? h5_fail(ST_OUTPUT, "group '%s' cannot be created", name) : ST_OK;
    h5_drop(&list);
    return st;
}

enum status h5_group_open(hid_t parent, const char *path, hid_t *group)
{
    *group = H5Gopen2(parent, path, H5P_DEFAULT);
    return *group < 0 ? h5_fail(ST_INPUT, "there is no group '%s'", path) : ST_OK;
}

/* ---- types ---- */

hid_t h5_text_type(size_t bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, bytes ? bytes : 1);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

hid_t h5_bool_type(void)
{
    hid_t type = H5Tenum_create(H5T_STD_I8LE);
    const int8_t no = 0, yes = 1;
    H5Tenum_insert(type, "FALSE", &no);
    H5Tenum_insert(type, "TRUE", &yes);
    return type;
}
