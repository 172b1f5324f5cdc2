#include "io/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

enum { PIECE = 1024, BUCKETS_MAX = 4096 };     /* entries of a buffer; most buckets */
static const int64_t bucket_entries = 1 << 20; /* wanted entries of a bucket */

struct entry {
    int32_t row, column; /* row within the bucket */
    float value;
};

/* A buffer that went to a file: where it lies, how many entries, of which bucket. */
struct piece {
    int64_t offset;
    int32_t bucket, count;
};

struct spool {
    char *folder, *path;
    int file;
    int64_t rows, columns, bucket_rows, bucket_count;
    int64_t *row_entries;  /* [rows + 1] entries of each row; one spare for the prefix sum */
    struct entry *buffers; /* [bucket_count, PIECE] */
    int32_t *fill;         /* [bucket_count] */
    struct piece *pieces;  /* written so far */
    int64_t piece_count, piece_capacity, end_bytes;
};

/* Several spools of one process are open at a time: they are numbered. */
static char *spool_path(const char *folder, int rank)
{
    static int serial;
    return text_format("%s/cytomill-spool-%ld-%d-%d", folder, (long)getpid(), rank, serial++);
}

enum status spool_create(const char *folder, int rank, int64_t rows, int64_t columns, int64_t entries,
                         struct spool **out)
{
    enum status st = ST_OK;
    struct spool *s = NULL;
    TRY(NEW_ARRAY(s, 1));
    s->file = -1;
    s->rows = rows;
    s->columns = columns;
    s->folder = text_copy(folder);
    s->path = spool_path(folder, rank);
    s->bucket_rows =
        entries > bucket_entries ? (int64_t)((double)rows * bucket_entries / (double)entries) + 1 : rows + 1;
    if (s->bucket_rows < rows / BUCKETS_MAX + 1) s->bucket_rows = rows / BUCKETS_MAX + 1;
    s->bucket_count = rows / s->bucket_rows + 1;
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error, not a signal */
    s->file = open(s->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (s->file < 0)
        TRY(fail(ST_OUTPUT, "%s: cannot be created: %s; set TMPDIR or --out to a folder one may write", s->path,
                 strerror(errno)));
    TRY(NEW_ARRAY(s->row_entries, rows + 1));
    TRY(NEW_ARRAY(s->buffers, s->bucket_count * PIECE));
    TRY(NEW_ARRAY(s->fill, s->bucket_count));
    *out = s;
    s = NULL;
done:
    spool_destroy(&s);
    return st;
}

void spool_destroy(struct spool **spool)
{
    struct spool *s = *spool;
    if (!s) return;
    if (s->file >= 0) {
        close(s->file);
        unlink(s->path);
    }
    free(s->folder);
    free(s->path);
    free(s->row_entries);
    free(s->buffers);
    free(s->fill);
    free(s->pieces);
    free(s);
    *spool = NULL;
}

static enum status write_all(int file, const void *data, size_t bytes, int64_t offset, const char *path)
{
    const char *from = data;
    while (bytes > 0) {
        ssize_t n = pwrite(file, from, bytes, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return fail(ST_OUTPUT,
                        "%s: cannot be written: %s; sorting this input by cells needs 12 bytes an entry of free disk",
                        path, strerror(n < 0 ? errno : ENOSPC));
        from += n;
        bytes -= (size_t)n;
        offset += n;
    }
    return ST_OK;
}

static enum status remember_piece(struct spool *s, struct piece piece)
{
    if (s->piece_count == s->piece_capacity) {
        int64_t capacity = s->piece_capacity ? s->piece_capacity * 2 : 256;
        struct piece *larger = realloc(s->pieces, sizeof *larger * (size_t)capacity);
        if (!larger) return fail(ST_MEMORY, "no memory for the index of %s", s->path);
        s->pieces = larger;
        s->piece_capacity = capacity;
    }
    s->pieces[s->piece_count++] = piece;
    return ST_OK;
}

static enum status flush_bucket(struct spool *s, int64_t bucket)
{
    enum status st = ST_OK;
    size_t bytes = (size_t)s->fill[bucket] * sizeof *s->buffers;
    if (bytes == 0) return ST_OK;
    TRY(write_all(s->file, s->buffers + bucket * PIECE, bytes, s->end_bytes, s->path));
    TRY(remember_piece(s, (struct piece){s->end_bytes, (int32_t)bucket, s->fill[bucket]}));
    s->end_bytes += (int64_t)bytes;
    s->fill[bucket] = 0;
done:
    return st;
}

enum status spool_add(struct spool *s, int64_t row, int64_t column, float value)
{
    enum status st = ST_OK;
    if (row < 0 || row >= s->rows || column < 0 || column >= s->columns)
        return fail(ST_INPUT,
                    "has an entry at cell %lld, feature %lld (numbered from 0); the matrix has %lld cells and %lld "
                    "features: it is damaged",
                    (long long)row, (long long)column, (long long)s->rows, (long long)s->columns);
    int64_t bucket = row / s->bucket_rows;
    if (s->fill[bucket] == PIECE) TRY(flush_bucket(s, bucket));
    s->buffers[bucket * PIECE + s->fill[bucket]++] =
        (struct entry){(int32_t)(row - bucket * s->bucket_rows), (int32_t)column, value};
    s->row_entries[row]++;
done:
    return st;
}

/* ---- reading ---- */

struct matrix_spool {
    struct matrix base;
    char *folder;
    int64_t bucket_rows;
    int64_t *start; /* [rows+1] entries before each row */
    int rank_count;
    int *file;            /* [rank_count] */
    struct piece *pieces; /* of all ranks, in rank order */
    int64_t *first_piece; /* [rank_count+1] */
    int64_t held;         /* bucket in memory, -1 = none */
    int32_t *column;      /* its entries by rows */
    float *value;
};

/* Put the pieces of one bucket into rows. `next` is the place of the next entry of each row. */
static enum status gather_bucket(struct matrix_spool *m, int64_t bucket, int64_t *next)
{
    enum status st = ST_OK;
    struct entry entries[PIECE];
    int64_t rows = m->base.rows - bucket * m->bucket_rows;
    if (rows > m->bucket_rows) rows = m->bucket_rows;
    for (int r = 0; r < m->rank_count; r++)
        for (int64_t p = m->first_piece[r]; p < m->first_piece[r + 1]; p++) {
            if (m->pieces[p].bucket != bucket) continue;
            ssize_t bytes = (ssize_t)((size_t)m->pieces[p].count * sizeof *entries);
            if (pread(m->file[r], entries, (size_t)bytes, m->pieces[p].offset) != bytes)
                TRY(fail(ST_OUTPUT, "%s: rank %d's spool cannot be read back: %s", m->folder, r, strerror(errno)));
            for (int32_t i = 0; i < m->pieces[p].count; i++) {
                if (entries[i].row < 0 || entries[i].row >= rows)
                    TRY(fail(ST_INTERNAL, "%s: the spool was changed by someone else", m->folder));
                int64_t at = next[entries[i].row]++;
                m->column[at] = entries[i].column;
                m->value[at] = entries[i].value;
            }
        }
done:
    return st;
}

static enum status hold_bucket(struct matrix_spool *m, int64_t bucket)
{
    enum status st = ST_OK;
    int64_t *next = NULL;
    if (m->held == bucket) return ST_OK;
    m->held = -1;
    int64_t first = bucket * m->bucket_rows, rows = m->base.rows - first;
    if (rows > m->bucket_rows) rows = m->bucket_rows;
    int64_t entries = m->start[first + rows] - m->start[first];
    free(m->column);
    free(m->value);
    m->column = NULL;
    m->value = NULL;
    TRY(NEW_ARRAY(m->column, entries));
    TRY(NEW_ARRAY(m->value, entries));
    TRY(NEW_ARRAY(next, rows));
    for (int64_t r = 0; r < rows; r++) next[r] = m->start[first + r] - m->start[first];
    TRY(gather_bucket(m, bucket, next));
    m->held = bucket;
done:
    free(next);
    return st;
}

static enum status read_starts(struct matrix *base, int64_t first, int64_t count, int64_t *starts)
{
    struct matrix_spool *m = (struct matrix_spool *)base;
    memcpy(starts, m->start + first, sizeof *starts * (size_t)(count + 1));
    return ST_OK;
}

static enum status read_rows(struct matrix *base, int64_t first, int64_t count, struct cells *out)
{
    enum status st = ST_OK;
    struct matrix_spool *m = (struct matrix_spool *)base;
    TRY(cells_reserve(out, count, m->start[first + count] - m->start[first]));
    for (int64_t r = 0; r < count; r++) {
        int64_t row = first + r, bucket = row / m->bucket_rows, n = m->start[row + 1] - m->start[row];
        TRY(hold_bucket(m, bucket));
        int64_t from = m->start[row] - m->start[bucket * m->bucket_rows];
        out->start[r] = m->start[row] - m->start[first];
        memcpy(out->feature + out->start[r], m->column + from, sizeof *m->column * (size_t)n);
        memcpy(out->value + out->start[r], m->value + from, sizeof *m->value * (size_t)n);
    }
    out->start[count] = m->start[first + count] - m->start[first];
done:
    return st;
}

static void rest(struct matrix *base)
{
    struct matrix_spool *m = (struct matrix_spool *)base;
    free(m->column);
    free(m->value);
    m->column = NULL;
    m->value = NULL;
    m->held = -1;
}

static void destroy(struct matrix *base)
{
    struct matrix_spool *m = (struct matrix_spool *)base;
    for (int r = 0; m->file && r < m->rank_count; r++)
        if (m->file[r] >= 0) close(m->file[r]);
    free(m->folder);
    free(m->start);
    free(m->file);
    free(m->pieces);
    free(m->first_piece);
    rest(base);
    free(m);
}

static enum status flush_all(struct spool *s)
{
    enum status st = ST_OK;
    for (int64_t b = 0; b < s->bucket_count; b++) TRY(flush_bucket(s, b));
done:
    return st;
}

/* Entries of each row of all ranks → where each row starts. Collective. */
static void sum_starts(struct comm *comm, struct spool *s)
{
    comm_sum_i64(comm, s->row_entries, s->rows);
    int64_t before = 0;
    for (int64_t r = 0; r <= s->rows; r++) {
        int64_t n = s->row_entries[r];
        s->row_entries[r] = before;
        before += n;
    }
}

/* Every rank learns every rank's pieces and opens its file. Collective. */
static enum status share_pieces(struct comm *comm, const struct spool *s, struct matrix_spool *m)
{
    enum status st = ST_OK;
    int64_t bytes, path_bytes, *path_start = NULL;
    char *paths = NULL;
    TRY(comm_agree(comm, NEW_ARRAY(m->first_piece, comm->size + 1)));
    TRY(comm_agree(comm, NEW_ARRAY(path_start, comm->size + 1)));
    TRY(comm_agree(comm, NEW_ARRAY(m->file, comm->size)));
    for (int r = 0; r < comm->size; r++) m->file[r] = -1;
    m->rank_count = comm->size;
    TRY(comm_gather_all(comm, s->pieces, s->piece_count * (int64_t)sizeof *s->pieces, (void **)&m->pieces, &bytes,
                        m->first_piece));
    TRY(comm_gather_all(comm, s->path, (int64_t)strlen(s->path) + 1, (void **)&paths, &path_bytes, path_start));
    for (int r = 0; r <= comm->size; r++) m->first_piece[r] /= (int64_t)sizeof *s->pieces;
    for (int r = 0; r < comm->size && st == ST_OK; r++) {
        m->file[r] = open(paths + path_start[r], O_RDONLY | O_CLOEXEC);
        if (m->file[r] < 0)
            st =
                fail(ST_OUTPUT, "%s: rank %d's spool cannot be opened: %s; the folder must be one that all ranks share",
                     paths + path_start[r], r, strerror(errno));
    }
    st = comm_agree(comm, st);
done:
    free(paths);
    free(path_start);
    return st;
}

enum status spool_finish(struct comm *comm, struct spool **spool, struct matrix **out)
{
    enum status st = ST_OK;
    struct spool *s = *spool;
    struct matrix_spool *m = NULL;
    struct matrix *base = NULL;
    TRY(comm_agree(comm, flush_all(s)));
    TRY(comm_agree(comm, NEW_ARRAY(m, 1)));
    base = &m->base;
    m->held = -1;
    sum_starts(comm, s);
    *base = (struct matrix){.rows = s->rows,
                            .columns = s->columns,
                            .entries = s->row_entries[s->rows],
                            .starts = read_starts,
                            .read = read_rows,
                            .rest = rest,
                            .destroy = destroy};
    m->bucket_rows = s->bucket_rows;
    m->start = s->row_entries;
    s->row_entries = NULL;
    m->folder = text_copy(s->folder);
    TRY(share_pieces(comm, s, m));
    *out = base; /* all ranks hold the files open, so the spool may unlink its own */
    base = NULL;
done:
    matrix_close(&base);
    spool_destroy(spool);
    return st;
}
