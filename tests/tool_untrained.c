/* A checkpoint of a network that was never trained:
 *   tool_untrained OUT VOCABULARY SEED GAIN [section.key=value]...
 * Weights as at the start of training, matrices times GAIN (with GAIN 1 all cells look nearly alike). For tests
 * of programs that read a model, and as the "untrained" column beside real embeddings. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "io/checkpoint.h"

static void initialise(struct param_table *t, uint64_t seed, double gain)
{
    param_initialise(t, seed);
    for (int r = 0; r < t->count; r++) {
        const struct param *p = &t->rows[r];
        if (p->init != INIT_NORMAL && p->init != INIT_UNIFORM) continue;
        for (int64_t i = 0; i < p->rows * p->cols; i++) param_weight(t, r)[i] *= (real)gain;
    }
}

static enum status write_untrained(struct comm *world, int argc, char **argv)
{
    enum status st = ST_OK;
    struct config *config = NULL;
    struct vocab *vocab = NULL;
    struct model *model = NULL;
    struct mesh mesh = {0};
    int64_t seed = 0;
    double gain = 1;
    if (argc < 5 || !text_to_int(argv[3], &seed) || !text_to_real(argv[4], &gain))
        return fail(ST_USAGE, "usage: %s OUT VOCABULARY SEED GAIN [section.key=value]...", argv[0]);
    TRY(config_create(&config));
    for (int a = 5; a < argc; a++) TRY(config_set(config, argv[a], "command line"));
    TRY(vocab_read(argv[2], &vocab));
    TRY(model_create(config, vocab, NULL, &model));
    TRY(param_allocate(model_params(model), false));
    initialise(model_params(model), (uint64_t)seed, gain);
    struct train_state state = {.seed = (uint64_t)seed, .best_loss = NAN};
    TRY(mesh_open(world, (struct mesh_shape){0, 1, 1}, &mesh));
    TRY(checkpoint_write(&mesh, argv[1], model_params(model), config, vocab, model_name(model), &state));
done:
    mesh_close(&mesh);
    model_destroy(&model);
    vocab_destroy(&vocab);
    config_destroy(&config);
    return st;
}

int main(int argc, char **argv)
{
    struct comm world;
    if (comm_open(&argc, &argv, &world) != ST_OK) return ST_COMM;
    enum status st = comm_agree(&world, write_untrained(&world, argc, argv));
    comm_close(&world);
    return st;
}
