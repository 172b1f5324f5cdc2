/* A mixture of SGLU experts in three steps, so that rows can travel to the ranks that hold their experts in between:
 *     moe_route      logits in `real`, K experts for every row, rows in the order of their experts
 *     moe_experts    rows of each run through its expert
 *     moe_combine    results back in the order of rows, weighted, with the shared expert's beside them
 * One rank that holds all experts calls one after the other (ffn_moe.c). */
#ifndef CYTOMILL_MODEL_FFN_MOE_H
#define CYTOMILL_MODEL_FFN_MOE_H

#include "model/ffn.h"

/* x[R, D] -> rows[R K, D] in expert order, and what was decided. Local. */
struct tensor *moe_route(const struct ffn *moe, const struct pass *pass, struct tensor *x, struct routing *routing);
/* rows[N, D] -> [N, D] through the experts of the runs, numbered from the first one that lies here. Local. */
struct tensor *moe_experts(const struct ffn *moe, const struct pass *pass, struct tensor *rows,
                           struct expert_runs runs);
/* results[R K, D] in expert order -> y[R, D]; x as moe_route had it, for the shared expert. Local. */
struct tensor *moe_combine(const struct ffn *moe, const struct pass *pass, struct tensor *results,
                           const struct routing *routing, struct tensor *x);

#endif
