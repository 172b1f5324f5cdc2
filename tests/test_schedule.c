/* Pipeline schedules.
 * plan: ranks=1 limit=60
 * Every shape up to 8 stages (interleaved up to 10, its last) builds, plays to its end and keeps its limit of
 * micro-batches; idle time is what the published formulas
 * say, and each part may take its own time; a table with anything missing, twice, out of order or sent to the wrong
 * stage is refused. With exchanges between the pieces of F and B, one after another or in turns, the same holds, and turns
 * hide what the pieces are long enough for. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#undef fail

#include "mpi/schedule.h"

static const struct schedule_times unit = {1, 1, 1, 0, 0};
enum { MOST_STAGES = 8, MOST_MICROS = 17, MOST_INTERLEAVED = 24 };

static struct schedule build(struct schedule_spec spec)
{
    struct schedule s;
    assert_int_equal(schedule_build(&spec, &s), ST_OK);
    return s;
}

static struct schedule_found play(const struct schedule *s, struct schedule_times times, int buffers, int *peak)
{
    struct schedule_found found = {.peak = peak};
    assert_int_equal(schedule_simulate(s, &times, buffers, &found), ST_OK);
    return found;
}

/* Calls `check` with every shape of every schedule. */
static void for_all_shapes(void (*check)(struct schedule_spec))
{
    for (int kind = SCHEDULE_GPIPE; kind <= SCHEDULE_ZB_H1; kind++)
        for (int p = kind == SCHEDULE_INTERLEAVED ? 2 : 1; p <= MOST_STAGES; p++)
            for (int v = 1; v <= (kind == SCHEDULE_INTERLEAVED ? 3 : 1); v++)
                for (int m = 1; m <= MOST_MICROS; m++)
                    check((struct schedule_spec){.kind = kind, .stages = p, .chunks = v, .micros = m});
}

static void check_plays(struct schedule_spec spec)
{
    static const struct schedule_times times[] = {{1, 1, 1, 0, 0}, {1, 1.3, 0.8, 0.1, 0}, {1, 2, 0.01, 3, 0}};
    struct schedule s = build(spec);
    for (size_t t = 0; t < sizeof times / sizeof *times; t++) {
        int peak[MOST_INTERLEAVED];
        play(&s, times[t], schedule_buffers(&spec), peak);
        if (spec.chunks == 1) play(&s, times[t], 1, peak);
        for (int i = 0; i < spec.stages; i++) assert_true(peak[i] <= schedule_limit(&spec, i));
    }
    schedule_free(&s);
}
static void every_shape_plays_to_its_end(void **state) { for_all_shapes(check_plays); }

/* Idle time of a step, from the publications. */
static double formula(const struct schedule_spec *s, const struct schedule_times *t)
{
    double sum =
        s->kind == SCHEDULE_ZB_H1 ? t->forward + t->backward - t->weights : t->forward + t->backward + t->weights;
    return (s->stages - 1) * sum;
}

static void check_bubble(struct schedule_spec spec)
{
    static const struct schedule_times times[] = {{1, 1, 1, 0, 0}, {1, 1.2, 0.9, 0, 0}, {2, 2.1, 2, 0, 0}};
    bool whole = spec.micros >= spec.stages && (spec.chunks == 1 || spec.micros % spec.stages == 0);
    if (!whole) return; /* the formulas are those of full pipelines */
    for (size_t t = 0; t < sizeof times / sizeof *times; t++) {
        struct schedule s = build(spec);
        struct schedule_found found = play(&s, times[t], schedule_buffers(&spec), NULL);
        double work = spec.micros * spec.chunks * (times[t].forward + times[t].backward + times[t].weights);
        double want = work + formula(&spec, &times[t]);
        if (fabs(found.step_s - want) > 0.02 * want)
            print_error("%s, %d stages, %d chunks, %d micro-batches: step %g, formula %g\n", schedule_name(spec.kind),
                        spec.stages, spec.chunks, spec.micros, found.step_s, want);
        assert_true(fabs(found.step_s - want) <= 0.02 * want);
        assert_true(fabs(found.bubble - (1 - work / found.step_s)) < 1e-12);
        schedule_free(&s);
    }
}
static void bubbles_are_those_of_the_formulas(void **state) { for_all_shapes(check_bubble); }

