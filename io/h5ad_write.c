#include "io/h5ad_write.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "io/h5ad_layout.h"
#include "io/place.h"

struct h5ad_file {
    int fd;
    char *path;
    struct piece_table table;
    struct column_pieces *columns; /* of obs */
    struct h5ad_field *fields;     /* of obs: borrowed names and categories */
    int field_count;
};

/* Values are packed in blocks of this many bytes. */
enum { PACK_BYTES = 1 << 20 };

void h5ad_close(struct h5ad_file **file)
{
    struct h5ad_file *f = *file;
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    piece_table_free(&f->table);
    free(f->columns);
    free(f->fields);
    free(f->path);
    free(f);
    *file = NULL;
}

/* ---- writing rows ---- */

static enum status check_rows(const struct h5ad_file *f, int dataset, int64_t first, int64_t count)
{
    if (dataset < 0 || dataset >= f->table.count)
        return fail(ST_INTERNAL, "%s: there is no dataset number %d", f->path, dataset);
    const struct piece *p = &f->table.pieces[dataset];
    if (first < 0 || count < 0 || first > p->rows - count)
        return fail(ST_INTERNAL, "%s: rows %lld to %lld of '%s' are outside its %lld", f->path, (long long)first,
                    (long long)(first + count), p->path, (long long)p->rows);
    return ST_OK;
}

enum status h5ad_write(struct h5ad_file *f, int dataset, int64_t first, int64_t count, const void *rows)
{
    enum status st = check_rows(f, dataset, first, count);
    if (st != ST_OK || count == 0) return st;
    const struct piece *p = &f->table.pieces[dataset];
    return place_write(f->fd, f->path, p->offset + first * p->row_bytes, rows, count * p->row_bytes);
}

enum status h5ad_read(struct h5ad_file *f, int dataset, int64_t first, int64_t count, void *rows)
{
    enum status st = check_rows(f, dataset, first, count);
    if (st != ST_OK || count == 0) return st;
    const struct piece *p = &f->table.pieces[dataset];
    return place_read(f->fd, f->path, p->offset + first * p->row_bytes, rows, count * p->row_bytes);
}

static enum status write_values(struct h5ad_file *f, const struct h5ad_field *field, struct column_pieces to,
                                int64_t first, const struct column *values, int64_t count)
{
    enum status st = ST_OK;
    int64_t bytes = field_bytes(field), block = PACK_BYTES / bytes > 0 ? PACK_BYTES / bytes : 1;
    char *packed = NULL;
    uint8_t *missing = NULL;
    if (block > count) block = count;
    TRY(NEW_ARRAY(packed, block * bytes));
    TRY(NEW_ARRAY(missing, block));
    for (int64_t at = 0; at < count; at += block) {
        int64_t n = count - at < block ? count - at : block;
        TRY(field_pack(field, values, at, n, packed, missing));
        TRY(h5ad_write(f, to.values, first + at, n, packed));
        if (to.mask >= 0) TRY(h5ad_write(f, to.mask, first + at, n, missing));
    }
done:
    free(missing);
    free(packed);
    return st;
}

enum status h5ad_write_column(struct h5ad_file *f, int field, int64_t first, const struct column *values)
{
    if (field < 0 || field >= f->field_count)
        return fail(ST_INTERNAL, "%s: obs has no column number %d", f->path, field);
    return write_values(f, &f->fields[field], f->columns[field], first, values, values->count);
}

static enum status write_names(struct h5ad_file *f, const char *dataset, int64_t first, int64_t count,
                               const char *const *names)
{
    int index = piece_find(&f->table, dataset);
    struct h5ad_field field = {
        .name = dataset, .type = COLUMN_TEXT, .text_bytes = (int32_t)f->table.pieces[index].row_bytes};
    struct column values = {.type = COLUMN_TEXT, .count = count, .text = (char **)names};
    return write_values(f, &field, (struct column_pieces){index, -1}, first, &values, count);
}

enum status h5ad_write_names(struct h5ad_file *f, int64_t first, int64_t count, const char *const *names)
{
    return write_names(f, "obs/_index", first, count, names);
}

/* ---- creating and opening ---- */

static enum status write_frame(struct h5ad_file *f, const char *index, const struct h5ad_frame *frame,
                               const struct column_pieces *pieces)
{
    enum status st = ST_OK;
    if (frame->index) TRY(write_names(f, index, 0, frame->rows, frame->index));
    for (int k = 0; frame->values && k < frame->field_count; k++)
        TRY(write_values(f, &frame->fields[k], pieces[k], 0, &frame->values[k], frame->rows));
done:
    return st;
}

static enum status open_descriptor(struct h5ad_file *f)
{
    f->fd = open(f->path, O_RDWR | O_CLOEXEC);
    return f->fd < 0 ? fail(ST_OUTPUT, "%s: cannot be opened for writing: %s", f->path, strerror(errno)) : ST_OK;
}

