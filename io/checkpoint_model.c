/* What a checkpoint holds besides tensors: format, configuration, vocabulary, state. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint_file.h"
#include "io/h5.h"

static enum status check_format(hid_t file)
{
    enum status st = ST_OK;
    char *format = NULL;
    int64_t version = 0;
    if (!h5_attr_exists(file, "format")) TRY(fail(ST_INPUT, "not a checkpoint: it has no attribute 'format'"));
    TRY(h5_attr_read_text(file, "format", &format));
    if (strcmp(format, CHECKPOINT_FORMAT) != 0)
        TRY(fail(ST_INPUT, "not a checkpoint: its format is '%.60s', not '%s'", format, CHECKPOINT_FORMAT));
    TRY(h5_attr_read_int(file, "format_version", &version));
    if (version != CHECKPOINT_VERSION)
        TRY(fail(ST_INPUT,
                 "checkpoint of version %lld, this program reads version %d; use the program that wrote it, or train "
                 "again",
                 (long long)version, CHECKPOINT_VERSION));
done:
    free(format);
    return st;
}

enum status checkpoint_file_open(const char *path, hid_t *file)
{
    enum status st = ST_OK;
    TRY(h5_open(path, file));
    st = check_format(*file);
    if (st != ST_OK) status_prefix("%s: ", path);
done:
    return st;
}

void checkpoint_small_free(struct checkpoint_small *s)
{
    free(s->config_text);
    free(s->model_name);
    free(s->vocab_text);
}

static enum status read_vocabulary_text(hid_t file, struct checkpoint_small *s)
{
    enum status st = ST_OK;
    int rank;
    int64_t dims[8];
    TRY(h5_shape(file, "vocabulary", &rank, dims));
    if (rank != 1) TRY(fail(ST_INPUT, "damaged: 'vocabulary' has %d dimensions, not 1", rank));
    s->vocab_bytes = (size_t)dims[0];
    TRY(NEW_ARRAY(s->vocab_text, dims[0] + 1));
    TRY(h5_read(file, "vocabulary", H5T_NATIVE_UINT8, dims[0], s->vocab_text));
    s->vocab_text[dims[0]] = '\0';
done:
    return st;
}

static enum status read_history(hid_t state, const char *name, struct history *h)
{
    enum status st = ST_OK;
    hid_t dataset = H5_NONE;
    int rank;
    int64_t dims[8];
    *h = (struct history){0};
    TRY(h5_shape(state, name, &rank, dims));
    if (rank != 2 || dims[0] > HISTORY_MOST || dims[1] != HISTORY_VALUES)
        TRY(fail(ST_INPUT, "damaged: the history '%s' has not at most %d points of %d numbers", name, HISTORY_MOST,
                 HISTORY_VALUES));
    h->count = dims[0];
    TRY(h5_read(state, name, H5T_NATIVE_DOUBLE, dims[0] * dims[1], h->point));
    dataset = H5Dopen2(state, name, H5P_DEFAULT);
    TRY(h5_attr_read_int(dataset, "offered", &h->offered));
    TRY(h5_attr_read_int(dataset, "halvings", &h->halvings));
    if (h->halvings < 0 || h->halvings > 62)
        TRY(fail(ST_INPUT, "damaged: the history '%s' was halved %lld times", name, (long long)h->halvings));
done:
    h5_drop(&dataset);
    return st;
}

static enum status read_state(hid_t file, struct train_state *s, uint64_t *check)
{
    enum status st = ST_OK;
    hid_t group = H5_NONE;
    int64_t seed = 0, hash = 0;
    char *atlas = NULL;
    TRY(h5_group_open(file, "state", &group));
    TRY(h5_attr_read_int(group, "step", &s->step));
    TRY(h5_attr_read_int(group, "cells_seen", &s->cells_seen));
    TRY(h5_attr_read_int(group, "global_batch", &s->global_batch));
    TRY(h5_attr_read_int(group, "seed", &seed));
    TRY(h5_attr_read_real(group, "best_loss", &s->best_loss));
    TRY(h5_attr_read_text(group, "atlas_hash", &atlas));
    TRY(h5_attr_read_int(group, "guard_accepted", &s->guard.accepted));
    TRY(h5_attr_read_int(group, "guard_skipped_in_a_row", &s->guard.skipped_in_a_row));
    TRY(h5_attr_read_int(group, "guard_skipped", &s->guard.skipped));
    TRY(h5_read(group, "guard_norm", H5T_NATIVE_DOUBLE, GUARD_NORMS, s->guard.norm));
    TRY(read_history(group, "trained", &s->trained));
    TRY(read_history(group, "evaluated", &s->evaluated));
    TRY(h5_attr_read_int(group, "check", &hash));
    s->seed = (uint64_t)seed;
    snprintf(s->atlas_hash, sizeof s->atlas_hash, "%s", atlas);
    *check = (uint64_t)hash;
done:
    free(atlas);
    h5_drop(&group);
    return st;
}

enum status checkpoint_small_read(hid_t file, struct checkpoint_small *s)
{
    enum status st = ST_OK;
    uint64_t check = 0;
    TRY(h5_attr_read_text(file, "model_name", &s->model_name));
    TRY(h5_read_text(file, "config", &s->config_text));
    TRY(read_vocabulary_text(file, s));
    TRY(read_state(file, &s->state, &check));
    if (check != checkpoint_small_check(s->config_text, s->vocab_text, s->vocab_bytes, s->model_name, &s->state))
        TRY(fail(ST_INPUT,
                 "damaged: configuration, vocabulary or state do not match their checksum; use an older checkpoint"));
done:
    return st;
}

enum status checkpoint_small_share(struct comm *comm, const char *path, struct checkpoint_small *s)
{
    enum status st = ST_OK;
    hid_t file = H5_NONE;
    int64_t bytes = 0;
    if (comm->rank == 0) {
        st = checkpoint_file_open(path, &file);
        if (st == ST_OK && (st = checkpoint_small_read(file, s)) != ST_OK) status_prefix("%s: ", path);
        h5_drop(&file);
    }
    TRY(comm_agree(comm, st));
    comm_bcast_text(comm, &s->config_text, 0);
    comm_bcast_text(comm, &s->model_name, 0);
    bytes = (int64_t)s->vocab_bytes;
    comm_bcast(comm, &bytes, sizeof bytes, 0);
    s->vocab_bytes = (size_t)bytes;
    if (comm->rank != 0) st = NEW_ARRAY(s->vocab_text, bytes + 1);
    TRY(comm_agree(comm, st));
    comm_bcast(comm, s->vocab_text, bytes + 1, 0);
    comm_bcast(comm, &s->state, sizeof s->state, 0);
done:
    return st;
}

/* ---- configuration of the model ---- */

