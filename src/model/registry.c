/* The registry: every kind of part and every family, one row each. A part is a file, a row here, a
 * word in config_keys.h and a test. */
#include <string.h>

#include "model/family.h"
#include "model/ffn.h"
#include "model/mixer.h"
#include "model/norm.h"

extern const struct mixer_kind mixer_retention;
extern const struct ffn_kind ffn_moe;
extern const struct norm_kind norm_deepnorm;
extern const struct family family_cellfm;

const struct mixer_kind *const mixer_kinds[] = {&mixer_retention, NULL};
const struct ffn_kind *const ffn_kinds[] = {&ffn_sglu, &ffn_moe, NULL};
const struct norm_kind *const norm_kinds[] = {&norm_deepnorm, NULL};
const struct family *const families[] = {&family_cellfm, NULL};

/* The row of `kinds` that key `key` names, as `found`; the key table allows only words that have one. */
#define FIND(found, kinds, config, key) \
    do { \
        for (int i_ = 0; (kinds)[i_]; i_++) \
            if (config_word_is((config), (key), (kinds)[i_]->name)) (found) = (kinds)[i_]; \
        if (!(found)) return config_fail((config), (key), "no part of this build has that name"); \
    } while (0)

enum status mixer_create(struct build *build, const char *prefix, struct mixer **out)
{
    const struct mixer_kind *kind = NULL;
    FIND(kind, mixer_kinds, build->config, "model.mixer");
    enum status st = kind->create(build, prefix, out);
    if (*out) (*out)->kind = kind;
    return st;
}

void mixer_destroy(struct mixer **mixer)
{
    if (*mixer) (*mixer)->kind->destroy(*mixer);
    *mixer = NULL;
}

enum status ffn_create_kind(const struct ffn_kind *kind, struct build *build, const char *prefix, struct ffn **out)
{
    *out = NULL;
    enum status st = kind->create(build, prefix, out);
    if (*out && !(*out)->kind) (*out)->kind = kind; /* unless the kind left the block to another */
    return st;
}

enum status ffn_create(struct build *build, const char *prefix, struct ffn **out)
{
    const struct ffn_kind *kind = NULL;
    FIND(kind, ffn_kinds, build->config, "model.feed_forward");
    return ffn_create_kind(kind, build, prefix, out);
}

void ffn_destroy(struct ffn **ffn)
{
    if (*ffn) (*ffn)->kind->destroy(*ffn);
    *ffn = NULL;
}

enum status norm_create(struct build *build, const char *prefix, int sublayer, struct norm **out)
{
    const struct norm_kind *kind = NULL;
    FIND(kind, norm_kinds, build->config, "model.norm");
    enum status st = kind->create(build, prefix, sublayer, out);
    if (*out) (*out)->kind = kind;
    return st;
}

void norm_destroy(struct norm **norm)
{
    if (*norm) (*norm)->kind->destroy(*norm);
    *norm = NULL;
}

enum status family_find(const struct config *config, const struct family **out)
{
    *out = NULL;
    FIND(*out, families, config, "model.family");
    return ST_OK;
}
