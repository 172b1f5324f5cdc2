/* Features of a modality (genes, peaks, proteins), kinds of value, and columns of obs. */
#ifndef CYTOMILL_CELL_FEATURE_H
#define CYTOMILL_CELL_FEATURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* X(name, word in files and messages) */
#define VALUE_KIND_LIST(X) \
    X(VALUE_COUNTS, "counts")          /* whole numbers >= 0 */ \
    X(VALUE_BINARY, "binary")          /* 0 and 1 only */ \
    X(VALUE_CONTINUOUS, "continuous")  /* any finite number, may be negative */ \
    X(VALUE_LOGNORM, "log-normalised") /* >= 0, fractions, no larger than about 15 */
enum value_kind {
#define X(name, word) name,
    VALUE_KIND_LIST(X)
#undef X
};
const char *value_kind_word(enum value_kind kind);
bool value_kind_parse(const char *word, enum value_kind *out);

/* By which rule a feature got its gene identity; the order is the order in which rules are tried. */
#define MAP_RULE_LIST(X) \
    X(MAP_NONE, "unmapped") \
    X(MAP_ID, "exact id") \
    X(MAP_SYMBOL, "exact symbol") \
    X(MAP_PREVIOUS, "earlier symbol") \
    X(MAP_ALIAS, "alias") \
    X(MAP_AMBIGUOUS, "ambiguous")
enum map_rule {
#define X(name, word) name,
    MAP_RULE_LIST(X)
#undef X
};
const char *map_rule_word(enum map_rule rule);

/* One feature. Strings are owned by the table; "" where unknown, never NULL. */
struct feature {
    char *name;         /* as the source wrote it (10x: the symbol; h5ad: var index) */
    char *id;           /* Ensembl id without version, given or mapped; "" if none */
    char *symbol;       /* approved symbol; "" if unmapped */
    char *hgnc;         /* "HGNC:5"; "" if unmapped */
    char *biotype;      /* HGNC locus group, or the source's */
    char *chromosome;   /* "1" … "22", "X", "Y", "MT"; "" if unknown */
    int64_t start, end; /* base pairs; -1 if unknown */
    enum map_rule rule;
};

struct feature_table {
    int64_t count, capacity;
    struct feature *rows; /* [count] */
};

/* Append a copy of `feature` (NULL strings become ""). Local. */
MUST_CHECK enum status feature_table_add(struct feature_table *table, const struct feature *feature);
void feature_table_free(struct feature_table *table);

/* A column of obs or var, whole or a slice of rows. */
enum column_type { COLUMN_INT, COLUMN_REAL, COLUMN_BOOL, COLUMN_CATEGORY, COLUMN_TEXT };
struct column {
    char *name;
    enum column_type type;
    int64_t count;
    int64_t *i;      /* [count] COLUMN_INT and COLUMN_BOOL (0/1); missing = INT64_MIN */
    double *r;       /* [count] COLUMN_REAL; missing = NaN */
    int32_t *code;   /* [count] COLUMN_CATEGORY; missing = -1 */
    char **category; /* [category_count] */
    int32_t category_count;
    char **text; /* [count] COLUMN_TEXT; missing = NULL */
};
void column_free(struct column *column);
/* Value of a row as text ("" if missing), written to `buffer` when it is a number. Local. */
const char *column_as_text(const struct column *column, int64_t row, char buffer[32]);

#endif
