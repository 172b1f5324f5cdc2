#include "io/tsv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static int count_columns(const char *line)
{
    int n = 1;
    for (; *line; line++) n += *line == '\t';
    return n;
}

static void split_line(char *line, char **cell, int columns)
{
    static char empty[] = "";
    for (int c = 0; c < columns; c++) {
        char *field = line ? strsep(&line, "\t") : NULL;
        cell[c] = field ? field : empty;
    }
}

enum status tsv_read(const char *path, struct tsv *out)
{
    enum status st = ST_OK;
    struct tsv t = {0};
    struct text remarks = {0};
    size_t bytes;
    int64_t lines = 1, used = 0;
    TRY(text_read_file(path, &t.text, &bytes));
    for (size_t i = 0; i < bytes; i++) lines += t.text[i] == '\n';
    text_add(&remarks, "%s", "");
    for (char *rest = t.text, *line; (line = strsep(&rest, "\n"));) {
        line[strcspn(line, "\r")] = '\0';
        if (*line == '#') text_add(&remarks, "%s%s", remarks.length ? "\n" : "", line + 1 + strspn(line + 1, " "));
        if (*line == '\0' || *line == '#') continue;
        if (t.columns == 0) {
            t.columns = count_columns(line);
            TRY(NEW_ARRAY(t.cell, lines * t.columns));
        }
        split_line(line, t.cell + used++ * t.columns, t.columns);
    }
    if (used == 0) TRY(fail(ST_INPUT, "%s is empty; a table with a header line is needed", path));
    t.rows = used - 1;
    t.remarks = remarks.data;
    remarks = (struct text){0};
    *out = t;
    t = (struct tsv){0};
done:
    text_free(&remarks);
    tsv_free(&t);
    return st;
}

void tsv_free(struct tsv *t)
{
    free(t->cell);
    free(t->remarks);
    free(t->text);
    *t = (struct tsv){0};
}

int tsv_find(const struct tsv *t, const char *name)
{
    for (int c = 0; c < t->columns; c++)
        if (strcmp(t->cell[c], name) == 0) return c;
    return -1;
}

const char *tsv_cell(const struct tsv *t, int64_t row, int column) { return t->cell[(row + 1) * t->columns + column]; }

double tsv_number(const struct tsv *t, int64_t row, int column)
{
    double x;
    return column >= 0 && text_to_real(tsv_cell(t, row, column), &x) ? x : NAN;
}
