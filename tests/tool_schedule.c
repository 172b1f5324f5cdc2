/* What the pipeline schedules cost, played by the simulator, beside the published formulas:
 *   tool_schedule [FORWARD BACKWARD WEIGHTS [MESSAGE]]      times of a whole stage on one micro-batch; 1 1 1 0
 * Prints a TSV: schedule, stages p, chunks of a stage v, micro-batches m of a step, time of the step, idle share of all
 * stages' time as played and as the formula of mpi/schedule.h says (- where the pipeline is not full, for which it does
 * not hold: m < p, or v > 1 and m no multiple of p), and the most micro-batches that any stage holds at once. */
#include <stdio.h>
#include <stdlib.h>

#include "mpi/schedule.h"

enum { MOST_STAGES = 8, BUFFERS = 2 };

/* Idle share by formula; below 0 where it does not hold. */
static double formula(const struct schedule_spec *s, const struct schedule_times *t)
{
    bool full = s->micros >= s->stages && (s->chunks == 1 || s->micros % s->stages == 0);
    double work = t->forward + t->backward + t->weights;
    double idle = (s->stages - 1) * (s->kind == SCHEDULE_ZB_H1 ? work - 2 * t->weights : work / s->chunks);
    return full ? idle / (idle + s->micros * work) : -1;
}

static enum status print_row(struct schedule_spec spec, const struct schedule_times *stage)
{
    enum status st = ST_OK;
    struct schedule schedule = {0};
    int peak[MOST_STAGES], most = 0;
    struct schedule_found found = {.peak = peak};
    double v = spec.chunks, share = formula(&spec, stage);
    TRY(schedule_build(&spec, &schedule));
    struct schedule_times chunk = {stage->forward / v, stage->backward / v, stage->weights / v, stage->message};
    TRY(schedule_simulate(&schedule, &chunk, BUFFERS, &found));
    for (int i = 0; i < spec.stages; i++)
        if (peak[i] > most) most = peak[i];
    printf("%s\t%d\t%d\t%d\t%.4g\t%.3f\t", schedule_name(spec.kind), spec.stages, spec.chunks, spec.micros,
           found.step_s, found.bubble);
    if (share < 0) printf("-\t%.4g\n", most / v);
    else printf("%.3f\t%.4g\n", share, most / v);
done:
    schedule_free(&schedule);
    return st;
}

int main(int argc, char **argv)
{
    static const struct {
        enum schedule_kind kind;
        int chunks;
    } kinds[] = {{SCHEDULE_GPIPE, 1},
                 {SCHEDULE_1F1B, 1},
                 {SCHEDULE_INTERLEAVED, 2},
                 {SCHEDULE_INTERLEAVED, 4},
                 {SCHEDULE_ZB_H1, 1}};
    enum status st = ST_OK;
    struct schedule_times times = {1, 1, 1, 0};
    if (argc != 1 && argc != 4 && argc != 5) return ST_USAGE;
    if (argc > 1)
        times = (struct schedule_times){atof(argv[1]), atof(argv[2]), atof(argv[3]), argc > 4 ? atof(argv[4]) : 0};
    printf("schedule\tstages\tchunks\tmicro_batches\tstep\tidle\tidle_formula\tmost_held\n");
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int stages = 2; stages <= MOST_STAGES; stages *= 2)
            for (int micros = 4; micros <= 32; micros *= 2)
                TRY(print_row((struct schedule_spec){kinds[k].kind, stages, kinds[k].chunks, micros}, &times));
done:
    if (st != ST_OK) fprintf(stderr, "tool_schedule: %s\n", status_message());
    return st;
}
