/* One pass over the cells a job selected, before it trains: which of them the model takes, which are
 * held out, how much the vocabulary keeps, how long cells are, and the sums of the three references.
 * Every rank reads its share. */
#ifndef CYTOMILL_IO_SURVEY_H
#define CYTOMILL_IO_SURVEY_H

#include "cell/tokenize.h"
#include "io/atlas.h"
#include "metric/reference.h"

struct survey_plan {
    struct atlas *atlas;
    int modality;
    const int32_t *lookup; /* vocabulary id of each feature of the modality */
    const int64_t *rows;   /* [count] ascending atlas rows to choose from */
    int64_t count;
    struct token_rules rules;
    const char *split_by;    /* obs column whose values are held out whole, or "" */
    double held_out;         /* share held out */
    const char *balance_by;  /* obs column whose values are drawn equally often, or "" */
    int64_t reference_cells; /* most training cells the references are fitted on; 0 all */
};

/* The same on every rank. */
struct survey {
    int64_t *train, *held_out; /* atlas rows, ascending; owned */
    int64_t train_count, held_out_count;
    double *balance;             /* [train_count] weights, or NULL; owned */
    int32_t *train_genes;        /* [train_count] genes in the vocabulary of each; owned */
    int64_t too_short, too_long; /* cells outside the model's rules */
    double counts, kept_counts;  /* of all cells looked at, and those of vocabulary genes */
    double genes;                /* that the model sees: sum over cells taken, of each at most max_genes */
    struct reference *reference; /* fitted; owned */
};

/* `genes`: V, of the vocabulary that `lookup` leads to. Collective, agreed. ST_INPUT: an unknown column, a damaged
 * shard. */
MUST_CHECK enum status survey_run(struct comm *comm, const struct survey_plan *plan, int32_t genes, struct survey *out);
void survey_free(struct survey *survey);

#endif
