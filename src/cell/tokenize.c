#include "cell/tokenize.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/sort.h"

/* A random sort key carries the place it belongs to in its low bits. */
enum { PLACE_BITS = 21 };
#define PLACE_MASK ((UINT64_C(1) << PLACE_BITS) - 1)

struct token_rules token_rules_from(const struct config *config)
{
    return (struct token_rules){
        .max_genes = (int)config_int(config, "model.max_genes"),
        .min_genes = (int)config_int(config, "model.min_genes"),
        .drop_long_cells = config_bool(config, "model.drop_long_cells"),
        .scale = config_real(config, "model.scale"),
        .cap_total = config_real(config, "model.cap_total"),
        .select_fraction = config_real(config, "model.select_fraction"),
        .hide_fraction = config_real(config, "model.hide_fraction"),
    };
}

enum status token_cell_reserve(struct token_cell *cell, int64_t entries)
{
    enum status st = ST_OK;
    if (cell->capacity >= entries && cell->gene) return ST_OK;
    if (entries > (int64_t)PLACE_MASK + 1)
        return fail(ST_INPUT, "a cell has %lld non-zero features; at most %lld are allowed in one cell",
                    (long long)entries, (long long)PLACE_MASK + 1);
    token_cell_free(cell);
    TRY(NEW_ARRAY(cell->gene, entries));
    TRY(NEW_ARRAY(cell->counts, entries));
    TRY(NEW_ARRAY(cell->key, entries));
    cell->capacity = entries;
done:
    return st;
}

void token_cell_free(struct token_cell *cell)
{
    free(cell->gene);
    free(cell->counts);
    free(cell->key);
    *cell = (struct token_cell){0};
}

/* ---- lookup ---- */

static double row_total(const struct cells *cells, int64_t row)
{
    double total = 0;
    for (int64_t e = cells->start[row]; e < cells->start[row + 1]; e++) total += cells->value[e];
    return total;
}

/* Positive floats order like their bits, and a gene occurs once, so one 64-bit key carries both. */
static uint64_t pack_entry(int32_t gene, float count)
{
    uint32_t bits;
    memcpy(&bits, &count, sizeof bits);
    return (uint64_t)(uint32_t)gene << 32 | bits;
}

static void unpack_entry(uint64_t key, int32_t *gene, float *count)
{
    uint32_t bits = (uint32_t)key;
    memcpy(count, &bits, sizeof bits);
    *gene = (int32_t)(key >> 32);
}

void token_cell_read(const struct cells *cells, int64_t row, const int32_t *lookup, const struct token_rules *rules,
                     bool capped, struct token_cell *out)
{
    double all = capped ? row_total(cells, row) : 0;
    double shrink = rules->cap_total > 0 && all > rules->cap_total ? rules->cap_total / all : 1;
    out->count = 0;
    out->total = 0;
    for (int64_t e = cells->start[row]; e < cells->start[row + 1]; e++) {
        int32_t gene = lookup[cells->feature[e]];
        float count = capped ? (float)nearbyint(cells->value[e] * shrink) : cells->value[e];
        if (gene == 0 || !(count > 0)) continue;
        out->key[out->count++] = pack_entry(gene, count);
    }
    sort_u64(out->key, out->count);
    for (int i = 0; i < out->count; i++) {
        unpack_entry(out->key[i], &out->gene[i], &out->counts[i]);
        out->total += out->counts[i];
    }
}

bool token_cell_selected(const struct token_cell *cell, const struct token_rules *rules)
{
    return cell->count >= rules->min_genes && cell->count > 0 &&
           (!rules->drop_long_cells || cell->count <= rules->max_genes);
}

/* ---- random order ---- */

/* Sort keys so that walking cell->key visits places in a random order: uniform if `weighted` is
 * false, else drawn one by one without replacement with probability proportional to ln(1+count)
 * (exponential clocks: Efraimidis & Spirakis, Inf. Process. Lett. 97, 2006). */
static void order_places(struct token_cell *cell, bool weighted, struct rng rng)
{
    for (int i = 0; i < cell->count; i++) {
        double clock = -log1p(-rng_uniform(&rng)) / (weighted ? log1p((double)cell->counts[i]) : 1);
        uint64_t bits;
        memcpy(&bits, &clock, sizeof bits); /* clock >= 0: bits order as the numbers do */
        cell->key[i] = (bits & ~PLACE_MASK) | (uint64_t)i;
    }
    sort_u64(cell->key, cell->count);
}

