#include "io/mtx.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "base/stop.h"
#include "base/text.h"
#include "io/spool.h"

enum { BLOCK = 4 << 20, TAG_LENGTH = 71, TAG_LINES = 72, LINE_MAX_BYTES = 4096 };

struct mtx {
    const char *path;
    gzFile stream;             /* rank 0 alone */
    int64_t line;              /* lines read so far, for messages */
    char rest[LINE_MAX_BYTES]; /* start of a line whose end comes with the next block */
    size_t rest_bytes;
    bool ended;
};

static enum status bad_stream(const struct mtx *m)
{
    int code;
    const char *why = gzerror(m->stream, &code);
    return fail(ST_INPUT, "%s: damaged after line %lld: %s; fetch the file again", m->path, (long long)m->line,
                code == Z_ERRNO ? strerror(errno)
                : *why          ? why
                                : "the gzip stream ends early");
}

/* ---- header ---- */

static enum status next_line(struct mtx *m, char line[LINE_MAX_BYTES])
{
    if (!gzgets(m->stream, line, LINE_MAX_BYTES)) {
        int code;
        gzerror(m->stream, &code);
        if (code != Z_OK && code != Z_STREAM_END) return bad_stream(m);
        return fail(ST_INPUT, "%s: ends within its header; a Matrix Market file is needed", m->path);
    }
    m->line++;
    line[strcspn(line, "\r\n")] = '\0';
    return ST_OK;
}

static enum status check_banner(const struct mtx *m, const char *line)
{
    char object[32], format[32], type[32], symmetry[32];
    if (sscanf(line, "%%%%MatrixMarket %31s %31s %31s %31s", object, format, type, symmetry) != 4)
        return fail(ST_INPUT, "%s: starts with '%.40s'; '%%%%MatrixMarket matrix coordinate integer general' is needed",
                    m->path, line);
    bool fits = strcasecmp(object, "matrix") == 0 && strcasecmp(format, "coordinate") == 0 &&
                strcasecmp(symmetry, "general") == 0 &&
                (strcasecmp(type, "integer") == 0 || strcasecmp(type, "real") == 0);
    if (fits) return ST_OK;
    return fail(ST_INPUT, "%s: is 'matrix %s %s %s'; 'coordinate integer|real general' is read", m->path, format, type,
                symmetry);
}

/* Banner, comments, and the line "features cells entries". */
static enum status read_header(struct mtx *m, int64_t size[3])
{
    enum status st = ST_OK;
    char line[LINE_MAX_BYTES];
    long long rows, columns, entries;
    TRY(next_line(m, line));
    TRY(check_banner(m, line));
    do TRY(next_line(m, line));
    while (line[0] == '%' || line[0] == '\0');
    if (sscanf(line, "%lld %lld %lld", &rows, &columns, &entries) != 3 || rows < 0 || columns < 0 || entries < 0)
        TRY(fail(ST_INPUT, "%s: line %lld is '%.60s'; 'features cells entries' is needed", m->path, (long long)m->line,
                 line));
    size[0] = rows;
    size[1] = columns;
    size[2] = entries;
done:
    return st;
}

static enum status check_size(const struct mtx *m, const int64_t size[3], int64_t cells, int64_t features)
{
    if (size[0] == features && size[1] == cells) return ST_OK;
    bool turned = size[0] == cells && size[1] == features;
    return fail(ST_INPUT, "%s: is %lld x %lld; the folder lists %lld features and %lld barcodes%s", m->path,
                (long long)size[0], (long long)size[1], (long long)features, (long long)cells,
                turned ? ": it is transposed, write it as features x cells" : "");
}

/* ---- entries ---- */

/* A whole number > 0 at *c, which moves behind it; -1 if there is none. */
static int64_t take_number(const char **c)
{
    int64_t n = 0;
    while (**c == ' ' || **c == '\t') ++*c;
    if (!isdigit((unsigned char)**c)) return -1;
    for (; isdigit((unsigned char)**c); ++*c) {
        if (n > INT64_MAX / 10 - 1) return -1;
        n = n * 10 + (**c - '0');
    }
    return n;
}

/* The value: almost always a short whole number; anything else through strtod. */
static bool take_value(const char **c, float *out)
{
    const char *start = *c;
    int64_t n = take_number(c);
    if (n >= 0 && n <= 1 << 24 && (**c == '\n' || **c == '\r' || **c == '\0')) {
        *out = (float)n;
        return true;
    }
    char *end;
    double value = strtod(start, &end);
    *c = end;
    *out = (float)value;
    return end != start && !(fabs(value) > 0x1p24 && value == floor(value) && (double)*out != value && isfinite(*out));
}

struct block {
    char *lines;         /* [BLOCK + LINE_MAX_BYTES] whole lines, NUL-terminated */
    int64_t bytes, line; /* bytes of them; number of the first */
};

static enum status bad_line(const struct mtx *m, int64_t line, const char *start)
{
    return fail(
        ST_INPUT,
        "%s: line %lld is '%.*s'; 'feature cell value' is needed, numbered from 1, values up to 16,777,216 if whole",
        m->path, (long long)line, (int)strcspn(start, "\r\n") > 60 ? 60 : (int)strcspn(start, "\r\n"), start);
}

