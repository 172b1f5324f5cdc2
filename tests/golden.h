/* Golden files of the PyTorch twin (tests/data/golden/README.md): reader, parity weights, batch. */
#ifndef CYTOMILL_TESTS_GOLDEN_H
#define CYTOMILL_TESTS_GOLDEN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cell/batch.h"
#include "cell/vocab.h"
#include "model/model.h"

struct golden_record {
    char name[96];
    char kind; /* d, f, i: float64, float32, int32; B: bytes */
    int64_t count, dims[4];
    int rank;
    const void *data;
};

struct golden {
    char *bytes;
    int count;
    struct golden_record records[1024];
};

static inline void golden_require(int holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "golden: %s\n", what);
    exit(1);
}

static inline size_t golden_item_bytes(char kind) { return kind == 'd' ? 8 : kind == 'B' ? 1 : 4; }

static inline void golden_open(struct golden *g, const char *path)
{
    size_t length, at = 8;
    golden_require(text_read_file(path, &g->bytes, &length) == ST_OK, status_message());
    golden_require(length > 8 && memcmp(g->bytes, "CYGOLD01", 8) == 0, "not a golden file");
    for (g->count = 0; at < length; g->count++) {
        struct golden_record *r = &g->records[g->count];
        uint16_t name_length;
        memcpy(&name_length, g->bytes + at, 2);
        golden_require(name_length < sizeof r->name && g->count < 1023, "record too large");
        memcpy(r->name, g->bytes + at + 2, name_length);
        r->name[name_length] = 0;
        at += 2u + name_length;
        r->kind = g->bytes[at];
        r->rank = g->bytes[at + 1];
        at += 2;
        r->count = 1;
        for (int i = 0; i < r->rank; i++, at += 8) {
            memcpy(&r->dims[i], g->bytes + at, 8);
            r->count *= r->dims[i];
        }
        void *aligned = malloc((size_t)r->count * 8 + 8);
        memcpy(aligned, g->bytes + at, (size_t)r->count * golden_item_bytes(r->kind));
        r->data = aligned;
        at += (size_t)r->count * golden_item_bytes(r->kind);
    }
}

static inline void golden_close(struct golden *g)
{
    for (int i = 0; i < g->count; i++) free((void *)(uintptr_t)g->records[i].data);
    free(g->bytes);
}

/* NULL: there is none. */
static inline const struct golden_record *golden_look(const struct golden *g, const char *format, const char *name)
{
    char full[160];
    snprintf(full, sizeof full, format, name);
    for (int i = 0; i < g->count; i++)
        if (strcmp(g->records[i].name, full) == 0) return &g->records[i];
    return NULL;
}

static inline const struct golden_record *golden_find(const struct golden *g, const char *format, const char *name)
{
    const struct golden_record *r = golden_look(g, format, name);
    if (r) return r;
    fprintf(stderr, "golden: no record %s of %s\n", format, name);
    exit(1);
}

static inline const double *golden_doubles(const struct golden *g, const char *format, const char *name)
{
    const struct golden_record *r = golden_find(g, format, name);
    golden_require(r->kind == 'd', "not float64");
    return r->data;
}

/* ---- parity weights: the same lines as noise() and parity_scale() in validation/twin.py ---- */

