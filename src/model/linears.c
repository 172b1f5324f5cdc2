#include "model/linears.h"

#include <stdlib.h>
#include <string.h>

enum status linears_add(struct linears *list, const struct param_table *params, const int *param, int parts, bool fine,
                        const struct linear **out)
{
    enum status st = ST_OK;
    struct linears_row *row = NULL;
    if (list->count == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 64;
        void *rows = realloc(list->rows, sizeof *list->rows * (size_t)capacity);
        if (!rows) return fail(ST_MEMORY, "no memory for %d linear maps", capacity);
        list->rows = rows;
        list->capacity = capacity;
    }
    TRY(NEW_ARRAY(row, 1));
    *row = (struct linears_row){.map = {.in = params->rows[param[0]].cols, .parts = parts}};
    row->map.fine = fine;
    row->map.learns = params->rows[param[0]].trainable;
    for (int i = 0; i < parts; i++) {
        row->param[i] = param[i];
        row->map.out += params->rows[param[i]].rows;
    }
    list->rows[list->count++] = row;
    *out = &row->map;
done:
    return st;
}

/* The first map of the shape of row `index`, itself if there is none before. */
static int first_alike(const struct linears *list, int index)
{
    const struct linear *map = &list->rows[index]->map;
    for (int i = 0; i < index; i++) {
        const struct linear *other = &list->rows[i]->map;
        if (other->in == map->in && other->out == map->out && other->parts == map->parts && other->fine == map->fine)
            return i;
    }
    return index;
}

static enum status make_product(const struct linear *map, enum dtype type, bool train, int threads,
                                struct product **out)
{
    struct product_spec spec = {.in = map->in,
                                .out = map->out,
                                .parts = map->parts,
                                .type = map->fine ? DTYPE_REAL : type,
                                .backward = train,
                                .threads = threads};
    return product_create(&spec, out);
}

static enum status product_for(struct linears *list, int index, enum dtype type, bool train, int threads)
{
    struct linear *map = &list->rows[index]->map;
    int first = first_alike(list, index);
    if (first < index) {
        map->product = list->rows[first]->map.product;
        return ST_OK;
    }
    enum status st = make_product(map, type, train, threads, &map->product);
    if (st == ST_OK) list->products[list->product_count++] = map->product;
    return st;
}

static enum pack_kind kind_of(const struct linears_row *row, const struct param_table *params)
{
    return params->rows[row->param[0]].routed ? PACK_ROUTED : PACK_DENSE;
}

static bool is_in(const struct linears_row *row, const struct param_table *params, struct model_part part, int layers)
{
    return model_part_has(part, params->rows[row->param[0]].module, layers);
}

enum status linears_measure(const struct linears *list, const struct param_table *params, struct model_part part,
                            int layers, enum dtype type, bool train, int threads, size_t *packed_bytes)
{
    memset(packed_bytes, 0, sizeof *packed_bytes * PACK_KINDS);
    for (int i = 0; i < list->count; i++) {
        if (first_alike(list, i) < i) continue;
        struct product *product;
        enum status st = make_product(&list->rows[i]->map, type, train, threads, &product);
        if (st != ST_OK) return st;
        for (int k = i; k < list->count; k++)
            if (first_alike(list, k) == i && is_in(list->rows[k], params, part, layers))
                packed_bytes[kind_of(list->rows[k], params)] += product_weight_bytes(product);
        product_destroy(&product);
    }
    return ST_OK;
}

static void bind(struct linears_row *row, const struct param_table *params, bool train)
{
    for (int i = 0; i < row->map.parts; i++) {
        int p = row->param[i];
        bool learns = train && params->gradient && params->rows[p].trainable;
        row->map.gradient[i] = learns ? param_gradient(params, p) : NULL;
    }
}

enum status linears_prepare(struct linears *list, const struct param_table *params, enum dtype type, bool train,
                            int threads)
{
    enum status st = ST_OK;
    linears_free_products(list);
    TRY(NEW_ARRAY(list->products, list->count));
    for (int i = 0; i < list->count; i++) {
        bind(list->rows[i], params, train);
        TRY(product_for(list, i, type, train, threads));
    }
done:
    return st;
}