/* Beyond 10 stages interleaved tables need more than two buffers. */
static void long_interleaved_pipelines_play(void **state)
{
    for (int p = MOST_STAGES + 1; p <= MOST_INTERLEAVED; p++)
        for (int v = 1; v <= 3; v++)
            for (int m = 1; m <= 3 * p; m += m < p - 1 ? p - 2 : p < 12 ? 1 : p / 3) {
                struct schedule_spec spec = {.kind = SCHEDULE_INTERLEAVED, .stages = p, .chunks = v, .micros = m};
                check_plays(spec);
                check_bubble(spec);
            }
}

/* One buffer less is not enough: the number is no guess. */
static void need_their_buffers(struct schedule_spec spec)
{
    struct schedule s = build(spec);
    struct schedule_found found = {0};
    assert_int_equal(schedule_simulate(&s, &unit, schedule_buffers(&spec) - 1, &found), ST_INTERNAL);
    status_clear();
    schedule_free(&s);
}

static void is_too_long(struct schedule_spec spec, const char *message)
{
    struct schedule s;
    assert_int_equal(schedule_build(&spec, &s), ST_CONFIG);
    assert_non_null(strstr(status_message(), message));
    status_clear();
}

static void long_interleaved_pipelines_need_their_buffers(void **state)
{
    for (int p = 11; p <= MOST_INTERLEAVED; p += 6)
        need_their_buffers(
            (struct schedule_spec){.kind = SCHEDULE_INTERLEAVED, .stages = p, .chunks = 2, .micros = 2 * p});
    is_too_long((struct schedule_spec){.kind = SCHEDULE_INTERLEAVED, .stages = 95, .chunks = 2, .micros = 95},
                "interleaved on 95 stages; it goes up to 94");
}

/* One stage of 1F1B as it is drawn in every paper. */
static void one_forward_one_backward(void **state)
{
    struct schedule s = build((struct schedule_spec){.kind = SCHEDULE_1F1B, .stages = 3, .chunks = 1, .micros = 4});
    char text[256] = "";
    for (int i = s.first[1]; i < s.first[2]; i++) {
        static const char letters[] = "FBWxysrgh";
        size_t n = strlen(text);
        text[n] = letters[s.instructions[i].op], text[n + 1] = (char)('0' + s.instructions[i].micro);
    }
    assert_string_equal(text, "r0F0s0r1F1s1h0B0W0g0r2F2s2h1B1W1g1r3F3s3h2B2W2g2h3B3W3g3");
    schedule_free(&s);
}

/* A message that takes time makes a step longer by its part in the longest way, and never shorter. */
static void messages_take_their_time(void **state)
{
    struct schedule s = build((struct schedule_spec){.kind = SCHEDULE_1F1B, .stages = 4, .chunks = 1, .micros = 8});
    struct schedule_found at_once = play(&s, unit, 2, NULL);
    struct schedule_found later = play(&s, (struct schedule_times){1, 1, 1, 0.25, 0}, 2, NULL);
    assert_true(later.step_s >= at_once.step_s + 2 * 3 * 0.25);
    schedule_free(&s);
}

/* Parts of their own times: equal ones are the plain case; a step takes as long as its dearest stage works, then what
 * the others do before its first and after its last micro-batch. */
