/* Progress of a long loop, and the machine-readable record of it.
 *
 * A terminal gets one bar with rate and time left; a batch log gets a line now and then,
 *   step=120 loss=4.312 cells_per_s=5210 eta=3h12m
 * and the same figures go, one JSON object a line, to metrics.jsonl. Rank 0 owns both; other ranks
 * pass `speak = false` and everything is a no-op.
 *
 *     struct progress p = progress_start("pretrain", "step", total_steps, done_steps, comm->rank == 0);
 *     struct metric m[] = {{"loss", loss}, {"cells_per_s", rate}};
 *     progress_update(&p, step, m, 2);
 *     progress_finish(&p); */
#ifndef CYTOMILL_BASE_PROGRESS_H
#define CYTOMILL_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

struct metric {
    const char *name;
    double value; /* NaN is written as null */
};

struct progress {
    const char *what, *unit; /* borrowed */
    int64_t total, first, now;
    double start_s, last_s;
    double every_s; /* log line at least this far apart: 10, or CYTOMILL_PROGRESS_S */
    bool speak, terminal, drawn;
};

/* Begin at `done` of `total`. Local. */
struct progress progress_start(const char *what, const char *unit, int64_t total, int64_t done, bool speak);
/* Draw or log if enough time has passed; the first and last are always logged. Local. */
void progress_update(struct progress *p, int64_t done, const struct metric *metrics, int count);
/* End the line and say how long it took. Local. */
void progress_finish(struct progress *p);

/* metrics.jsonl: append one object {"time_s":…, metrics…}; flushed at once. Local. */
struct metrics_file {
    FILE *file;
    double start_s;
};
/* Open for appending, cut after the last object whose `key` is at most `keep` (resume drops what
 * the lost steps wrote); keep < 0 keeps all. ST_OUTPUT. */
MUST_CHECK enum status metrics_open(struct metrics_file *m, const char *path, const char *key, int64_t keep);
MUST_CHECK enum status metrics_add(struct metrics_file *m, const char *kind, const struct metric *metrics, int count);
/* Nothing is in the file yet. Local. */
bool metrics_empty(const struct metrics_file *m);
void metrics_close(struct metrics_file *m);

/* Monotonic clock in seconds. */
double clock_s(void);

#endif
