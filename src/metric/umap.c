#include "metric/umap.h"

#include <igraph.h>
#include <math.h>
#include <stdlib.h>

/* igraph 0.10.3 replaced the share of edges sampled in an epoch by "distances are weights already". */
#if IGRAPH_VERSION_MAJOR == 0 && (IGRAPH_VERSION_MINOR < 10 || (IGRAPH_VERSION_MINOR == 10 && IGRAPH_VERSION_PATCH < 3))
#define LAST_ARGUMENT 0.6
#else
#define LAST_ARGUMENT 0
#endif
#define MIN_DISTANCE 0.3
/* Standard deviation of the first positions per square root of a point: igraph's map spreads to about
 * the square root of the number of points, and starting at that size keeps groups from tangling. */
#define START_SPREAD 0.4
enum { EPOCHS = 100, LEIDEN_ROUNDS = 10 };

static enum status check(igraph_error_t error, const char *what)
{
    if (error == IGRAPH_SUCCESS) return ST_OK;
    return fail(error == IGRAPH_ENOMEM ? ST_MEMORY : ST_NUMERIC, "igraph could not %s: %s", what,
                igraph_strerror(error));
}

/* Errors come back as codes instead of ending the program; random numbers start anew. */
static void begin(uint64_t seed)
{
    igraph_set_error_handler(igraph_error_handler_ignore);
    igraph_rng_seed(igraph_rng_default(), (igraph_uint_t)seed + 1);
}

/* One undirected edge per pair: where each is a neighbour of the other, the lower number makes it. */
static bool is_first_of_pair(const struct neighbour_graph *g, int64_t from, int64_t to)
{
    if (from < to) return true;
    for (int j = 0; j < g->k; j++)
        if (g->row[to * g->k + j] == from) return false; /* comes from the other side */
    return true;
}

static enum status make_graph(const struct neighbour_graph *g, igraph_t *graph, igraph_vector_t *length)
{
    enum status st = ST_OK;
    igraph_vector_int_t ends;
    TRY(check(igraph_vector_int_init(&ends, 0), "make a list of edges"));
    for (int64_t i = 0; st == ST_OK && i < g->n; i++)
        for (int j = 0; j < g->k; j++) {
            int64_t to = g->row[i * g->k + j];
            if (to < 0 || !is_first_of_pair(g, i, to)) continue;
            igraph_vector_int_push_back(&ends, i);
            igraph_vector_int_push_back(&ends, to);
            igraph_vector_push_back(length, (double)g->distance[i * g->k + j]);
        }
    st = check(igraph_create(graph, &ends, g->n, IGRAPH_UNDIRECTED), "make the neighbour graph");
    igraph_vector_int_destroy(&ends);
done:
    return st;
}

static void set_start(const double *start, int64_t n, igraph_matrix_t *xy)
{
    double sum[2] = {0}, square = 0;
    for (int64_t i = 0; i < n; i++)
        for (int a = 0; a < 2; a++) sum[a] += start[i * 2 + a] / (double)n;
    for (int64_t i = 0; i < n; i++) square += pow(start[i * 2] - sum[0], 2) / (double)n;
    double scale = square > 0 ? START_SPREAD * sqrt((double)n) / sqrt(square) : 1;
    for (int64_t i = 0; i < n; i++)
        for (int a = 0; a < 2; a++) MATRIX(*xy, i, a) = (start[i * 2 + a] - sum[a]) * scale;
}

enum status umap_layout(const struct neighbour_graph *graph, const double *start, uint64_t seed, double *xy)
{
    enum status st = ST_OK;
    igraph_t g;
    igraph_vector_t length;
    igraph_matrix_t place;
    bool made = false;
    begin(seed);
    TRY(check(igraph_vector_init(&length, 0), "make a list of lengths"));
    st = check(igraph_matrix_init(&place, graph->n, 2), "make a table of places");
    if (st != ST_OK) {
        igraph_vector_destroy(&length);
        return st;
    }
    set_start(start, graph->n, &place);
    st = make_graph(graph, &g, &length);
    made = st == ST_OK;
    if (st == ST_OK)
        st = check(igraph_layout_umap(&g, &place, true, &length, MIN_DISTANCE, EPOCHS, LAST_ARGUMENT),
                   "lay out the map");
    for (int64_t i = 0; st == ST_OK && i < graph->n; i++)
        for (int a = 0; a < 2; a++) xy[i * 2 + a] = MATRIX(place, i, a);
    if (made) igraph_destroy(&g);
    igraph_vector_destroy(&length);
    igraph_matrix_destroy(&place);
done:
    return st;
}

/* ---- communities ---- */

struct community {
    int64_t size, first;
    int32_t old;
};

static int by_size(const void *a, const void *b)
{
    const struct community *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    return x->first < y->first ? -1 : 1;
}

/* Number communities by size. */
static enum status renumber(const igraph_vector_int_t *member, int32_t count, int32_t *cluster)
{
    enum status st = ST_OK;
    struct community *list = NULL;
    int32_t *renamed = NULL;
    int64_t n = igraph_vector_int_size(member);
    TRY(NEW_ARRAY(list, count));
    TRY(NEW_ARRAY(renamed, count));
    for (int32_t c = 0; c < count; c++) list[c] = (struct community){0, n, c};
    for (int64_t i = n - 1; i >= 0; i--) {
        list[VECTOR(*member)[i]].size++;
        list[VECTOR(*member)[i]].first = i;
    }
    qsort(list, (size_t)count, sizeof *list, by_size);
    for (int32_t c = 0; c < count; c++) renamed[list[c].old] = c;
    for (int64_t i = 0; i < n; i++) cluster[i] = renamed[VECTOR(*member)[i]];
done:
    free(list);
    free(renamed);
    return st;
}

/* Modularity: node weights are degrees, resolution is divided by twice the number of edges. */
static enum status find_members(const igraph_t *g, double resolution, igraph_vector_int_t *member,
                                igraph_integer_t *count)
{
    enum status st = ST_OK;
    igraph_vector_t degree;
    double edges = (double)igraph_ecount(g);
    TRY(check(igraph_vector_init(&degree, 0), "make a list of degrees"));
    st = check(igraph_strength(g, &degree, igraph_vss_all(), IGRAPH_ALL, IGRAPH_LOOPS, NULL), "count neighbours");
    if (st == ST_OK)
        st = check(igraph_community_leiden(g, NULL, &degree, resolution / (2 * (edges > 0 ? edges : 1)), 0.01, false,
                                           LEIDEN_ROUNDS, member, count, NULL),
                   "find communities");
    igraph_vector_destroy(&degree);
done:
    return st;
}

enum status umap_communities(const struct neighbour_graph *graph, double resolution, uint64_t seed, int32_t *cluster,
                             int32_t *clusters)
{
    enum status st = ST_OK;
    igraph_t g;
    igraph_vector_t length;
    igraph_vector_int_t member;
    igraph_integer_t count = 0;
    begin(seed);
    TRY(check(igraph_vector_init(&length, 0), "make a list of lengths"));
    st = make_graph(graph, &g, &length);
    igraph_vector_destroy(&length);
    if (st != ST_OK) goto done;
    st = check(igraph_vector_int_init(&member, 0), "make a list of members");
    if (st == ST_OK) {
        st = find_members(&g, resolution, &member, &count);
        if (st == ST_OK) st = renumber(&member, (int32_t)count, cluster);
        *clusters = (int32_t)count;
        igraph_vector_int_destroy(&member);
    }
    igraph_destroy(&g);
done:
    return st;
}
