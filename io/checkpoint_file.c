#include "io/checkpoint_file.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

const char *checkpoint_part_group(int part)
{
    static const char *const names[] = {"param", "moment1", "moment2"};
    return names[part];
}

static int64_t rows_of_block(const struct checkpoint_tensor *t)
{
    int64_t rows = t->row_reals > 0 ? PIECE_REALS / t->row_reals : t->shape[0];
    return rows > 0 ? rows : 1;
}

static int64_t blocks_of(const struct checkpoint_tensor *t)
{
    int64_t rows = rows_of_block(t);
    return (t->shape[0] + rows - 1) / rows;
}

enum status checkpoint_map_cut(struct checkpoint_map *map)
{
    enum status st = ST_OK;
    int64_t blocks = 0, at = 0;
    for (int t = 0; t < map->tensor_count; t++) blocks += map->parts * blocks_of(&map->tensors[t]);
    TRY(NEW_ARRAY(map->blocks, blocks));
    map->block_count = blocks;
    for (int part = 0; part < map->parts; part++)
        for (int i = 0; i < map->tensor_count; i++) {
            struct checkpoint_tensor *t = &map->tensors[i];
            t->first_block[part] = at;
            for (int64_t row = 0; row < t->shape[0]; row += rows_of_block(t), at++) {
                int64_t left = t->shape[0] - row, rows = rows_of_block(t);
                map->blocks[at] = (struct checkpoint_block){part, i, row, left < rows ? left : rows, at};
            }
        }
done:
    return st;
}

enum status checkpoint_map_of(const struct param_table *params, struct checkpoint_map *map)
{
    enum status st = ST_OK;
    *map = (struct checkpoint_map){.parts = params->moment1 ? PART_COUNT : 1, .tensor_count = params->count};
    TRY(NEW_ARRAY(map->tensors, params->count));
    for (int i = 0; i < params->count; i++) {
        const struct param *p = &params->rows[i];
        struct checkpoint_tensor *t = &map->tensors[i];
        *t = (struct checkpoint_tensor){.shape_rank = p->shape_rank, .shape = {p->shape[0], p->shape[1], p->shape[2]}};
        memcpy(t->name, p->name, sizeof t->name);
        t->row_reals = p->shape[0] > 0 ? p->rows * p->cols / p->shape[0] : 0;
    }
    TRY(checkpoint_map_cut(map));
done:
    if (st != ST_OK) checkpoint_map_free(map);
    return st;
}

void checkpoint_map_free(struct checkpoint_map *map)
{
    free(map->tensors);
    free(map->blocks);
    *map = (struct checkpoint_map){0};
}

int64_t checkpoint_block_reals(const struct checkpoint_map *map, const struct checkpoint_block *block)
{
    return block->rows * map->tensors[block->tensor].row_reals;
}

void checkpoint_map_share(const struct checkpoint_map *map, int ranks, int *owner)
{
    double total = 0, before = 0;
    for (int64_t b = 0; b < map->block_count; b++) total += (double)checkpoint_block_reals(map, &map->blocks[b]);
    for (int64_t b = 0; b < map->block_count; b++) { /* a block belongs to the rank in whose share it begins */
        owner[b] = (int)(before / total * ranks);
        before += (double)checkpoint_block_reals(map, &map->blocks[b]);
    }
}

const struct piece *checkpoint_block_piece(const struct checkpoint_map *map, const struct checkpoint_block *block,
                                           const struct param_table *params, int row)
{
    int64_t begin = map->tensors[block->tensor].first_block[block->part];
    return &params->shard.piece[params->shard.first[row] + (block - map->blocks) - begin];
}

real *checkpoint_block_values(const struct checkpoint_block *block, const struct piece *piece,
                              const struct param_table *params)
{
    if (block->part == PART_WEIGHT) return param_piece_weight(params, piece);
    return (block->part == PART_MOMENT1 ? params->moment1 : params->moment2) + piece->moment;
}

/* What is not used of the points is not in the file. */
static uint64_t hash_history(const struct history *h, uint64_t seed)
{
    int64_t counts[] = {h->count, h->offered, h->halvings};
    return hash_block(h->point, sizeof *h->point * (size_t)h->count, hash_block(counts, sizeof counts, seed));
}

uint64_t checkpoint_small_check(const char *config_text, const char *vocab_text, size_t vocab_bytes,
                                const char *model_name, const struct train_state *s)
{
    char line[256], loss[32] = "nan";
    if (!isnan(s->best_loss)) snprintf(loss, sizeof loss, "%.17g", s->best_loss);
    int n =
        snprintf(line, sizeof line, "%lld %lld %lld %llu %s %s %lld %lld %lld", (long long)s->step,
                 (long long)s->cells_seen, (long long)s->global_batch, (unsigned long long)s->seed, loss, s->atlas_hash,
                 (long long)s->guard.accepted, (long long)s->guard.skipped_in_a_row, (long long)s->guard.skipped);
    uint64_t hash = hash_block(line, (size_t)n, CHECKPOINT_VERSION);
    hash = hash_block(s->guard.norm, sizeof s->guard.norm, hash);
    hash = hash_history(&s->evaluated, hash_history(&s->trained, hash));
    hash = hash_block(model_name, strlen(model_name), hash);
    hash = hash_block(config_text, strlen(config_text), hash);
    return hash_block(vocab_text, vocab_bytes, hash);
}

int64_t checkpoint_name_step(const char *name, const char *ending)
{
    const char *base = strrchr(name, '/');
    base = base ? base + 1 : name;
    long long step;
    int end = 0;
    if (sscanf(base, "checkpoint-%lld%n", &step, &end) != 1 || step < 0) return -1;
    return strcmp(base + end, ending) == 0 ? step : -1;
}

static int newer_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

enum status checkpoint_list_steps(const char *folder, const char *ending, int64_t **steps, int64_t *count)
{
    enum status st = ST_OK;
    DIR *dir = opendir(folder);
    int64_t capacity = 0;
    *steps = NULL;
    *count = 0;
    if (!dir && errno == ENOENT) goto done;
    if (!dir) TRY(fail(ST_INPUT, "%s: cannot be listed: %s", folder, strerror(errno)));
    for (struct dirent *e; (e = readdir(dir));) {
        int64_t step = checkpoint_name_step(e->d_name, ending);
        if (step < 0) continue;
        if (*count == capacity) {
            int64_t *grown = realloc(*steps, sizeof *grown * (size_t)(capacity = 2 * capacity + 16));
            if (!grown) TRY(fail(ST_MEMORY, "no memory to list %s", folder));
            *steps = grown;
        }
        (*steps)[(*count)++] = step;
    }
    if (*count) qsort(*steps, (size_t)*count, sizeof **steps, newer_first);
done:
    if (dir) closedir(dir);
    return st;
}
