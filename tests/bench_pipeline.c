/* Does a step of the pipeline take as long as its simulation says?
 * plan: ranks=2
 * An ERetNet of 8 blocks of width 512 over two stages of one thread each, 8 micro-batches of one cell. In every round
 * each part's F, B and W are timed on its rank while the other rank waits, and a message from one to the other, before
 * and after the step that is measured; the schedule's table is played with these times. Figures are medians over rounds
 * (5, or as many as the argument says); other programs on the machine, memory that two ranks share, and messages that
 * wait for a poll show in the ratio. */
#include "bench_cells.h"
#include "golden.h"
#include "mpi/stage.h"

enum {
    STAGES = 2,
    MICROS = 8,
    TOKENS = 256,
    TIMED = 4 /* micro-batches */,
    GENES = 2000,
    ROUNDS = 7,
    MOST_PARTS = 4,
    MESSAGE_TAG = 7
};

struct scene {
    struct mesh mesh;
    struct stage_plan plan;
    struct config *config;
    struct vocab *vocab;
    struct model *model;
    struct stage *stage;
    struct schedule schedule;
    struct batch micro[MICROS];
    int64_t message_bytes;
    void *in, *out;
};

/* ---- a stage of the model ---- */

static void build_model(struct scene *s, const struct model_limits *limits)
{
    int first[MOST_PARTS + 1];
    struct model *whole;
    require(model_create(s->config, s->vocab, NULL, &whole));
    require(stage_cut(whole, limits, &s->plan, STAGES, first));
    model_destroy(&whole);
    struct model_hold hold = stage_hold(&s->plan, STAGES, s->mesh.pipe.rank, first);
    require(model_create(s->config, s->vocab, &hold, &s->model));
    require(param_allocate(model_params(s->model), true));
    param_initialise(model_params(s->model), 1);
    require(model_prepare(s->model, limits));
    require(model_pack(s->model));
}

static void scene_open(struct scene *s, struct comm *world, enum schedule_kind kind, int chunks)
{
    static const char *const keys[] = {"model.layers=8", "model.width=512", "model.heads=16", "run.seed=1"};
    *s = (struct scene){.plan = {kind, chunks, MICROS, MICROS}};
    require(mesh_open(world, (struct mesh_shape){.data = 1, .pipe = STAGES, .expert = 1}, &s->mesh));
    require(config_create(&s->config));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) require(config_set(s->config, keys[i], "benchmark"));
    s->vocab = golden_vocab(GENES);
    struct model_limits limits = {.cells = 1,
                                  .tokens = TOKENS,
                                  .train = true,
                                  .threads = 1,
                                  .slots = stage_slots(&s->plan, STAGES, s->mesh.pipe.rank),
                                  .splits = schedule_splits(kind)};
    build_model(s, &limits);
    require(stage_create(&s->mesh, s->model, &limits, &s->plan, &s->stage));
    require(schedule_build(&(struct schedule_spec){.kind = kind, .stages = STAGES, .chunks = chunks, .micros = MICROS},
                           &s->schedule));
    for (int i = 0; i < MICROS; i++) fill_cells(&s->micro[i], 1, i, TOKENS, GENES);
    s->message_bytes = model_message_bytes(s->model, TOKENS);
    s->in = block_of((size_t)s->message_bytes);
    s->out = block_of((size_t)s->message_bytes);
    fill_normal(s->in, s->message_bytes / 4, DTYPE_F32, 3, 1);
}

static void scene_close(struct scene *s)
{
    for (int i = 0; i < MICROS; i++) batch_destroy(&s->micro[i]);
    free(s->in), free(s->out);
    schedule_free(&s->schedule);
    stage_destroy(&s->stage);
    model_destroy(&s->model);
    vocab_destroy(&s->vocab);
    config_destroy(&s->config);
    mesh_close(&s->mesh);
}

/* ---- its times alone, and those of a step ---- */

