#!/usr/bin/env bash
# Weak scaling of training: cellfm-80m, 4 cells per rank of PBMC 3k's lengths, one bound thread each, optimiser and
# exchange included; cells per second on 2 ranks over 1 rank. Median of the steps after the first, of three runs
# each in turn. Bar 1.8: each rank updates its share of the weights (model/shard.h).
# VOCABULARY=FILE takes another gene table than the default one; its rows are printed.
set -u
. tests/environment
need_cores 2
bind_ranks
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cytomill-ingest tests/data/pbmc3k --out "$dir/atlas" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }

train() { # ranks run
    mpirun -n "$1" cytomill-pretrain --config configs/cellfm-80m.yaml --atlas "$dir/atlas" --out "$dir/r$1-$2" \
        --set train.batch=$((4 * $1)) --set train.steps="${BENCH_STEPS:-5}" --set train.evaluate_every=1000000 --set data.held_out=0 \
        --set train.reference_cells=1 --set data.vocabulary="${VOCABULARY:-}" --set train.checkpoint_every=1000000 --set train.max_seconds=600 >"$dir/log" 2>&1 ||
        { cat "$dir/log"; exit 1; }
    rm -f "$dir/r$1-$2"/checkpoint-*.h5
    # cells per second of every step after the first, which warms caches and makes OpenMP's threads
    sed -n 's/.*"kind":"train","step":\([0-9]*\).*"cells_per_s":\([0-9.e+-]*\).*/\1 \2/p' "$dir/r$1-$2/metrics.jsonl" |
        awk '$1 > 1 { print $2 }' >>"$dir/rate$1"
}
for run in 1 2 3; do train 1 $run; train 2 $run; done
median() { sort -g "$1" | awk '{ x[NR] = $1 } END { print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'; }
one=$(median "$dir/rate1") two=$(median "$dir/rate2")
rows=$(sed -n 's/.*vocabulary: \([0-9,]*\) genes.*/\1/p' "$dir/log" | head -1)
printf 'BENCH\ttraining cellfm-80m, vocabulary (%s)\t%s\tgenes\t-\t-\n' "${VOCABULARY:-the default}" "${rows//,/}"
awk -v a="$one" -v b="$two" 'BEGIN { r = b / a
    printf "BENCH\ttraining cellfm-80m, 4 cells, 1 rank\t%.3f\tcells/s\t-\t-\n", a
    printf "BENCH\ttraining cellfm-80m, 8 cells, 2 ranks\t%.3f\tcells/s\t-\t-\n", b
    printf "BENCH\ttraining weak scaling 1 to 2 ranks\t%.3f\tratio\t>= 1.8\t%s\n", r, (r >= 1.8 ? "yes" : "no") }'
