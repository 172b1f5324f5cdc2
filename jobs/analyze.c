/* cytomill-analyze: what came out, and beside which baseline. Verbs: pca, score, umap, report. */
#include "jobs/analyze.h"

static const struct job_spec *const verbs[] = {&analyze_pca, &analyze_score, &analyze_umap, &analyze_report, NULL};

static const struct job_spec spec = {
    .program = "cytomill-analyze",
    .purpose = "principal components, label scores, maps and the report of a run",
    .usage = "VERB [options]",
    .verbs = verbs,
};

int main(int argc, char **argv) { return job_main(argc, argv, &spec); }
