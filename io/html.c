#include "io/html.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char style[] =
    "body{font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;color:#1b1f24;"
    "background:#fff;max-width:62rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}\n"
    "h1{font-size:1.8rem;line-height:1.2;margin:.5rem 0 .25rem}\n"
    "h2{font-size:1.3rem;margin:2.6rem 0 .4rem;padding-top:.6rem;border-top:1px solid #d8dee4}\n"
    "h3{font-size:1.05rem;margin:1.6rem 0 .3rem}\n"
    "p{margin:.5rem 0;max-width:48rem}\n"
    "figure{margin:1.2rem 0}\n"
    "figure svg{width:100%;height:auto;max-width:54rem}\n"
    "figcaption{color:#424a53;max-width:48rem;font-size:.95rem}\n"
    ".wide{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:.92rem;margin:.8rem 0;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.28rem .8rem .28rem 0;text-align:left;vertical-align:top}\n"
    "th{border-bottom:2px solid #57606a;font-weight:600}\n"
    "td{border-bottom:1px solid #e4e8ec}\n"
    "td.n,th.n{text-align:right}\n"
    "nav a{margin-right:1.1rem}\n"
    "a{color:#0b57a4}\n"
    "@media print{body{max-width:none}h2{break-after:avoid}figure,tr{break-inside:avoid}}\n";

void html_text(struct text *page, const char *text)
{
    for (; *text; text++) {
        const char *entity = *text == '&'   ? "&amp;"
                             : *text == '<' ? "&lt;"
                             : *text == '>' ? "&gt;"
                             : *text == '"' ? "&quot;"
                                            : NULL;
        if (entity) text_add(page, "%s", entity);
        else text_add_bytes(page, text, 1);
    }
}

void html_begin(struct text *page, const char *title)
{
    text_add(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
    html_text(page, title);
    text_add(page, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<h1>", style);
    html_text(page, title);
    text_add(page, "</h1>\n");
}

void html_end(struct text *page) { text_add(page, "</body>\n</html>\n"); }

void html_section(struct text *page, const char *id, const char *title)
{
    text_add(page, "<h2 id=\"%s\">", id);
    html_text(page, title);
    text_add(page, "</h2>\n");
}

void html_paragraph(struct text *page, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0) return;
    text_add(page, "<p>");
    html_text(page, text);
    text_add(page, "</p>\n");
    free(text);
}

void html_figure(struct text *page, const char *svg, const char *caption)
{
    text_add(page, "<figure>\n");
    text_add_bytes(page, svg, strlen(svg));
    text_add(page, "\n<figcaption>");
    html_text(page, caption);
    text_add(page, "</figcaption>\n</figure>\n");
}

static bool is_number(const char *text)
{
    char *end;
    if (!*text) return true;
    strtod(text, &end);
    while (*end == ',' || *end == '%' || *end == ' ' || (*end >= '0' && *end <= '9') || *end == '.') end++;
    return end != text && *end == '\0';
}

static void add_row(struct text *page, const char *tag, const char *const *cells, int columns)
{
    text_add(page, "<tr>");
    for (int c = 0; c < columns; c++) {
        text_add(page, "<%s%s>", tag, *tag == 't' && tag[1] == 'd' && is_number(cells[c]) ? " class=\"n\"" : "");
        html_text(page, cells[c]);
        text_add(page, "</%s>", tag);
    }
    text_add(page, "</tr>\n");
}

void html_table_begin(struct text *page, const char *const *heads, int columns)
{
    text_add(page, "<div class=\"wide\"><table>\n<thead>");
    add_row(page, "th", heads, columns);
    text_add(page, "</thead>\n<tbody>\n");
}

void html_table_row(struct text *page, const char *const *cells, int columns) { add_row(page, "td", cells, columns); }

void html_table_end(struct text *page) { text_add(page, "</tbody>\n</table></div>\n"); }

void html_table_tsv(struct text *page, const struct tsv *tsv, const int *column, const char *const *heads, int count,
                    int64_t rows)
{
    const char *cells[64];
    int n = count > 0 ? count : tsv->columns;
    if (n > 64) n = 64;
    for (int64_t r = -1; r < tsv->rows && r < rows; r++) {
        for (int c = 0; c < n; c++) cells[c] = r < 0 && heads ? heads[c] : tsv_cell(tsv, r, count > 0 ? column[c] : c);
        if (r < 0) html_table_begin(page, cells, n);
        else html_table_row(page, cells, n);
    }
    html_table_end(page);
}
