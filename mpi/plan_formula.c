#include "mpi/plan_inside.h"

#include <math.h>

#include "model/shard.h"
#include "mpi/pipeline.h"

/* ---- the pipeline ---- */

static enum status play_whole(const struct schedule_spec *spec, const struct schedule_times *times,
                              struct schedule_found *out)
{
    enum status st = ST_OK;
    struct schedule schedule = {0};
    *out = (struct schedule_found){0};
    TRY(schedule_build(spec, &schedule));
    TRY(schedule_simulate_parts(&schedule, times, schedule_buffers(spec), out));
done:
    schedule_free(&schedule);
    return st;
}

/* A few fillings are played, with the same remainder, and one filling less; the rest adds their difference each time.
 * Interleaved pipelines take longer until every filling adds the same: their messages come to wait for each other. */
enum status plan_play(const struct schedule_spec *spec, const struct schedule_times *times, struct schedule_found *out)
{
    enum status st = ST_OK;
    struct schedule_spec more = *spec, less;
    int filling = spec->stages * (spec->in_turns ? 2 : 1), fillings = spec->chunks > 1 ? 12 : 4;
    if (spec->micros < (fillings + 1) * filling) return play_whole(spec, times, out);
    more.micros = fillings * filling + spec->micros % filling;
    less = more;
    less.micros -= filling;
    struct schedule_found shorter;
    TRY(play_whole(&more, times, out));
    TRY(play_whole(&less, times, &shorter));
    int rest = (spec->micros - more.micros) / filling;
    out->step_s += (out->step_s - shorter.step_s) * rest;
    out->exchange_s += (out->exchange_s - shorter.exchange_s) * rest;
    double work_s = 0;
    for (int part = 0; part < schedule_parts(spec); part++)
        work_s += (times[part].forward + times[part].backward + times[part].weights) * spec->micros;
    out->bubble = out->step_s > 0 ? 1 - work_s / (out->step_s * spec->stages) : 0;
done:
    return st;
}

/* ---- the exchange ---- */

int plan_near(const struct plan_machine *m, int ranks, int stride)
{
    int near = m->nodes == 1 ? ranks : m->ranks_per_node / stride;
    return near > ranks ? ranks : near > 1 ? near : 1;
}

double plan_exchange_s(const struct plan_machine *m, double bytes, double wire, int ranks, int stride)
{
    const double piece_bytes = 4.0 * PIECE_REALS;
    if (ranks < 2) return 0;
    int near = plan_near(m, ranks, stride);
    double off = wire * (ranks - near) / ranks, on = wire * (near - 1) / ranks;
    double messages = 2.0 * (ranks - 1) / ranks * ceil(bytes / piece_bytes);
    double sums = 2 * bytes / m->memory_bytes_per_s;
    return off * m->ranks_per_node / m->link_bytes_per_s + on * m->ranks_per_node / m->shared_bytes_per_s +
           messages * m->latency_s + sums;
}

struct plan_travel plan_travel(const struct plan_machine *m, double bytes, int ranks)
{
    int near = plan_near(m, ranks, 1);
    return (struct plan_travel){.link_s = bytes * (ranks - near) / ranks * m->ranks_per_node / m->link_bytes_per_s,
                                .copy_s = bytes * (near - 1) / ranks * m->ranks_per_node / m->shared_bytes_per_s,
                                .start_s = (ranks - 1) * m->latency_s};
}

/* Clearing the gradient takes 4 bytes of each parameter, packing 8 of those packed here, norm and Adam 32 of those owned. */
double plan_update_bytes(int replicas, int sharers) { return 4 + 8.0 / sharers + 32.0 / replicas; }

/* Where a stage's ranks do not fill domains, some domain has but a divisor of them. */
int plan_sharers(const struct plan_machine *m, int ranks, int stride)
{
    int a = ranks, b = m->sharing > stride ? m->sharing / stride : 1;
    while (b > 0) {
        int rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* ---- chance ---- */

/* Upper quantile of the normal distribution, to 5e-4: Abramowitz & Stegun 26.2.23. */
static double normal_above(double p)
{
    double t = sqrt(-2 * log(p));
    return t -
           (2.515517 + 0.802853 * t + 0.010328 * t * t) / (1 + 1.432788 * t + 0.189269 * t * t + 0.001308 * t * t * t);
}

/* The rank (n - 3/8) / (n + 1/4) of Blom, 1958. */
double plan_longest(int count) { return count < 2 ? 0 : normal_above(0.625 / (count + 0.25)); }

/* Daly, Future Gener. Comput. Syst. 22, 2006, eq. 37: Young's sqrt(2 C M) with its next terms. */
double plan_interval_s(double c_s, double m_s)
{
    if (c_s >= 2 * m_s) return m_s;
    double x = c_s / (2 * m_s);
    return sqrt(2 * c_s * m_s) * (1 + sqrt(x) / 3 + x / 9) - c_s;
}
