/* The key table: INT(section.key, default, min, max, unit, sentence), REAL likewise,
 * BOOL(key, default, sentence), WORD(key, default, words, sentence), TEXT(key, default, sentence),
 * LIST(key, default, sentence). One section after another, in the order a user meets them. */
#ifndef CYTOMILL_BASE_CONFIG_KEYS_H
#define CYTOMILL_BASE_CONFIG_KEYS_H

#define CONFIG_KEYS(INT, REAL, BOOL, WORD, TEXT, LIST) \
    /* run: what every program takes */ \
    TEXT("run.atlas", "", "Atlas folder that the job reads.") \
    TEXT("run.model", "", "Checkpoint that the job reads, or the folder of a training run: its newest.") \
    TEXT("run.out", "", "Folder or file that the job writes.") \
    LIST("run.input", "", "Input files or folders, in order.") \
    INT("run.seed", "0", 0, 9007199254740992.0, "", "Seed of every random number.") \
    INT("run.threads", "0", 0, 4096, "threads", \
        "OpenMP threads of a rank; 0 takes OMP_NUM_THREADS or the cores the rank may use.") \
    WORD("run.precision", "auto", "auto|bf16|fp32", \
         "Precision of products: auto takes bf16 where the processor has it.") \
    WORD("run.isa", "auto", "auto|generic|avx2|avx512", \
         "Instruction set of our kernels; pin it to get the same bits on unlike nodes.") \
    WORD("run.io", "auto", "auto|ompio|romio|posix", \
         "How ranks write shared files: MPI-IO through OMPIO or ROMIO, or plain POSIX calls per rank; auto takes the " \
         "latter on one host, and for checkpoints beside the training where all hosts see the file alike.") \
    TEXT("run.cells", "", \
         "Which cells take part, an expression over obs columns such as: qc_n_features >= 200 and cell_type == 'B'.") \
    BOOL("run.oversubscribe", "false", "Allow more ranks times threads than cores.") \
    TEXT("run.stop_file", "", \
         "A file whose appearance ends the job in good order; default OUT/stop (pretrain, sweep), OUT.stop (others).") \
    REAL("run.watchdog_s", "600", 0, 1e7, "s", \
         "When one exchange between ranks lasts longer, what each rank is in is printed; after twice that the job " \
         "ends with exit 8. 0 never; programs that do not train only when it is given.") \
    BOOL("run.fresh", "false", "Refuse an output that already holds work instead of resuming it.") \
    /* ingest */ \
    LIST("ingest.counts", "auto", \
         "Where counts lie in .h5ad inputs: auto, X, raw/X or layers/NAME; one for all inputs, or one per input.") \
    BOOL("ingest.need_counts", "false", \
         "Refuse inputs whose values are not counts instead of storing them with their kind.") \
    TEXT("ingest.modality", "rna", "Modality of .h5ad inputs whose var has no column feature_types.") \
    TEXT("ingest.genome", "", "Genome to take from 10x .h5 files that hold several.") \
    LIST("ingest.feature_types", "Gene Expression", \
         "10x feature types that become modality rna; others become modalities of their own or are left out, see " \
         "ingest.other_features.") \
    WORD("ingest.other_features", "keep", "keep|drop", \
         "What to do with 10x features of other types: keep each type as a modality, or drop them.") \
    TEXT("ingest.obs_table", "", "TSV of labels to join to obs.") \
    TEXT("ingest.obs_key", "barcode", "Column of the table that holds the cell's barcode or obs name.") \
    TEXT("ingest.perturbation", "", \
         "obs column of perturbation labels (A, A+B, A+ctrl, non-targeting, …) to read into the columns perturb_*; " \
         "empty: none.") \
    TEXT("ingest.perturbation_mode", "", \
         "Its mode: knock-out, interference, activation or drug for all cells, or the obs column that says so.") \
    TEXT("ingest.perturbation_dose", "", "obs column of doses.") \
    TEXT("ingest.perturbation_guide", "", "obs column of guides.") \
    TEXT("ingest.hgnc", "", \
         "HGNC complete set (TSV, may be gzipped) for gene identity; default: the copy under configs/genes.") \
    INT("ingest.shard_rows", "65536", 64, 16777216, "cells", "Rows per shard of the atlas.") \
    INT("ingest.compress", "0", 0, 9, "", \
        "Deflate level of shards, applied after the commit; 0 leaves them uncompressed.") \
    BOOL("ingest.shuffle", "true", "Shuffle rows once by the keyed permutation; false keeps the order of the input.") \
    INT("ingest.probe_memory_mib", "1024", 64, 1048576, "MiB", \
        "Memory limit of the process that walks each foreign HDF5 file first.") \
    REAL("ingest.probe_time_s", "60", 1, 1e6, "s", "Time limit of that process, plus one second per GB.") \
    INT("ingest.min_features", "200", 0, 1e9, "features", "Cells with fewer are flagged low_features.") \
    REAL("ingest.max_pct_mt", "20", 0, 100, "percent", "Cells with a larger mitochondrial share are flagged high_mt.") \
    REAL("ingest.max_total", "1e5", 0, 1e12, "counts", "Cells with a larger total are flagged high_total.") \
    /* data */ \
    TEXT("data.vocabulary", "", \
         "Gene table: a TSV id symbol ensembl hgnc, or CellFM's gene_info.csv or expand_gene_info.csv as published, " \
         "plain or .gz; a relative path is tried from here, then under $CYTOMILL_DATA; default: " \
         "configs/genes/vocabulary.tsv.gz made from HGNC.") \
    TEXT("data.modality", "rna", "Modality the model reads.") \
    TEXT("data.split_by", "", \
         "obs column whose values are kept whole when cells are held out (donor); empty: by hash of source_obs_name.") \
    TEXT("data.group_by", "", \
         "obs column (donor, batch) that colours another map of cytomill-analyze report; empty: none.") \
    TEXT( \
        "data.cell_type", "cell_type", \
        "obs column of labels by which the use of experts is told (expert_usage.tsv); it need not be there unless it " \
        "is given.") \
    REAL("data.held_out", "0.1", 0, 0.9, "", "Share of cells held out of training.") \
    INT("data.block", "16", 1, 65536, "cells", "Neighbouring cells that are read together.") \
    INT("data.window", "64", 1, 1e6, "blocks", "Blocks whose cells are shuffled together.") \
    INT("data.read_ahead", "1024", 1, 1e7, "cells", "Cells a rank reads at a time.") \
    TEXT("data.balance_by", "", \
         "obs column of labels whose values are drawn equally often (with replacement); empty: every cell once per " \
         "epoch.") \
    REAL("data.min_vocabulary_share", "0.05", 0, 1, "", \
         "Least share of counts the vocabulary must keep; below it the job is refused.") \
    /* model */ \
    TEXT("model.name", "cellfm", "Name of the model: obsm/X_<name>.") \
    TEXT("model.licence", "not stated", \
         "Licence of the weights: kept in checkpoints, named in every output made with them.") \
    WORD("model.family", "cellfm", "cellfm", "Which family of models.") \
    WORD("model.mixer", "retention", "retention", "How tokens see each other: gated linear retention.") \
    WORD("model.feed_forward", "sglu", "sglu|moe", \
         "What works on each token alone: SGLU, Wo((Wu x) * (Wv x)), or a mixture of SGLU experts.") \
    INT("model.experts", "8", 1, 512, "", "Experts of a mixture, E.") \
    INT("model.experts_per_token", "2", 1, 512, "", "Experts that a token goes to, K.") \
    WORD("model.expert_gate", "softmax-topk", "softmax-topk|topk-softmax", \
         "Weights of a token's experts: their entries of the softmax over all, or the softmax over the chosen.") \
    BOOL("model.shared_expert", "false", "One expert beside the mixture that every token takes.") \
    INT("model.expert_every", "1", 1, 1024, "", "Every n-th block has experts, the others a plain SGLU.") \
    WORD("model.expert_balance", "loss", "none|loss|bias", \
         "What keeps experts equally busy: nothing, a term of the loss (Switch) of each micro-batch, weighed by its " \
         "share of the tokens, so that its gradient depends on how the batch is cut, or a bias on the choice.") \
    REAL("model.expert_balance_weight", "1e-2", 0, 100, "", "Weight of that term of the loss.") \
    REAL("model.expert_balance_rate", "1e-3", 0, 1, "", "How far that bias moves after a step.") \
    WORD("model.norm", "deepnorm", "deepnorm", "How sub-layers join the residual stream: LN(lambda x + F(x)).") \
    INT("model.layers", "40", 1, 1024, "", "Blocks of the trunk, L.") \
    INT("model.width", "1536", 32, 16384, "", "Width D.") \
    INT("model.heads", "48", 1, 1024, "", "Retention heads H; D must be a multiple of H.") \
    INT("model.value_width", "256", 8, 4096, "", "Inner width of the value encoder.") \
    REAL("model.slope", "0.2", 0, 1, "", "LeakyReLU slope of value encoder and decoder.") \
    REAL("model.norm_eps", "1e-7", 1e-12, 1e-2, "", "Epsilon of LayerNorm.") \
    REAL("model.dropout", "0.1", 0, 0.9, "", "Dropout on the outputs of sub-layers; see model.dropout_by_layer.") \
    WORD("model.dropout_by_layer", "linear", "linear|constant", \
         "Share in layer i of L: dropout * i / L (CellFM's code), or dropout in all (its paper names no course).") \
    WORD("model.key_mask", "half", "half|all|none", \
         "Hidden genes as keys: out in the first half of the layers (as published), out in all, or never out.") \
    WORD("model.qk_scale", "published", "published|none", \
         "Scale Q and K by 1/sqrt(C) and V by 1/sqrt(n), or leave it to the norm that cancels it.") \
    INT("model.max_genes", "2048", 8, 1048576, "genes", \
        "Most genes of a cell; above it genes are drawn by weight ln(1+count).") \
    INT("model.min_genes", "200", 0, 1048576, "genes", "Training leaves out cells with fewer vocabulary genes.") \
    BOOL("model.drop_long_cells", "true", \
         "Training leaves out cells with more than max_genes vocabulary genes (as published) instead of sampling " \
         "genes.") \
    REAL("model.cap_total", "1e5", 0, 1e12, "counts", "Training scales larger totals down to this; 0 never.") \
    REAL("model.scale", "1e4", 1, 1e9, "", "Counts are scaled to this total before ln(1+x).") \
    REAL("model.select_fraction", "0.2", 0, 1, "", "Share of a cell's genes that count in the loss.") \
    REAL("model.hide_fraction", "0.8", 0, 1, "", "Share of those whose value is hidden.") \
    /* train */ \
    INT("train.steps", "1000", 1, 1e12, "steps", "Optimiser steps of the whole run.") \
    INT("train.batch", "128", 1, 1e9, "cells", "Cells of the global batch.") \
    INT("train.micro_batch", "4", 1, 65536, "cells", "Cells a rank computes at a time.") \
    REAL("train.rate", "1e-7", 0, 10, "", "Peak learning rate.") \
    WORD("train.schedule", "constant", "constant|cosine|linear", "Course of the learning rate after warm-up.") \
    INT("train.warmup", "0", 0, 1e12, "steps", "Steps of linear warm-up.") \
    REAL("train.rate_end", "0", 0, 10, "", "Learning rate at the last step of cosine and linear.") \
    REAL("train.beta1", "0.9", 0, 1, "", "Adam's first decay.") \
    REAL("train.beta2", "0.95", 0, 1, "", "Adam's second decay.") \
    REAL("train.eps", "1e-8", 0, 1, "", "Adam's epsilon.") \
    REAL("train.decay", "1e-5", 0, 10, "", "Weight decay.") \
    WORD("train.decay_kind", "l2", "l2|decoupled", \
         "Decay added to the gradient (as published) or to the step (AdamW).") \
    WORD("train.clip", "tensor", "none|value|tensor|global", \
         "Gradient clipping: by value, per tensor (as published) or by global norm.") \
    REAL("train.clip_at", "1", 0, 1e9, "", "Limit of clipping.") \
    WORD("train.on_nan", "stop", "stop|skip", \
         "A step whose loss or gradient is not finite ends the run, or is left out (no update).") \
    REAL("train.spike_factor", "0", 0, 1e9, "", \
         "A gradient norm above this many times the median of the last 64 steps is a spike; 0: nothing is.") \
    WORD("train.on_spike", "skip", "skip|stop", "What becomes of a spike, as train.on_nan.") \
    INT("train.max_skips", "10", 0, 1e9, "steps", "More left-out steps in a row end the run.") \
    INT("train.check_replicas", "100", 0, 1e12, "steps", \
        "Compare the weights of all replicas after so many steps and before each checkpoint; 0 never.") \
    WORD("train.loss_over", "global", "global|rank", \
         "Loss as one ratio over the global batch, or CellFM's mean of per-rank ratios.") \
    WORD("train.exchange", "auto", "auto|fp32|bf16", \
         "Precision in which gradients travel between ranks: auto takes that of the products (run.precision). All " \
         "are added in fp32 in the order of ranks; in bf16 what other ranks send is rounded once, by 2^-8 at most, " \
         "for half the traffic.") \
    INT("train.checkpoint_every", "500", 1, 1e12, "steps", "Steps between checkpoints.") \
    BOOL("train.checkpoint_async", "true", \
         "Training goes on while a checkpoint is written, from a copy in memory, by a thread of each rank, on a " \
         "core of it where none computes if there is one; not with MPI-IO (run.io ompio, romio).") \
    INT("train.keep", "2", 1, 1e6, "", "Checkpoints kept.") \
    INT("train.evaluate_every", "100", 1, 1e12, "steps", "Steps between held-out evaluations.") \
    INT("train.evaluate_cells", "256", 0, 1e9, "cells", "Held-out cells of an evaluation; 0 all.") \
    INT("train.final_cells", "4096", 0, 1e9, "cells", \
        "Held-out cells of the last evaluation, the one in learning.tsv; 0 all.") \
    INT("train.reference_cells", "100000", 0, 1e12, "cells", \
        "Training cells that the references of the evaluation are fitted on; 0 all.") \
    REAL("train.max_seconds", "0", 0, 1e9, "s", \
         "Stop in good order after this long (exit 0, checkpoint written); 0 never.") \
    BOOL("train.recompute", "false", \
         "Keep only what enters a block and compute the block again for its backward: a third more work, far less " \
         "memory.") \
    /* mesh */ \
    INT("mesh.data", "0", 0, 1e6, "ranks", \
        "Replicas that share the cells of a step; 0: as many as the ranks of the job allow.") \
    INT("mesh.pipe", "1", 1, 1024, "ranks", "Stages of the pipeline: each holds some of the blocks.") \
    INT("mesh.expert", "1", 1, 1024, "ranks", "Ranks that share out the experts of a layer.") \
    WORD("mesh.schedule", "1f1b", "gpipe|1f1b|interleaved|zb-h1", \
         "Order of micro-batches in the pipeline: zb-h1 puts off weight gradients to where a stage would wait, " \
         "interleaved gives a stage several chunks of blocks.") \
    INT("mesh.chunks", "1", 1, 32, "", "Chunks of a stage; more than 1 only with mesh.schedule interleaved.") \
    WORD("mesh.turns", "auto", "auto|always|never", \
         "Two micro-batches share the time in which rows are on their way to experts on other ranks (mesh.expert), " \
         "which takes the memory of both; auto: where there is no pipeline (cytomill-plan says what it hides).") \
    BOOL("mesh.share_packed", "true", \
         "Ranks of a NUMA domain that hold the same weights compute with one packed copy of them, in shared memory.") \
    LIST("mesh.layers", "", \
         "Blocks of each stage (of each chunk: first chunks of all stages, then second ones); empty: shared by cost.") \
    /* cluster: what a training is planned for (cytomill-plan) */ \
    INT("cluster.nodes", "1", 1, 1e6, "nodes", "Nodes that the training may take.") \
    INT("cluster.ranks_per_node", "1", 1, 1024, "ranks", "Ranks of a node: best one for each NUMA domain.") \
    INT("cluster.numa_domains", "0", 0, 1024, "domains", \
        "NUMA domains of a node, whose ranks share packed weights (mesh.share_packed); 0: as many as ranks.") \
    INT("cluster.cores", "0", 0, 65536, "cores", "Cores of a node; 0: not known.") \
    REAL("cluster.memory_gib", "0", 0, 1e6, "GiB", "Memory of a node; 0: not known.") \
    REAL("cluster.bf16_gflops", "0", 0, 1e6, "GFLOP/s", \
         "Large bf16 products on one core while all are busy; 0: not known.") \
    REAL("cluster.fp32_gflops", "0", 0, 1e6, "GFLOP/s", "The same in fp32.") \
    REAL("cluster.block_share", "0.8", 0.001, 1000, "", "Share of that rate that training a block reaches.") \
    REAL("cluster.expert_share", "0.6", 0.001, 1000, "", "The same of a block with experts.") \
    REAL("cluster.first_share", "0.7", 0.001, 1000, "", "The same of the first block with the embedding.") \
    REAL("cluster.last_share", "0.6", 0.001, 1000, "", "The same of the last block with the heads.") \
    REAL("cluster.pass_us", "100", 0, 1e9, "us", "What a pass through a block takes however few its tokens.") \
    REAL("cluster.forward_part", "0.32", 0, 1, "", "Part of a block's training that is its forward pass.") \
    REAL("cluster.weights_part", "0.34", 0, 1, "", "Part of it that is gradients of weights.") \
    REAL("cluster.memory_gb_per_s", "0", 0, 1e6, "GB/s", \
         "Memory traffic of a node when all cores stream; 0: not known.") \
    REAL("cluster.update_share", "0.5", 0.001, 1000, "", "Share of that rate that the optimiser's step reaches.") \
    REAL("cluster.shared_gb_per_s", "0", 0, 1e6, "GB/s", \
         "Messages between the ranks of a node, all together; 0: an eighth of cluster.memory_gb_per_s.") \
    REAL("cluster.link_gbit_per_s", "0", 0, 1e6, "Gbit/s", "Link of a node to the others; 0: not known.") \
    REAL("cluster.latency_us", "2", 0, 1e6, "us", "Latency of a message.") \
    REAL("cluster.message_us", "1000", 0, 1e9, "us", \
         "What a message between stages takes beyond its bytes: computing ranks look about every millisecond.") \
    REAL("cluster.disk_gb_per_s", "1", 1e-6, 1e6, "GB/s", "What all nodes together write to the file system.") \
    REAL("cluster.node_mtbf_hours", "50000", 0.01, 1e9, "hours", "Mean time between failures of one node.") \
    REAL("cluster.process_mib", "150", 0, 1e6, "MiB", "Memory of a rank without a model: program, MPI, gene tables.") \
    REAL("cluster.time_limit_hours", "24", 0.01, 1e6, "hours", \
         "Longest job of the queue; a longer training goes back into it.") \
    /* plan */ \
    TEXT("plan.cluster", "", "File with a section cluster; what --config and --set give wins over it.") \
    REAL("plan.genes", "0", 0, 1e6, "genes", \
         "Genes of a cell that the model sees, the mean over cells; 0: model.max_genes.") \
    REAL("plan.genes_sd", "0", 0, 1e6, "genes", "Standard deviation of that number.") \
    TEXT("plan.calibrate", "", \
         "File to write the measured part of a section cluster to: this machine, with this model.") \
    TEXT("plan.sbatch", "", "Batch file to write for the layout that is planned.") \
    TEXT("plan.json", "", "File to write the plan to, for programs.") \
    /* embed */ \
    INT("embed.chunk", "256", 1, 65536, "cells", "Cells of a chunk of the ledger: what a killed job loses per rank.") \
    INT("embed.tokens", "8192", 64, 1e8, "tokens", \
        "Tokens of a micro-batch, also in a sweep; at least one longest cell.") \
    REAL("embed.obsm_max_gib", "2", 0, 1e6, "GiB", \
         "Above this size the embedding is X of its own file instead of obsm.") \
    INT("embed.compress", "0", 0, 9, "", "Deflate level, applied after the commit.") \
    TEXT("embed.counts", "auto", "Where counts lie in an .h5ad input: auto, X, raw/X or layers/NAME.") \
    /* sweep */ \
    LIST("sweep.genes", "", \
         "Gene panel: symbols, Ensembl ids, or one file with a gene a line; empty: see sweep.panel_size.") \
    INT("sweep.panel_size", "12", 1, 100000, "genes", \
        "With no panel given: this many of the genes most often detected in the group, mitochondrial and ribosomal " \
        "ones left out.") \
    WORD("sweep.mode", "knock-out", "knock-out|over-expression", "What happens to a gene of the set.") \
    INT("sweep.order", "2", 1, 4, "", "Largest set: 1 singles, 2 pairs too.") \
    TEXT("sweep.group", "", "Cells of the screen, an expression over obs; empty: run.cells.") \
    TEXT("sweep.goal", "", \
         "Cells whose mean embedding is the goal, an expression over obs; empty: shift from the start.") \
    INT("sweep.max_cells", "100", 1, 1e9, "cells", "Cells of the group that are used, drawn by the seed.") \
    INT("sweep.min_cells", "20", 1, 1e9, "cells", "Sets carried by fewer cells are listed, not ranked.") \
    INT("sweep.top", "1000", 1, 1e9, "", "Ranked hits written to hits.tsv; results.h5 holds all.") \
    INT("sweep.chunk", "16", 1, 1e6, "sets", "Sets of a chunk of the ledger.") \
    LIST("sweep.readout", "", \
         "Read-out genes: removed from every input cell, predicted by the cell-wise decoder; mean shifts are stored.") \
    /* analyze */ \
    INT("analyze.components", "50", 1, 1e6, "", "Principal components.") \
    TEXT("analyze.genes", "2000", "Genes of the PCA: the N of largest variance, or 'all'.") \
    INT("analyze.neighbours", "15", 1, 1000, "", "k of kNN graphs and scores.") \
    LIST("analyze.embedding", "", "Embedding files (.h5ad) to analyse.") \
    TEXT("analyze.obsm", "", "Which obsm entry of the embedding files; empty: the only one.") \
    TEXT("analyze.label", "cell_type", "obs column of labels.") \
    TEXT("analyze.train", "", \
         "Training cells of a kNN score, an expression over obs; empty, as analyze.test: leave-one-out.") \
    TEXT("analyze.test", "", "Test cells of a kNN score, an expression over obs.") \
    TEXT("analyze.depth", "qc_total", \
         "obs column of counts per cell: the baseline 'depth alone' when no counts are given.") \
    INT("analyze.map_cells", "3000", 3, 1e6, "cells", \
        "Most cells of a UMAP; with more, this many are drawn by the seed.") \
    REAL("analyze.resolution", "1", 0, 1000, "", "Resolution of Leiden communities by modularity.") \
    TEXT("analyze.run", "", "Folder of a pretraining run (metrics.jsonl) for the report.") \
    TEXT("analyze.sweep", "", "Folder of a sweep for the report.") \
    TEXT("analyze.scores", "", "Table of cytomill-analyze score for the report.") \
    TEXT("analyze.markers", "", "Marker genes TSV; default: configs/genes/markers_pbmc.tsv.") \
    INT("analyze.top_hits", "15", 1, 10000, "", "Hits of a sweep that the report lists.")

#endif
