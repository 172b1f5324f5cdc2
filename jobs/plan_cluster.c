#include <string.h>

#include "jobs/plan_state.h"

static bool is_of_cluster(const char *key) { return strncmp(key, "cluster.", 8) == 0; }

static enum status take_key(struct config *config, const struct config *file, const char *path, const char *key)
{
    enum status st = ST_OK;
    const char *value;
    if (!config_is_given(file, key)) return ST_OK;
    if (!is_of_cluster(key))
        return fail(ST_CONFIG, "%s: '%s' is no key of section cluster; give that file with --config", path, key);
    if (config_is_given(config, key)) return ST_OK;
    TRY(config_written(file, key, &value));
    TRY(config_put(config, key, value, path));
done:
    return st;
}

enum status plan_read_cluster(struct config *config)
{
    enum status st = ST_OK;
    struct config *file = NULL;
    const char *path = config_text(config, "plan.cluster");
    if (!*path) return ST_OK;
    TRY(config_create(&file));
    TRY(config_read(file, path));
    for (int k = 0; k < config_key_count; k++) TRY(take_key(config, file, path, config_keys[k].name));
done:
    config_destroy(&file);
    return st;
}

/* ---- as a machine ---- */

static enum status check_known(const struct config *c, bool in_bf16)
{
    static const char remedy[] = "write it into the cluster file (--cluster), or measure it on a node of the cluster: "
                                 "cytomill-plan --config FILE --calibrate FILE";
    if (config_int(c, "cluster.cores") == 0) return config_fail(c, "cluster.cores", "unknown; %s", remedy);
    if (config_real(c, "cluster.memory_gib") == 0) return config_fail(c, "cluster.memory_gib", "unknown; %s", remedy);
    if (in_bf16 && config_real(c, "cluster.bf16_gflops") == 0)
        return config_fail(c, "cluster.bf16_gflops", "unknown; %s", remedy);
    if (!in_bf16 && config_real(c, "cluster.fp32_gflops") == 0)
        return config_fail(c, "cluster.fp32_gflops", "unknown; %s", remedy);
    if (config_real(c, "cluster.memory_gb_per_s") == 0)
        return config_fail(c, "cluster.memory_gb_per_s", "unknown; %s", remedy);
    if (config_int(c, "cluster.nodes") > 1 && config_real(c, "cluster.link_gbit_per_s") == 0)
        return config_fail(c, "cluster.link_gbit_per_s", "unknown, and cluster.nodes is more than 1; %s", remedy);
    if (config_int(c, "cluster.ranks_per_node") > config_int(c, "cluster.cores"))
        return config_fail(c, "cluster.ranks_per_node", "a node has %lld cores (cluster.cores); use no more ranks",
                           (long long)config_int(c, "cluster.cores"));
    if (config_real(c, "cluster.forward_part") + config_real(c, "cluster.weights_part") >= 1)
        return config_fail(c, "cluster.forward_part",
                           "with cluster.weights_part it leaves nothing to the backward pass");
    return ST_OK;
}

/* Ranks of a NUMA domain, which share packed weights; 1: none do. */
static int sharing_ranks(const struct config *c, int ranks)
{
    int domains = (int)config_int(c, "cluster.numa_domains");
    if (!config_bool(c, "mesh.share_packed") || domains == 0 || domains >= ranks) return 1;
    return ranks / domains;
}

enum status plan_machine_from(const struct config *c, bool in_bf16, struct plan_machine *out)
{
    enum status st = check_known(c, in_bf16);
    if (st != ST_OK) return st;
    int ranks = (int)config_int(c, "cluster.ranks_per_node"), threads = (int)config_int(c, "cluster.cores") / ranks;
    double memory = 1e9 * config_real(c, "cluster.memory_gb_per_s"), shared = config_real(c, "cluster.shared_gb_per_s");
    double link = config_real(c, "cluster.link_gbit_per_s") * 1e9 / 8;
    *out = (struct plan_machine){.nodes = (int)config_int(c, "cluster.nodes"),
                                 .ranks_per_node = ranks,
                                 .sharing = sharing_ranks(c, ranks),
                                 .threads = threads,
                                 .node_bytes = config_real(c, "cluster.memory_gib") * 0x1p30,
                                 .process_bytes = config_real(c, "cluster.process_mib") * 0x1p20,
                                 .flops_per_s = 1e9 * threads *
                                                config_real(c, in_bf16 ? "cluster.bf16_gflops" : "cluster.fp32_gflops"),
                                 .block_share = config_real(c, "cluster.block_share"),
                                 .expert_share = config_real(c, "cluster.expert_share"),
                                 .first_share = config_real(c, "cluster.first_share"),
                                 .last_share = config_real(c, "cluster.last_share"),
                                 .pass_s = 1e-6 * config_real(c, "cluster.pass_us"),
                                 .forward_part = config_real(c, "cluster.forward_part"),
                                 .weights_part = config_real(c, "cluster.weights_part"),
                                 .memory_bytes_per_s = memory / ranks,
                                 .update_share = config_real(c, "cluster.update_share"),
                                 .shared_bytes_per_s = shared > 0 ? 1e9 * shared : memory / 8,
                                 .link_bytes_per_s = link > 0 ? link : memory,
                                 .message_s = 1e-6 * config_real(c, "cluster.message_us"),
                                 .latency_s = 1e-6 * config_real(c, "cluster.latency_us"),
                                 .disk_bytes_per_s = 1e9 * config_real(c, "cluster.disk_gb_per_s"),
                                 .node_mtbf_s = 3600 * config_real(c, "cluster.node_mtbf_hours")};
    return ST_OK;
}
