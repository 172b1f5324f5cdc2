#include "cell/perturbation.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
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
} mode_aliases[] = {
    {"crispr", PERTURB_KNOCK_OUT},        {"crispr-ko", PERTURB_KNOCK_OUT},     {"crispr-cas9", PERTURB_KNOCK_OUT},
    {"cas9", PERTURB_KNOCK_OUT},          {"ko", PERTURB_KNOCK_OUT},            {"knockout", PERTURB_KNOCK_OUT},
    {"deletion", PERTURB_KNOCK_OUT},      {"crispri", PERTURB_INTERFERENCE},    {"knockdown", PERTURB_INTERFERENCE},
    {"knock-down", PERTURB_INTERFERENCE}, {"kd", PERTURB_INTERFERENCE},         {"rnai", PERTURB_INTERFERENCE},
    {"sirna", PERTURB_INTERFERENCE},      {"shrna", PERTURB_INTERFERENCE},      {"crispra", PERTURB_ACTIVATION},
    {"overexpression", PERTURB_ACTIVATION}, {"over-expression", PERTURB_ACTIVATION}, {"oe", PERTURB_ACTIVATION},
    {"orf", PERTURB_ACTIVATION},          {"chemical", PERTURB_DRUG},           {"compound", PERTURB_DRUG},
    {"small-molecule", PERTURB_DRUG},     {"cytokine", PERTURB_DRUG},           {"treatment", PERTURB_DRUG}};

static const char *const control_words[] = {
    "control", "ctrl", "ctl", "controls", "non-targeting", "nontargeting", "nt", "ntc", "non-target", "safe-targeting",
    "safetargeting", "neg-control", "neg-ctrl", "negative-control", "negctrl", "scramble", "scrambled", "unperturbed",
    "untreated", "unstimulated", "vehicle", "dmso", "mock", "wt", "wild-type", "wildtype"};

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
    if (length == 0) return fail(ST_INPUT, "the perturbation '%s' has an empty part; write A+B, A+ctrl or control", label);
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

/* ---- columns ---- */

/* Distinct texts in order of first appearance, with a hash table over them. */
struct words {
    char **text;
    int32_t count, capacity, *slots;
};

/* Number of a text, added if new. Memory failure aborts, as in all small text work. */
static int32_t words_add(struct words *w, const char *text)
{
    if (w->count * 2 >= w->capacity) {
        w->capacity = w->capacity ? w->capacity * 2 : 64;
        w->text = realloc(w->text, sizeof *w->text * (size_t)w->capacity);
        w->slots = realloc(w->slots, sizeof *w->slots * (size_t)w->capacity);
        if (!w->text || !w->slots) abort();
        memset(w->slots, -1, sizeof *w->slots * (size_t)w->capacity);
        for (int32_t k = 0; k < w->count; k++) {
            uint64_t at = hash_block(w->text[k], strlen(w->text[k]), 0);
            while (w->slots[at % (uint64_t)w->capacity] >= 0) at++;
            w->slots[at % (uint64_t)w->capacity] = k;
        }
    }
    uint64_t at = hash_block(text, strlen(text), 0);
    for (;; at++) {
        int32_t *slot = &w->slots[at % (uint64_t)w->capacity];
        if (*slot >= 0 && strcmp(w->text[*slot], text) != 0) continue;
        if (*slot < 0) {
            w->text[w->count] = text_copy(text);
            *slot = w->count++;
        }
        return *slot;
    }
}

/* Hand the texts over as the categories of a column. */
static void words_give(struct words *w, struct column *column)
{
    column->category = w->text;
    column->category_count = w->count;
    free(w->slots);
    *w = (struct words){0};
}

static void words_free(struct words *w)
{
    for (int32_t k = 0; k < w->count; k++) free(w->text[k]);
    free(w->text);
    free(w->slots);
}

/* What a distinct label says. */
struct reading {
    int32_t genes; /* category of perturb_genes */
    bool is_control;
};

struct builder {
    struct words labels, genes, guides;
    struct reading *readings; /* [labels.count] */
    int32_t reading_capacity;
};

