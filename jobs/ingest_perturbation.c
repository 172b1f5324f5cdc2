#include "jobs/ingest_perturbation.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static int find(const struct h5ad_field *fields, int count, const char *name)
{
    for (int k = 0; k < count; k++)
        if (strcmp(fields[k].name, name) == 0) return k;
    return -1;
}

/* The column a key names, -1 if the key is empty. */
static enum status find_named(const struct config *config, const char *key, const struct h5ad_field *fields, int count,
                              int *out)
{
    const char *name = config_text(config, key), **names = NULL;
    enum status st = ST_OK;
    *out = *name ? find(fields, count, name) : -1;
    if (!*name || *out >= 0) return ST_OK;
    TRY(NEW_ARRAY(names, count));
    for (int k = 0; k < count; k++) names[k] = fields[k].name;
    int near = text_nearest(name, names, count);
    TRY(config_fail(config, key, "there is no obs column '%s'%s%s%s", name, near < 0 ? "" : "; did you mean '",
                    near < 0 ? "" : names[near], near < 0 ? "" : "'?"));
done:
    free(names);
    return st;
}

/* A field as a column without rows: all that planning looks at. */
static struct column prototype_of(const struct h5ad_field *f)
{
    return (struct column){.type = f->type, .category = (char **)f->category, .category_count = f->category_count};
}

enum status ingest_perturbation_plan(const struct config *config, const struct h5ad_field *fields, int count,
                                     struct ingest_perturbation *p)
{
    enum status st = ST_OK;
    struct column label, dose, guide;
    const char *mode = config_text(config, "ingest.perturbation_mode");
    *p = (struct ingest_perturbation){.label = -1, .mode = -1, .dose = -1, .guide = -1};
    TRY(find_named(config, "ingest.perturbation", fields, count, &p->label));
    if (p->label < 0) goto done;
    /* the mode is a word for all cells, or a column */
    if (*mode && !perturb_mode_parse(mode, &p->mode_default))
        TRY(find_named(config, "ingest.perturbation_mode", fields, count, &p->mode));
    TRY(find_named(config, "ingest.perturbation_dose", fields, count, &p->dose));
    TRY(find_named(config, "ingest.perturbation_guide", fields, count, &p->guide));
    label = prototype_of(&fields[p->label]);
    if (p->dose >= 0) dose = prototype_of(&fields[p->dose]);
    if (p->guide >= 0) guide = prototype_of(&fields[p->guide]);
    struct perturbation_columns from = {
        .label = &label, .dose = p->dose < 0 ? NULL : &dose, .guide = p->guide < 0 ? NULL : &guide};
    st = perturbation_plan_create(&from, &p->plan);
    if (st != ST_OK) status_prefix("obs column '%s': ", fields[p->label].name);
    for (int k = 0; k < PERTURB_COLUMN_COUNT; k++) p->count += p->plan.has[k];
done:
    return st;
}

void ingest_perturbation_free(struct ingest_perturbation *p) { perturbation_plan_free(&p->plan); }

/* A gene set is no longer than its label, but for "control". */
static int32_t width_of(const struct ingest_perturbation *p, const struct h5ad_field *fields, int k)
{
    int32_t width = fields[k == PERTURB_GENES ? p->label : p->guide].text_bytes;
    return k == PERTURB_GENES && width < (int32_t)sizeof "control" ? (int32_t)sizeof "control" : width;
}

void ingest_perturbation_fields(const struct ingest_perturbation *p, const struct h5ad_field *fields,
                                struct h5ad_field *out)
{
    for (int k = 0, n = 0; k < PERTURB_COLUMN_COUNT; k++) {
        const struct column *c = &p->plan.prototype[k];
        if (!p->plan.has[k]) continue;
        out[n++] = (struct h5ad_field){.name = c->name,
                                       .type = c->type,
                                       .text_bytes = c->type == COLUMN_TEXT ? width_of(p, fields, k) : 0,
                                       .nullable = c->type == COLUMN_BOOL,
                                       .category = (const char *const *)c->category,
                                       .category_count = c->category_count};
    }
}

/* A read column with the categories of its field, so that codes have words. */
static struct column worded(const struct h5ad_field *fields, const struct column *columns, int k)
{
    struct column c = columns[k];
    c.category = (char **)fields[k].category;
    c.category_count = fields[k].category_count;
    return c;
}

enum status ingest_perturbation_build(const struct ingest_perturbation *p, const struct h5ad_field *fields,
                                      const struct column *columns, struct column *out)
{
    struct column label, mode, dose, guide, made[PERTURB_COLUMN_COUNT];
    if (p->count == 0) return ST_OK;
    label = worded(fields, columns, p->label);
    if (p->mode >= 0) mode = worded(fields, columns, p->mode);
    if (p->dose >= 0) dose = worded(fields, columns, p->dose);
    if (p->guide >= 0) guide = worded(fields, columns, p->guide);
    struct perturbation_columns from = {.label = &label,
                                        .mode = p->mode < 0 ? NULL : &mode,
                                        .dose = p->dose < 0 ? NULL : &dose,
                                        .guide = p->guide < 0 ? NULL : &guide,
                                        .mode_default = p->mode_default};
    enum status st = perturbation_build(&p->plan, &from, made);
    for (int k = 0, n = 0; st == ST_OK && k < PERTURB_COLUMN_COUNT; k++)
        if (p->plan.has[k]) out[n++] = made[k];
    return st;
}
