#include "io/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "io/place.h"

static const char magic[16] = "cytomill ledger1";

struct header {
    char magic[16];
    int64_t chunks;
    char key[SHA256_HEX];
    char rest[512 - 16 - 8 - SHA256_HEX];
};

struct record {
    uint64_t content; /* hash of the chunk's bytes */
    uint64_t check;   /* hash of (content, chunk, key): a torn or blank record does not check */
};

struct ledger {
    char *path;
    int fd;
    struct header header;
    struct record *records; /* [chunks] as last read */
};

enum status ledger_publish(const char *temporary, const char *path, bool *mine)
{
    enum status st = ST_OK;
    *mine = link(temporary, path) == 0;
    if (!*mine && errno != EEXIST) {
        /* no hard links on this file system: a rename is as atomic, and a racing job's layout has the same bytes */
        if (access(path, F_OK) != 0 && rename(temporary, path) != 0)
            st = fail(ST_OUTPUT, "%s: cannot be created: %s", path, strerror(errno));
        else *mine = true;
    }
    unlink(temporary);
    return st;
}

/* ---- records ---- */

static int64_t record_offset(int64_t chunk)
{
    return (int64_t)sizeof(struct header) + chunk * (int64_t)sizeof(struct record);
}

static struct record make_record(const struct ledger *ledger, int64_t chunk, uint64_t content)
{
    struct {
        uint64_t content;
        int64_t chunk;
        char key[SHA256_HEX + 7];
    } block = {content, chunk, {0}};
    memcpy(block.key, ledger->header.key, SHA256_HEX);
    return (struct record){content, hash_block(&block, sizeof block, 1)};
}

bool ledger_is_done(const struct ledger *ledger, int64_t chunk)
{
    struct record found = ledger->records[chunk];
    return found.check == make_record(ledger, chunk, found.content).check;
}

int64_t ledger_done_count(const struct ledger *ledger)
{
    int64_t done = 0;
    for (int64_t c = 0; c < ledger->header.chunks; c++) done += ledger_is_done(ledger, c);
    return done;
}

uint64_t ledger_hash(const struct ledger *ledger, int64_t chunk) { return ledger->records[chunk].content; }

/* Opened anew, because a network file system shows other nodes' records only then. */
enum status ledger_refresh(struct ledger *ledger)
{
    int fd = open(ledger->path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) { /* else another job has finished and removed it: what is open stays good */
        close(ledger->fd);
        ledger->fd = fd;
    }
    return place_read(ledger->fd, ledger->path, record_offset(0), ledger->records,
                      ledger->header.chunks * (int64_t)sizeof *ledger->records);
}

enum status ledger_look(struct ledger *ledger, int64_t chunk, bool *done)
{
    enum status st =
        place_read(ledger->fd, ledger->path, record_offset(chunk), &ledger->records[chunk], sizeof *ledger->records);
    *done = st == ST_OK && ledger_is_done(ledger, chunk);
    return st;
}

static enum status put_record(struct ledger *ledger, int64_t chunk, struct record record)
{
    ledger->records[chunk] = record;
    return place_write(ledger->fd, ledger->path, record_offset(chunk), &record, sizeof record);
}

enum status ledger_mark(struct ledger *ledger, int64_t chunk, uint64_t content_hash)
{
    return put_record(ledger, chunk, make_record(ledger, chunk, content_hash));
}

enum status ledger_sync(struct ledger *ledger)
{
    if (fdatasync(ledger->fd) == 0) return ST_OK;
    return fail(ST_OUTPUT, "%s: records did not reach the disk: %s", ledger->path, strerror(errno));
}

enum status ledger_unmark(struct ledger *ledger, int64_t chunk)
{
    return put_record(ledger, chunk, (struct record){0});
}

/* ---- open ---- */

/* A whole ledger with nothing done, under a name of this process, then published under the real one. */
static enum status create(const char *path, const struct header *header)
{
    enum status st = ST_OK;
    char host[64] = "host";
    bool mine;
    gethostname(host, sizeof host - 1);
    char *temporary = text_format("%s.%s.%d", path, host, (int)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) TRY(fail(ST_OUTPUT, "%s: cannot be created: %s", path, strerror(errno)));
    TRY(place_write(fd, path, 0, header, sizeof *header));
    if (ftruncate(fd, record_offset(header->chunks)) != 0 || fsync(fd) != 0)
        TRY(fail(ST_OUTPUT, "%s: cannot be extended to %ld bytes: %s", path, (long)record_offset(header->chunks),
                 strerror(errno)));
    TRY(ledger_publish(temporary, path, &mine));
done:
    if (fd >= 0) close(fd);
    if (st != ST_OK) unlink(temporary);
    free(temporary);
    return st;
}

static enum status check_header(struct ledger *ledger, const struct header *wanted)
{
    enum status st = ST_OK;
    TRY(place_read(ledger->fd, ledger->path, 0, &ledger->header, sizeof ledger->header));
    if (memcmp(ledger->header.magic, magic, sizeof magic) != 0)
        TRY(fail(ST_OUTPUT, "%s: not a ledger; remove it and the .partial file beside it to start again",
                 ledger->path));
    if (ledger->header.chunks != wanted->chunks || memcmp(ledger->header.key, wanted->key, SHA256_HEX) != 0)
        TRY(fail(ST_OUTPUT,
                 "%s: unfinished work of another model, input or option lies there; finish it with the same "
                 "command, choose another --out, or remove it and the .partial file beside it",
                 ledger->path));
done:
    return st;
}

enum status ledger_open(const char *path, int64_t chunks, const char key[SHA256_HEX], struct ledger **out)
{
    enum status st = ST_OK;
    struct ledger *ledger = NULL;
    struct header wanted = {.chunks = chunks};
    memcpy(wanted.magic, magic, sizeof magic);
    memcpy(wanted.key, key, SHA256_HEX);
    *out = NULL;
    TRY(NEW_ARRAY(ledger, 1));
    *ledger = (struct ledger){.path = text_copy(path), .fd = -1};
    if (access(path, F_OK) != 0) TRY(create(path, &wanted));
    ledger->fd = open(path, O_RDWR | O_CLOEXEC);
    if (ledger->fd < 0) TRY(fail(ST_OUTPUT, "%s: cannot be opened: %s", path, strerror(errno)));
    TRY(check_header(ledger, &wanted));
    TRY(NEW_ARRAY(ledger->records, chunks));
    TRY(ledger_refresh(ledger));
    *out = ledger;
    ledger = NULL;
done:
    ledger_close(&ledger);
    return st;
}

void ledger_close(struct ledger **ledger)
{
    if (!*ledger) return;
    if ((*ledger)->fd >= 0) close((*ledger)->fd);
    free((*ledger)->records);
    free((*ledger)->path);
    free(*ledger);
    *ledger = NULL;
}