static inline double golden_noise(const char *name, uint64_t index)
{
    uint64_t key = 0xCBF29CE484222325u;
    for (; *name; name++) key = (key ^ (unsigned char)*name) * 0x100000001B3u;
    uint64_t z = key + (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (2 * ((double)(z >> 11) * 0x1p-53) - 1) * sqrt(3.0);
}

static inline int golden_ends(const char *name, const char *end)
{
    size_t n = strlen(name), e = strlen(end);
    return n >= e && strcmp(name + n - e, end) == 0;
}

static inline void golden_scale(const struct param *p, double *mean, double *sd)
{
    *mean = golden_ends(p->name, "gamma") ? 1 : 0;
    if (golden_ends(p->name, "gamma") || golden_ends(p->name, "beta")) *sd = 0.3;
    else if (golden_ends(p->name, ".a")) *sd = 0.6;
    else if (golden_ends(p->name, "_emb") || strcmp(p->name, "cls_token") == 0) *sd = 1;
    else if (golden_ends(p->name, "table.weight")) *sd = 1;
    else *sd = 1 / sqrt((double)p->cols);
}

/* Draw 0 hashes the name, others "name#draw". */
static inline void golden_weights(struct param_table *t, int draw)
{
    for (int i = 0; i < t->count; i++) {
        const struct param *p = &t->rows[i];
        double mean, sd;
        char key[112];
        golden_scale(p, &mean, &sd);
        snprintf(key, sizeof key, draw ? "%s#%d" : "%s", p->name, draw);
        for (int64_t k = 0; k < p->rows * p->cols; k++) {
            int pad = strcmp(p->name, "gene_emb") == 0 && k < p->cols;
            param_weight(t, i)[k] = pad ? 0 : (real)(float)(mean + sd * golden_noise(key, (uint64_t)k));
        }
    }
}

/* ---- a configuration, vocabulary and batch of the golden file ---- */

static inline void golden_set(struct config *cfg, const char *key, int64_t value)
{
    char text[64];
    snprintf(text, sizeof text, "%s=%lld", key, (long long)value);
    golden_require(config_set(cfg, text, "golden") == ST_OK, status_message());
}

static inline struct config *golden_config(const struct golden *g)
{
    static const char *const keys[] = {"model.layers", "model.width", "model.heads", "model.value_width"};
    const int32_t *sizes = golden_find(g, "%s", "shape.sizes")->data;
    struct config *cfg;
    golden_require(config_create(&cfg) == ST_OK, "config");
    for (int i = 0; i < 4; i++) golden_set(cfg, keys[i], sizes[i]);
    golden_require(config_set(cfg, "model.dropout=0", "golden") == ST_OK, status_message());
    return cfg;
}

static inline struct vocab *golden_vocab(int genes)
{
    struct text t = {0};
    struct vocab *v;
    text_add(&t, "id\tsymbol\tensembl\thgnc\n");
    for (int i = 1; i <= genes; i++) text_add(&t, "%d\tG%d\tENSG%011d\tHGNC:%d\n", i, i, i, i);
    golden_require(vocab_parse(t.data, t.length, "golden", &v) == ST_OK, status_message());
    text_free(&t);
    return v;
}

/* Cells first .. first+cells of the golden batch. */
static inline void golden_batch(const struct golden *g, int first, int cells, struct batch *b)
{
    const int32_t *length = golden_find(g, "%s", "cell.length")->data, *gene = golden_find(g, "%s", "cell.gene")->data;
    const float *value = golden_find(g, "%s", "cell.value")->data, *target = golden_find(g, "%s", "cell.target")->data;
    const float *weight = golden_find(g, "%s", "cell.weight")->data;
    const uint8_t *visible = golden_find(g, "%s", "cell.visible")->data;
    int64_t from = 0;
    for (int c = 0; c < first; c++) from += length[c];
    batch_clear(b);
    for (int c = first; c < first + cells; from += length[c++]) {
        b->cell_id[b->cell_count] = 1000 + c;
        for (int i = 0; i < length[c]; i++) {
            int64_t t = b->token_count++;
            b->feature[t] = gene[from + i];
            b->value[t] = value[from + i];
            b->target[t] = target[from + i];
            b->loss_weight[t] = weight[from + i];
            b->visible[t] = i > 0 && visible[from + i];
            b->role[t] = i == 0 ? TOKEN_CLS : TOKEN_FEATURE;
            b->modality[t] = 0;
            b->position[t] = i;
        }
        b->offsets[++b->cell_count] = b->token_count;
    }
    batch_find_levels(b);
}

/* Root mean square difference over root mean square of the truth. */
static inline double golden_error(const double *found, const double *truth, int64_t count)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += (found[i] - truth[i]) * (found[i] - truth[i]);
        size += truth[i] * truth[i];
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

#endif
