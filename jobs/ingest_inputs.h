/* The inputs of cytomill-ingest: open them, map their genes, unite their features, cut their rows
 * between ranks. */
#ifndef CYTOMILL_JOBS_INGEST_INPUTS_H
#define CYTOMILL_JOBS_INGEST_INPUTS_H

#include "base/config.h"
#include "cell/identity.h"
#include "io/source.h"

/* A modality of the atlas to be: the union over inputs. */
struct ingest_modality {
    char *name;
    enum value_kind kind;
    struct feature_table features;   /* in order of first appearance */
    struct names *keys;              /* identity_key, with its occurrence if repeated → row of features */
    struct identity_report identity; /* summed over distinct feature tables; rna only */
    int64_t entry_count;
};

/* A distinct list of features; samples of one study share theirs, so each is held once. */
struct ingest_table {
    uint64_t digest;
    struct feature_table features;
};

struct ingest_input {
    struct source *source;
    char *identity;             /* "xxh3:… size:…" of a file up to 1 GiB, else "size:… mtime:…" */
    int64_t first_row, rows;    /* first global source row; rows of the input */
    int64_t my_first, my_count; /* this rank's rows of it */
    int *view;                  /* [modality_count] modality of the source, -1 = lacks it */
    int32_t **feature;          /* [modality_count][source features] → row of the union */
    uint64_t *table;            /* [source modalities] digest of the list of features */
    uint64_t *digest;           /* [modality_count] the same by modality, 0 = lacks it */
    uint8_t **measured;         /* [modality_count][union features] 1 = the input has it; NULL = lacks the modality */
    int64_t *sizes;             /* [source modalities, my_count] entries of each row */
};

struct ingest_inputs {
    struct ingest_input *inputs; /* [count] */
    int count;
    struct ingest_modality *modalities; /* [modality_count]; the first is rna where there is one */
    int modality_count;
    int64_t rows;
    struct ingest_table *tables; /* [table_count]; freed once they are united */
    int table_count;
    char *spool; /* folder of transposed copies, removed at the end */
};

/* Open every input and look at all values: sizes, kinds, features are known afterwards. `hgnc` names
 * genes. `out` is the folder beside which spools may lie. ST_INPUT as source_open and source_scan, and:
 * counts mixed with other kinds, inputs that share no gene; ST_CONFIG: no input. Collective, agreed. */
MUST_CHECK enum status ingest_inputs_open(struct comm *comm, const struct config *config, const struct hgnc *hgnc,
                                          struct ingest_inputs *out);
void ingest_inputs_close(struct ingest_inputs *inputs);

/* Index of a modality, -1 if there is none. Local. */
int ingest_find_modality(const struct ingest_inputs *inputs, const char *name);

/* What tells an input from a later one of the same name: hash and size of a file up to 1 GiB, else size and time; of a
 * 10x folder, its matrix. The caller frees. Local. */
char *ingest_identity(const char *path);

#endif