static enum status read_label(struct builder *b, const char *label, struct reading *out)
{
    enum status st = ST_OK;
    struct perturbation p = {0};
    int32_t known = b->labels.count, k = words_add(&b->labels, label);
    if (k == known) {
        if (k == b->reading_capacity) {
            b->reading_capacity = b->reading_capacity ? b->reading_capacity * 2 : 64;
            b->readings = realloc(b->readings, sizeof *b->readings * (size_t)b->reading_capacity);
            if (!b->readings) abort();
        }
        TRY(perturbation_parse(label, &p));
        char *key = perturbation_key(&p);
        b->readings[k] = (struct reading){words_add(&b->genes, p.is_control ? "control" : key), p.is_control};
        free(key);
    }
    *out = b->readings[k];
done:
    perturbation_free(&p);
    return st;
}

static double read_dose(const struct column *dose, int64_t row)
{
    double value = NAN;
    if (!dose) return NAN;
    if (dose->type == COLUMN_REAL) return dose->r[row];
    char buffer[32];
    return text_to_real(column_as_text(dose, row, buffer), &value) ? value : NAN;
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

static enum status allocate(int64_t count, struct column out[PERTURB_COLUMN_COUNT])
{
    static const char *const names[] = {"perturb_genes", "perturb_mode", "perturb_dose", "perturb_guide", "perturb_control"};
    static const enum column_type types[] = {COLUMN_CATEGORY, COLUMN_CATEGORY, COLUMN_REAL, COLUMN_CATEGORY, COLUMN_BOOL};
    enum status st = ST_OK;
    for (int k = 0; k < PERTURB_COLUMN_COUNT; k++) {
        out[k] = (struct column){.name = text_copy(names[k]), .type = types[k], .count = count};
        if (types[k] == COLUMN_CATEGORY) TRY(NEW_ARRAY(out[k].code, count));
        if (types[k] == COLUMN_REAL) TRY(NEW_ARRAY(out[k].r, count));
        if (types[k] == COLUMN_BOOL) TRY(NEW_ARRAY(out[k].i, count));
    }
done:
    return st;
}

static enum status build_row(const struct perturbation_columns *from, struct builder *b, int64_t row,
                             struct column out[PERTURB_COLUMN_COUNT])
{
    enum status st = ST_OK;
    char buffer[32];
    struct reading reading = {.genes = -1};
    const char *label = from->label ? column_as_text(from->label, row, buffer) : "";
    bool known = *label != '\0';
    if (known) TRY(read_label(b, label, &reading));
    out[0].code[row] = reading.genes;
    out[1].code[row] = known ? read_mode(from, row) : -1;
    out[2].r[row] = known ? read_dose(from->dose, row) : NAN;
    const char *guide = from->guide ? column_as_text(from->guide, row, buffer) : "";
    out[3].code[row] = *guide ? words_add(&b->guides, guide) : -1;
    out[4].i[row] = known ? reading.is_control : INT64_MIN;
done:
    if (st != ST_OK) status_prefix("row %lld: ", (long long)row);
    return st;
}

enum status perturbation_build(const struct perturbation_columns *from, int64_t count, struct column out[PERTURB_COLUMN_COUNT])
{
    enum status st = ST_OK;
    struct builder b = {0};
    memset(out, 0, sizeof *out * PERTURB_COLUMN_COUNT);
    TRY(allocate(count, out));
    for (int64_t row = 0; row < count; row++) TRY(build_row(from, &b, row, out));
    struct words modes = {0};
    for (size_t k = 0; k < sizeof mode_words / sizeof *mode_words; k++) words_add(&modes, mode_words[k]);
    words_give(&b.genes, &out[0]);
    words_give(&modes, &out[1]);
    words_give(&b.guides, &out[3]);
done:
    words_free(&b.labels);
    words_free(&b.genes);
    words_free(&b.guides);
    free(b.readings);
    for (int k = 0; st != ST_OK && k < PERTURB_COLUMN_COUNT; k++) column_free(&out[k]);
    return st;
}
