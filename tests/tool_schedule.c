/* What the pipeline schedules cost, played by the simulator, beside the published formulas:
 *   tool_schedule [FORWARD BACKWARD WEIGHTS [MESSAGE]]      times of a whole stage on one micro-batch; 1 1 1 0
 * Prints a TSV: schedule, stages p, chunks of a stage v, micro-batches m of a step, time of the step, idle share of all
 * stages' time as played and as the formula of mpi/schedule.h says (- where the pipeline is not full, for which it does
 * not hold: m < p, or v > 1 and m no multiple of p), and the most micro-batches that any stage holds at once.
 *   tool_schedule FORWARD BACKWARD WEIGHTS MESSAGE EXCHANGE LAYERS
 * for stages that each have LAYERS layers with experts on several ranks, under 1f1b: schedule, p, m, the idle share with
 * exchanges of such a time one after another, and with two micro-batches in turns, and the most held of both. */
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
    struct schedule_times chunk = {stage->forward / v, stage->backward / v, stage->weights / v, stage->message, 0};
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

static enum status play_routed(struct schedule_spec spec, const struct schedule_times *times, double *idle, int *most)
{
    enum status st = ST_OK;
    struct schedule schedule = {0};
    int peak[MOST_STAGES];
    struct schedule_found found = {.peak = peak};
    TRY(schedule_build(&spec, &schedule));
    TRY(schedule_simulate(&schedule, times, BUFFERS, &found));
    *idle = found.bubble;
    *most = 0;
    for (int i = 0; i < spec.stages; i++)
        if (peak[i] > *most) *most = peak[i];
done:
    schedule_free(&schedule);
    return st;
}

static enum status print_routed(const struct schedule_times *times, int layers)
{
    enum status st = ST_OK;
    int trips[MOST_STAGES], most[2];
    double idle[2];
    for (int i = 0; i < MOST_STAGES; i++) trips[i] = layers;
    printf("schedule\tstages\tmicro_batches\tidle\tidle_in_turns\tmost_held\tmost_held_in_turns\n");
    for (int stages = 1; stages <= MOST_STAGES; stages *= 2)
        for (int micros = 4; micros <= 32; micros *= 2) {
            for (int turns = 0; turns < 2; turns++)
                TRY(play_routed((struct schedule_spec){.kind = SCHEDULE_1F1B,
                                                       .stages = stages,
                                                       .chunks = 1,
                                                       .micros = micros,
                                                       .trips = trips,
                                                       .in_turns = turns},
                                times, &idle[turns], &most[turns]));
            printf("1f1b\t%d\t%d\t%.3f\t%.3f\t%d\t%d\n", stages, micros, idle[0], idle[1], most[0], most[1]);
        }
done:
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
    struct schedule_times times = {1, 1, 1, 0, 0};
    if (argc != 1 && argc != 4 && argc != 5 && argc != 7) return ST_USAGE;
    if (argc > 1)
        times = (struct schedule_times){atof(argv[1]), atof(argv[2]), atof(argv[3]), argc > 4 ? atof(argv[4]) : 0,
                                        argc > 5 ? atof(argv[5]) : 0};
    if (argc > 6) {
        TRY(print_routed(&times, atoi(argv[6])));
        return ST_OK;
    }
    printf("schedule\tstages\tchunks\tmicro_batches\tstep\tidle\tidle_formula\tmost_held\n");
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int stages = 2; stages <= MOST_STAGES; stages *= 2)
            for (int micros = 4; micros <= 32; micros *= 2)
                TRY(print_row(
                    (struct schedule_spec){
                        .kind = kinds[k].kind, .stages = stages, .chunks = kinds[k].chunks, .micros = micros},
                    &times));
done:
    if (st != ST_OK) fprintf(stderr, "tool_schedule: %s\n", status_message());
    return st;
}