static void parts_have_their_own_times(void **state)
{
    enum { STAGES = 3, MICROS = 7 };
    static const double dear[STAGES] = {1, 3, 2};
    for (int kind = SCHEDULE_GPIPE; kind <= SCHEDULE_ZB_H1; kind++) {
        struct schedule s =
            build((struct schedule_spec){.kind = kind, .stages = STAGES, .chunks = 1, .micros = MICROS});
        struct schedule_times same[STAGES], own[STAGES];
        double busy_s[STAGES];
        struct schedule_found found = {0}, parts = {0}, unlike = {.busy_s = busy_s};
        for (int i = 0; i < STAGES; i++) {
            same[i] = (struct schedule_times){1, 1.2, 0.9, 0.1, 0};
            own[i] = (struct schedule_times){dear[i], dear[i], dear[i], 0, 0};
        }
        assert_int_equal(schedule_simulate(&s, same, 2, &found), ST_OK);
        assert_int_equal(schedule_simulate_parts(&s, same, 2, &parts), ST_OK);
        assert_true(found.step_s == parts.step_s && fabs(found.bubble - parts.bubble) < 1e-12);
        assert_int_equal(schedule_simulate_parts(&s, own, 2, &unlike), ST_OK);
        assert_true(unlike.step_s >= 3 * MICROS * 3 + 2 * 1 && unlike.step_s <= 3 * (3 * MICROS + STAGES * 3));
        for (int i = 0; i < STAGES; i++) assert_true(fabs(busy_s[i] - 3 * MICROS * dear[i]) < 1e-9);
        assert_true(fabs(unlike.bubble - (1 - 3 * MICROS * 6 / (3 * unlike.step_s))) < 1e-12);
        schedule_free(&s);
    }
    struct schedule s = build((struct schedule_spec){
        .kind = SCHEDULE_GPIPE, .stages = 3, .chunks = 1, .micros = 1}); /* one micro-batch there and back */
    static const struct schedule_times own[] = {{1, 2, 4, 0.5, 0}, {8, 16, 32, 0.25, 0}, {64, 128, 256, 0.125, 0}};
    struct schedule_found found = {0};
    assert_int_equal(schedule_simulate_parts(&s, own, 2, &found), ST_OK);
    assert_true(fabs(found.step_s - (1 + 0.5 + 8 + 0.25 + 64 + 128 + 256 + 0.125 + 16 + 32 + 0.25 + 2 + 4)) < 1e-12);
    schedule_free(&s);
}

static void expect_refused(struct schedule *s, const char *what)
{
    struct schedule_found found = {0};
    enum status st = schedule_simulate(s, &unit, 2, &found);
    if (st != ST_INTERNAL) print_error("not refused: %s\n", what);
    assert_int_equal(st, ST_INTERNAL);
    status_clear();
}

static void a_broken_table_is_refused(void **state)
{
    struct schedule_spec spec = {.kind = SCHEDULE_ZB_H1, .stages = 3, .chunks = 1, .micros = 5};
    struct schedule s = build(spec);
    int count = s.first[3];
    for (int i = 0; i < count; i++) { /* each instruction another's, or to someone else */
        struct instruction kept = s.instructions[i];
        s.instructions[i].micro = (kept.micro + 1) % spec.micros;
        expect_refused(&s, "another micro-batch");
        s.instructions[i] = kept, s.instructions[i].peer++;
        expect_refused(&s, "another peer");
        s.instructions[i] = kept, s.instructions[i].chunk = 1;
        expect_refused(&s, "a chunk there is not");
        s.instructions[i] = kept, s.instructions[i].op = (kept.op + 1) % 9;
        expect_refused(&s, "another operation");
        s.instructions[i] = kept;
    }
    s.first[3]--;
    expect_refused(&s, "one too few");
    schedule_free(&s);
}

/* Two stages that each wait for the other first. */
static void a_deadlock_is_found(void **state)
{
    struct schedule s = build((struct schedule_spec){.kind = SCHEDULE_GPIPE, .stages = 2, .chunks = 1, .micros = 2});
    struct instruction *i = s.instructions; /* F0 s0 F1 s1 h0 ...: the gradient before the activation was sent */
    struct instruction gradient = i[4];
    memmove(i + 4, i + 3, sizeof *i);
    i[3] = gradient;
    struct schedule_found found = {0};
    assert_int_equal(schedule_simulate(&s, &unit, 2, &found), ST_INTERNAL);
    assert_non_null(strstr(status_message(), "waits for ever"));
    status_clear();
    schedule_free(&s);
}

static void impossible_shapes_are_refused(void **state)
{
    static const struct schedule_spec specs[] = {{.kind = SCHEDULE_1F1B, .stages = 0, .chunks = 1, .micros = 1},
                                                 {.kind = SCHEDULE_1F1B, .stages = 2, .chunks = 2, .micros = 4},
                                                 {.kind = SCHEDULE_GPIPE, .stages = 2, .chunks = 1, .micros = 0},
                                                 {.kind = SCHEDULE_INTERLEAVED, .stages = 1, .chunks = 2, .micros = 4}};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct schedule s;
        assert_int_equal(schedule_build(&specs[i], &s), ST_CONFIG);
        status_clear();
    }
}

