/* 10x folders: matrix.mtx, barcodes.tsv and genes.tsv (CellRanger 2) or features.tsv (3), gzipped or not.
 * The matrix is features x cells, numbered from 1. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cell/identity.h"
#include "io/mtx.h"
#include "io/source_parts.h"
#include "io/spool.h"

struct folder_10x {
    char **barcodes; /* [rows] */
    int64_t barcode_count, feature_count;
};

static void close_folder(struct source *s)
{
    struct folder_10x *own = s->own;
    for (int64_t i = 0; own->barcodes && i < own->barcode_count; i++) free(own->barcodes[i]);
    free(own->barcodes);
    free(own);
    s->own = NULL;
}

/* The first of `name` and `name`.gz that is there; NULL if none. The caller frees. */
static char *find_file(const char *folder, const char *name)
{
    for (int zipped = 0; zipped < 2; zipped++) {
        char *path = text_format("%s/%s%s", folder, name, zipped ? ".gz" : "");
        if (access(path, F_OK) == 0) return path;
        free(path);
    }
    return NULL;
}

static enum status need_file(const char *folder, const char *name, char **out)
{
    *out = find_file(folder, name);
    if (*out) return ST_OK;
    return fail(ST_INPUT,
                "%s: has no %s or %s.gz; a 10x folder holds matrix.mtx, barcodes.tsv and genes.tsv or features.tsv, "
                "gzipped or not",
                folder, name, name);
}

/* Lines of a text file. `text` keeps the bytes, `lines` points into it. */
static enum status read_lines(const char *path, char **text, char ***lines, int64_t *count)
{
    enum status st = ST_OK;
    size_t bytes;
    *text = NULL;
    *lines = NULL;
    *count = 0;
    TRY(text_read_file(path, text, &bytes));
    if (!text_is_utf8(*text, bytes) || memchr(*text, '\0', bytes))
        TRY(fail(ST_INPUT, "%s: is not UTF-8 text; save it as UTF-8", path));
    int64_t most = 1;
    for (size_t i = 0; i < bytes; i++) most += (*text)[i] == '\n';
    TRY(NEW_ARRAY(*lines, most));
    for (char *rest = *text, *line; rest && *rest && (line = strsep(&rest, "\n"));) {
        size_t n = strlen(line);
        if (n > 0 && line[n - 1] == '\r') line[n - 1] = '\0';
        (*lines)[(*count)++] = line;
    }
done:
    return st;
}

static enum status read_barcodes(struct source *s, struct folder_10x *own)
{
    enum status st = ST_OK;
    char *path = NULL, *text = NULL, **lines = NULL;
    int64_t count = 0;
    TRY(need_file(s->path, "barcodes.tsv", &path));
    TRY(read_lines(path, &text, &lines, &count));
    TRY(NEW_ARRAY(own->barcodes, count));
    for (int64_t i = 0; i < count; i++) {
        lines[i][strcspn(lines[i], "\t")] = '\0';
        own->barcodes[own->barcode_count++] = text_copy(lines[i]);
    }
    s->rows = count;
done:
    free(path);
    free(text);
    free(lines);
    return st;
}

/* id, name, type, chromosome, start, end: as many as there are. */
static enum status add_feature(struct feature_table *table, char *line, char **id, char **type)
{
    char *field[6] = {0};
    for (int i = 0; i < 6 && line; i++) field[i] = strsep(&line, "\t");
    struct feature f = {.name = field[1] ? field[1] : field[0], .start = -1, .end = -1};
    *id = text_copy(field[0]);
    f.id = identity_trim_id(field[0]) ? field[0] : NULL;
    *type = field[2] ? text_copy(field[2]) : NULL;
    if (field[3] && *field[3]) f.chromosome = strncmp(field[3], "chr", 3) == 0 ? field[3] + 3 : field[3];
    if (field[4] && !text_to_int(field[4], &f.start)) f.start = -1;
    if (field[5] && !text_to_int(field[5], &f.end)) f.end = -1;
    return feature_table_add(table, &f);
}

static void free_texts(char **texts, int64_t count)
{
    for (int64_t i = 0; texts && i < count; i++) free(texts[i]);
    free(texts);
}

static enum status read_features(struct source *s, struct folder_10x *own)
{
    enum status st = ST_OK;
    char *path = find_file(s->path, "features.tsv"), *text = NULL, **lines = NULL, **ids = NULL, **types = NULL;
    struct feature_table table = {0};
    int64_t count = 0;
    s->format = text_copy(path ? "10x folder v3" : "10x folder v2");
    if (!path) TRY(need_file(s->path, "genes.tsv", &path));
    TRY(read_lines(path, &text, &lines, &count));
    TRY(NEW_ARRAY(ids, count));
    TRY(NEW_ARRAY(types, count));
    for (int64_t i = 0; i < count; i++) TRY(add_feature(&table, lines[i], &ids[i], &types[i]));
    TRY(source_check_ids(ids, count, path));
    own->feature_count = count;
    TRY(source_set_views(s, &table, types, "rna", "matrix.mtx"));
done:
    feature_table_free(&table);
    free_texts(ids, count);
    free_texts(types, count);
    free(path);
    free(text);
    free(lines);
    return st;
}

static enum status open_folder(struct comm *comm, struct source *s)
{
    enum status st = ST_OK;
    struct folder_10x *own = NULL;
    char *path = NULL;
    TRY(comm_agree(comm, NEW_ARRAY(own, 1)));
    s->own = own;
    s->always_counts = true;
    TRY(comm_agree(comm, need_file(s->path, "matrix.mtx", &path)));
    TRY(comm_agree(comm, read_barcodes(s, own)));
    TRY(comm_agree(comm, read_features(s, own)));
    TRY(mtx_read(comm, path, s->rows, own->feature_count, s->spool, &s->matrix));
done:
    free(path);
    return st;
}

static enum status read_names(struct source *s, int64_t first, int64_t count, struct column *out)
{
    enum status st = ST_OK;
    const struct folder_10x *own = s->own;
    *out = (struct column){.name = text_copy("barcode"), .type = COLUMN_TEXT, .count = count};
    TRY(NEW_ARRAY(out->text, count));
    for (int64_t i = 0; i < count; i++) out->text[i] = text_copy(own->barcodes[first + i]);
done:
    return st;
}

const struct source_format source_10x_folder = {
    .name = "10x folder", .open = open_folder, .close = close_folder, .read_names = read_names};