/* The description without the file: what every rank can work out from the layout. */
static enum status describe(const char *path, const struct h5ad_layout *layout, struct column_pieces *var,
                            struct h5ad_file **out)
{
    enum status st = ST_OK;
    struct h5ad_file *f = NULL;
    TRY(NEW_ARRAY(f, 1));
    *out = f;
    f->fd = -1;
    f->path = text_copy(path);
    f->field_count = layout->obs.field_count;
    TRY(NEW_ARRAY(f->columns, f->field_count));
    TRY(NEW_ARRAY(f->fields, f->field_count));
    if (f->field_count) memcpy(f->fields, layout->obs.fields, sizeof *f->fields * (size_t)f->field_count);
    TRY(pieces_of_layout(layout, &f->table, f->columns, var));
done:
    return st;
}

/* Create, reserve, and write what the layout brings along. */
static enum status lay_out(struct h5ad_file *f, const struct h5ad_layout *layout, const struct column_pieces *var)
{
    enum status st = ST_OK;
    struct stat info;
    signal(SIGXFSZ, SIG_IGN);
    TRY(pieces_create(f->path, layout, &f->table));
    TRY(open_descriptor(f));
    if (fstat(f->fd, &info) != 0) TRY(fail(ST_OUTPUT, "%s: %s", f->path, strerror(errno)));
    TRY(place_reserve(f->fd, f->path, info.st_size));
    TRY(write_frame(f, "obs/_index", &layout->obs, f->columns));
    TRY(write_frame(f, "var/_index", &layout->var, var));
done:
    return st;
}

enum status h5ad_create_local(const char *path, const struct h5ad_layout *layout, struct h5ad_file **out)
{
    enum status st = ST_OK;
    struct column_pieces *var = NULL;
    *out = NULL;
    TRY(NEW_ARRAY(var, layout->var.field_count));
    TRY(describe(path, layout, var, out));
    TRY(lay_out(*out, layout, var));
done:
    free(var);
    if (st != ST_OK) h5ad_close(out);
    return st;
}

enum status h5ad_reopen_local(const char *path, const struct h5ad_layout *layout, struct h5ad_file **out)
{
    enum status st = ST_OK;
    struct column_pieces *var = NULL;
    *out = NULL;
    TRY(NEW_ARRAY(var, layout->var.field_count));
    TRY(describe(path, layout, var, out));
    TRY(pieces_locate(path, &(*out)->table));
    TRY(open_descriptor(*out));
done:
    free(var);
    if (st != ST_OK) h5ad_close(out);
    return st;
}

/* Tell all ranks the offsets that rank 0 found, and let them open the file. */
static enum status share_offsets(struct comm *comm, struct h5ad_file *f)
{
    int64_t *offsets = NULL;
    enum status st = comm_agree(comm, NEW_ARRAY(offsets, f->table.count));
    if (st != ST_OK) goto done;
    for (int k = 0; k < f->table.count; k++) offsets[k] = f->table.pieces[k].offset;
    comm_bcast(comm, offsets, f->table.count * (int64_t)sizeof *offsets, 0);
    for (int k = 0; k < f->table.count; k++) f->table.pieces[k].offset = offsets[k];
    st = comm_agree(comm, f->fd >= 0 ? ST_OK : open_descriptor(f));
done:
    free(offsets);
    return st;
}

static enum status open_all(struct comm *comm, const char *path, const struct h5ad_layout *layout, bool fresh,
                            struct h5ad_file **out)
{
    struct column_pieces *var = NULL;
    *out = NULL;
    enum status st = NEW_ARRAY(var, layout->var.field_count);
    if (st == ST_OK) st = describe(path, layout, var, out);
    if (st == ST_OK && comm->rank == 0) st = fresh ? lay_out(*out, layout, var) : pieces_locate(path, &(*out)->table);
    st = comm_agree(comm, st);
    if (st == ST_OK) st = share_offsets(comm, *out);
    free(var);
    if (st != ST_OK) h5ad_close(out);
    return st;
}

enum status h5ad_create(struct comm *comm, const char *path, const struct h5ad_layout *layout, struct h5ad_file **out)
{
    return open_all(comm, path, layout, true, out);
}

enum status h5ad_reopen(struct comm *comm, const char *path, const struct h5ad_layout *layout, struct h5ad_file **out)
{
    return open_all(comm, path, layout, false, out);
}

int h5ad_find(const struct h5ad_file *f, const char *dataset) { return piece_find(&f->table, dataset); }
int64_t h5ad_offset(const struct h5ad_file *f, int dataset) { return f->table.pieces[dataset].offset; }
int64_t h5ad_row_bytes(const struct h5ad_file *f, int dataset) { return f->table.pieces[dataset].row_bytes; }

/* ---- commit ---- */

static enum status flush_descriptor(struct h5ad_file *f)
{
    enum status st = ST_OK;
    if (fsync(f->fd) != 0) st = fail(ST_OUTPUT, "%s: flush to disk failed: %s", f->path, strerror(errno));
    if (close(f->fd) != 0 && st == ST_OK) st = fail(ST_OUTPUT, "%s: closing failed: %s", f->path, strerror(errno));
    f->fd = -1;
    return st;
}

enum status h5ad_commit(struct comm *comm, struct h5ad_file **file, const char *final)
{
    enum status st = comm_agree(comm, flush_descriptor(*file));
    if (st == ST_OK && final) {
        if (comm->rank == 0 && rename((*file)->path, final) != 0)
            st = fail(ST_OUTPUT, "%s: cannot be renamed to %s: %s", (*file)->path, final, strerror(errno));
        st = comm_agree(comm, st);
    }
    h5ad_close(file);
    return st;
}
