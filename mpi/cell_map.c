#include "mpi/cell_map.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "metric/umap.h"
#include "mpi/dense.h"

/* ---- which cells ---- */

static enum status choose_rows(int64_t all, const uint8_t *usable, const struct cell_map_options *o,
                               struct cell_map *map)
{
    int64_t count = 0, index = 0;
    for (int64_t i = 0; i < all; i++) count += usable[i] != 0;
    if (count < 3) return fail(ST_INPUT, "only %lld cells have an embedding; a map needs at least 3", (long long)count);
    enum status st = NEW_ARRAY(map->row, count < o->most ? count : o->most);
    for (int64_t i = 0; st == ST_OK && i < all; i++) {
        if (!usable[i]) continue;
        bool shown =
            count <= o->most || (int64_t)perm_apply(o->seed, RNG_LAYOUT, (uint64_t)count, (uint64_t)index) < o->most;
        if (shown) map->row[map->n++] = i;
        index++;
    }
    return st;
}

/* The shown rows that lie in this rank's run, packed. */
static enum status pack_shown(const struct spread_rows *rows, const struct cell_map *map, struct spread_rows *out,
                              float **values)
{
    int64_t at = 0;
    *out = (struct spread_rows){.width = rows->width};
    for (int64_t i = 0; i < map->n; i++) {
        if (map->row[i] < rows->first) out->first++;
        else if (map->row[i] < rows->first + rows->count) out->count++;
    }
    enum status st = NEW_ARRAY(*values, out->count * rows->width);
    if (st != ST_OK) return st;
    for (int64_t i = out->first; i < out->first + out->count; i++)
        memcpy(*values + at++ * rows->width, rows->values + (map->row[i] - rows->first) * rows->width,
               sizeof **values * (size_t)rows->width);
    out->values = *values;
    return ST_OK;
}

/* ---- layout, on rank 0 ---- */

/* The two leading principal components of x[n, width]: start[n, 2]. Alone on `self`, so that the bits
 * do not depend on the number of ranks. */
static enum status leading_components(struct comm *self, const float *x, int64_t n, int width, double *start)
{
    enum status st = ST_OK;
    struct dense *g = NULL;
    double *mean = NULL, *vectors = NULL, values[2];
    int64_t *starts = NULL;
    int32_t *column = NULL;
    int k = width < 2 ? 1 : 2;
    TRY(NEW_ARRAY(mean, width));
    TRY(NEW_ARRAY(vectors, (int64_t)2 * width));
    TRY(NEW_ARRAY(starts, n + 1));
    TRY(NEW_ARRAY(column, n * width));
    memset(mean, 0, sizeof *mean * (size_t)width);
    memset(vectors, 0, sizeof *vectors * 2 * (size_t)width);
    for (int64_t i = 0; i < n * width; i++) {
        column[i] = (int32_t)(i % width);
        mean[i % width] += x[i] / (double)n;
    }
    for (int64_t i = 0; i <= n; i++) starts[i] = i * width;
    struct dense_rows rows = {n, starts, column, x};
    TRY(dense_create(self, width, &g));
    TRY(dense_add_gram(self, g, &rows, mean));
    TRY(dense_eigen(self, g, k, values, vectors));
    for (int64_t i = 0; i < n; i++)
        for (int a = 0; a < 2; a++) {
            start[i * 2 + a] = 0;
            for (int j = 0; j < width; j++) start[i * 2 + a] += (x[i * width + j] - mean[j]) * vectors[a * width + j];
        }
done:
    dense_destroy(self, &g);
    free(mean);
    free(vectors);
    free(starts);
    free(column);
    return st;
}

static enum status lay_out(struct comm *self, const struct neighbour_graph *graph, const float *x, int width,
                           const struct cell_map_options *o, struct cell_map *map)
{
    enum status st = ST_OK;
    double *start = NULL;
    TRY(NEW_ARRAY(start, map->n * 2));
    TRY(leading_components(self, x, map->n, width, start));
    TRY(umap_layout(graph, start, o->seed, map->xy));
    TRY(umap_communities(graph, o->resolution, o->seed, map->cluster, &map->clusters));
done:
    free(start);
    return st;
}

/* ---- all together ---- */

struct gathered {
    int64_t *row;
    float *distance, *x;
};

/* Neighbours and vectors of the shown cells on every rank, in order. */
static enum status gather(struct comm *comm, const struct knn *s, const struct spread_rows *shown, struct gathered *out)
{
    enum status st = ST_OK;
    int64_t bytes, pairs = s->queries * s->k;
    TRY(comm_gather_all(comm, s->row, pairs * (int64_t)sizeof *s->row, (void **)&out->row, &bytes, NULL));
    TRY(comm_gather_all(comm, s->distance, pairs * (int64_t)sizeof *s->distance, (void **)&out->distance, &bytes,
                        NULL));
    TRY(comm_gather_all(comm, shown->values, shown->count * shown->width * (int64_t)sizeof(float), (void **)&out->x,
                        &bytes, NULL));
done:
    return st;
}

static enum status place_cells(struct comm *comm, const struct knn *s, const struct spread_rows *shown,
                               const struct cell_map_options *o, struct cell_map *map)
{
    enum status st = ST_OK;
    struct gathered g = {0};
    struct comm self = {0};
    TRY(comm_split(comm, comm->rank, &self));
    TRY(gather(comm, s, shown, &g));
    if (comm->rank == 0) {
        struct neighbour_graph graph = {map->n, s->k, g.row, g.distance};
        st = lay_out(&self, &graph, g.x, shown->width, o, map);
    }
    TRY(comm_agree(comm, st));
    comm_bcast(comm, map->xy, (int64_t)sizeof *map->xy * map->n * 2, 0);
    comm_bcast(comm, map->cluster, (int64_t)sizeof *map->cluster * map->n, 0);
    comm_bcast(comm, &map->clusters, sizeof map->clusters, 0);
done:
    comm_free(&self);
    free(g.row);
    free(g.distance);
    free(g.x);
    return st;
}

enum status cell_map_make(struct comm *comm, const struct spread_rows *rows, int64_t all, const uint8_t *usable,
                          const struct cell_map_options *options, struct cell_map *out)
{
    enum status st = ST_OK;
    struct cell_map map = {0};
    struct spread_rows shown = {0};
    struct knn *s = NULL;
    float *values = NULL;
    st = choose_rows(all, usable, options, &map);
    if (st == ST_OK) st = NEW_ARRAY(map.xy, map.n * 2);
    if (st == ST_OK) st = NEW_ARRAY(map.cluster, map.n);
    if (st == ST_OK) st = pack_shown(rows, &map, &shown, &values);
    TRY(comm_agree(comm, st));
    int k = options->k < map.n - 1 ? options->k : (int)(map.n - 1);
    TRY(neighbours_find(comm, &shown, &shown, true, k, &s));
    TRY(place_cells(comm, s, &shown, options, &map));
    *out = map;
    map = (struct cell_map){0};
done:
    knn_destroy(&s);
    free(values);
    cell_map_free(&map);
    return st;
}

void cell_map_free(struct cell_map *map)
{
    free(map->row);
    free(map->xy);
    free(map->cluster);
    *map = (struct cell_map){0};
}
