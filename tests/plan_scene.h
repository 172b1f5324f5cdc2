/* What the tests of plans share: a model and a machine, and plans of them. */
#ifndef CYTOMILL_TESTS_PLAN_SCENE_H
#define CYTOMILL_TESTS_PLAN_SCENE_H

#include <math.h>

#include "kernel_check.h"

#include "golden.h"
#include "mpi/plan.h"

#define OK(call) \
    do { \
        enum status status_ = (call); \
        if (status_ != ST_OK) print_error("%s\n", status_message()); \
        assert_int_equal(status_, ST_OK); \
    } while (0)

static struct config *config;
static struct vocab *vocab;
static struct plan_job job;
static struct plan_machine machine;

static inline void set(const char *assignment) { OK(config_set(config, assignment, "test")); }

/* CellFM-800M's shape, and 200 nodes of two sockets. */
static inline void set_scene(void)
{
    static const char *const keys[] = {"model.layers=40", "model.width=1536", "model.heads=48",
                                       "model.feed_forward=sglu"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) set(keys[i]);
    job = (struct plan_job){.config = config,
                            .vocab = vocab,
                            .bf16 = true,
                            .batch = 4096,
                            .steps = 10000,
                            .max_genes = 2048,
                            .genes = 1500};
    machine = (struct plan_machine){.nodes = 64,
                                    .ranks_per_node = 2,
                                    .threads = 56,
                                    .node_bytes = 512e9,
                                    .process_bytes = 2e8,
                                    .flops_per_s = 50e12,
                                    .block_share = 0.8,
                                    .expert_share = 0.7,
                                    .first_share = 0.7,
                                    .last_share = 0.6,
                                    .pass_s = 1e-4,
                                    .forward_part = 0.32,
                                    .weights_part = 0.36,
                                    .memory_bytes_per_s = 1e11,
                                    .update_share = 0.6,
                                    .shared_bytes_per_s = 4e10,
                                    .link_bytes_per_s = 12.5e9,
                                    .latency_s = 2e-6,
                                    .disk_bytes_per_s = 5e9,
                                    .node_mtbf_s = 3e7};
}

static inline int open_scene(void **state)
{
    OK(config_create(&config));
    vocab = golden_vocab(24000);
    return 0;
}
static inline int reset_scene(void **state) { return set_scene(), 0; }
static inline int close_scene(void **state)
{
    vocab_destroy(&vocab);
    config_destroy(&config);
    return 0;
}

static inline struct plan_estimate estimate(struct plan_layout layout)
{
    struct plan *plan;
    struct plan_estimate e;
    OK(plan_open(&job, &machine, &plan));
    OK(plan_estimate(plan, &layout, &e));
    plan_close(&plan);
    return e;
}

static inline struct plan_found search_for(struct plan_wanted wanted)
{
    struct plan *plan;
    struct plan_found found;
    OK(plan_open(&job, &machine, &plan));
    OK(plan_search(plan, &wanted, &found));
    plan_close(&plan);
    return found;
}
static inline struct plan_found search(void) { return search_for((struct plan_wanted){0}); }

static inline void check_close(double value, double want, double relative)
{
    if (fabs(value - want) > relative * fabs(want)) print_error("%.9g instead of %.9g\n", value, want);
    assert_true(fabs(value - want) <= relative * fabs(want));
}

/* A mixture in every other block, of which a rank of four has two of the eight experts. */
static inline void set_mixture(void)
{
    set("model.feed_forward=moe");
    set("model.experts=8");
    set("model.experts_per_token=2");
    set("model.expert_every=2");
}

#endif
