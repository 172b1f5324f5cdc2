/* What a training will cost on a cluster, before a node hour is spent: memory, time and traffic of a layout, and the
 * best layouts for a number of nodes.
 *
 * Nothing is allocated for the model and nothing communicates. Bytes are those that measure mode and the modules
 * themselves report; time is built from a few rates of the machine (typed, or measured by cytomill-plan --calibrate):
 *     pass of a block    pass_s + tokens FLOPs / (flops_per_s share)      forward, backward and weights each
 *     pipeline           the schedule's table played with the times of every part (schedule.h)
 *     experts            rows to their experts and back, forward and backward, as if they were spread evenly: over links
 *                        and inside nodes at once, hiding nothing. In turns (mesh.turns) the table is played with its
 *                        exchanges: of the links' time PLAN_HIDDEN_SHARE may be hidden, of copies inside a node nothing
 *     spread             cells differ in length: the longest of d replicas, sd sqrt(cells) z(d) tokens above the mean
 *     exchange           (d - 1) / d of the gradient and of the weights (reduce.h, hand_out.h), over links and inside
 *                        nodes; on several nodes PLAN_HIDDEN_SHARE of the gradient's is hidden behind the last backward
 *                        pass, of the weights' as if nothing were
 *     update             plan_update_bytes of memory traffic for every parameter of the rank
 *     checkpoint         interval of Young (1974) and Daly (2006), sqrt(2 C M) to first order, where C is what the
 *                        training waits: for the copy alone if it goes on while the file is written
 * Loading cells and held-out evaluations are left out: thousandths of a step for models that need a cluster.
 *
 *     TRY(plan_open(&job, &machine, &plan));
 *     TRY(plan_search(plan, &(struct plan_wanted){0}, &found));       found.best[0] is the one to take
 *     plan_close(&plan); */
#ifndef CYTOMILL_MPI_PLAN_H
#define CYTOMILL_MPI_PLAN_H

#include "base/config.h"
#include "cell/vocab.h"
#include "model/model.h"
#include "mpi/schedule.h"

enum {
    PLAN_MOST = 6 /* layouts that a search tells */
};

/* Share of a node's memory that ranks may take; the rest is the system's. */
#define PLAN_MEMORY_SHARE 0.9
/* Of the time that a checkpoint takes to write, what it holds up the training that goes on beside it, beyond the copy: with
 * the copy that is near the 0.14 to 0.16 that were measured (validation/engine/faults.md). */
#define PLAN_STALL_SHARE 0.05
/* Of the exchange of gradients over links, what the backward pass hides: 0.43 to 0.58 were measured with TCP on the ranks'
 * own cores (validation/engine/overlap.md). As much, by assumption, of the rows that travel while two micro-batches take
 * turns; the rest is the ranks' own work. Inside a node nothing is hidden, as ranks themselves copy. */
#define PLAN_HIDDEN_SHARE 0.5
/* A simpler layout is taken when it is at most this much slower. */
#define PLAN_SIMPLER 1.10

/* All ranks of a node run the same; "of a rank" counts all its threads. */
struct plan_machine {
    int nodes, ranks_per_node, threads; /* OpenMP threads of a rank */
    int sharing;                        /* neighbouring ranks that share packed weights (pack_group.h); 0 or 1: none */
    double node_bytes;                  /* memory of a node */
    double process_bytes;               /* of a rank, before there is a model */
    double flops_per_s;                 /* of a rank, in large products */
    double block_share, expert_share;   /* of that in a training pass: of a block, of one with experts, */
    double first_share, last_share;     /* of the first with the embedding, of the last with the heads */
    double pass_s;                      /* of a pass through a block, whatever its size */
    double forward_part, weights_part;  /* of a training pass's time; the rest is backward */
    double memory_bytes_per_s;          /* of a rank, streaming */
    double update_share;                /* of that in the optimiser and in packing */
    double shared_bytes_per_s;          /* of all ranks of a node together, between them */
    double link_bytes_per_s;            /* of a node, to others, each way */
    double latency_s;                   /* of a message that somebody waits for */
    double message_s;                   /* of one between stages that compute, beyond its bytes */
    double disk_bytes_per_s;            /* of all nodes together */
    double node_mtbf_s;                 /* mean time between failures of one node */
};

struct plan_job {
    const struct config *config; /* model.*, train.*; borrowed, as is vocab */
    const struct vocab *vocab;
    bool bf16, exchange_bf16;
    bool copies; /* training goes on while a checkpoint is written, from a copy */
    int64_t batch, steps;
    int max_genes;
    double genes, genes_sd; /* of a cell, as the model sees it: mean and standard deviation */
};

/* Zeros in expert and blocks are as good as 1 and "by cost". */
struct plan_layout {
    int data, pipe; /* replicas, stages */
    enum schedule_kind schedule;
    int chunks, micro_batch; /* of a stage; cells */
    bool recompute;
    int expert;        /* ranks that share out the experts of a layer, each with cells of its own */
    const int *blocks; /* [pipe * chunks] of each part, borrowed; NULL: shared by cost */
    bool in_turns;     /* two micro-batches share the time of exchanges with experts */
};

