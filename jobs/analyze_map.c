#include "jobs/analyze_map.h"

#include <stdlib.h>
#include <string.h>

#include "base/stop.h"
#include "jobs/data_path.h"
#include "mpi/dense.h"

void analyze_print_map_cost(const struct job *job, const struct embedding_table *t)
{
    char cells[32], shown[32];
    int64_t most = config_int(job->config, "analyze.map_cells");
    int64_t n = t->usable_count < most ? t->usable_count : most;
    comm_note(&job->world, "%s: %s of %s cells on the map (analyze.map_cells), %d dimensions of %s", t->path,
              text_count(n, shown), text_count(t->usable_count, cells), t->width, t->name);
}

enum status analyze_make_map(struct job *job, const struct embedding_table *t, struct cell_map *out)
{
    struct spread_rows rows = {t->first, t->count, t->width, t->values};
    struct cell_map_options options = {.most = config_int(job->config, "analyze.map_cells"),
                                       .k = (int)config_int(job->config, "analyze.neighbours"),
                                       .resolution = config_real(job->config, "analyze.resolution"),
                                       .seed = (uint64_t)config_int(job->config, "run.seed")};
    dense_set_threads(job->placement.threads);
    return cell_map_make(&job->world, &rows, t->rows, t->usable, &options, out);
}

enum status analyze_read_markers(const struct job *job, struct marker_table *out)
{
    enum status st = ST_OK;
    char *shipped = NULL;
    const char *path = config_text(job->config, "analyze.markers");
    if (!*path) {
        TRY(data_path_find("configs/genes/markers_pbmc.tsv", &shipped));
        path = shipped;
    }
    TRY(marker_table_read(path, out));
done:
    free(shipped);
    return st;
}

/* Scores of this rank's share of the map's cells; runs of neighbouring rows are read together. */
static enum status score_share(const struct cell_map *map, struct cell_input *input, const struct marker_map *markers,
                               int64_t first, int64_t count, float *score)
{
    enum { MOST = 2048 };
    enum status st = ST_OK;
    struct cells cells = {0};
    for (int64_t at = 0; at < count;) {
        int64_t row = map->row[first + at], run = 1;
        while (run < MOST && at + run < count && map->row[first + at + run] == row + run) run++;
        TRY(stop_asked() ? ST_REQUEUE : cell_input_read(input, row, run, &cells));
        celltype_score(markers, &cells, score + at * markers->type_count);
        at += run;
    }
done:
    cells_free(&cells);
    return st;
}

enum status analyze_call_types(struct job *job, const struct cell_map *map, struct cell_input *input,
                               const struct marker_table *table, int32_t **type)
{
    enum status st = ST_OK;
    struct marker_map markers = {0};
    float *mine = NULL, *score = NULL;
    int32_t *called = NULL;
    int64_t first, count, bytes;
    comm_share(&job->world, map->n, &first, &count);
    st = marker_map_create(table, input->features, &markers);
    if (st == ST_OK) st = NEW_ARRAY(mine, count * markers.type_count);
    if (st == ST_OK) st = NEW_ARRAY(called, map->n);
    if (st == ST_OK) st = score_share(map, input, &markers, first, count, mine);
    TRY(comm_agree(&job->world, st));
    TRY(comm_gather_all(&job->world, mine, count * markers.type_count * (int64_t)sizeof *mine, (void **)&score, &bytes,
                        NULL));
    TRY(comm_agree(&job->world, celltype_call(markers.type_count, map->n, score, called)));
    *type = called;
    called = NULL;
done:
    free(mine);
    free(score);
    free(called);
    marker_map_free(&markers);
    return st;
}