void linears_take_packed(struct linears *list, const struct param_table *params, enum pack_kind kind,
                         struct arena *arena)
{
    for (int i = 0; i < list->count; i++) {
        struct linear *map = &list->rows[i]->map;
        if (kind_of(list->rows[i], params) == kind) map->packed = product_weight_take(map->product, arena);
    }
}

void linears_take_scratch(struct linears *list, struct arena *arena)
{
    size_t scratch_bytes = 0;
    for (int i = 0; i < list->product_count; i++) {
        size_t bytes = product_scratch_bytes(list->products[i]);
        if (bytes > scratch_bytes) scratch_bytes = bytes;
    }
    void *scratch = arena_take(arena, scratch_bytes);
    for (int i = 0; i < list->product_count; i++) product_set_scratch(list->products[i], scratch);
}

void linears_take(struct linears *list, const struct param_table *params, struct arena *arena)
{
    for (enum pack_kind kind = 0; kind < PACK_KINDS; kind++) linears_take_packed(list, params, kind, arena);
    linears_take_scratch(list, arena);
}

/* ---- packing ---- */

/* Map by map to the rank with least so far. */
enum status linears_packers(const struct linears *list, const struct param_table *params, enum pack_kind kind,
                            int ranks, int *packer)
{
    int64_t *load = NULL;
    enum status st = NEW_ARRAY(load, ranks);
    if (st != ST_OK) return st;
    memset(load, 0, sizeof *load * (size_t)ranks);
    for (int i = 0; i < params->count; i++) packer[i] = -1;
    for (int i = 0; i < list->count; i++) {
        const struct linears_row *row = list->rows[i];
        int least = 0;
        if (kind_of(row, params) != kind) continue;
        for (int r = 1; r < ranks; r++)
            if (load[r] < load[least]) least = r;
        load[least] += row->map.in * row->map.out;
        for (int k = 0; k < row->map.parts; k++) packer[row->param[k]] = least;
    }
    free(load);
    return ST_OK;
}

void linears_pack_some(struct linears *list, const struct param_table *params, enum pack_kind kind, const int *packer,
                       int rank)
{
    for (int i = 0; i < list->count; i++) {
        struct linears_row *row = list->rows[i];
        if (kind_of(row, params) == kind) row->away = packer && packer[row->param[0]] != rank;
    }
}

/* The parts of one map come from one kind of place. */
static void pack(struct linears_row *row, const struct param_table *params, enum dtype type, const void *const *from)
{
    struct linear *map = &row->map;
    const void *masters[PRODUCT_MAX_PARTS];
    if (row->away) return;
    bool sent = from && from[row->param[0]];
    for (int i = 0; i < map->parts; i++) masters[i] = sent ? from[row->param[i]] : param_weight(params, row->param[i]);
    product_pack_from(map->product, &map->packed, masters, sent && !map->fine ? type : DTYPE_REAL);
}

void linears_pack(struct linears *list, const struct param_table *params)
{
    for (int i = 0; i < list->count; i++) pack(list->rows[i], params, DTYPE_REAL, NULL);
}

void linears_pack_module(struct linears *list, const struct param_table *params, int module, enum dtype type,
                         const void *const *from)
{
    for (int i = 0; i < list->count; i++)
        if (params->rows[list->rows[i]->param[0]].module == module) pack(list->rows[i], params, type, from);
}

void linears_hash(const struct linears *list, const struct param_table *params, uint64_t *hash)
{
    for (int i = 0; i < list->count; i++) {
        const struct linears_row *row = list->rows[i];
        if (!params->rows[row->param[0]].split) continue;
        uint64_t packed = product_weight_hash(row->map.product, &row->map.packed);
        for (int k = 0; k < row->map.parts; k++) hash[row->param[k]] = packed;
    }
}

void linears_free_products(struct linears *list)
{
    for (int i = 0; i < list->product_count; i++) product_destroy(&list->products[i]);
    free(list->products);
    list->products = NULL;
    list->product_count = 0;
}

void linears_free(struct linears *list)
{
    linears_free_products(list);
    for (int i = 0; i < list->count; i++) free(list->rows[i]);
    free(list->rows);
    *list = (struct linears){0};
}
