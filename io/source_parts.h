/* Inside of a source, for the readers of each format (source_*.c) and source.c alone. */
#ifndef CYTOMILL_IO_SOURCE_PARTS_H
#define CYTOMILL_IO_SOURCE_PARTS_H

#include "cell/value_check.h"
#include "io/matrix.h"
#include "io/source.h"

/* One modality: which columns of the matrix it takes. */
struct source_view {
    struct source_modality is;
    char *name, *taken;
    int32_t *feature; /* [matrix columns] row of is.features, or -1 */
};

struct source {
    char *path, *format;
    const struct source_format *reader;
    void *own; /* what the reader keeps: struct folder_10x, … */
    int64_t rows;
    struct matrix *matrix;
    struct source_view *views;
    int view_count;
    bool always_counts;         /* the format says so: 10x */
    struct cells raw;           /* rows as read, before columns are sorted into modalities */
    struct value_check *checks; /* [view_count] of the rows this rank scanned; NULL before */
    char *spool;
    char *counts, *genome, *modality; /* copies of the options */
    char **rna_types;
    int rna_type_count;
    bool keep_other;
};

/* A format. `open` describes the source, leaving matrix and views set. */
struct source_format {
    const char *name;
    enum status (*open)(struct comm *comm, struct source *source); /* collective, agreed */
    void (*close)(struct source *source);
    enum status (*read_names)(struct source *source, int64_t first, int64_t count, struct column *out); /* local */
    int (*obs_count)(const struct source *source);
    const char *(*obs_name)(const struct source *source, int index);
    enum status (*read_obs)(struct source *source, int index, int64_t first, int64_t count, struct column *out);
    const char *(*obs_skipped)(const struct source *source);
    /* The values taken are not counts and the user left the choice: turn to the next place that may hold some, or,
     * if there is none, back to the first. *again = false when the choice is final. Collective, agreed. */
    enum status (*next_place)(struct comm *comm, struct source *source, bool found_counts, bool *again);
};

extern const struct source_format source_10x_folder, source_10x_h5, source_h5ad;

/* Sort the columns of the matrix into modalities. types[i] is the feature type of column i as 10x writes
 * it, or NULL to put every column into modality `fallback`. `table` holds all columns and is used up. Local. */
MUST_CHECK enum status source_set_views(struct source *source, struct feature_table *table, char *const *types,
                                        const char *fallback, const char *taken);
void source_free_views(struct source *source);

/* ST_INPUT if an Ensembl id stands twice (symbols that stand where ids should are names, and names may
 * repeat). `what` names the list. Local. */
MUST_CHECK enum status source_check_ids(char *const *ids, int64_t count, const char *what);

#endif
