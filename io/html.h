/* One HTML page that needs no server and no other file: text, tables, pictures as inline SVG.
 * Each function adds to `page`, all are local. */
#ifndef CYTOMILL_IO_HTML_H
#define CYTOMILL_IO_HTML_H

#include "base/text.h"
#include "io/tsv.h"

/* Text with & < > " replaced. */
void html_text(struct text *page, const char *text);

void html_begin(struct text *page, const char *title);
void html_end(struct text *page);
/* A section with an id to link to. */
void html_section(struct text *page, const char *id, const char *title);
/* A paragraph; the formatted text is escaped. */
void html_paragraph(struct text *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A picture with its caption beneath. `svg` is trusted. */
void html_figure(struct text *page, const char *svg, const char *caption);

/* A table row by row. Cells that look like numbers are set flush right. */
void html_table_begin(struct text *page, const char *const *heads, int columns);
void html_table_row(struct text *page, const char *const *cells, int columns);
void html_table_end(struct text *page);
/* Columns column[0 .. count-1] of a TSV (all if count is 0) under heads[] (the TSV's own if NULL), at most `rows` rows. */
void html_table_tsv(struct text *page, const struct tsv *tsv, const int *column, const char *const *heads, int count,
                    int64_t rows);

#endif