static int place_of(uint64_t key) { return (int)(key & PLACE_MASK); }

/* Keep `keep` genes drawn by weight, in ascending order of id again. drawn[keep] (may be NULL) gets
 * the place of each in the order of drawing. */
static void sample_genes(struct token_cell *cell, int keep, struct rng rng, int32_t *drawn)
{
    order_places(cell, true, rng);
    for (int i = 0; i < keep; i++) cell->key[i] = (cell->key[i] & PLACE_MASK) << PLACE_BITS | (uint64_t)i;
    sort_u64(cell->key, keep);
    for (int i = 0; i < keep; i++) { /* place >= i, so nothing is overwritten before it is read */
        int place = (int)(cell->key[i] >> PLACE_BITS);
        cell->gene[i] = cell->gene[place];
        cell->counts[i] = cell->counts[place];
        if (drawn) drawn[i] = (int32_t)(cell->key[i] & PLACE_MASK);
    }
    cell->count = keep;
}

static uint64_t hash_cell(const struct token_cell *cell)
{
    uint64_t ids = hash_block(cell->gene, sizeof *cell->gene * (size_t)cell->count, 0);
    return hash_block(cell->counts, sizeof *cell->counts * (size_t)cell->count, ids);
}

/* ---- tokens ---- */

static void append_cls(struct batch *b, int64_t id)
{
    int64_t t = b->token_count++;
    b->feature[t] = 0;
    b->value[t] = b->target[t] = b->loss_weight[t] = 0;
    b->modality[t] = 0;
    b->role[t] = TOKEN_CLS;
    b->visible[t] = 0;
    b->position[t] = 0;
    b->cell_id[b->cell_count] = id;
}

float token_value(double count, double total, const struct token_rules *rules)
{
    return (float)log1p(count / total * rules->scale);
}

/* Cls and all genes visible; returns the token of the first gene. */
static int64_t append_visible(struct batch *b, const struct token_cell *cell, const struct token_rules *rules,
                              int64_t id)
{
    assert(b->cell_count < b->cell_capacity && b->token_count + cell->count + 1 <= b->token_capacity);
    append_cls(b, id);
    int64_t first = b->token_count;
    for (int i = 0; i < cell->count; i++) {
        int64_t t = first + i;
        b->feature[t] = cell->gene[i];
        b->value[t] = b->target[t] = token_value(cell->counts[i], cell->total, rules);
        b->modality[t] = 0;
        b->role[t] = TOKEN_FEATURE;
        b->visible[t] = 1;
        b->loss_weight[t] = 0;
        b->position[t] = i + 1;
    }
    b->token_count += cell->count;
    b->offsets[++b->cell_count] = b->token_count;
    return first;
}

void token_sample_embed(struct token_cell *cell, const struct token_rules *rules, int32_t *drawn)
{
    if (cell->count <= rules->max_genes && !drawn) return;
    int keep = cell->count < rules->max_genes ? cell->count : rules->max_genes;
    sample_genes(cell, keep, rng_at(0, RNG_SAMPLE, hash_cell(cell), 0), drawn);
}

bool token_append_embed(struct batch *batch, struct token_cell *cell, const struct token_rules *rules, int64_t id)
{
    if (cell->count == 0) return false;
    token_sample_embed(cell, rules, NULL);
    append_visible(batch, cell, rules, id);
    return true;
}

void token_append_train(struct batch *batch, struct token_cell *cell, const struct token_rules *rules, int64_t id,
                        uint64_t seed, uint64_t step)
{
    if (cell->count > rules->max_genes)
        sample_genes(cell, rules->max_genes, rng_at(seed, RNG_SAMPLE, (uint64_t)id, step), NULL);
    int64_t first = append_visible(batch, cell, rules, id);
    int selected = (int)(rules->select_fraction * cell->count);
    int hidden = (int)(rules->hide_fraction * selected);
    if (selected == 0) selected = cell->count; /* too few genes for a share of one: all count, none is hidden */
    order_places(cell, false, rng_at(seed, RNG_MASK, (uint64_t)id, step));
    for (int i = 0; i < selected; i++) {
        int64_t t = first + place_of(cell->key[i]);
        batch->loss_weight[t] = 1;
        if (i >= hidden) continue;
        batch->value[t] = 0;
        batch->visible[t] = 0;
    }
}
