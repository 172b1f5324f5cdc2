/* Inside of a checkpoint file, shared by writing and reading: its tensors, cut into blocks.
 * A block is a piece (model/shard.h) of one part: whole rows (of the first dimension) of one tensor, at most PIECE_REALS
 * values or one row; it is what a rank writes at once, and what a checksum covers. */
#ifndef CYTOMILL_IO_CHECKPOINT_FILE_H
#define CYTOMILL_IO_CHECKPOINT_FILE_H

#include "io/checkpoint.h"
#include "io/h5.h"

enum { CHECKPOINT_VERSION = 4 }; /* 1 had larger blocks, 2 no guard, 3 no history */
#define CHECKPOINT_FORMAT "cytomill checkpoint"

enum checkpoint_part { PART_WEIGHT, PART_MOMENT1, PART_MOMENT2, PART_COUNT };
const char *checkpoint_part_group(int part); /* "param", "moment1", "moment2" */

struct checkpoint_tensor {
    char name[96];
    int shape_rank;
    int64_t shape[3];
    int64_t row_reals;               /* values of one row of the first dimension */
    int64_t first_block[PART_COUNT]; /* index of its first block */
};

struct checkpoint_block {
    int part, tensor;
    int64_t first_row, rows;
    int64_t index; /* place of its checksum */
};

struct checkpoint_map {
    int parts; /* 1 (model only) or PART_COUNT */
    int tensor_count;
    struct checkpoint_tensor *tensors; /* [tensor_count] */
    int64_t block_count;
    struct checkpoint_block *blocks; /* [block_count], in order of index */
};

/* Cut the tensors into blocks: tensor by tensor, part after part; sets first_block. map->tensors and
 * the counts of parts and tensors are given. Local. */
MUST_CHECK enum status checkpoint_map_cut(struct checkpoint_map *map);
/* The map of a parameter table, in the order of its rows. Local. */
MUST_CHECK enum status checkpoint_map_of(const struct param_table *params, struct checkpoint_map *map);
void checkpoint_map_free(struct checkpoint_map *map);
/* owner[block_count] = which of `ranks` ranks has to do with a block: shares are even in values. Local. */
void checkpoint_map_share(const struct checkpoint_map *map, int ranks, int *owner);
/* The piece of a table that a block is; tensor `row` of the table has the block's name and shape. Local. */
const struct piece *checkpoint_block_piece(const struct checkpoint_map *map, const struct checkpoint_block *block,
                                           const struct param_table *params, int row);
/* Its values in the table: a moment's only where the piece is owned. Local. */
real *checkpoint_block_values(const struct checkpoint_block *block, const struct piece *piece,
                              const struct param_table *params);
/* Values of a block. */
int64_t checkpoint_block_reals(const struct checkpoint_map *map, const struct checkpoint_block *block);
enum { HISTORY_VALUES = sizeof(struct history_point) / sizeof(double) };
/* XXH3 over what is neither tensor nor checksum. Local. */
uint64_t checkpoint_small_check(const char *config_text, const char *vocab_text, size_t vocab_bytes,
                                const char *model_name, const struct train_state *state);
/* Open read-only and check the format. ST_INPUT names the file. Local. */
MUST_CHECK enum status checkpoint_file_open(const char *path, hid_t *file);

/* Everything but tensors. Owns its strings. */
struct checkpoint_small {
    char *config_text, *model_name, *vocab_text; /* vocab_text[vocab_bytes], then a NUL */
    size_t vocab_bytes;
    struct train_state state;
};
/* From an open file, verified. Zero-initialise before. Local. */
MUST_CHECK enum status checkpoint_small_read(hid_t file, struct checkpoint_small *out);
/* Rank 0 reads, all ranks get it. Zero-initialise before; free even on failure. Collective. */
MUST_CHECK enum status checkpoint_small_share(struct comm *comm, const char *path, struct checkpoint_small *out);
void checkpoint_small_free(struct checkpoint_small *small);

/* Step in a name "…/checkpoint-<step>ENDING", -1 if it is no such name. Local. */
#define CHECKPOINT_ENDING ".h5"
#define CHECKPOINT_PROBE  ".probe" /* behind it: the file of coherence_probe */
int64_t checkpoint_name_step(const char *name, const char *ending);
/* Steps of a folder's files of such names, newest first (caller frees); none if there is no such folder. ST_INPUT. Local. */
MUST_CHECK enum status checkpoint_list_steps(const char *folder, const char *ending, int64_t **steps, int64_t *count);

#endif
