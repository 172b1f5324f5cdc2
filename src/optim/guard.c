#include "optim/guard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct guard_rules guard_rules_from(const struct config *c)
{
    return (struct guard_rules){.skip_nan = config_word_is(c, "train.on_nan", "skip"),
                                .skip_spike = config_word_is(c, "train.on_spike", "skip"),
                                .spike_factor = config_real(c, "train.spike_factor"),
                                .max_skips = config_int(c, "train.max_skips")};
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double guard_median(const struct guard_state *s)
{
    double sorted[GUARD_NORMS];
    if (s->accepted < GUARD_LEAST) return NAN;
    int n = s->accepted < GUARD_NORMS ? (int)s->accepted : GUARD_NORMS;
    memcpy(sorted, s->norm, sizeof *sorted * (size_t)n);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

static enum guard_reason reason_of(const struct guard_rules *rules, double loss, double norm, double median)
{
    if (!isfinite(loss) || !isfinite(norm)) return GUARD_NAN;
    bool spike = rules->spike_factor > 0 && norm > rules->spike_factor * median; /* never above a NaN */
    return spike ? GUARD_SPIKE : GUARD_FINE;
}

struct guard_verdict guard_judge(const struct guard_rules *rules, struct guard_state *s, double loss, double norm)
{
    struct guard_verdict v = {.loss = loss, .norm = norm, .median = guard_median(s)};
    v.reason = reason_of(rules, loss, norm, v.median);
    if (v.reason == GUARD_FINE) {
        s->norm[s->accepted++ % GUARD_NORMS] = norm;
        s->skipped_in_a_row = 0;
        return v;
    }
    bool skip = v.reason == GUARD_NAN ? rules->skip_nan : rules->skip_spike;
    v.skipped_in_a_row = s->skipped_in_a_row + 1;
    v.act = skip && v.skipped_in_a_row <= rules->max_skips ? GUARD_SKIP : GUARD_STOP;
    if (v.act == GUARD_SKIP) {
        s->skipped_in_a_row++;
        s->skipped++;
    }
    return v;
}

char *guard_text(const struct guard_verdict *v, char out[160])
{
    if (v->reason == GUARD_SPIKE)
        snprintf(out, 160, "the gradient norm is %.4g, %.3g times the median %.4g of the steps before", v->norm,
                 v->norm / v->median, v->median);
    else if (!isfinite(v->loss)) snprintf(out, 160, "the loss is %g", v->loss);
    else snprintf(out, 160, "the gradient norm is %g though the loss is %.4g", v->norm, v->loss);
    return out;
}

enum status guard_fail(const struct guard_rules *rules, const struct guard_verdict *v, int64_t step)
{
    char text[160], after[64] = "";
    bool skipped = v->reason == GUARD_SPIKE ? rules->skip_spike : rules->skip_nan; /* until they were too many */
    const char *key = v->reason == GUARD_SPIKE ? "train.on_spike" : "train.on_nan";
    if (skipped)
        snprintf(after, sizeof after, " after %lld skipped steps (train.max_skips)", (long long)rules->max_skips);
    return fail(
        ST_NUMERIC,
        "step %lld: %s%s; lower train.rate, lengthen train.warmup, clip (train.clip)%s%s%s; the last checkpoint "
        "stays",
        (long long)step, guard_text(v, text), after, skipped ? "" : ", or set ", skipped ? "" : key,
        skipped ? "" : " to skip");
}
