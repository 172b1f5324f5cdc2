/* Configuration: YAML files through libyaml, checked against one key table.
 *
 * The table (config_keys.h) gives every key its type, range, unit, sentence and default; --help, --set and
 * configs/README.md come from it. Files are read in order, later values win, --set wins over files.
 * An unknown key, a wrong type or a value out of range is ST_CONFIG with file, line, column, what
 * was found, what is allowed and the nearest name.
 *
 *     TRY(config_create(&cfg));
 *     TRY(config_read(cfg, "configs/demo.yaml"));
 *     TRY(config_set(cfg, "train.steps=1e3"));
 *     int64_t steps = config_int(cfg, "train.steps");
 *
 * Everything here is local; every rank reads the same files and comm_agree() compares. */
#ifndef CYTOMILL_BASE_CONFIG_H
#define CYTOMILL_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

enum key_type { KEY_INT, KEY_REAL, KEY_BOOL, KEY_WORD, KEY_TEXT, KEY_LIST };

/* One row of the table. */
struct config_key {
    const char *name; /* "train.steps" */
    enum key_type type;
    const char *fallback; /* default as the user would write it; "" = empty */
    double min, max;      /* inclusive range of KEY_INT and KEY_REAL */
    const char *words;    /* "auto|bf16|fp32" of a KEY_WORD, else NULL */
    const char *unit;     /* "cells", "s", "" */
    const char *help;     /* one sentence */
};

extern const struct config_key config_keys[];
extern const int config_key_count;

struct config;

MUST_CHECK enum status config_create(struct config **out); /* all defaults */
void config_destroy(struct config **config);

/* Read one YAML file over what is there. ST_CONFIG: first error, with line and column. */
MUST_CHECK enum status config_read(struct config *config, const char *path);
/* "section.key=value" as given to --set. ST_CONFIG. `origin` ("--set", "--seed") goes into messages. */
MUST_CHECK enum status config_set(struct config *config, const char *assignment, const char *origin);
/* One key directly, as an option alias does. ST_CONFIG. */
MUST_CHECK enum status config_put(struct config *config, const char *name, const char *value, const char *origin);

/* Values. Asking for a key that is not in the table, or with the wrong type, is a broken invariant
 * and aborts. Strings and lists are borrowed until the key is set again or the config destroyed. */
int64_t config_int(const struct config *config, const char *name);
double config_real(const struct config *config, const char *name);
bool config_bool(const struct config *config, const char *name);
const char *config_text(const struct config *config, const char *name); /* KEY_TEXT and KEY_WORD; "" if empty */
bool config_word_is(const struct config *config, const char *name, const char *word);
const char *const *config_list(const struct config *config, const char *name, int *count);
/* The value of a key of any kind as it was written; *text is borrowed. ST_CONFIG: no such key. */
MUST_CHECK enum status config_written(const struct config *config, const char *name, const char **text);
/* Did the user give it (file, --set or option)? */
bool config_is_given(const struct config *config, const char *name);

/* ST_CONFIG about a key's value, with where the value came from in front: for checks that the
 * table cannot express. */
enum status config_fail(const struct config *config, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The values as YAML that config_read accepts: stored in every output. `sections` ("model data run.cells") are the
 * sections and single keys it depends on, NULL all. The caller frees; memory failure aborts as that of text_format
 * does. Local. */
char *config_yaml(const struct config *config, const char *sections);
/* The reference that is configs/README.md. */
void config_write_reference(FILE *file);

#endif