static enum status parse_block(const struct mtx *m, const struct block *b, struct spool *spool, int64_t *entries)
{
    enum status st = ST_OK;
    int64_t line = b->line;
    for (const char *c = b->lines, *end = c + b->bytes; c < end; line++) {
        const char *start = c;
        float value = 0;
        while (*c == ' ' || *c == '\t' || *c == '\r') c++;
        if (*c == '\n') {
            c++;
            continue;
        }
        int64_t feature = take_number(&c), cell = take_number(&c);
        if (feature < 1 || cell < 1 || !take_value(&c, &value)) TRY(bad_line(m, line, start));
        while (*c == ' ' || *c == '\t' || *c == '\r') c++;
        if (*c == '\n') c++;
        else if (c < end) TRY(bad_line(m, line, start));
        st = spool_add(spool, cell - 1, feature - 1, value);
        if (st == ST_INPUT) status_prefix("%s: line %lld ", m->path, (long long)line);
        if (st != ST_OK) goto done;
        ++*entries;
    }
done:
    return st;
}

/* ---- dealing ---- */

/* The next whole lines of the stream; 0 bytes at its end. */
static enum status fill_block(struct mtx *m, struct block *b)
{
    memcpy(b->lines, m->rest, m->rest_bytes);
    size_t bytes = m->rest_bytes;
    m->rest_bytes = 0;
    b->line = m->line + 1;
    int got = m->ended ? 0 : gzread(m->stream, b->lines + bytes, BLOCK);
    if (got < 0) return bad_stream(m);
    bytes += (size_t)got;
    if (got < BLOCK && !m->ended) {
        int code;
        gzerror(m->stream, &code);
        if (code == Z_BUF_ERROR) return bad_stream(m);
        m->ended = true;
    }
    size_t whole = bytes;
    while (!m->ended && whole > 0 && b->lines[whole - 1] != '\n') whole--;
    if (bytes - whole >= LINE_MAX_BYTES) return bad_line(m, b->line, b->lines + whole);
    m->rest_bytes = bytes - whole;
    memcpy(m->rest, b->lines + whole, m->rest_bytes);
    b->lines[whole] = '\0';
    b->bytes = (int64_t)whole;
    for (const char *c = b->lines; (c = memchr(c, '\n', (size_t)(b->lines + whole - c))); c++) m->line++;
    return ST_OK;
}

static void send_block(struct comm *comm, const struct block *b, int to)
{
    int64_t head[2] = {b->bytes, b->line};
    comm_send(comm, head, sizeof head, to, TAG_LENGTH);
    if (b->bytes > 0) comm_send(comm, b->lines, b->bytes, to, TAG_LINES);
}

static bool receive_block(struct comm *comm, struct block *b)
{
    int64_t head[2];
    comm_receive(comm, head, sizeof head, 0, TAG_LENGTH);
    b->bytes = head[0];
    b->line = head[1];
    if (b->bytes > 0) comm_receive(comm, b->lines, b->bytes, 0, TAG_LINES);
    b->lines[b->bytes] = '\0';
    return b->bytes > 0;
}

/* Rank 0: one block to each rank in turn, the last of a round for itself; an empty one ends it. */
static enum status deal(struct comm *comm, struct mtx *m, struct block *b, struct spool *spool, int64_t *entries)
{
    enum status st = ST_OK;
    for (int to = comm->size - 1;; to = to > 0 ? to - 1 : comm->size - 1) {
        TRY(stop_asked() ? ST_REQUEUE : fill_block(m, b));
        if (b->bytes == 0) break;
        if (to > 0) send_block(comm, b, to);
        else TRY(parse_block(m, b, spool, entries));
    }
done:
    b->bytes = 0;
    for (int to = 1; to < comm->size; to++) send_block(comm, b, to);
    return st;
}

/* Other ranks: parse until the empty block, also after an error, so that rank 0 never waits. */
static enum status take(struct comm *comm, struct mtx *m, struct block *b, struct spool *spool, int64_t *entries)
{
    enum status st = ST_OK;
    while (receive_block(comm, b))
        if (st == ST_OK) st = parse_block(m, b, spool, entries);
    return st;
}

static enum status open_stream(struct comm *comm, struct mtx *m, int64_t cells, int64_t features, int64_t size[3])
{
    enum status st = ST_OK;
    if (comm->rank != 0) return ST_OK;
    m->stream = gzopen(m->path, "rb");
    if (!m->stream) return fail(ST_INPUT, "%s: cannot be opened: %s", m->path, strerror(errno));
    gzbuffer(m->stream, 1 << 20);
    TRY(read_header(m, size));
    TRY(check_size(m, size, cells, features));
done:
    return st;
}

enum status mtx_read(struct comm *comm, const char *path, int64_t cells, int64_t features, const char *folder,
                     struct matrix **out)
{
    enum status st = ST_OK;
    struct mtx m = {.path = path};
    struct block block = {0};
    struct spool *spool = NULL;
    int64_t size[3] = {0}, entries = 0;
    TRY(comm_agree(comm, open_stream(comm, &m, cells, features, size)));
    comm_bcast(comm, size, sizeof size, 0);
    TRY(comm_agree(comm, NEW_ARRAY(block.lines, BLOCK + LINE_MAX_BYTES)));
    TRY(comm_agree(comm, spool_create(folder, comm->rank, cells, features, size[2], &spool)));
    st = comm->rank == 0 ? deal(comm, &m, &block, spool, &entries) : take(comm, &m, &block, spool, &entries);
    TRY(comm_agree(comm, st));
    comm_sum_i64(comm, &entries, 1);
    if (entries != size[2])
        st = fail(ST_INPUT, "%s: announces %lld entries and holds %lld; the file is cut off or damaged, fetch it again",
                  path, (long long)size[2], (long long)entries);
    TRY(comm_agree(comm, st));
    TRY(spool_finish(comm, &spool, out));
done:
    if (m.stream) gzclose(m.stream);
    spool_destroy(&spool);
    free(block.lines);
    return st;
}