/* p stages fill one after another, then a micro-batch leaves in every unit of time; B and W take none. */
static void evaluations_go_forward_only(void **state)
{
    for (int p = 1; p <= MOST_STAGES; p++)
        for (int v = 1; v <= 3; v++)
            for (int m = 1; m <= MOST_MICROS; m++) {
                struct schedule_spec spec = {.kind = SCHEDULE_FORWARD_ONLY, .stages = p, .chunks = v, .micros = m};
                struct schedule s = build(spec);
                struct schedule_found found = play(&s, (struct schedule_times){1, 5, 5, 0, 0}, 2, NULL);
                assert_int_equal(schedule_limit(&spec, p - 1), 1);
                if (v == 1) assert_true(fabs(found.step_s - (m + p - 1)) < 1e-12);
                else assert_true(found.step_s >= m * v + p - 1 - 1e-12);
                schedule_free(&s);
            }
}

/* ---- exchanges ---- */

static const int trips[10 * 3] = {1, 0, 2, 1, 3, 1, 0, 0, 1, 2, 1, 1, 4};

/* Calls `check` with every shape of a few stages whose parts have experts, in turns and not. */
static void for_all_routed_shapes(void (*check)(struct schedule_spec))
{
    for (int kind = SCHEDULE_GPIPE; kind <= SCHEDULE_FORWARD_ONLY; kind++)
        for (int p = kind == SCHEDULE_INTERLEAVED ? 2 : 1; p <= 10; p += p < 4 ? 1 : 3)
            for (int v = 1; v <= (kind == SCHEDULE_INTERLEAVED ? 3 : 1); v++)
                for (int m = 1; m <= 12; m++)
                    for (int how = 0; how < 4; how++)
                        check((struct schedule_spec){.kind = kind,
                                                     .stages = p,
                                                     .chunks = v,
                                                     .micros = m,
                                                     .trips = trips,
                                                     .recompute = how & 1,
                                                     .in_turns = how & 2});
}

static void check_routed(struct schedule_spec spec)
{
    static const struct schedule_times times[] = {{1, 1, 1, 0, 0}, {1, 2, 1, 0.1, 0.2}, {1, 2, 0.01, 3, 4}};
    struct schedule s = build(spec);
    for (size_t t = 0; t < sizeof times / sizeof *times; t++) {
        int peak[MOST_INTERLEAVED];
        play(&s, times[t], schedule_buffers(&spec), peak);
        for (int i = 0; i < spec.stages; i++) assert_true(peak[i] <= schedule_limit(&spec, i));
    }
    schedule_free(&s);
}
static void tables_with_exchanges_play_to_their_end(void **state) { for_all_routed_shapes(check_routed); }

/* In turns, two messages go where one went: from 5 stages on interleaved tables need more than two buffers. */
static void turns_need_twice_the_buffers(void **state)
{
    static const int one_each[2 * MOST_INTERLEAVED] = {[0 ... 2 * MOST_INTERLEAVED - 1] = 1};
    for (int p = 5; p <= MOST_INTERLEAVED; p += 3)
        for (int m = 3 * p; m <= 4 * p; m += p) {
            struct schedule_spec spec = {.kind = SCHEDULE_INTERLEAVED,
                                         .stages = p,
                                         .chunks = 2,
                                         .micros = m,
                                         .trips = one_each,
                                         .in_turns = true};
            check_routed(spec);
            if (p % 6 == 5) need_their_buffers(spec);
        }
    is_too_long(
        (struct schedule_spec){
            .kind = SCHEDULE_INTERLEAVED, .stages = 47, .chunks = 2, .micros = 94, .trips = one_each, .in_turns = true},
        "interleaved on 47 stages in turns; it goes up to 46");
}

/* What is computed takes as long as without exchanges; one after another every exchange adds its time. */
static double routed_step(int micros, bool in_turns, double exchange)
{
    static const int layers[] = {2};
    struct schedule_times times = {1, 2, 0, 0, exchange};
    struct schedule s = build((struct schedule_spec){
        .kind = SCHEDULE_1F1B, .stages = 1, .chunks = 1, .micros = micros, .trips = layers, .in_turns = in_turns});
    struct schedule_found found = play(&s, times, 2, NULL);
    assert_true(fabs(found.step_s - 3 * micros - found.exchange_s) < 1e-9);
    schedule_free(&s);
    return found.step_s;
}