/* Means over some of the micro-batches. */
static struct schedule_times time_part(struct scene *s, int chunk, bool first, bool last)
{
    struct schedule_times t = {0};
    struct loss_sum loss = {0};
    struct model_how how = {.train = true, .scale = 1e-3};
    for (int i = 0; i < TIMED; i++) {
        double start = clock_s();
        require(model_forward_part(s->model, 0, chunk, &s->micro[i], &how, first ? NULL : s->in, last ? NULL : s->out,
                                   &loss));
        double forward = clock_s();
        require(model_backward_part(s->model, 0, last ? NULL : s->in, first ? NULL : s->out));
        double backward = clock_s();
        model_weights_part(s->model, 0);
        t.forward += (forward - start) / TIMED;
        t.backward += (backward - forward) / TIMED;
        t.weights += (clock_s() - backward) / TIMED;
    }
    return t;
}

/* One way, from send to arrival: half of there and back. */
static double time_message(struct scene *s)
{
    struct comm *pipe = &s->mesh.pipe;
    comm_barrier(pipe);
    double start = clock_s();
    for (int i = 0; i < MICROS; i++) {
        if (pipe->rank == 0) comm_send(pipe, s->out, s->message_bytes, 1, MESSAGE_TAG);
        comm_receive(pipe, s->in, s->message_bytes, 1 - pipe->rank, MESSAGE_TAG);
        if (pipe->rank == 1) comm_send(pipe, s->out, s->message_bytes, 0, MESSAGE_TAG);
    }
    return (clock_s() - start) / (2 * MICROS);
}

/* The step that the parts' own times promise. */
static double simulate_step(struct scene *s)
{
    struct schedule_times times[MOST_PARTS] = {{0}};
    struct schedule_found found = {0};
    int parts = STAGES * s->plan.chunks;
    double message_s = time_message(s);
    for (int part = 0; part < parts; part++) {
        comm_barrier(&s->mesh.pipe);
        if (part % STAGES == s->mesh.pipe.rank) times[part] = time_part(s, part / STAGES, part == 0, part == parts - 1);
    }
    comm_sum_f64(&s->mesh.pipe, &times[0].forward, MOST_PARTS * (int64_t)(sizeof *times / sizeof(double)));
    for (int part = 0; part < parts; part++) times[part].message = message_s;
    require(schedule_simulate_parts(&s->schedule, times, schedule_buffers(&s->schedule.spec), &found));
    return found.step_s;
}

static double measure_step(struct scene *s)
{
    struct loss_sum loss = {0};
    struct model_how how = {.train = true, .scale = 1e-3};
    comm_barrier(&s->mesh.pipe);
    double start = clock_s();
    require(stage_gradient(&s->mesh.pipe, s->stage, s->micro, MICROS, &how, &loss));
    comm_barrier(&s->mesh.pipe);
    return clock_s() - start;
}

static void bench_schedule(struct comm *world, enum schedule_kind kind, int chunks, int rounds)
{
    struct scene scene;
    double simulated[ROUNDS], measured[ROUNDS], ratio[ROUNDS];
    scene_open(&scene, world, kind, chunks);
    measure_step(&scene);
    for (int i = 0; i < rounds; i++) {
        double before = simulate_step(&scene);
        measured[i] = measure_step(&scene);
        simulated[i] = (before + simulate_step(&scene)) / 2;
        ratio[i] = measured[i] / simulated[i];
    }
    double middle = median(ratio, rounds);
    const char *name = schedule_name(kind);
    comm_print(world, "BENCH\tpipeline step, %s, simulated\t%.3f\ts\t-\t-\n", name, median(simulated, rounds));
    comm_print(world, "BENCH\tpipeline step, %s, measured\t%.3f\ts\t-\t-\n", name, median(measured, rounds));
    comm_print(world, "BENCH\tpipeline step, %s, measured over simulated\t%.3f\tratio\t0.9 to 1.1\t%s\n", name, middle,
               middle >= 0.9 && middle <= 1.1 ? "yes" : "no");
    scene_close(&scene);
}

int main(int argc, char **argv)
{
    struct comm world;
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    if (rounds < 1 || rounds > ROUNDS) rounds = ROUNDS;
    require(comm_open(&argc, &argv, &world));
    bool fits = world.size == STAGES && sysconf(_SC_NPROCESSORS_ONLN) >= STAGES;
    if (!fits) comm_print(&world, "needs two ranks on two cores\n");
    for (int kind = SCHEDULE_GPIPE; fits && kind <= SCHEDULE_ZB_H1; kind++)
        bench_schedule(&world, (enum schedule_kind)kind, kind == SCHEDULE_INTERLEAVED ? 2 : 1, rounds);
    comm_close(&world);
    return fits ? 0 : 77;
}
