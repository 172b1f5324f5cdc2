/* Are all ranks of a job the same program with the same libraries, configuration and processor? Looked at once, before
 * the work: a difference found later is a hang, or weights that depend on where they were computed. */
#ifndef CYTOMILL_JOBS_JOB_RANKS_H
#define CYTOMILL_JOBS_JOB_RANKS_H

#include "jobs/job.h"

/* What one rank is; texts, so that a line can show them. */
struct rank_card {
    char host[64];
    char program[24];  /* XXH3 of the program's file, or "unreadable" */
    char version[320]; /* of ours, compiler, MPI, HDF5, oneDNN, on one line */
    char isa[16];      /* best instruction set of our kernels there */
    char bf16[24];     /* bf16 products, or none */
};

/* The first difference among the cards [ranks], with who has what and what to do. `isa`, `precision`: the values of
 * run.isa and run.precision, NULL for programs without kernels, whose processors may differ. ST_COMM: program or
 * version; ST_CONFIG: a processor that `auto` takes differently. Local. */
MUST_CHECK enum status rank_cards_compare(const struct rank_card *cards, int ranks, const char *isa,
                                          const char *precision);

/* Compare this job's ranks: the cards, then every configuration key (ST_CONFIG names the first that differs).
 * Collective, agreed. */
MUST_CHECK enum status job_compare_ranks(struct comm *world, const struct job *job);

#endif
