/* The keys mesh.* of a configuration and train.exchange, for the programs that train and that plan a training. */
#ifndef CYTOMILL_JOBS_LAYOUT_KEYS_H
#define CYTOMILL_JOBS_LAYOUT_KEYS_H

#include "base/config.h"
#include "mpi/schedule.h"

/* mesh.schedule. Local. */
enum schedule_kind layout_schedule(const struct config *config);
/* train.exchange: do gradients travel in bf16 when products are bf16 or not? Local. */
bool layout_exchange_bf16(const struct config *config, bool products_bf16);
/* mesh.layers: blocks[stages * chunks], the blocks of each part of a model of `layers`. ST_CONFIG: not as many numbers as
 * parts, or other blocks than the model has. Local. */
MUST_CHECK enum status layout_read_blocks(const struct config *config, int stages, int chunks, int layers, int *blocks);

#endif
