/* The perturbation record of a cell: genes, mode, dose, guide, is it a control.
 *
 * Labels in use are read as they are: `A+ctrl`, `ctrl+A` and `A` (one gene), `A+B` (a pair), `ctrl`,
 * `control`, `non-targeting`, `NT`, `safe-targeting`, … (a control). In an atlas the record is up to
 * five obs columns: perturb_genes ("A+B", or "control"), perturb_mode, perturb_control, and perturb_dose and
 * perturb_guide where the source says; a cell about which nothing is known has them missing. */
#ifndef CYTOMILL_CELL_PERTURBATION_H
#define CYTOMILL_CELL_PERTURBATION_H

#include <stdbool.h>
#include <stdint.h>

#include "cell/feature.h"

#define PERTURB_MODE_LIST(X) \
    X(PERTURB_UNKNOWN, "unknown") \
    X(PERTURB_KNOCK_OUT, "knock-out")       /* CRISPR nuclease */ \
    X(PERTURB_INTERFERENCE, "interference") /* CRISPRi, RNAi */ \
    X(PERTURB_ACTIVATION, "activation")     /* CRISPRa, over-expression */ \
    X(PERTURB_DRUG, "drug")                 /* compound or cytokine: genes are empty */
enum perturb_mode {
#define X(name, word) name,
    PERTURB_MODE_LIST(X)
#undef X
};
const char *perturb_mode_word(enum perturb_mode mode);
/* Our words and those in use: CRISPRi, CRISPRa, KO, knockdown, drug …, in any case. */
bool perturb_mode_parse(const char *word, enum perturb_mode *out);

enum { PERTURB_MAX_GENES = 8 };

struct perturbation {
    int gene_count;                 /* 0 for a control or a drug */
    char *genes[PERTURB_MAX_GENES]; /* in the order of the label, distinct; owned */
    enum perturb_mode mode;
    double dose; /* as the source gives it; NaN if unknown */
    char *guide; /* "" if unknown; owned */
    bool is_control;
};

/* Is this one of the words for a control cell? In any case; - _ and blanks are alike. Local. */
bool perturbation_is_control_word(const char *word);
/* Read a label; mode unknown, dose NaN, guide "". An empty label is ST_INPUT, as are more than
 * PERTURB_MAX_GENES genes. Free with perturbation_free. Local. */
MUST_CHECK enum status perturbation_parse(const char *label, struct perturbation *out);
void perturbation_free(struct perturbation *perturbation);
/* The genes joined by '+' in alphabetical order, so that A+B and B+A are one; "" if none. Caller frees. Local. */
char *perturbation_key(const struct perturbation *perturbation);

/* Which obs columns hold the record; NULL where there is none. Borrowed; rows of one slice. */
struct perturbation_columns {
    const struct column *label, *mode, *dose, *guide;
    enum perturb_mode mode_default; /* where there is no mode column */
};

enum { PERTURB_GENES, PERTURB_MODE, PERTURB_CONTROL, PERTURB_DOSE, PERTURB_GUIDE, PERTURB_COLUMN_COUNT };

/* How the columns become the record: made once from their types and categories, then used slice by slice. */
struct perturbation_plan {
    bool has[PERTURB_COLUMN_COUNT];                /* dose and guide only if the source has them */
    struct column prototype[PERTURB_COLUMN_COUNT]; /* name, type, categories; no rows. Genes are a category if
                                                         the label is one, else text */
    int32_t *genes_of_label;                       /* [label categories] category of perturb_genes */
    uint8_t *control_of_label;                     /* [label categories] */
};

/* ST_INPUT: a label of the categories that cannot be read. Free with perturbation_plan_free. Local. */
MUST_CHECK enum status perturbation_plan_create(const struct perturbation_columns *from, struct perturbation_plan *out);
void perturbation_plan_free(struct perturbation_plan *plan);
/* The columns of plan->has for the rows of a slice, to out[PERTURB_COLUMN_COUNT]: codes are those of the
 * prototypes (no categories here). The caller frees each with column_free. ST_INPUT: a label that cannot be
 * read, with its row. Local. */
MUST_CHECK enum status perturbation_build(const struct perturbation_plan *plan, const struct perturbation_columns *from,
                                          struct column out[PERTURB_COLUMN_COUNT]);

#endif