/* Bytes of the rank that needs most. */
struct plan_memory {
    double weights, packed, gradients, moments, activations, exchange, messages, checkpoint, process;
};

/* Seconds of a step. Compute is that of the dearest stage. */
struct plan_time {
    double forward, backward, weights; /* backward recomputes too */
    double experts;                    /* rows to experts on other ranks and back, as far as turns do not hide it */
    double idle;                       /* waiting within the pipeline */
    double spread;                     /* waiting for the replica with the longest cells */
    double exchange, tied, update;
};

/* Bytes in a step. */
struct plan_traffic {
    double gradients; /* sent by a rank, to replicas */
    double tied;      /* sent by a rank at an end of the pipeline: rows of the table that both ends read */
    double messages;  /* sent by a stage: activations and their gradients */
    double rows;      /* sent by a rank to experts and back */
    double off_node;  /* out of the busiest node's link */
};

struct plan_estimate {
    struct plan_layout layout;
    int micros; /* micro-batches of a step */
    struct plan_memory memory;
    double rank_bytes, node_bytes;
    bool fits;
    struct plan_time time;
    double step_s, bubble; /* idle share of all stages' time within the pipeline */
    struct plan_traffic traffic;
    double checkpoint_bytes, checkpoint_s; /* to write one */
    double stall_s;                        /* what the training waits for that */
    double interval_s;                     /* seconds between two checkpoints that waste least */
    double run_s;                          /* all steps, with checkpoints and expected failures */
    char reason[400];                      /* why it is taken, or what limits it */
};

/* What must be as it is; 0 leaves it open. */
struct plan_wanted {
    int data, pipe, expert, chunks;
    const int *blocks; /* [parts] of each part, borrowed; NULL: by cost */
    int parts;
    int most_micro; /* cells of a micro-batch at most; 0: 16 */
    bool has_schedule, has_recompute, has_turns;
    enum schedule_kind schedule;
    bool recompute, turns;
};

struct plan_found {
    int count; /* 0: nothing fits and no layout is worth telling */
    struct plan_estimate best[PLAN_MOST];
};

struct plan;

/* Measure the model of `job` (borrowed, as is machine). ST_CONFIG. Local. */
MUST_CHECK enum status plan_open(const struct plan_job *job, const struct plan_machine *machine, struct plan **out);
void plan_close(struct plan **plan);

int64_t plan_parameters(const struct plan *plan);
/* FLOPs of training on a cell of mean length. Local. */
double plan_cell_flops(const struct plan *plan);

/* Everything about one layout. ST_CONFIG if it does not go with the model or the batch. Local. */
MUST_CHECK enum status plan_estimate(const struct plan *plan, const struct plan_layout *layout,
                                     struct plan_estimate *out);
/* The layers of a layout: parts p c + s (schedule.h) have blocks first[part] to first[part + 1]; first[parts + 1].
 * Local. ST_CONFIG: fewer blocks than parts, or given ones that are not those of the model. */
MUST_CHECK enum status plan_share_layers(const struct plan *plan, const struct plan_layout *layout, int *first);
/* The best layouts of all ranks, the one to take first, each with its reason; one that does not fit is told only if it
 * is simpler than all that do. ST_CONFIG: none fits; the line says what would. Local. */
MUST_CHECK enum status plan_search(const struct plan *plan, const struct plan_wanted *wanted, struct plan_found *out);
/* Fewest nodes on which some layout fits, 0 if none would do. ST_CONFIG. Local. */
MUST_CHECK enum status plan_least_nodes(const struct plan *plan, int *nodes);

/* ---- the formulas, for tests and calibration ---- */

/* As schedule_simulate_parts (times [parts]) of any number of micro-batches: beyond a few fillings of
 * the pipeline each adds the same, so the rest is extrapolated. No array is found. Local. */
MUST_CHECK enum status plan_play(const struct schedule_spec *spec, const struct schedule_times *times,
                                 struct schedule_found *out);
/* Memory traffic of the optimiser's step for a parameter of a rank that has `replicas`, of which `sharers` share packed
 * weights. Local. */
double plan_update_bytes(int replicas, int sharers);
/* Of `ranks` ranks that hold the same weights and are `stride` apart, those that share a packed copy, at least. Local. */
int plan_sharers(const struct plan_machine *machine, int ranks, int stride);
/* Seconds to sum `bytes` of gradients, fp32 (`wire` of them sent back and forth), over `ranks` that are `stride` apart.
 * Local. */
double plan_exchange_s(const struct plan_machine *machine, double bytes, double wire, int ranks, int stride);
/* Seconds of a trip of rows: over links and inside the node, which go on at once, after a start. */
struct plan_travel {
    double link_s, copy_s, start_s;
};
/* Of `bytes` of rows, spread evenly over `ranks` neighbours of which this is one. Local. */
struct plan_travel plan_travel(const struct plan_machine *machine, double bytes, int ranks);
/* Standard deviations by which the largest of `count` normal numbers is expected above the mean. Local. */
double plan_longest(int count);
/* Seconds between checkpoints that take c_s each, on a machine that fails every m_s. Local. */
double plan_interval_s(double c_s, double m_s);

#endif
