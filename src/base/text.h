/* Text: numbers as users write them, nearest names, human sizes, growing strings. */
#ifndef CYTOMILL_BASE_TEXT_H
#define CYTOMILL_BASE_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

/* A whole number as users write it: "1200", "1e6" (a million), "1_000". False for "12x", "1.5",
 * "" and anything that does not fit. Local. */
bool text_to_int(const char *text, int64_t *out);
/* A finite real number; false for "", "1.0x", "nan", "inf". Local, independent of the locale. */
bool text_to_real(const char *text, double *out);

/* Index of the name nearest to `word` by edit distance among names[count], -1 if none is near
 * (distance above a quarter of the length, plus one). For "did you mean …?". Local. */
int text_nearest(const char *word, const char *const *names, int count);

/* Is this valid UTF-8 of `bytes` bytes? Local. */
bool text_is_utf8(const char *text, size_t bytes);

/* "12s", "4m05s", "3h12m", from two days "9d03h", from two years "1,234 years", "?" if negative or not a
 * number; "1.5 GiB"; "12,345,678". Written into `out`, which is returned. Local. */
char *text_duration(double seconds, char out[32]);
char *text_bytes(double bytes, char out[32]);
char *text_count(int64_t n, char out[32]);

/* A growing string. Zero-initialise; free with text_free. `data` is NUL-terminated once anything
 * was added. Memory failure aborts the process: these strings are messages and small reports. */
struct text {
    char *data;
    size_t length, capacity;
};
void text_add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_bytes(struct text *t, const char *bytes, size_t count);
void text_free(struct text *t);

/* Whole file into one NUL-terminated block, inflated if it starts with the gzip magic. The caller
 * frees *out. ST_INPUT names the path and the reason. Local. */
MUST_CHECK enum status text_read_file(const char *path, char **out, size_t *length_bytes);

/* Duplicate a string; aborts without memory. The caller frees. */
char *text_copy(const char *s);
char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Write a file whole: under a name of this process beside it, then renamed, so that nobody reads half of it and of
 * several writers the last wins. ST_OUTPUT: what was at `path` is as it was. Local: call on one rank and agree. */
MUST_CHECK enum status text_write_file(const char *path, const char *text, size_t bytes);

/* mkdir -p. ST_OUTPUT names the component that failed. Local: call on one rank and agree. */
MUST_CHECK enum status text_make_folder(const char *path);

#endif
