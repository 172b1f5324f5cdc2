#include "cell/perturbation.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* ---- words ---- */

static const char *const mode_words[] = {
#define X(name, word) word,
    PERTURB_MODE_LIST(X)
#undef X
};

static const struct {
    const char *word;
    enum perturb_mode mode;
} mode_aliases[] = {{"crispr", PERTURB_KNOCK_OUT},
                    {"crispr-ko", PERTURB_KNOCK_OUT},
                    {"crispr-cas9", PERTURB_KNOCK_OUT},
                    {"cas9", PERTURB_KNOCK_OUT},
                    {"ko", PERTURB_KNOCK_OUT},
                    {"knockout", PERTURB_KNOCK_OUT},
                    {"deletion", PERTURB_KNOCK_OUT},
                    {"crispri", PERTURB_INTERFERENCE},
                    {"knockdown", PERTURB_INTERFERENCE},
                    {"knock-down", PERTURB_INTERFERENCE},
                    {"kd", PERTURB_INTERFERENCE},
                    {"rnai", PERTURB_INTERFERENCE},
                    {"sirna", PERTURB_INTERFERENCE},
                    {"shrna", PERTURB_INTERFERENCE},
                    {"crispra", PERTURB_ACTIVATION},
                    {"overexpression", PERTURB_ACTIVATION},
                    {"over-expression", PERTURB_ACTIVATION},
                    {"oe", PERTURB_ACTIVATION},
                    {"orf", PERTURB_ACTIVATION},
                    {"chemical", PERTURB_DRUG},
                    {"compound", PERTURB_DRUG},
                    {"small-molecule", PERTURB_DRUG},
                    {"cytokine", PERTURB_DRUG},
                    {"treatment", PERTURB_DRUG}};

static const char *const control_words[] = {"control",
                                            "ctrl",
                                            "ctl",
                                            "controls",
                                            "non-targeting",
                                            "nontargeting",
                                            "nt",
                                            "ntc",
                                            "non-target",
                                            "safe-targeting",
                                            "safetargeting",
                                            "neg-control",
                                            "neg-ctrl",
                                            "negative-control",
                                            "negctrl",
                                            "scramble",
                                            "scrambled",
                                            "unperturbed",
                                            "untreated",
                                            "unstimulated",
                                            "vehicle",
                                            "dmso",
                                            "mock",
                                            "wt",
                                            "wild-type",
                                            "wildtype"};

/* Lower case, with blanks and _ as -, so that spellings meet. False if it does not fit. */
static bool normalise(const char *word, size_t length, char out[64])
{
    while (length > 0 && isspace((unsigned char)*word)) word++, length--;
    while (length > 0 && isspace((unsigned char)word[length - 1])) length--;
    if (length >= 64) return false;
    for (size_t i = 0; i < length; i++) {
        char c = (char)tolower((unsigned char)word[i]);
        out[i] = c == '_' || c == ' ' ? '-' : c;
    }
    out[length] = '\0';
    return true;
}

const char *perturb_mode_word(enum perturb_mode mode) { return mode_words[mode]; }

bool perturb_mode_parse(const char *word, enum perturb_mode *out)
{
    char plain[64];
    if (!normalise(word, strlen(word), plain)) return false;
    for (size_t k = 0; k < sizeof mode_words / sizeof *mode_words; k++)
        if (strcmp(plain, mode_words[k]) == 0) {
            *out = (enum perturb_mode)k;
            return true;
        }
    for (size_t k = 0; k < sizeof mode_aliases / sizeof *mode_aliases; k++)
        if (strcmp(plain, mode_aliases[k].word) == 0) {
            *out = mode_aliases[k].mode;
            return true;
        }
    return false;
}

/* "non-targeting" may be numbered: non-targeting-00012, NT_3. (WT1 is a gene.) */
static bool is_control(const char *word, size_t length)
{
    char plain[64];
    if (!normalise(word, length, plain)) return false;
    char *dash = strrchr(plain, '-');
    if (dash && dash[1] && strspn(dash + 1, "0123456789") == strlen(dash + 1)) *dash = '\0';
    for (size_t k = 0; k < sizeof control_words / sizeof *control_words; k++)
        if (strcmp(plain, control_words[k]) == 0) return true;
    return false;
}

bool perturbation_is_control_word(const char *word) { return is_control(word, strlen(word)); }

/* ---- labels ---- */

static enum status add_gene(const char *label, const char *start, size_t length, struct perturbation *out)
{
    while (length > 0 && isspace((unsigned char)*start)) start++, length--;
    while (length > 0 && isspace((unsigned char)start[length - 1])) length--;
    if (length == 0)
        return fail(ST_INPUT, "the perturbation '%s' has an empty part; write A+B, A+ctrl or control", label);
    if (is_control(start, length)) return ST_OK;
    for (int k = 0; k < out->gene_count; k++)
        if (strlen(out->genes[k]) == length && strncmp(out->genes[k], start, length) == 0) return ST_OK;
    if (out->gene_count == PERTURB_MAX_GENES)
        return fail(ST_INPUT, "the perturbation '%s' has more than %d genes", label, PERTURB_MAX_GENES);
    out->genes[out->gene_count++] = text_format("%.*s", (int)length, start);
    return ST_OK;
}

