/* What becomes of a step whose loss or gradient is not as it should be: accepted, skipped, or the end of the run.
 *
 * Not finite is a NaN (train.on_nan). A gradient norm above train.spike_factor times the median norm of the last
 * GUARD_NORMS accepted steps is a spike (train.on_spike): a median, because it does not move with the spikes before and
 * norms have no mean worth the name while they fall by decades. Before GUARD_LEAST accepted steps nothing is a spike.
 * More than train.max_skips skipped steps in a row end the run: something is wrong with more than a batch.
 * The verdict is a pure function of numbers that all ranks have alike, so nobody needs to agree on it.
 *
 *     struct guard_verdict v = guard_judge(&rules, &state, loss, norm);
 *     if (v.act == GUARD_STOP) TRY(guard_fail(&rules, &v, step));       the gradients are dropped: no update
 *     if (v.act == GUARD_ACCEPT) optimiser_step(o, step); */
#ifndef CYTOMILL_OPTIM_GUARD_H
#define CYTOMILL_OPTIM_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"

enum { GUARD_NORMS = 64, GUARD_LEAST = 16 };

struct guard_rules {
    bool skip_nan, skip_spike; /* else the run ends */
    double spike_factor;       /* 0: nothing is a spike */
    int64_t max_skips;         /* in a row */
};

/* Belongs into a checkpoint, so that a resumed run judges as one that was not interrupted; starts as zeros. */
struct guard_state {
    double norm[GUARD_NORMS]; /* accepted step k in norm[k % GUARD_NORMS] */
    int64_t accepted;         /* steps, since the run began */
    int64_t skipped_in_a_row; /* until now */
    int64_t skipped;          /* in all */
};

enum guard_act { GUARD_ACCEPT, GUARD_SKIP, GUARD_STOP };
enum guard_reason { GUARD_FINE, GUARD_NAN, GUARD_SPIKE };
struct guard_verdict {
    enum guard_act act;
    enum guard_reason reason;
    double loss, norm, median; /* what was judged, and the median it was held against (NaN: too few steps) */
    int64_t skipped_in_a_row;  /* with this one */
};

struct guard_rules guard_rules_from(const struct config *config);
/* Judge a step and note it in the state. `norm` before clipping. Local. */
struct guard_verdict guard_judge(const struct guard_rules *rules, struct guard_state *state, double loss, double norm);
/* Median norm of the last accepted steps, at most GUARD_NORMS; NaN before GUARD_LEAST. Local. */
double guard_median(const struct guard_state *state);
/* What was wrong with step `step` (counted from 1), for a note or an error: "the gradient norm is 93, 31 times …".
 * `out` is returned. Local. */
char *guard_text(const struct guard_verdict *verdict, char out[160]);
/* ST_NUMERIC with that text and what to do. Local. */
enum status guard_fail(const struct guard_rules *rules, const struct guard_verdict *verdict, int64_t step);

#endif