static void turns_hide_exchanges(void **state)
{
    static const double piece = 1 / 5.; /* of F; two layers with experts cut it four times, and B as often */
    for (int m = 1; m <= 8; m++) {
        assert_true(fabs(routed_step(m, false, piece) - (3 * m + 8 * m * piece)) < 1e-9);
        double left = m % 2 ? 8 * piece : 0; /* the odd one has nobody to take turns with */
        assert_true(fabs(routed_step(m, true, piece) - (3 * m + left)) < 1e-9);
        assert_true(routed_step(m, true, 3 * piece) <= routed_step(m, false, 3 * piece) - (m / 2) * 8 * piece);
    }
}

/* A stage's table as it is drawn: x and y are start and end of an exchange, which it numbers. */
static void turns_are_taken(void **state)
{
    static const int layers[] = {1};
    struct schedule s = build((struct schedule_spec){
        .kind = SCHEDULE_GPIPE, .stages = 1, .chunks = 1, .micros = 2, .trips = layers, .in_turns = true});
    char text[512] = "";
    for (int i = 0; i < s.first[1]; i++) {
        const struct instruction *in = &s.instructions[i];
        snprintf(text + strlen(text), 8, "%c%d.%d ", "FBWxysrgh"[in->op], in -> micro, in -> piece);
    }
    assert_string_equal(text, "F0.0 x0.0 F1.0 x1.0 y0.0 F0.1 x0.1 y1.0 F1.1 x1.1 y0.1 F0.2 y1.1 F1.2 "
                              "B0.0 x0.2 B1.0 x1.2 y0.2 B0.1 x0.3 y1.2 B1.1 x1.3 y0.3 B0.2 W0.0 y1.3 B1.2 W1.0 ");
    schedule_free(&s);
}

static void swap(struct schedule *s, int a, int b)
{
    struct instruction kept = s->instructions[a];
    s->instructions[a] = s->instructions[b];
    s->instructions[b] = kept;
}

static void a_broken_exchange_is_refused(void **state)
{
    struct schedule_spec spec = {
        .kind = SCHEDULE_1F1B, .stages = 2, .chunks = 1, .micros = 4, .trips = trips, .in_turns = true};
    struct schedule s = build(spec);
    for (int i = 0; i < s.first[1]; i++) {
        struct instruction kept = s.instructions[i];
        bool exchange = kept.op == SCHEDULE_START_EXCHANGE || kept.op == SCHEDULE_FINISH_EXCHANGE;
        if (exchange) {
            s.instructions[i].op = SCHEDULE_START_EXCHANGE + SCHEDULE_FINISH_EXCHANGE - kept.op;
            expect_refused(&s, "the end of an exchange for its start");
            s.instructions[i] = kept, s.instructions[i].micro ^= 1;
            expect_refused(&s, "another micro-batch's exchange");
        }
        if (kept.op <= SCHEDULE_BACKWARD || exchange) {
            s.instructions[i] = kept, s.instructions[i].piece++;
            expect_refused(&s, "another piece");
        }
        s.instructions[i] = kept;
    }
    int started[2] = {-1, -1}; /* of micro-batches 0 and 1 */
    for (int i = s.first[1] - 1; i >= 0; i--)
        if (s.instructions[i].op == SCHEDULE_START_EXCHANGE && s.instructions[i].piece == 0 &&
            s.instructions[i].micro < 2)
            started[s.instructions[i].micro] = i;
    swap(&s, started[0], started[1]);
    expect_refused(&s, "two micro-batches' exchanges swapped");
    schedule_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(evaluations_go_forward_only),
                                       cmocka_unit_test(every_shape_plays_to_its_end),
                                       cmocka_unit_test(long_interleaved_pipelines_play),
                                       cmocka_unit_test(long_interleaved_pipelines_need_their_buffers),
                                       cmocka_unit_test(bubbles_are_those_of_the_formulas),
                                       cmocka_unit_test(one_forward_one_backward),
                                       cmocka_unit_test(messages_take_their_time),
                                       cmocka_unit_test(parts_have_their_own_times),
                                       cmocka_unit_test(a_broken_table_is_refused),
                                       cmocka_unit_test(a_deadlock_is_found),
                                       cmocka_unit_test(impossible_shapes_are_refused),
                                       cmocka_unit_test(tables_with_exchanges_play_to_their_end),
                                       cmocka_unit_test(turns_need_twice_the_buffers),
                                       cmocka_unit_test(turns_hide_exchanges),
                                       cmocka_unit_test(turns_are_taken),
                                       cmocka_unit_test(a_broken_exchange_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