enum status perturbation_parse(const char *label, struct perturbation *out)
{
    enum status st = ST_OK;
    *out = (struct perturbation){.dose = NAN, .guide = text_copy("")};
    for (const char *at = label;; at++) {
        size_t length = strcspn(at, "+|;");
        TRY(add_gene(label, at, length, out));
        at += length;
        if (!*at) break;
    }
    out->is_control = out->gene_count == 0;
done:
    if (st != ST_OK) perturbation_free(out);
    return st;
}

void perturbation_free(struct perturbation *p)
{
    for (int k = 0; k < p->gene_count; k++) free(p->genes[k]);
    free(p->guide);
    *p = (struct perturbation){0};
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

char *perturbation_key(const struct perturbation *p)
{
    const char *sorted[PERTURB_MAX_GENES];
    struct text key = {0};
    for (int k = 0; k < p->gene_count; k++) sorted[k] = p->genes[k];
    qsort(sorted, (size_t)p->gene_count, sizeof *sorted, by_name);
    for (int k = 0; k < p->gene_count; k++) text_add(&key, "%s%s", k ? "+" : "", sorted[k]);
    return key.data ? key.data : text_copy("");
}

/* What a label says: the text for perturb_genes (caller frees), and whether it is a control. */
static enum status read_label(const char *label, char **genes, bool *is_control_cell)
{
    struct perturbation p = {0};
    enum status st = perturbation_parse(label, &p);
    if (st != ST_OK) return st;
    *genes = p.is_control ? text_copy("control") : perturbation_key(&p);
    *is_control_cell = p.is_control;
    perturbation_free(&p);
    return ST_OK;
}

/* ---- plan ---- */

static enum status prepare_column(struct column *c, const char *name, enum column_type type, int32_t categories)
{
    *c = (struct column){.name = text_copy(name), .type = type};
    return type == COLUMN_CATEGORY ? NEW_ARRAY(c->category, categories) : ST_OK;
}

/* Distinct gene sets of the labels, in their order; A+B and B+A are one. */
static enum status plan_genes(const struct column *label, struct perturbation_plan *plan)
{
    enum status st = ST_OK;
    struct column *genes = &plan->prototype[PERTURB_GENES];
    TRY(NEW_ARRAY(plan->genes_of_label, label->category_count));
    TRY(NEW_ARRAY(plan->control_of_label, label->category_count));
    for (int32_t k = 0; k < label->category_count; k++) {
        char *key = NULL;
        bool control = false;
        int32_t found = 0;
        if (!*label->category[k]) {
            plan->genes_of_label[k] = -1;
            continue;
        }
        TRY(read_label(label->category[k], &key, &control));
        while (found < genes->category_count && strcmp(genes->category[found], key) != 0) found++;
        if (found == genes->category_count) genes->category[genes->category_count++] = key;
        else free(key);
        plan->genes_of_label[k] = found;
        plan->control_of_label[k] = control;
    }
done:
    return st;
}

static enum status plan_modes(struct column *c)
{
    for (size_t k = 0; k < sizeof mode_words / sizeof *mode_words; k++)
        c->category[c->category_count++] = text_copy(mode_words[k]);
    return ST_OK;
}

enum status perturbation_plan_create(const struct perturbation_columns *from, struct perturbation_plan *plan)
{
    enum status st = ST_OK;
    const struct column *guide = from->guide;
    bool sets = from->label->type == COLUMN_CATEGORY, guides = guide && guide->type == COLUMN_CATEGORY;
    struct column *c = plan->prototype;
    *plan = (struct perturbation_plan){.has = {true, true, true, from->dose != NULL, guide != NULL}};
    TRY(prepare_column(&c[PERTURB_GENES], "perturb_genes", sets ? COLUMN_CATEGORY : COLUMN_TEXT,
                       from->label->category_count));
    TRY(prepare_column(&c[PERTURB_MODE], "perturb_mode", COLUMN_CATEGORY,
                       (int32_t)(sizeof mode_words / sizeof *mode_words)));
    TRY(prepare_column(&c[PERTURB_CONTROL], "perturb_control", COLUMN_BOOL, 0));
    TRY(prepare_column(&c[PERTURB_DOSE], "perturb_dose", COLUMN_REAL, 0));
    TRY(prepare_column(&c[PERTURB_GUIDE], "perturb_guide", guides ? COLUMN_CATEGORY : COLUMN_TEXT,
                       guides ? guide->category_count : 0));
    if (sets) TRY(plan_genes(from->label, plan));
    TRY(plan_modes(&c[PERTURB_MODE]));
    for (int32_t k = 0; guides && k < guide->category_count; k++)
        c[PERTURB_GUIDE].category[c[PERTURB_GUIDE].category_count++] = text_copy(guide->category[k]);
done:
    if (st != ST_OK) perturbation_plan_free(plan);
    return st;
}

void perturbation_plan_free(struct perturbation_plan *plan)
{
    for (int k = 0; k < PERTURB_COLUMN_COUNT; k++) column_free(&plan->prototype[k]);
    free(plan->genes_of_label);
    free(plan->control_of_label);
    *plan = (struct perturbation_plan){0};
}

/* ---- rows ---- */

static enum status allocate(const struct perturbation_plan *plan, int64_t count,
                            struct column out[PERTURB_COLUMN_COUNT])
{
    enum status st = ST_OK;
    for (int k = 0; k < PERTURB_COLUMN_COUNT; k++) {
        enum column_type type = plan->prototype[k].type;
        if (!plan->has[k]) continue;
        out[k] = (struct column){.name = text_copy(plan->prototype[k].name), .type = type, .count = count};
        if (type == COLUMN_CATEGORY) TRY(NEW_ARRAY(out[k].code, count));
        if (type == COLUMN_TEXT) TRY(NEW_ARRAY(out[k].text, count));
        if (type == COLUMN_REAL) TRY(NEW_ARRAY(out[k].r, count));
        if (type == COLUMN_BOOL) TRY(NEW_ARRAY(out[k].i, count));
    }
done:
    return st;
}

/* Genes and control flag of a row; false if nothing is known about it. */
static enum status build_genes(const struct perturbation_plan *plan, const struct column *label, int64_t row,
                               struct column *out, bool *known)
{
    char buffer[32];
    bool control = false;
    const char *text = column_as_text(label, row, buffer);
    *known = *text != '\0';
    out[PERTURB_CONTROL].i[row] = INT64_MIN;
    if (plan->genes_of_label) out[PERTURB_GENES].code[row] = -1;
    if (!*known) return ST_OK;
    if (plan->genes_of_label) {
        out[PERTURB_GENES].code[row] = plan->genes_of_label[label->code[row]];
        control = plan->control_of_label[label->code[row]];
    } else {
        enum status st = read_label(text, &out[PERTURB_GENES].text[row], &control);
        if (st != ST_OK) return st;
    }
    out[PERTURB_CONTROL].i[row] = control;
    return ST_OK;
}

static int32_t read_mode(const struct perturbation_columns *from, int64_t row)
{
    char buffer[32];
    enum perturb_mode mode = PERTURB_UNKNOWN;
    if (!from->mode) return (int32_t)from->mode_default;
    const char *word = column_as_text(from->mode, row, buffer);
    if (!*word) return -1;
    return perturb_mode_parse(word, &mode) ? (int32_t)mode : PERTURB_UNKNOWN;
}

/* A number, or "1+1" with one for each gene: then their common value, unknown if they differ. */
static double read_dose(const struct column *dose, int64_t row)
{
    double common = NAN, value;
    char buffer[32], part[32];
    if (dose->type == COLUMN_REAL) return dose->r[row];
    for (const char *at = column_as_text(dose, row, buffer);; at++) {
        size_t length = strcspn(at, "+");
        if (length >= sizeof part) return NAN;
        memcpy(part, at, length);
        part[length] = '\0';
        if (!text_to_real(part, &value) || (!isnan(common) && value != common)) return NAN;
        common = value;
        at += length;
        if (!*at) return common;
    }
}

static void build_guide(const struct column *guide, int64_t row, struct column *out)
{
    char buffer[32];
    const char *text = column_as_text(guide, row, buffer);
    if (out->code) out->code[row] = guide->code[row];
    else out->text[row] = *text ? text_copy(text) : NULL;
}

enum status perturbation_build(const struct perturbation_plan *plan, const struct perturbation_columns *from,
                               struct column out[PERTURB_COLUMN_COUNT])
{
    enum status st = ST_OK;
    int64_t row = 0;
    memset(out, 0, sizeof *out * PERTURB_COLUMN_COUNT);
    TRY(allocate(plan, from->label->count, out));
    for (; row < from->label->count; row++) {
        bool known;
        TRY(build_genes(plan, from->label, row, out, &known));
        out[PERTURB_MODE].code[row] = known ? read_mode(from, row) : -1;
        if (from->dose) out[PERTURB_DOSE].r[row] = known ? read_dose(from->dose, row) : NAN;
        if (from->guide) build_guide(from->guide, row, &out[PERTURB_GUIDE]);
    }
done:
    if (st != ST_OK) status_prefix("row %lld: ", (long long)row);
    for (int k = 0; st != ST_OK && k < PERTURB_COLUMN_COUNT; k++) column_free(&out[k]);
    return st;
}
