/* The HGNC complete set: which names human genes have and had (genenames.org, CC0).
 *
 * A TSV with a header; columns used: hgnc_id symbol locus_group status location alias_symbol
 * prev_symbol ensembl_gene_id, in any order. Records that are not "Approved" are left out. */
#ifndef CYTOMILL_CELL_HGNC_H
#define CYTOMILL_CELL_HGNC_H

#include <stdint.h>

#include "base/hash.h"
#include "base/names.h"

struct hgnc_gene {
    const char *id;      /* "HGNC:5"; all strings point into the table's text */
    const char *symbol;  /* approved */
    const char *group;   /* locus group: "protein-coding gene" */
    const char *ensembl; /* "ENSG00000121410" or "" */
    char chromosome[4];  /* "1" … "Y", "MT"; "" if unknown */
};

enum { HGNC_NONE = -1, HGNC_SEVERAL = -2 };

struct hgnc {
    int64_t count;
    struct hgnc_gene *genes;   /* [count] in the order of the file */
    struct names *by_id;       /* Ensembl id → gene */
    struct names *by_symbol;   /* approved symbol → gene */
    struct names *by_previous; /* earlier symbol → gene; a number above `count` if several genes had it */
    struct names *by_alias;    /* alias → gene; a number above `count` if several genes have it */
    char *text;                /* the file, cut into strings */
    char sha256[SHA256_HEX];   /* of the file as it lies on disk */
    char date[16];             /* from its name ("…_2020-05-01.tsv"), else its newest date_modified, else "unknown" */
};

/* Read a file, gzipped or not. ST_INPUT: unreadable, a column missing, no approved gene. Local. */
MUST_CHECK enum status hgnc_read(const char *path, struct hgnc **out);
void hgnc_destroy(struct hgnc **hgnc);

/* Index of the gene, HGNC_NONE, or HGNC_SEVERAL where several genes share the name. An Ensembl id is
 * given without version. Local. */
int64_t hgnc_find_id(const struct hgnc *hgnc, const char *ensembl);
int64_t hgnc_find_symbol(const struct hgnc *hgnc, const char *symbol);
int64_t hgnc_find_previous(const struct hgnc *hgnc, const char *symbol);
int64_t hgnc_find_alias(const struct hgnc *hgnc, const char *symbol);

#endif