static enum status parse_config(const char *text, struct config **out)
{
    enum status st = ST_OK;
    char path[64];
    FILE *file = tmpfile();
    if (!file)
        return fail(ST_OUTPUT, "no temporary file for the checkpoint's configuration; set TMPDIR to a writable folder");
    fputs(text, file);
    if (fflush(file) != 0)
        TRY(fail(ST_OUTPUT, "the temporary file of the checkpoint's configuration cannot be written"));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(file));
    TRY(config_create(out));
    TRY(config_read(*out, path));
done:
    fclose(file);
    return st;
}

static void value_text(const struct config *config, const struct config_key *key, char out[256])
{
    switch (key->type) {
    case KEY_INT: snprintf(out, 256, "%lld", (long long)config_int(config, key->name)); break;
    case KEY_REAL: snprintf(out, 256, "%.17g", config_real(config, key->name)); break;
    case KEY_BOOL: snprintf(out, 256, "%s", config_bool(config, key->name) ? "true" : "false"); break;
    default: snprintf(out, 256, "%s", config_text(config, key->name)); break;
    }
}

/* Keys of the model section that a user may change without making it another model. */
static bool is_free_key(const char *name)
{
    static const char *const free_keys[] = {
        "model.name",      "model.licence",         "model.max_genes",     "model.min_genes", "model.drop_long_cells",
        "model.cap_total", "model.select_fraction", "model.hide_fraction", "model.dropout"};
    for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++)
        if (strcmp(free_keys[i], name) == 0) return true;
    return false;
}

static enum status merge_config(const char *path, const struct config *stored, struct config *config)
{
    enum status st = ST_OK;
    char theirs[256], ours[256];
    for (int k = 0; k < config_key_count; k++) {
        const struct config_key *key = &config_keys[k];
        if (strncmp(key->name, "model.", 6) != 0) continue;
        value_text(stored, key, theirs);
        value_text(config, key, ours);
        if (strcmp(theirs, ours) == 0) continue;
        if (!config_is_given(config, key->name)) TRY(config_put(config, key->name, theirs, path));
        else if (!is_free_key(key->name))
            TRY(fail(ST_INPUT,
                     "%s: was trained with %s %s, this run asks for %s; use its configuration, or another checkpoint",
                     path, key->name, theirs, ours));
    }
done:
    return st;
}

static enum status compare_keys(const char *path, const struct config *stored, const struct config *config,
                                const char *const *keys)
{
    enum status st = ST_OK;
    const char *theirs, *ours;
    for (; *keys; keys++) {
        char a[256] = "", b[256] = "";
        const struct config_key *row = config_keys;
        while (strcmp(row->name, *keys) != 0) row++;
        TRY(config_written(stored, *keys, &theirs));
        TRY(config_written(config, *keys, &ours));
        if (row->type != KEY_TEXT) value_text(stored, row, a), value_text(config, row, b); /* 1e2 is 100 */
        if (strcmp(theirs, ours) == 0 || (*a && strcmp(a, b) == 0)) continue;
        TRY(config_fail(config, *keys,
                        "%s was trained with '%s', and a resumed run keeps it: give that value, or another --out", path,
                        theirs));
    }
done:
    return st;
}

enum status checkpoint_check_keys(struct comm *comm, const char *path, const struct config *config,
                                  const char *const *keys)
{
    struct checkpoint_small small = {0};
    struct config *stored = NULL;
    enum status st = checkpoint_small_share(comm, path, &small);
    if (st != ST_OK) goto done;
    st = parse_config(small.config_text, &stored);
    if (st == ST_OK) st = compare_keys(path, stored, config, keys);
    st = comm_agree(comm, st);
done:
    if (stored) config_destroy(&stored);
    checkpoint_small_free(&small);
    return st;
}

enum status checkpoint_open_model(struct comm *comm, const char *path, struct config *config, struct vocab **vocab)
{
    struct checkpoint_small small = {0};
    struct config *stored = NULL;
    enum status st = checkpoint_small_share(comm, path, &small);
    if (st != ST_OK) goto done;
    st = parse_config(small.config_text, &stored);
    if (st == ST_OK) st = merge_config(path, stored, config);
    if (st == ST_OK) st = vocab_parse(small.vocab_text, small.vocab_bytes, path, vocab);
    st = comm_agree(comm, st);
done:
    if (stored) config_destroy(&stored);
    checkpoint_small_free(&small);
    return st;
}
